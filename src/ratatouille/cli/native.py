"""Names of native assets on the command line. Dagster is loaded when a name is no file's, and then only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ratatouille import project as files
from ratatouille.dagster.instance import INSTALL
from ratatouille.errors import RequestError
from ratatouille.project.find import PIPELINES
from ratatouille.project.records import Project

if TYPE_CHECKING:
    from ratatouille.dagster.on_demand import Natives

_T = TypeVar("_T")


def natives_in(root: Path, names: Sequence[str]) -> tuple[Natives, dict[str, str], list[str]] | None:
    """The native assets of a workspace; name -> table for those among `names`; the other names. None: there are none.

    RequestError when a name is a native asset's and Dagster is not installed.
    """
    project = files.load(root)
    plain = [name for name in names if _may_be_native(root, project, name)]
    if not plain:
        return None
    if find_spec("dagster") is None:
        known = next((project.natives[_dotted(name)] for name in plain if _dotted(name) in project.natives), None)
        if known is None:
            return None
        raise RequestError(
            f"{known.name} is made by Dagster, which is not installed.",
            where=f"{known.path}:{known.line}",
            next=INSTALL,
        )
    from ratatouille.dagster.on_demand import natives_of

    natives = natives_of(root)
    tables = natives.tables(plain)
    unknown = [name for name in plain if name not in tables]
    if unknown and natives.broken:
        first = natives.broken[0]
        raise RequestError(
            f"There is no asset called '{unknown[0]}'; a file that may have it is broken. {first['what']}",
            where=first["where"],
            next=first["next"],
        )
    return (natives, tables, [name for name in names if name not in tables]) if tables else None


def with_native_names(root: Path, name: str, do: Callable[[str], _T]) -> _T:
    """`do` with a name that a person gave; where no file and no table is called so, with the table of that key."""
    try:
        return do(name)
    except RequestError:
        found = natives_in(root, [name])
        if found is None or found[1][name] == _dotted(name):
            raise
        return do(found[1][name])


def _may_be_native(root: Path, project: Project, name: str) -> bool:
    dotted = _dotted(name)
    if dotted in project.natives:
        return True
    if dotted in project.assets or any(sign in name for sign in " +:*()"):
        return False
    if any(problem.asset == dotted for problem in project.problems):
        return False
    return any(b"dagster" in path.read_bytes() for path in (root / PIPELINES).rglob("*.py"))


def _dotted(name: str) -> str:
    return name.strip().replace("/", ".")
