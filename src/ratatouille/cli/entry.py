"""From the words on the command line to an exit code: choose the command, run it, say what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from ratatouille.cli.commands import COMMANDS, app_with
from ratatouille.cli.printing import print_error
from ratatouille.errors import UNCHANGED, RatError, RequestError, redact

INTERRUPTED = 130
BROKEN_PIPE = 141
DEBUG = "RATATOUILLE_DEBUG"
_WITH_VALUE = ("-w", "--workspace")


def run_command(words: Sequence[str]) -> int:
    """Run `rat` with `words`; the exit code. Whatever goes wrong is said in four lines or fewer."""
    as_json = "--json" in words
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _quietly()
    except KeyboardInterrupt:
        print("Interrupted. What was published stands; the same command goes on from there.", file=sys.stderr)
        return INTERRUPTED
    except RatError as error:
        return _say(error, as_json)
    except typer.TyperException as error:
        return _say(_usage(error, words), as_json)
    except Exception as error:
        if os.environ.get(DEBUG) == "1":
            raise
        return _say(_defect(error), as_json)


def _run(words: Sequence[str]) -> int:
    name = _command_in(words)
    command = get_command(app_with([name] if name in COMMANDS else list(COMMANDS)))
    try:
        with command.make_context("rat", list(words or ["--help"])) as context:
            result = command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return result if isinstance(result, int) else 0


def _command_in(words: Sequence[str]) -> str:
    """The first word that is no option of `rat` itself."""
    skip = False
    for word in words:
        if skip or word.startswith("-"):
            skip = not skip and word in _WITH_VALUE
            continue
        return word
    return ""


def _say(error: RatError, as_json: bool) -> int:
    try:
        print_error(error, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        return _quietly()
    return error.exit_code


def _quietly() -> int:
    # Nobody reads any more: what the interpreter flushes at its end goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _usage(error: typer.TyperException, words: Sequence[str]) -> RequestError:
    name = _command_in(words)
    command = f"rat {name}" if name in COMMANDS else "rat"
    shown = " ".join(["rat", *words])
    return RequestError(
        error.format_message().rstrip("."), where=redact(shown[:200]), state=UNCHANGED, next=f"{command} --help"
    )


def _defect(error: Exception) -> RatError:
    from traceback import extract_tb

    frames = extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
    return RatError(
        f"This is a defect in rat: {type(error).__name__}: {error}",
        where=place,
        state="What was published before stands.",
        next=f"{DEBUG}=1 in front of the same command shows the traceback; please report it",
    )
