"""Whole workspaces for the crash tests, each with a first day and more that lands later.

sales    the pipeline of the tutorial, as it lies in this repository
rows     laps and awards as the world writes them: the real ones where RATATOUILLE_REAL_DATA names a folder, else
         seeded stand-ins of the same shape
sbir     the pipeline of this repository, from files of a made-up world to its embedded graph
modes    one asset of every way in which a table grows: append, snapshot, partition, merge whose query was edited and
         goes forward, table

What a table must hold is what an undisturbed run gives: `tables` makes a number of each, whatever the order.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ratatouille.engine import open_workbench
from ratatouille.lake import ledger
from ratatouille.lake.quoting import METADATA, ident

ROOT = Path(__file__).resolve().parents[2]
# Not the same in two runs: clocks, runs, and the mark that a load leaves in the graph.
_CLOCK = ("_loaded_at", "_run_id", "matched_at", "enriched_at", "classified_at", "mark")
_FORWARD = "select id, city, {more} as more, moved_at, _loaded_at from {{{{ ref('bronze.moves') }}}}\n"
_FORWARD += "{{% if is_incremental() %}} where _loaded_at > {{{{ watermark('_loaded_at') }}}} {{% endif %}}\n"
MODES = {
    "workspace.yaml": "name: modes\nresources: {memory: 1GB, threads: 1}\nretention: {versions: 1, days: 0}\n",
    "pipelines/bronze/moves.sql": "select * from {{ source('landing/*.csv') }}\n",
    "pipelines/bronze/moves.yaml": "materialize: append\nsources:\n  landing/*.csv:\n"
    "    columns: {id: bigint, city: varchar, moved_at: timestamp}\n",
    "pipelines/silver/lives.sql": "select id, city, moved_at, _loaded_at from {{ ref('bronze.moves') }}\n"
    "{% if is_incremental() %} where _loaded_at > {{ watermark('_loaded_at') }} {% endif %}\n",
    "pipelines/silver/lives.yaml": "materialize: snapshot\nunique_key: id\nupdated_at: moved_at\n",
    "pipelines/silver/by_day.sql": "select moved_at::date as day, count(*) as moves from {{ ref('bronze.moves') }}"
    " group by day\n",
    "pipelines/silver/by_day.yaml": "materialize: partition\npartition_by: day\n",
    "pipelines/silver/onward.sql": _FORWARD.format(more="'old'"),
    "pipelines/silver/onward.yaml": "materialize: merge\nunique_key: id\ndeduplicate: moved_at desc\non_change: forward\n",
    "pipelines/gold/cities.sql": "select city, count(*) as people from {{ ref('silver.lives') }} where is_current"
    " group by city\n",
}


@dataclass(frozen=True)
class House:
    name: str
    first: Callable[[Path], None]  # the files, and what lands on the first day
    more: Callable[[Path], None]  # what lands later, or is edited

    def build(self, root: Path) -> Path:
        root.mkdir(parents=True)
        self.first(root)
        return root


def tables(root: Path, *, write: bool = True) -> dict[str, Any]:
    """table -> (rows, an order-free sum of their hashes); {} without a lake. Who may write heals what a crash left."""
    if not (root / ".rat/catalog.sqlite").exists():
        return {}
    with open_workbench(root, write=write) as bench, bench.lake.pinned() as session:
        found = {}
        for schema, name in session.rows(
            "select schema_name, table_name from duckdb_tables() where database_name = 'lake'"
        ):
            if schema == ledger.SCHEMA:
                continue
            full = f"lake.{ident(schema)}.{ident(name)}"
            # What the graph was given has the time of a classification in it, and so its hash; `change` is of one load,
            # and so are rows that it deleted.
            of_graph = schema == "loaded" and name != "dead_letters"
            clocks = (*_CLOCK, "content_hash", "change") if of_graph else _CLOCK
            kept = [ident(c) for c, _ in session.describe(f"select * from {full}") if c not in clocks]
            rows = f"select {', '.join(kept)} from {full}{' where content_hash is not null' if of_graph else ''}"
            found[f"{schema}.{name}"] = session.row(f"select count(*), sum(hash(t)::hugeint)::varchar from ({rows}) t")
        return found


def heads(root: Path) -> dict[str, int]:
    if not (root / ".rat/catalog.sqlite").exists():
        return {}
    with open_workbench(root, write=True) as bench, bench.lake.pinned() as session:
        return {name: entry.version for name, entry in ledger.heads(session).items()} if ledger.exists(session) else {}


def published_twice(root: Path) -> list[Any]:
    with open_workbench(root) as bench, bench.lake.session() as session:
        said = [(e.asset, e.run_id, str(e.partitions)) for e in ledger.entries(session)]
    return sorted({one for one in said if said.count(one) > 1})


def strangers(root: Path) -> list[str]:
    """Files in the data folder that the catalog does not name."""
    with open_workbench(root) as bench, bench.lake.session() as session:
        relative = "case when f.path_is_relative then s.path || t.path || f.path else f.path end"
        parts = (
            f"select {relative} from {METADATA}.ducklake_{kind}_file f join {METADATA}.ducklake_table t using (table_id)"
            f" join {METADATA}.ducklake_schema s using (schema_id)"
            for kind in ("data", "delete")
        )
        known = {row[0] for row in session.rows(" union ".join(parts))}
    there = (path for path in (root / ".rat/data").rglob("*") if path.is_file())
    return sorted(one for path in there if (one := path.relative_to(root / ".rat/data").as_posix()) not in known)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"crash_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def sales() -> House:
    tills = load(ROOT / "pipelines/sales/generate.py")

    def first(root: Path) -> None:
        (root / "workspace.yaml").write_text(MODES["workspace.yaml"], encoding="utf-8")
        for layer in ("bronze", "silver", "gold"):
            shutil.copytree(ROOT / "pipelines/sales" / layer, root / "pipelines/sales" / layer)
        tills.write(root / "landing/sales", tills.first_day(), anew=False)

    return House("sales", first, lambda root: tills.write(root / "landing/sales", tills.second_day(), anew=True))


def rows(stand_in: Path) -> House:
    world = load(ROOT / "tests/real/test_real_rows.py")
    real = os.environ.get("RATATOUILLE_REAL_DATA")
    if real:
        folder = Path(real).resolve(strict=True)
        found = world.Rows(sorted((folder / "f1/laps").glob("*.json.gz")), folder / "sbir/award_data_42col.csv.gz")
    else:
        found = world.stand_in(stand_in)

    def first(root: Path) -> None:
        for name, content in world.WORKSPACE.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content, encoding="utf-8")
        for folder in ("laps", "awards"):
            (root / "landing" / folder).mkdir(parents=True)
        shutil.copy(found.awards, root / "landing/awards")
        for path in found.laps[:6]:
            shutil.copy(path, root / "landing/laps")

    def more(root: Path) -> None:
        for path in found.laps[6:]:
            shutil.copy(path, root / "landing/laps")

    return House("real rows" if real else "rows like the real ones", first, more)


def modes() -> House:
    def first(root: Path) -> None:
        for name, content in MODES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content, encoding="utf-8")
        (root / "landing").mkdir()
        land(root, "1.csv", range(40), 1)

    def more(root: Path) -> None:
        land(root, "2.csv", range(20, 60), 3)
        land(root, "3.csv", range(10, 30), 2)  # late: its moves lie before those of 2.csv
        (root / "pipelines/silver/onward.sql").write_text(_FORWARD.format(more="'new'"), encoding="utf-8")

    def land(root: Path, name: str, ids: range, month: int) -> None:
        lines = [f"{i},C{(i * month) % 7},2026-{month:02}-{1 + i % 5:02} 0{month}:00:00" for i in ids]
        (root / "landing" / name).write_text("\n".join(["id,city,moved_at", *lines]) + "\n", encoding="utf-8")

    return House("every mode", first, more)


def sbir(worlds: Path) -> House:
    """Later come more awards of the same firms, and corrections of some that were there."""
    sys.path.insert(0, str(ROOT))
    from pipelines.sbir import sample

    whole, part = worlds / "whole", worlds / "part"
    if not whole.exists():
        sample.write(sample.sample(300, 3), whole)
        shutil.copytree(whole / "landing", part / "landing")
        awards = part / "landing/sbir/awards/bulk/award_data.csv"
        with awards.open(encoding="utf-8", newline="") as file:
            lines = [[cell.replace("Advanced ", "New ") for cell in line] for line in csv.reader(file)]
        with awards.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines[: len(lines) * 2 // 3])

    def first(root: Path) -> None:
        (root / "workspace.yaml").write_text(
            (ROOT / "workspace.yaml").read_text("utf-8") + "\nresources: {memory: 1GB, threads: 1}\n", encoding="utf-8"
        )
        shutil.copytree(ROOT / "macros", root / "macros")
        shutil.copytree(ROOT / "pipelines/sbir", root / "pipelines/sbir", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "pipelines/__init__.py").write_text("")
        shutil.copytree(part / "landing", root / "landing")

    return House("sbir", first, lambda root: shutil.copytree(whole / "landing", root / "landing", dirs_exist_ok=True))
