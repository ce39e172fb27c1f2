"""What holds for every history: tables grown step by step equal those built at once, and a lake is what a dict says.

The first property takes any split of rows into files, any order and any repetition of them. The state machine lands,
runs, abandons runs in the middle, rolls back, releases, cleans and expires, and compares with plain Python. Both are
seeded every day; RATATOUILLE_TRIALS=50 looks at fifty times as many histories, other ones each time.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ratatouille import project as files
from ratatouille.engine import Request, open_workbench
from ratatouille.engine.holds import release, roll_back
from ratatouille.handle import run_request
from ratatouille.lake import Session, ledger
from ratatouille.upkeep.clean import DAY_S, clean
from ratatouille.upkeep.verify import verify

TRIALS = int(os.environ.get("RATATOUILLE_TRIALS", "1"))
pytestmark = pytest.mark.timeout(7200)


def often(everyday: int, steps: int = 50) -> settings:
    return settings(
        max_examples=everyday * TRIALS,
        stateful_step_count=steps,
        derandomize=TRIALS == 1,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def land(root: Path, name: str, rows: list[tuple[int, ...]]) -> None:
    path = root / "landing" / name
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text("\n".join(["id,seq", *(f"{i},{seq}" for i, seq in rows)]) + "\n", encoding="utf-8")
    aside.rename(path)


def write(root: Path, said: dict[str, str]) -> Path:
    for name, content in said.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


# Incremental equals full

NEW = "{% if is_incremental() %} where _loaded_at > {{ watermark('_loaded_at') }} {% endif %}"
GROWING = {
    "workspace.yaml": "name: growing\nresources: {memory: 1GB, threads: 1}\n",
    "pipelines/bronze/rows.sql": "select * from {{ source('landing/*.csv') }}",
    "pipelines/bronze/rows.yaml": "materialize: append\nsources:\n  landing/*.csv:\n    columns: {id: bigint, seq: bigint}\n",
    "pipelines/silver/first.sql": f"select id, seq, id * 1000 + seq as said, _loaded_at from {{{{ ref('bronze.rows') }}}} {NEW}",
    "pipelines/silver/first.yaml": "materialize: merge\nunique_key: id\ndeduplicate: seq desc\n",
    "pipelines/silver/days.sql": "select seq % 3 as day, id, max(seq) as last from {{ ref('bronze.rows') }} group by all",
    "pipelines/silver/days.yaml": "materialize: partition\npartition_by: day\n",
    "pipelines/silver/states.sql": "select id, timestamp '2026-01-01' + to_minutes(seq) as at, seq, _loaded_at"
    f" from {{{{ ref('bronze.rows') }}}} {NEW}",
    "pipelines/silver/states.yaml": "materialize: snapshot\nunique_key: id\nupdated_at: at\n",
}
ASKED = {
    "bronze.rows": "select id, seq from bronze.rows",
    "silver.first": "select id, seq, said from silver.first",
    "silver.days": "select day, id, last from silver.days",
    "silver.states": "select id, seq, valid_from, valid_to, is_current from silver.states",
}
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=8)
# A run reads some files: new ones, the rows of an earlier one again, or an earlier one that has grown.
FILE = st.tuples(st.sampled_from(["new", "again", "grown"]), st.integers(0, 9), ROWS)
HISTORY = st.lists(st.lists(FILE, min_size=1, max_size=3), min_size=1, max_size=4)


BEGIN = datetime.fromisoformat("2026-01-01")  # the column has no zone


def should_be(rows: list[tuple[int, int]]) -> dict[str, list[tuple[object, ...]]]:
    last: dict[int, int] = {}
    days: dict[tuple[int, int], int] = {}
    for i, seq in rows:
        last[i] = max(seq, last.get(i, 0))
        days[seq % 3, i] = max(seq, days.get((seq % 3, i), 0))
    states: list[tuple[object, ...]] = []
    for i in last:
        seen = sorted({seq for one, seq in rows if one == i})
        moments = [BEGIN + timedelta(minutes=seq) for seq in seen]
        ends = [*moments[1:], None]
        states += [(i, seq, begin, end, end is None) for seq, begin, end in zip(seen, moments, ends, strict=True)]
    return {
        "bronze.rows": sorted(rows),
        "silver.first": sorted((i, seq, i * 1000 + seq) for i, seq in last.items()),
        "silver.days": sorted((day, i, seq) for (day, i), seq in days.items()),
        "silver.states": sorted(states, key=str),
    }


def tables_of(root: Path) -> dict[str, list[tuple[object, ...]]]:
    with open_workbench(root) as bench, bench.lake.session() as session:
        session.execute("use lake")
        return {name: sorted(session.rows(sql), key=str if "states" in name else None) for name, sql in ASKED.items()}


def test_tables_grown_in_any_steps_equal_those_built_at_once(tmp_path, figure):
    seen: Counter[str] = Counter()

    @often(2)
    @given(history=HISTORY)
    def grows(history):
        root = write(Path(tempfile.mkdtemp(dir=tmp_path)), GROWING)
        contents: dict[str, list[tuple[int, int]]] = {}
        for batch in history:
            for kind, which, rows in batch:
                earlier = sorted(contents)[which % len(contents)] if contents else ""
                name = earlier if kind == "grown" and earlier else f"{len(contents)}.csv"
                before = contents.get(earlier, []) if kind != "new" else []
                contents[name] = [*before, *rows] if kind == "grown" else before or rows
                land(root, name, contents[name])
            seen["runs"] += 1
            result = run_request(root, Request(()))
            assert result.status in ("done", "fresh"), result
        rows = [row for one in contents.values() for row in one]
        assert tables_of(root) == should_be(rows)
        run_request(root, Request((), force=True))
        assert tables_of(root) == should_be(rows), "built at once"
        seen["histories"] += 1
        shutil.rmtree(root)

    wrong = 1
    try:
        grows()
        wrong = 0
    finally:
        figure(
            "tables grown in any split, order and repetition of files equal a rebuild and plain Python",
            size=f"{seen['histories']} histories of 4 modes, {seen['runs']} runs",
            wrong=wrong,
        )


# A lake is what a dict says

SMALL = {
    "workspace.yaml": "name: small\nresources: {memory: 1GB, threads: 1}\nretention: {versions: 2, days: 0}\n",
    "pipelines/bronze/rows.sql": GROWING["pipelines/bronze/rows.sql"],
    "pipelines/bronze/rows.yaml": GROWING["pipelines/bronze/rows.yaml"],
    "pipelines/gold/sums.sql": "select id, sum(seq)::bigint as seq from {{ ref('bronze.rows') }} group by id",
}
BRONZE, GOLD = "bronze.rows", "gold.sums"
# Where a process may vanish: with candidates staged, in the transaction, before COMMIT, after it, before its answer.
POINTS = {
    "sealing": "stage.checksum",
    "staged": "publish._commit",
    "in the transaction": "ledger.write_entries",
    "before COMMIT": "publish.commit_and_prove",
    "after COMMIT": "unsettled.forget",
}


class Lake(RuleBasedStateMachine):
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.landed: dict[str, list[tuple[int, int]]] = {}
        self.tables: dict[str, list[tuple[int, int]]] = {}  # asset -> rows, as readers must see them
        self.versions: dict[str, dict[int, list[tuple[int, int]]]] = {BRONZE: {}, GOLD: {}}
        self.held: set[str] = set()
        self.now = time.time()

    @initialize(rows=ROWS)
    def first_run(self, rows):
        write(self.root, SMALL)
        self.lands(rows)
        self.runs()

    def teardown(self) -> None:
        if self.tables:
            assert verify(files.load(self.root), every_version=True).whole
        shutil.rmtree(self.root, ignore_errors=True)

    # What a dict says

    def what_a_run_gives(self) -> dict[str, list[tuple[int, int]]]:
        rows = self.tables.get(BRONZE, []) if BRONZE in self.held else [r for f in self.landed.values() for r in f]
        sums: Counter[int] = Counter()
        for i, seq in rows:
            sums[i] += seq
        gold = self.tables[GOLD] if GOLD in self.held else sorted((i, sums[i]) for i in {i for i, _ in rows})
        return {BRONZE: sorted(rows), GOLD: gold}

    # What happens

    @rule(rows=ROWS)
    def lands(self, rows):
        name = f"{len(self.landed)}.csv"
        self.landed[name] = rows
        land(self.root, name, rows)

    @rule()
    def runs(self):
        result = run_request(self.root, Request(()))
        assert result.status in ("done", "fresh"), result
        self.tables = self.what_a_run_gives()
        self.seen["runs"] += 1

    @rule(point=st.sampled_from(sorted(POINTS)), rows=ROWS)
    def is_abandoned(self, point, rows):
        """A process of its own runs and vanishes at the point: no rollback, no `finally`."""
        self.lands(rows)
        then = self.what_a_run_gives()
        pid = os.fork()
        if not pid:
            module, _, name = POINTS[point].partition(".")
            setattr(sys.modules[f"ratatouille.lake.{module}"], name, lambda *_, **__: os._exit(9))
            try:
                run_request(self.root, Request(()))
            finally:
                os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.seen[f"abandoned {point}"] += ended == 9
        now = self.read()
        for name, old in self.tables.items():
            # What was published above changes what is right below, so each may be old or new on its own.
            assert now[name] in (old, then[name]), (point, name)
        self.tables = now

    @precondition(lambda self: any(len(v) > 1 for v in self.versions.values()))
    @rule(asset=st.sampled_from([BRONZE, GOLD]), back=st.integers(1, 3))
    def rolls_back(self, asset, back):
        kept = self.kept(asset)
        if len(kept) < 2:
            return
        version = kept[-min(back + 1, len(kept))]
        with open_workbench(self.root, write=True) as bench:
            roll_back(bench, asset, version)
        self.tables[asset] = self.versions[asset][version]
        self.held.add(asset)
        self.seen["rollbacks"] += 1

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 1))
    def is_released(self, which):
        asset = sorted(self.held)[which % len(self.held)]
        with open_workbench(self.root, write=True) as bench:
            release(bench, asset)
        self.held.discard(asset)

    @rule(days=st.sampled_from([0.0, 1.5, 3.0]))
    def is_cleaned(self, days):
        self.now += days * DAY_S
        done = clean(files.load(self.root), now=self.now)
        assert not done.warnings, done.warnings
        assert verify(files.load(self.root), every_version=True).whole
        self.seen["cleans"] += 1
        self.seen["versions expired"] += done.expired

    # What must be so

    def read(self) -> dict[str, list[tuple[int, int]]]:
        with open_workbench(self.root) as bench, bench.lake.session() as session:
            return {name: rows_of(session, name) for name in (BRONZE, GOLD)}

    def kept(self, asset: str) -> list[int]:
        with open_workbench(self.root) as bench, bench.lake.session() as session:
            return versions_of(session, asset)

    @invariant()
    def readers_see_what_the_dict_says(self):
        if not self.tables:
            return
        with open_workbench(self.root) as bench, bench.lake.session() as session:
            for asset in (BRONZE, GOLD):
                assert rows_of(session, asset) == self.tables[asset]
                kept = versions_of(session, asset)
                self.versions[asset].setdefault(kept[-1], self.tables[asset])
                for version in kept[-2:]:
                    assert rows_of(session, asset, version) == self.versions[asset][version], "what retention keeps"


def rows_of(session: Session, asset: str, version: int = 0) -> list[tuple[int, int]]:
    at = f" at (version => {version})" if version else ""
    return session.rows(f"select id, seq from lake.{asset}{at} order by all")


def versions_of(session: Session, asset: str) -> list[int]:
    alive = {row[0] for row in session.rows("select snapshot_id from lake.snapshots()")}
    return sorted(e.version for e in ledger.entries(session, asset) if e.version in alive)


def test_a_lake_is_what_a_dict_says(figure):
    Lake.seen.clear()
    wrong = 1
    try:
        run_state_machine_as_test(Lake, settings=often(2, steps=12))
        wrong = 0
    finally:
        figure(
            "publish, abandon, roll back, release, clean, expire against a dict", size=str(dict(Lake.seen)), wrong=wrong
        )
