"""From the words on the command line to an exit code: choose the command, run it, say what went wrong.

`rat run` with plain words takes a short way that loads no parser: most runs of a schedule have nothing to do,
and typer brings pydantic along, which takes longer than finding that out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ratatouille.cli.printing import print_error
from ratatouille.errors import RatError, RequestError, redact
from ratatouille.project.workspace_file import ENVIRONMENT

INTERRUPTED = 130
BROKEN_PIPE = 141
DEBUG = "RATATOUILLE_DEBUG"
_WITH_VALUE = ("-w", "--workspace")
# The options of `rat run` that take no value, as fields of the request; the full list is in run.py.
_SHORT_WAY = {
    "-f": "force",
    "--full": "force",
    "--accept-schema": "accept_schema",
    "--accept-loss": "accept_loss",
    "--no-resume": "no_resume",
    "--json": "json",
}


def run_command(words: Sequence[str]) -> int:
    """Run `rat` with `words`; the exit code. Whatever goes wrong is said in four lines or fewer."""
    as_json = "--json" in words
    words, chosen = _environment_in(words)
    before = os.environ.get(ENVIRONMENT)
    if chosen is not None:
        os.environ[ENVIRONMENT] = chosen
    try:
        code = _run_by_the_short_way(words)
        code = _run_by_typer(words) if code is None else code
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _quietly()
    except KeyboardInterrupt:
        print("Interrupted. What was published stands; the same command goes on from there.", file=sys.stderr)
        return INTERRUPTED
    except RatError as error:
        return _say(error, as_json)
    except Exception as error:
        if os.environ.get(DEBUG) == "1":
            raise
        return _say(_defect(error), as_json)
    finally:
        if chosen is not None:
            os.environ.pop(ENVIRONMENT)
            os.environ |= {ENVIRONMENT: before} if before is not None else {}


def _environment_in(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words without `--env NAME`, which may stand anywhere, and the name."""
    left, found = list(words), None
    for number, word in enumerate(words):
        if word == "--env" and number + 1 < len(words):
            found, left = words[number + 1], [*words[:number], *words[number + 2 :]]
        elif word.startswith("--env="):
            found, left = word.removeprefix("--env="), [*words[:number], *words[number + 1 :]]
    return left, found


def _run_by_the_short_way(words: Sequence[str]) -> int | None:
    """`rat [-w PATH] run [SELECTORS] [options]`; None for anything that needs a real parser."""
    path, selectors, chosen = None, [], set()
    left = iter(words)
    for word in left:
        if word in _WITH_VALUE:
            path = next(left, "")
            if not path:
                return None
        elif word in _SHORT_WAY:
            chosen.add(_SHORT_WAY[word])
        elif word.startswith("-") or not word:
            return None
        else:
            selectors.append(word)
    if selectors[:1] != ["run"] or words[0] not in ("run", *_WITH_VALUE):
        return None
    from ratatouille.cli.build import build
    from ratatouille.engine import Request
    from ratatouille.handle import find_workspace

    request = Request(
        tuple(selectors[1:]),
        force="force" in chosen,
        accept_schema="accept_schema" in chosen,
        accept_loss="accept_loss" in chosen,
        resume="no_resume" not in chosen,
    )
    return build(find_workspace(path), request, as_json="json" in chosen)


def _run_by_typer(words: Sequence[str]) -> int:
    import typer
    from typer.main import get_command

    from ratatouille.cli.commands import COMMANDS, app_with

    name = _command_in(words)
    command = get_command(app_with([name] if name in COMMANDS else list(COMMANDS)))
    try:
        with command.make_context("rat", list(words or ["--help"])) as context:
            result = command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        known = f"rat {name}" if name in COMMANDS else "rat"
        raise RequestError(
            error.format_message().rstrip("."), where=redact(" ".join(["rat", *words])[:200]), next=f"{known} --help"
        ) from error
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
