"""Names that nobody should use: every one is itself and nothing more, or it is refused. None is a command or a way out.

5,000 with RATATOUILLE_TRIALS=10: as identifiers and values in SQL, as names of landing files, of their columns, of
assets, as words of a request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from ratatouille import project as files
from ratatouille.engine import Request, open_workbench
from ratatouille.errors import RatError
from ratatouille.handle import Workspace, run_request
from ratatouille.lake.quoting import ident, text

duckdb = pytest.importorskip("duckdb")
SEED = int(os.environ.get("RATATOUILLE_SEED", "2"))
PARTS = [
    '"', "'", '""', "''", ";", "--", "/*", "*/", "\\", "`", "$$", "..", "../", "/", "\\..\\", "~", "%2e%2e%2f", "{{ 1 }}", "{% x %}",
    "drop table canary", "select", "from", "order", "union all select 1", "null", "lake", "rat", "main", " ", "\t", "\n", "\r", "\x00",
    "\x1b[2J", "\x7f", "é", "ß", "İ", "Ω", "表", "🍲", "\u202e", "\u200b", "\ufeff", "\u0301", "a", "A", "0", "_", "-", ".", ":", "*", "?",
    "[a]", "(", ")", ",", "=", "&", "|", "<", ">", "$HOME", "$(id)", "`id`", "%s", "{0}", "con", "nul", "x" * 60, "x" * 300,
]  # fmt: skip


def names(count: int, seed: int) -> list[str]:
    random = Random(seed)
    made = dict.fromkeys(PARTS)
    while len(made) < count:
        made["".join(random.choice(PARTS) for _ in range(random.randrange(1, 5)))] = None
    return list(made)[:count]


def digest(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace beside a folder that must stay as it is."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/kept.txt").write_text("kept")
    root = tmp_path / "shop"
    (root / "pipelines/bronze").mkdir(parents=True)
    (root / "landing").mkdir()
    (root / "workspace.yaml").write_text("name: shop\nresources: {memory: 1GB, threads: 1}\n")
    return root


def test_a_quoted_name_or_value_is_itself(trials: Callable[[int], int], figure: Callable[..., None]) -> None:
    asked, wrong = names(trials(300), SEED), []
    with duckdb.connect() as connection:
        connection.execute("create table canary as select 1 as alive")
        for name in asked:
            if "\x00" in name:
                for quote in (ident, text):
                    with pytest.raises(ValueError, match="NUL"):
                        quote(name)
                continue
            found = connection.execute(f"select {text(name)} as {ident(name)}")
            if (found.description[0][0], found.fetchone()) != (name, (name,)):
                wrong.append(f"{name!r} came back as {found.description[0][0]!r}")
            connection.execute(f"create or replace temp table {ident('t' + name)} ({ident(name)} integer)")
        canary = connection.execute("select alive from canary").fetchall()
    figure(
        "hostile names in SQL, as identifiers and as values", size=str(len(asked)), seeds=str(SEED), wrong=len(wrong)
    )
    assert not wrong and canary == [(1,)], wrong


def test_a_landing_file_and_its_columns_may_be_called_anything_and_lead_nowhere(
    root: Path, trials: Callable[[int], int], figure: Callable[..., None]
) -> None:
    (root / "pipelines/bronze/rows.sql").write_text("select * from {{ source('landing/*.csv') }}")
    (root / "pipelines/bronze/rows.yaml").write_text("materialize: append\nmax_quarantine: 1\n")
    asked, landed = names(trials(80), SEED + 1), {}
    for number, name in enumerate(asked):
        column = name.replace('"', '""')
        if "/" not in name and "\x00" not in name and len(f"{name}.csv".encode()) <= 255:
            (root / "landing" / f"{name}.csv").write_text(f"id\n{number}\n", encoding="utf-8")
            landed[f"landing/{name}.csv"] = number
        # Every tenth is a column, too, and one that cannot be.
        if number % 10 == 0 or name == "\x00":
            (root / f"landing/column{number}.csv").write_text(
                f'id,"{column}"\n{number},x\n', encoding="utf-8", newline=""
            )
    before = digest(root.parent / "beside")
    result = run_request(root, Request(()))
    step = result.step("bronze.rows")
    assert step.status == "built", step.error
    wrong = []
    aside = {row["file"] for row in step.set_aside}
    with open_workbench(root) as bench, bench.lake.session() as session:
        stored = dict(
            session.rows(
                "select _file, id::bigint from lake.bronze.rows where not starts_with(_file, 'landing/column')"
            )
        )
    hidden = {file for file in landed if file.startswith("landing/.") or file.endswith((".tmp.csv",))}
    wrong += [
        f"{file!r} was read as {stored.get(file)}"
        for file, number in landed.items()
        if file not in aside | hidden and stored.get(file) != number
    ]
    wrong += [f"{file!r} was never written" for file in stored if file not in landed]
    escaped = [p for p in root.parent.iterdir() if p.name not in ("beside", "shop")]
    figure(
        "hostile names of landing files and columns",
        size=f"{len(asked)}: {len(landed)} files, {len(stored)} read, {len(aside)} set aside",
        seeds=str(SEED + 1),
        wrong=len(wrong) + len(escaped),
    )
    assert not wrong and not escaped and digest(root.parent / "beside") == before, wrong
    assert len(stored) > len(landed) // 2


def test_assets_and_requests_of_any_name_are_known_or_refused_in_four_lines(
    root: Path, trials: Callable[[int], int], figure: Callable[..., None]
) -> None:
    (root / "pipelines/bronze/good.sql").write_text("select 1 as id")
    assert run_request(root, Request(())).status == "done"
    asked, wrong, made = names(trials(120), SEED + 2), [], 0
    before = digest(root.parent / "beside")
    for name in asked:
        if "/" in name or "\x00" in name or len(f"{name}.sql".encode()) > 255:
            continue
        (root / f"pipelines/bronze/{name}.sql").write_text("select 1 as id", encoding="utf-8")
        made += 1
    project = files.load(root)
    wrong += [f"{problem}" for problem in project.errors if not problem.message]
    wrong += [
        f"asset {name!r} leaves its layer" for name in project.assets if not name.startswith("bronze.") or "/" in name
    ]
    workspace = Workspace(root)
    for name in asked[:: max(1, len(asked) // 60)]:
        for ask in (
            partial(workspace.run, name),
            partial(workspace.query, "select 1", at=name),
            partial(workspace.run, f"bronze.{name}", partitions=[name]),
        ):
            try:
                ask()
            except RatError as error:
                if not (error.what and error.state and error.next):
                    wrong.append(f"{name!r}: {error}")
            except Exception as error:
                wrong.append(f"{name!r}: {type(error).__name__}: {error}")
    figure(
        "hostile names of assets and in requests",
        size=f"{len(asked)}: {made} files, {len(project.assets)} assets",
        seeds=str(SEED + 2),
        wrong=len(wrong),
    )
    assert not wrong and digest(root.parent / "beside") == before, "\n".join(wrong)
