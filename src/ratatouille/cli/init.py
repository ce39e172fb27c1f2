"""`rat init`: a small workspace that runs at once."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ratatouille.cli import options
from ratatouille.cli import printing as p
from ratatouille.cli.check import SCHEMAS, write_schemas_to
from ratatouille.errors import LakeError, RequestError

EXAMPLES = """
rat init my_lake

cd my_lake && rat run
"""
TEMPLATE = Path(__file__).parent / "template"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new folder: letters, digits, - and _.")],
    as_json: options.Json = False,
) -> None:
    """Make a new workspace that runs at once.

    It is a folder with a small pipeline, its landing files and a README. No network is needed.
    """
    target = Path.cwd() / name
    _refuse(name, target)
    # Built beside and renamed: a folder that is there is whole.
    beside = target.with_name(f".{name}.{os.getpid()}.partial")
    try:
        _copy(name, beside)
        beside.rename(target)
    except OSError as error:
        raise LakeError(
            f"The workspace cannot be written: {error.strerror}",
            where=str(error.filename or target),
            state="Nothing was made.",
            next="Choose a folder that you may write to",
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if as_json:
        p.print_json({"workspace": name, "path": str(target)})
        return
    p.say(f"Made the workspace {name} in {target}")
    p.say()
    p.say(f"  cd {name}")
    p.say("  rat run                                   build every table")
    p.say('  rat query "select * from gold.revenue"    ask')
    p.say("  rat show                                  look around")


def _refuse(name: str, target: Path) -> None:
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"'{p.printable(name)}' cannot be the name of a workspace: use letters, digits, - and _",
            where="NAME",
            state="Nothing was made.",
            next="rat init my_lake",
        )
    if os.path.lexists(target):
        raise RequestError(
            f"{name} is there already", where=str(target), state="It was left as it is.", next="Choose another name"
        )


def _copy(name: str, folder: Path) -> None:
    shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    # A dot file would be left out of some archives and would hide files of this repository.
    (folder / "gitignore").rename(folder / ".gitignore")
    write_schemas_to(folder)
    settings = folder / "workspace.yaml"
    text = re.sub(r"(?m)^name: .*$", f"name: {_yaml_text(name)}", settings.read_text(encoding="utf-8"), count=1)
    settings.write_text(_schema_line("workspace", ".") + text, encoding="utf-8")
    for sidecar in (folder / "pipelines").rglob("*.yaml"):
        up = os.path.relpath(folder, sidecar.parent)
        sidecar.write_text(_schema_line("asset", up) + sidecar.read_text(encoding="utf-8"), encoding="utf-8")


def _schema_line(kind: str, up: str) -> str:
    path = f"{SCHEMAS}/{kind}.json" if up == "." else f"{up}/{SCHEMAS}/{kind}.json"
    return f"# yaml-language-server: $schema={path}\n"


def _yaml_text(name: str) -> str:
    return f'"{name}"' if not name[0].isalpha() or name.lower() in ("true", "false", "null") else name
