"""The reference says what the code says, and no command goes without words and an example."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "scripts" / "make_reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = _script()


def _commands() -> list[tuple[str, Any]]:
    from typer.main import get_command

    from ratatouille.cli import app

    return list(reference.walk(get_command(app)))


def test_every_page_is_up_to_date() -> None:
    stale = [n for n, text in reference.pages().items() if (ROOT / "docs" / "reference" / n).read_text() != text]
    assert stale == [], "run: make docs"


def test_every_command_is_explained_with_an_example() -> None:
    commands = _commands()
    assert {"init", "check", "plan", "run", "query", "history", "rollback"} <= {name.split()[0] for name, _ in commands}
    silent = [name for name, command in commands if not command.help]
    without_example = [name for name, c in commands if f"rat {name}" not in f"{c.help}\n{c.epilog}"]
    assert (silent, without_example) == ([], [])


def test_every_option_is_explained() -> None:
    silent = [f"{name}: {p.name}" for name, command in _commands() for p in command.params if not p.help]
    assert silent == []


@pytest.mark.parametrize("name", ["workspace", "asset"])
def test_every_key_is_explained(name: str) -> None:
    from ratatouille.project import schemas

    rows = list(reference.keys(schemas()[name], schemas()[name].get("$defs", {}), ""))[2:]
    assert len(rows) > 10
    assert [row for row in rows if row.endswith("|  |")] == []
