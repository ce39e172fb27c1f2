"""Native assets: what a function returns is a version in the lake, and it is current only when its checks passed."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ratatouille.cli.entry import run_command
from ratatouille.dagster.guarding import guard
from ratatouille.dagster.io_managers import Batches, artifact_io_manager, lake_io_manager, workspace_io_manager
from ratatouille.dagster.native import table_of
from ratatouille.dagster.plain_checks import AssetCheckResult, asset_check, plain
from ratatouille.engine import Outer, open_workbench
from ratatouille.engine.memory import resident_bytes
from ratatouille.engine.native import Given, native_asset
from ratatouille.engine.native_tables import store
from ratatouille.engine.verdicts import Verdict, judge
from ratatouille.errors import RequestError
from ratatouille.handle import Workspace
from ratatouille.lake import Entry, candidates, ledger

# Dagster's SQLite storage closes its connections when it is collected.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "pipelines").mkdir(parents=True)
    (folder / "workspace.yaml").write_text("name: shop\nresources: {memory: 1GB, threads: 2}\n")
    return folder


def guarded(root: Path, assets: list[Any], checks: list[Any] | None = None, **resources: Any) -> dg.Definitions:
    return guard(
        dg.Definitions(
            assets=assets, asset_checks=checks or [], resources={"io_manager": lake_io_manager(root)} | resources
        )
    )


def materialize(defs: dg.Definitions, *keys: str, **options: Any) -> dg.ExecuteInProcessResult:
    """All assets, or those named, with all checks; or without, `checks=False`."""
    checks = list(defs.asset_checks or ()) if options.pop("checks", True) else []
    selection = dg.AssetSelection.assets(*keys) if keys else None
    return dg.materialize(
        [*(defs.assets or ()), *checks], resources=defs.resources, selection=selection, raise_on_error=False, **options
    )


def rows(root: Path, sql: str) -> list[tuple[Any, ...]]:
    return Workspace(root).query(sql).rows()


def entries(root: Path, name: str) -> list[Entry]:
    with open_workbench(root) as bench, bench.lake.session() as session:
        return ledger.entries(session, name)


def states(root: Path, name: str) -> list[str]:
    with open_workbench(root) as bench:
        return [one.state for one in candidates.all_of(bench.journal, name)]


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    event = next(e for e in result.all_events if e.is_step_failure)
    return str(event.step_failure_data.error)


# Names


@pytest.mark.parametrize(
    ("key", "group", "metadata", "expected"),
    [
        (["silver", "sales"], "default", {}, "silver.sales"),
        (["demo", "silver", "sales"], "default", {}, "silver.sales"),
        (["validated_sbir_awards"], "sbir", {}, "validated.sbir_awards"),
        (["gold_kpis"], "sales", {}, "gold.kpis"),
        (["kpis"], "sales", {}, "sales.kpis"),
        (["gold"], "sales", {}, "sales.gold"),
        (["f1", "laps"], "default", {}, "f1.laps"),
        (["kpis"], "sales", {"table": "gold.numbers"}, "gold.numbers"),
        (["kpis"], "sales", {"table": dg.MetadataValue.text("gold/numbers")}, "gold.numbers"),
    ],
)
def test_the_key_says_the_table(key: list[str], group: str, metadata: dict[str, Any], expected: str) -> None:
    assert table_of(dg.AssetKey(key), group, metadata, ("bronze", "silver", "gold")) == expected


def test_a_native_asset_does_not_take_the_table_of_a_file(root: Path) -> None:
    (root / "pipelines" / "silver").mkdir()
    (root / "pipelines" / "silver" / "sales.sql").write_text("select 1 as n")

    @dg.asset
    def silver_sales() -> pl.DataFrame:
        return pl.DataFrame({"n": [1]})

    said = failure_of(materialize(guarded(root, [silver_sales])))
    assert "a native asset and a file are both called silver.sales" in said
    assert "pipelines/silver/sales.sql" in said


# What can be returned, and what can be asked for

FRAMES: dict[str, Callable[[], Any]] = {
    "polars": lambda: pl.DataFrame({"n": [1, 2, 3]}),
    "lazy": lambda: pl.LazyFrame({"n": [1, 2, 3]}),
    "pandas": lambda: pd.DataFrame({"n": [1, 2, 3]}),
    "arrow": lambda: pa.table({"n": [1, 2, 3]}),
    "record batch": lambda: pa.RecordBatch.from_pydict({"n": [1, 2, 3]}),
    "reader": lambda: pa.table({"n": [1, 2, 3]}).to_reader(),
    "relation": lambda: duckdb.connect().sql("select unnest([1, 2, 3]) as n"),
    "rows": lambda: [{"n": 1}, {"n": 2}, {"n": 3}],
    "generator": lambda: dg.Output(pl.DataFrame({"n": part}) for part in ([1, 2], [3])),
    "batches": lambda: Batches(pd.DataFrame({"n": part}) for part in ([1], [2, 3])),
    "materialize result": lambda: dg.MaterializeResult(value=pl.DataFrame({"n": [1, 2, 3]}), metadata={"seen": 1}),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_every_kind_of_frame_becomes_a_table(root: Path, kind: str) -> None:
    @dg.asset
    def raw_numbers():  # type: ignore[no-untyped-def]  # an annotation would be part of what is tested
        return FRAMES[kind]()

    result = materialize(guarded(root, [raw_numbers]))
    assert result.success
    assert rows(root, "select n from raw.numbers order by n") == [(1,), (2,), (3,)]
    metadata = result.asset_materializations_for_node("raw_numbers")[0].metadata
    assert metadata["dagster/row_count"].value == 3
    assert metadata["dagster/table_name"].value == "raw.numbers"
    assert metadata["version"].value == entries(root, "raw.numbers")[0].version
    assert "| n |" in metadata["preview"].value


def test_a_parameter_gets_what_it_is_annotated_with(root: Path) -> None:
    seen: dict[str, Any] = {}

    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [1, 2]})

    @dg.asset
    def with_pandas(raw_numbers: pd.DataFrame) -> None:
        seen["pandas"] = raw_numbers

    @dg.asset
    def with_polars(raw_numbers: pl.DataFrame) -> None:
        seen["polars"] = raw_numbers

    @dg.asset
    def with_lazy(raw_numbers: pl.LazyFrame) -> None:
        seen["lazy"] = raw_numbers

    @dg.asset
    def with_arrow(raw_numbers: pa.Table) -> None:
        seen["arrow"] = raw_numbers

    @dg.asset
    def with_nothing_said(raw_numbers) -> None:  # type: ignore[no-untyped-def]
        seen["nothing said"] = raw_numbers

    @dg.asset
    def with_rows(raw_numbers: list[dict[str, Any]]) -> None:
        seen["rows"] = raw_numbers

    wanted = [with_pandas, with_polars, with_lazy, with_arrow, with_nothing_said, with_rows]
    assert materialize(guarded(root, [raw_numbers, *wanted])).success
    types = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "lazy": pl.LazyFrame, "arrow": pa.Table, "rows": list}
    for name, kind in types.items():
        assert isinstance(seen[name], kind), name
    assert isinstance(seen["nothing said"], pl.DataFrame)
    assert seen["rows"] == [{"n": 1}, {"n": 2}]


def test_what_cannot_be_asked_for_is_said_in_four_lines(root: Path) -> None:
    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [1, 2]})

    @dg.asset
    def raw_more(raw_numbers: set) -> None:  # type: ignore[type-arg]
        pass

    said = failure_of(materialize(guarded(root, [raw_numbers, raw_more])))
    assert "raw.numbers cannot be loaded as" in said
    assert "annotate it with a polars or pandas DataFrame" in said


def test_what_is_no_table_is_said_in_four_lines_and_changes_nothing(root: Path) -> None:
    given: list[Any] = [pl.DataFrame({"n": [1]}), 42]

    @dg.asset
    def raw_numbers():  # type: ignore[no-untyped-def]
        return given.pop(0)

    assert materialize(guarded(root, [raw_numbers])).success
    said = failure_of(materialize(guarded(root, [raw_numbers])))
    assert "returned int" in said
    assert rows(root, "select n from raw.numbers") == [(1,)]


def test_a_generator_that_raises_leaves_the_last_version(root: Path) -> None:
    fails = False

    def parts() -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"n": [1]})
        if fails:
            raise ValueError("the source hung up")
        yield pl.DataFrame({"n": [2]})

    @dg.asset
    def raw_numbers():  # type: ignore[no-untyped-def]
        return dg.Output(parts())

    assert materialize(guarded(root, [raw_numbers])).success
    fails = True
    said = failure_of(materialize(guarded(root, [raw_numbers])))
    assert "ValueError: the source hung up" in said
    assert "test_dagster_native.py" in said
    assert rows(root, "select count(*) as n from raw.numbers") == [(2,)]
    staged = [path for path in (root / ".rat/data/raw/numbers").iterdir() if path.is_dir()]
    assert len(staged) == 1  # nothing of the failed attempt


def test_batches_are_let_go_one_by_one(root: Path) -> None:
    """40 batches of 16 MB: what stays in memory is a few of them."""

    @dg.asset
    def raw_numbers():  # type: ignore[no-untyped-def]
        return Batches(pl.DataFrame({"n": np.arange(2_000_000) + part}) for part in range(40))

    before = resident_bytes()
    result = materialize(guarded(root, [raw_numbers]))
    assert result.success
    peak_mb = result.asset_materializations_for_node("raw_numbers")[0].metadata["peak memory (MB)"].value
    assert peak_mb - before / 1e6 < 320
    assert rows(root, "select count(*) as n from raw.numbers") == [(80_000_000,)]


def test_two_runs_of_one_asset_at_once(root: Path) -> None:
    given = native_asset("raw.numbers", "code")

    def run(number: int) -> int:
        frame = pl.DataFrame({"n": [number]})
        return store(root, Given(given, Outer(f"run-{number}", "a test")), frame).version or 0

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(run, range(4)))
    assert len(set(versions)) == 4
    assert len(entries(root, "raw.numbers")) == 4
    assert rows(root, "select n from raw.numbers") == [(versions.index(max(versions)),)]


def test_other_columns_replace_the_old_ones(root: Path) -> None:
    given = [pl.DataFrame({"a": [1], "b": [2]}), pl.DataFrame({"b": ["x"], "c": [1.5]}), pl.DataFrame({"z": [9]})]

    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return given.pop(0)

    defs = guarded(root, [raw_numbers])
    assert materialize(defs).success
    assert materialize(defs).success
    assert rows(root, "select b, c from raw.numbers") == [("x", 1.5)]
    assert materialize(defs).success
    assert rows(root, "select * from raw.numbers") == [(9,)]


# Candidates


class Numbers:
    """Two assets, one above the other, and what their checks say."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.given = [1, 2, 3]
        self.passes = True
        self.raises = False
        self.severity = dg.AssetCheckSeverity.ERROR
        self.seen_by_check: list[list[int]] = []
        told = self

        @dg.asset
        def raw_numbers() -> pl.DataFrame:
            return pl.DataFrame({"n": told.given})

        @dg.asset
        def enriched_numbers(raw_numbers: pl.DataFrame) -> pl.DataFrame:
            return raw_numbers.with_columns(double=pl.col("n") * 2)

        @dg.asset_check(asset=raw_numbers, blocking=True)
        def is_right(raw_numbers: pl.DataFrame) -> dg.AssetCheckResult:
            told.seen_by_check.append(raw_numbers["n"].to_list())
            if told.raises:
                raise KeyError("a bug in the check")
            return dg.AssetCheckResult(passed=told.passes, severity=told.severity)

        @dg.asset_check(asset=raw_numbers, blocking=True)
        def has_rows(raw_numbers: pl.DataFrame) -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=raw_numbers.height > 0)

        self.defs = guarded(root, [raw_numbers, enriched_numbers], [is_right, has_rows])


@pytest.fixture
def numbers(root: Path) -> Numbers:
    return Numbers(root)


def test_a_version_is_current_when_all_blocking_checks_passed(numbers: Numbers) -> None:
    result = materialize(numbers.defs)
    assert result.success
    assert rows(numbers.root, "select n, double from enriched.numbers order by n") == [(1, 2), (2, 4), (3, 6)]
    (entry,) = entries(numbers.root, "raw.numbers")
    assert {check["name"] for check in entry.checks} == {"is_right", "has_rows"}
    assert all(check["passed"] for check in entry.checks)
    said = {e.check_name: e.metadata for e in result.get_asset_check_evaluations()}
    published = [m["published version"].value for m in said.values() if "published version" in m]
    assert published == [str(entry.version)]
    assert entries(numbers.root, "enriched.numbers")[0].inputs == {"raw.numbers": entry.version}


@pytest.mark.parametrize("how", ["fails", "raises"])
def test_a_rejected_version_is_seen_by_nobody(numbers: Numbers, how: str) -> None:
    assert materialize(numbers.defs).success
    numbers.given, numbers.passes, numbers.raises = [7], how != "fails", how == "raises"
    result = materialize(numbers.defs)
    assert not result.success
    assert numbers.seen_by_check[-1] == [7]
    assert rows(numbers.root, "select n from raw.numbers order by n") == [(1,), (2,), (3,)]
    assert len(entries(numbers.root, "enriched.numbers")) == 1
    assert states(numbers.root, "raw.numbers") == ["rejected", "published"]
    # Its rows stay for inspection.
    with open_workbench(numbers.root) as bench, bench.lake.session() as session:
        rejected = candidates.all_of(bench.journal, "raw.numbers")[0]
        assert session.rows(rejected.staged.relation) == [(7,)]
        assert rejected.failed == ("is_right",)


def test_a_later_run_below_a_rejected_version_reads_the_last_good_one(numbers: Numbers) -> None:
    assert materialize(numbers.defs).success
    numbers.given, numbers.passes = [7], False
    assert not materialize(numbers.defs).success
    assert materialize(numbers.defs, "enriched_numbers", checks=False).success
    assert rows(numbers.root, "select n from enriched.numbers order by n") == [(1,), (2,), (3,)]


def test_below_an_asset_without_a_good_version_nothing_is_built(numbers: Numbers) -> None:
    numbers.passes = False
    assert not materialize(numbers.defs).success
    said = failure_of(materialize(numbers.defs, "enriched_numbers", checks=False))
    assert "raw.numbers has no version that can be read" in said
    assert "rejected by is_right" in said


def test_a_warning_lets_the_version_pass(numbers: Numbers) -> None:
    numbers.passes, numbers.severity = False, dg.AssetCheckSeverity.WARN
    assert materialize(numbers.defs).success
    (entry,) = entries(numbers.root, "raw.numbers")
    said = {check["name"]: (check["passed"], check["severity"]) for check in entry.checks}
    assert said["is_right"] == (False, "warn")


def test_without_its_checks_a_version_waits_and_a_run_of_the_checks_makes_it_current(numbers: Numbers) -> None:
    assert materialize(numbers.defs, "raw_numbers", checks=False).success
    assert states(numbers.root, "raw.numbers") == ["waiting"]
    assert entries(numbers.root, "raw.numbers") == []
    only_checks = dg.AssetSelection.checks_for_assets("raw_numbers")
    result = dg.materialize(
        [*numbers.defs.assets, *numbers.defs.asset_checks], resources=numbers.defs.resources, selection=only_checks
    )
    assert result.success
    assert states(numbers.root, "raw.numbers") == ["published"]
    assert rows(numbers.root, "select count(*) as n from raw.numbers") == [(3,)]


def test_a_version_that_was_overtaken_is_not_published(numbers: Numbers) -> None:
    assert materialize(numbers.defs, "raw_numbers", checks=False).success
    numbers.given = [4, 5]
    assert materialize(numbers.defs).success
    with open_workbench(numbers.root, write=True) as bench:
        old = candidates.all_of(bench.journal, "raw.numbers")[1]
    for gate in ("is_right", "has_rows"):
        judged = judge(numbers.root, "raw.numbers", [old.run_id], Verdict(gate, True), Outer("later", "a test"))
    assert judged.status == "superseded"
    assert rows(numbers.root, "select n from raw.numbers order by n") == [(4,), (5,)]


def test_checks_inside_the_asset_are_gates_too(root: Path) -> None:
    passes = True

    @dg.asset(check_specs=[dg.AssetCheckSpec("inside", asset="raw_numbers", blocking=True)])
    def raw_numbers():  # type: ignore[no-untyped-def]
        yield dg.AssetCheckResult(check_name="inside", passed=passes)
        yield dg.Output(pl.DataFrame({"n": [1 if passes else 2]}))

    defs = guarded(root, [raw_numbers])
    assert materialize(defs).success
    passes = False
    assert not materialize(defs).success
    assert rows(root, "select n from raw.numbers") == [(1,)]
    assert states(root, "raw.numbers") == ["rejected", "published"]


def test_a_result_with_its_value_and_its_checks(root: Path) -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec("inside", asset="raw_numbers", blocking=True)])
    def raw_numbers():  # type: ignore[no-untyped-def]  # Dagster compares an annotated value with !=, frames mind that
        return dg.MaterializeResult(
            value=pl.DataFrame({"n": [1]}), check_results=[dg.AssetCheckResult(check_name="inside", passed=True)]
        )

    assert materialize(guarded(root, [raw_numbers])).success
    assert rows(root, "select n from raw.numbers") == [(1,)]
    assert [check["name"] for check in entries(root, "raw.numbers")[0].checks] == ["inside"]


def test_a_blocking_check_that_nobody_listens_to_is_refused(root: Path) -> None:
    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [1]})

    @dg.asset_check(asset=raw_numbers, blocking=True)
    def is_right() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    result = dg.materialize(
        [raw_numbers, is_right], resources={"io_manager": lake_io_manager(root)}, raise_on_error=False
    )
    assert "wrap the definitions" in failure_of(result)


def test_a_check_on_an_asset_that_does_not_exist_is_a_load_error(root: Path) -> None:
    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [1]})

    @dg.asset_check(asset=dg.AssetKey("raw_number"), blocking=True)
    def is_right() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    with pytest.raises(RequestError, match="Did you mean 'raw_numbers'") as raised:
        guarded(root, [raw_numbers], [is_right])
    assert "is_right" in raised.value.what


def test_guarding_twice_is_guarding_once(numbers: Numbers) -> None:
    numbers.defs = guard(numbers.defs)
    assert materialize(numbers.defs).success
    assert len(entries(numbers.root, "raw.numbers")) == 1


def test_the_step_may_be_tried_again_in_the_same_run(root: Path) -> None:
    tries = []

    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [1]})

    @dg.asset_check(asset=raw_numbers, blocking=True, retry_policy=dg.RetryPolicy(max_retries=1))
    def flaky(raw_numbers: pl.DataFrame) -> dg.AssetCheckResult:
        tries.append(raw_numbers.height)
        if len(tries) == 1:
            raise ConnectionError("the reference service is away")
        return dg.AssetCheckResult(passed=True)

    assert materialize(guarded(root, [raw_numbers], [flaky])).success
    assert tries == [1, 1]
    assert len(entries(root, "raw.numbers")) == 1


def test_a_query_in_a_check_sees_the_candidate(root: Path) -> None:
    given, seen = [1, 2], []

    @dg.asset
    def raw_others() -> pl.DataFrame:
        return pl.DataFrame({"n": [5]})

    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": given})

    @dg.asset_check(asset=raw_numbers, blocking=True, additional_deps=[raw_others])
    def is_small() -> dg.AssetCheckResult:
        found = Workspace(root).query("select max(a.n) as top, max(b.n) as other from raw.numbers a, raw.others b")
        seen.append((found["top"][0], found["other"][0]))
        return dg.AssetCheckResult(passed=found["top"][0] < 5)

    defs = guarded(root, [raw_numbers, raw_others], [is_small])
    assert materialize(defs).success  # the table does not exist while the first candidate is judged
    given = [9]
    assert not materialize(defs).success
    assert seen == [(2, 5), (9, 5)]
    assert rows(root, "select n from raw.numbers order by n") == [(1,), (2,)]


# Runs that nobody asked for just now

SCHEDULED = {"dagster/schedule_name": "nightly"}


def test_a_schedule_skips_what_is_fresh_and_a_person_does_not(numbers: Numbers) -> None:
    assert materialize(numbers.defs).success
    built = entries(numbers.root, "enriched.numbers")[0]
    result = materialize(numbers.defs, "enriched_numbers", checks=False, tags=SCHEDULED)
    assert result.success
    metadata = result.asset_materializations_for_node("enriched_numbers")[0].metadata
    assert (metadata["status"].value, metadata["version"].value) == ("skipped", built.version)
    assert len(entries(numbers.root, "enriched.numbers")) == 1
    assert materialize(numbers.defs, "enriched_numbers", checks=False).success
    assert len(entries(numbers.root, "enriched.numbers")) == 2


def test_a_schedule_builds_what_changed_above_and_what_nobody_can_see(numbers: Numbers) -> None:
    assert materialize(numbers.defs).success
    numbers.given = [8]
    assert materialize(numbers.defs, tags=SCHEDULED).success
    assert rows(numbers.root, "select n, double from enriched.numbers") == [(8, 16)]


def test_what_a_killed_run_had_published_is_not_built_again(numbers: Numbers) -> None:
    first = materialize(numbers.defs)
    assert first.success
    numbers.given = [9]
    again = {
        "dagster/parent_run_id": first.run_id,
        "dagster/root_run_id": first.run_id,
        "dagster/is_resume_retry": "true",
    }
    result = materialize(numbers.defs, tags=again)
    assert result.success
    assert rows(numbers.root, "select n from raw.numbers order by n") == [(1,), (2,), (3,)]
    metadata = result.asset_materializations_for_node("raw_numbers")[0].metadata
    assert metadata["reason"].value == "published before the run was stopped"


def test_what_a_killed_run_had_built_is_judged_and_not_built_again(numbers: Numbers) -> None:
    first = materialize(numbers.defs, "raw_numbers", checks=False)
    numbers.given = [9]
    again = {
        "dagster/parent_run_id": first.run_id,
        "dagster/root_run_id": first.run_id,
        "dagster/is_resume_retry": "true",
    }
    assert materialize(numbers.defs, tags=again).success
    assert numbers.seen_by_check == [[1, 2, 3]]
    assert [entry.run_id for entry in entries(numbers.root, "raw.numbers")] == [first.run_id]
    assert rows(numbers.root, "select count(*) as n from enriched.numbers") == [(3,)]


def test_a_schedule_leaves_alone_what_is_on_hold(numbers: Numbers) -> None:
    assert materialize(numbers.defs).success
    first = entries(numbers.root, "raw.numbers")[0]
    assert run_command(("-w", str(numbers.root), "rollback", "raw.numbers", "--to", str(first.version))) == 0
    numbers.given = [9]
    assert materialize(numbers.defs, "raw_numbers", checks=False, tags=SCHEDULED).success
    assert states(numbers.root, "raw.numbers") == ["published"]
    assert run_command(("-w", str(numbers.root), "release", "raw.numbers")) == 0
    assert materialize(numbers.defs, "raw_numbers", tags=SCHEDULED).success
    assert rows(numbers.root, "select n from raw.numbers") == [(9,)]


# Partitions


class Days:
    """An asset of two partitions with a check, and one below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, list[int]] = {"a": [1], "b": [2, 3]}
        self.seen: list[list[int]] = []
        self.passes = True
        parts = dg.StaticPartitionsDefinition(["a", "b"])
        told = self

        @dg.asset(partitions_def=parts)
        def raw_days(context) -> pl.DataFrame:  # type: ignore[no-untyped-def]  # Dagster reads no annotation in quotes here
            return pl.DataFrame({"n": told.rows[context.partition_key]}, schema={"n": pl.Int64})

        @dg.asset(partitions_def=parts)
        def enriched_days(raw_days: pl.DataFrame) -> pl.DataFrame:
            told.seen.append(raw_days["n"].to_list())
            return raw_days

        @dg.asset_check(asset=raw_days, blocking=True)
        def is_right(raw_days: pl.DataFrame) -> dg.AssetCheckResult:
            assert raw_days.columns == ["n"]
            return dg.AssetCheckResult(passed=told.passes)

        self.defs = guarded(root, [raw_days, enriched_days], [is_right])

    def build(self, key: str, **options: Any) -> bool:
        return materialize(self.defs, partition_key=key, **options).success

    def kept(self) -> list[tuple[str, int]]:
        return rows(self.root, 'select _partition, n from raw.days order by "_partition", n')


@pytest.fixture
def days(root: Path) -> Days:
    return Days(root)


def test_a_run_replaces_its_own_partition(days: Days) -> None:
    assert days.build("b")
    assert days.build("a")
    assert days.kept() == [("a", 1), ("b", 2), ("b", 3)]
    assert days.seen == [[2, 3], [1]]
    days.rows["b"] = [9]
    assert days.build("b")
    assert days.kept() == [("a", 1), ("b", 9)]
    days.rows["b"] = []
    assert days.build("b")
    assert days.kept() == [("a", 1)]
    days.rows["a"] = []
    assert days.build("a")
    assert days.kept() == []
    assert days.build("a")
    assert entries(days.root, "raw.days")[0].rows_total == 0


def test_a_rejected_partition_leaves_all_as_they_were(days: Days) -> None:
    assert days.build("a")
    assert days.build("b")
    days.rows["a"], days.passes = [7], False
    assert not days.build("a")
    assert days.kept() == [("a", 1), ("b", 2), ("b", 3)]


def test_partitions_that_wait_do_not_overtake_each_other(days: Days) -> None:
    """Two runs of a backfill build first and are judged then: both count."""
    assert days.build("a", checks=False) is False  # what is below reads nothing yet
    waiting = states(days.root, "raw.days")
    assert waiting == ["waiting"]
    assert days.build("b")
    with open_workbench(days.root) as bench:
        old = candidates.all_of(bench.journal, "raw.days")[1]
    judged = judge(days.root, "raw.days", [old.run_id], Verdict("is_right", True), Outer("later", "a test"))
    assert judged.status == "built"
    assert days.kept() == [("a", 1), ("b", 2), ("b", 3)]


def test_a_backfill_skips_the_partitions_that_stand(days: Days) -> None:
    assert days.build("a")
    assert days.build("b")
    first = entries(days.root, "raw.days")[-1]
    days.rows["a"] = [7]
    again = {
        "dagster/parent_run_id": first.run_id,
        "dagster/root_run_id": first.run_id,
        "dagster/is_resume_retry": "true",
    }
    assert days.build("a", tags=again)
    assert days.kept() == [("a", 1), ("b", 2), ("b", 3)]


# Held and rolled back


def test_history_and_rollback_work_from_the_ledger_alone(numbers: Numbers, capsys: pytest.CaptureFixture[str]) -> None:
    assert materialize(numbers.defs).success
    first = entries(numbers.root, "raw.numbers")[0]
    numbers.given = [9]
    assert materialize(numbers.defs).success
    for words in (["history", "raw.numbers"], ["rollback", "raw.numbers", "--to", str(first.version)]):
        assert run_command(("-w", str(numbers.root), *words)) == 0
    assert "raw.numbers" in capsys.readouterr().out
    assert rows(numbers.root, "select n from raw.numbers order by n") == [(1,), (2,), (3,)]
    # The asset is on hold now: the same code does not replace what was rolled back.
    result = materialize(numbers.defs, "raw_numbers")
    assert result.success
    metadata = result.asset_materializations_for_node("raw_numbers")[0].metadata
    assert metadata["status"].value == "held"
    assert rows(numbers.root, "select n from raw.numbers order by n") == [(1,), (2,), (3,)]


def test_a_damaged_file_is_not_read(numbers: Numbers) -> None:
    assert materialize(numbers.defs).success
    file = next((numbers.root / ".rat/data/raw/numbers").rglob("*.parquet"))
    os.chmod(file, 0o644)
    file.write_bytes(file.read_bytes()[:-1])
    said = failure_of(materialize(numbers.defs, "enriched_numbers", checks=False))
    assert "a file of raw.numbers is damaged" in said
    assert materialize(numbers.defs).success  # all rows are made anew
    assert rows(numbers.root, "select count(*) as n from enriched.numbers") == [(3,)]


# Artifacts


def test_values_and_folders_are_artifacts(root: Path, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    given: dict[str, Any] = {"classes": ["a", "b"], "share": np.float64(0.5), "count": np.int64(2)}

    @dg.asset(io_manager_key="artifacts")
    def models_report() -> dict[str, Any]:
        return given

    @dg.asset(io_manager_key="artifacts")
    def models_weights() -> Path:
        folder = tmp_path / "made"
        (folder / "layers").mkdir(parents=True, exist_ok=True)
        (folder / "layers" / "one.bin").write_bytes(b"weights")
        return folder

    @dg.asset(io_manager_key="artifacts")
    def models_data() -> pl.DataFrame:
        return pl.DataFrame({"n": [1, 2]})

    @dg.asset
    def raw_after(models_report: dict[str, Any], models_weights: Path, models_data: pd.DataFrame) -> None:
        seen.update(report=models_report, weights=models_weights, data=models_data)

    assets = [models_report, models_weights, models_data, raw_after]
    defs = guarded(root, assets, artifacts=artifact_io_manager(root))
    assert materialize(defs).success
    assert seen["report"] == {"classes": ["a", "b"], "share": 0.5, "count": 2}
    assert (seen["weights"] / "layers" / "one.bin").read_bytes() == b"weights"
    assert seen["weights"].is_relative_to(root / ".rat" / "artifacts" / "default.models_weights")
    assert seen["data"]["n"].to_list() == [1, 2]
    given = {"open": object()}
    assert "cannot be stored as an artifact" in failure_of(materialize(defs, "models_report"))
    assert materialize(defs, "raw_after").success
    assert seen["report"]["count"] == 2


def test_a_rejected_artifact_is_not_current(root: Path) -> None:
    given, seen = {"accuracy": 0.9}, []

    @dg.asset(io_manager_key="artifacts")
    def models_report() -> dict[str, float]:
        return given

    @dg.asset_check(asset=models_report, blocking=True)
    def is_better(models_report: dict[str, float]) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=models_report["accuracy"] > 0.8)

    @dg.asset
    def raw_after(models_report: dict[str, float]) -> None:
        seen.append(models_report["accuracy"])

    defs = guarded(root, [models_report, raw_after], [is_better], artifacts=artifact_io_manager(root))
    assert materialize(defs).success
    given = {"accuracy": 0.1}
    assert not materialize(defs).success
    assert materialize(defs, "raw_after", checks=False).success
    assert seen == [0.9, 0.9]
    assert states(root, "default.models_report") == ["rejected", "published"]


def test_one_io_manager_for_frames_and_everything_else(root: Path) -> None:
    seen: list[Any] = []
    given: list[Any] = [{"a": 1}, pl.DataFrame({"a": [2]})]

    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [1]})

    @dg.asset
    def raw_either():  # type: ignore[no-untyped-def]
        return given.pop(0)

    @dg.asset
    def raw_after(raw_numbers: pl.DataFrame, raw_either) -> None:  # type: ignore[no-untyped-def]
        seen.append((raw_numbers.height, raw_either))

    defs = guarded(root, [raw_numbers, raw_either, raw_after], io_manager=workspace_io_manager(root))
    assert materialize(defs).success
    assert seen == [(1, {"a": 1})]
    assert materialize(defs).success
    assert seen[1][1].to_dicts() == [{"a": 2}]


def test_a_value_can_be_loaded_outside_of_a_run(numbers: Numbers) -> None:
    assert materialize(numbers.defs).success
    frame = numbers.defs.load_asset_value("raw_numbers", python_type=pd.DataFrame)
    assert isinstance(frame, pd.DataFrame)
    assert sorted(frame["n"]) == [1, 2, 3]


def test_schedules_and_sensors_that_list_assets_load(root: Path) -> None:
    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [1]})

    @dg.asset_check(asset=raw_numbers, blocking=True)
    def is_right() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    made = guard(
        dg.Definitions(
            assets=[raw_numbers],
            asset_checks=[is_right],
            schedules=[dg.ScheduleDefinition("nightly", cron_schedule="@daily", target=[raw_numbers])],
            sensors=[dg.SensorDefinition("watching", evaluation_fn=lambda context: None, target=[raw_numbers])],
            resources={"io_manager": lake_io_manager(root)},
        )
    )
    dg.Definitions.validate_loadable(made)


def test_plain_ops_hand_each_other_data(root: Path) -> None:
    @dg.op
    def frame() -> pl.DataFrame:
        return pl.DataFrame({"n": [1, 2]})

    @dg.op
    def count(frame: pl.DataFrame) -> dict[str, int]:
        return {"rows": frame.height}

    @dg.op
    def look(count: dict[str, int]) -> None:
        assert count == {"rows": 2}

    @dg.job(resource_defs={"io_manager": dg.IOManagerDefinition.hardcoded_io_manager(workspace_io_manager(root))})
    def plain_ops() -> None:
        look(count(frame()))

    assert plain_ops.execute_in_process().success


# Plain values


def test_numpy_scalars_are_taken_anywhere() -> None:
    result = AssetCheckResult(
        passed=np.bool_(True),
        metadata={
            "count": np.int64(3),
            "share": np.float32(0.5),
            "nested": {"a": [np.int64(1), {"b": np.bool_(False)}]},
        },
    )
    assert result.passed is True
    assert result.metadata["count"].value == 3
    assert result.metadata["nested"].value == {"a": [1, {"b": False}]}
    assert plain({"x": np.float64("nan")}) == {"x": None}


def sbir(root: Path, awards: pd.DataFrame) -> dg.ExecuteInProcessResult:
    @dg.asset
    def validated_sbir_awards() -> pd.DataFrame:
        return awards

    @dg.asset
    def enriched_sbir_awards(validated_sbir_awards: pd.DataFrame) -> pd.DataFrame:
        return validated_sbir_awards

    @asset_check(asset=validated_sbir_awards)
    def sbir_awards_completeness_check(validated_sbir_awards: pd.DataFrame) -> AssetCheckResult:
        required_fields = ["award_id", "company_name", "award_amount"]
        coverage = {
            field: 1.0 - (validated_sbir_awards[field].isna().sum() / len(validated_sbir_awards))
            for field in required_fields
        }
        min_coverage = min(coverage.values())
        passed = min_coverage >= 0.95

        return AssetCheckResult(passed=passed, metadata={"min_coverage": min_coverage, "field_coverage": coverage})

    @asset_check(asset=enriched_sbir_awards)
    def enrichment_success_rate_check(enriched_sbir_awards: pd.DataFrame) -> AssetCheckResult:
        enriched_count = enriched_sbir_awards["sam_gov_data"].notna().sum()
        enrichment_rate = enriched_count / len(enriched_sbir_awards)

        return AssetCheckResult(
            passed=enrichment_rate >= 0.90,
            metadata={
                "enrichment_rate": enrichment_rate,
                "enriched_count": enriched_count,
                "total_count": len(enriched_sbir_awards),
            },
        )

    assets = [validated_sbir_awards, enriched_sbir_awards]
    return materialize(guarded(root, assets, [sbir_awards_completeness_check, enrichment_success_rate_check]))


def test_the_two_check_patterns_pass(root: Path) -> None:
    awards = pd.DataFrame(
        {"award_id": ["a", "b"], "company_name": ["x", "y"], "award_amount": [1.0, 2.0], "sam_gov_data": ["k", "l"]}
    )
    result = sbir(root, awards)
    assert result.success
    said = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert said["sbir_awards_completeness_check"].metadata["min_coverage"].value == 1.0
    assert said["enrichment_success_rate_check"].metadata["enriched_count"].value == 2
    assert rows(root, "select count(*) as n from enriched.sbir_awards") == [(2,)]


def test_the_two_check_patterns_keep_bad_rows_out(root: Path) -> None:
    awards = pd.DataFrame(
        {"award_id": ["a", None], "company_name": ["x", "y"], "award_amount": [1.0, 2.0], "sam_gov_data": ["k", "l"]}
    )
    result = sbir(root, awards)
    assert not result.success
    assert entries(root, "validated.sbir_awards") == []
    assert [e.check_name for e in result.get_asset_check_evaluations()] == ["sbir_awards_completeness_check"]


def test_an_empty_frame_is_a_failed_check_with_that_reason(root: Path) -> None:
    awards = pd.DataFrame({"award_id": [], "company_name": [], "award_amount": [], "sam_gov_data": []}, dtype="object")
    result = sbir(root, awards)
    (said,) = result.get_asset_check_evaluations()
    assert not said.passed
    assert "validated_sbir_awards has no rows" in str(said.description)


def test_our_check_is_a_gate_without_guard_too(root: Path) -> None:
    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": []}, schema={"n": pl.Int64})

    @asset_check(asset=raw_numbers)
    def share(raw_numbers: pl.DataFrame) -> AssetCheckResult:
        return AssetCheckResult(passed=raw_numbers.filter(pl.col("n") > 0).height / raw_numbers.height > 0.9)

    result = dg.materialize([raw_numbers, share], resources={"io_manager": lake_io_manager(root)}, raise_on_error=False)
    assert not result.success
    assert states(root, "raw.numbers") == ["rejected"]


# Several processes

MODULE = """
    import os
    import signal
    from pathlib import Path

    import dagster as dg
    import polars as pl
    from ratatouille.dagster.executors import chosen_executor
    from ratatouille.dagster.guarding import guard
    from ratatouille.dagster.io_managers import lake_io_manager

    SAYS = Path(__file__).parent / "says.txt"

    def says() -> str:
        return SAYS.read_text() if SAYS.exists() else ""

    @dg.asset
    def raw_numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [len(says()), 2, 3]})

    @dg.asset
    def enriched_numbers(raw_numbers: pl.DataFrame) -> pl.DataFrame:
        return raw_numbers

    @dg.asset_check(asset=raw_numbers, blocking=True)
    def is_right(raw_numbers: pl.DataFrame) -> dg.AssetCheckResult:
        if "kill" in says():
            os.kill(os.getpid(), signal.SIGKILL)
        return dg.AssetCheckResult(passed="bad" not in says())

    @dg.asset_check(asset=raw_numbers, blocking=True)
    def has_rows(raw_numbers: pl.DataFrame) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=raw_numbers.height > 0)

    defs = guard(
        dg.Definitions(
            assets=[raw_numbers, enriched_numbers],
            asset_checks=[is_right, has_rows],
            jobs=[dg.define_asset_job("all_of_it", executor_def=chosen_executor("multiprocess"))],
            resources={"io_manager": lake_io_manager(Path(__file__).parent)},
        )
    )

    def all_of_it():
        return defs.resolve_job_def("all_of_it")
"""


@pytest.fixture
def job(root: Path) -> Any:
    """A job that step processes can load again from its file."""
    from dagster._core.definitions.reconstruct import ReconstructableJob

    (root / "kitchen_job.py").write_text(textwrap.dedent(MODULE))
    return ReconstructableJob.for_file(str(root / "kitchen_job.py"), "all_of_it")


@pytest.mark.slow
def test_the_same_with_a_process_for_each_step(root: Path, job: Any, instance: dg.DagsterInstance) -> None:
    with dg.execute_job(job, instance=instance) as result:
        assert result.success
    assert rows(root, "select count(*) as n from enriched.numbers") == [(3,)]
    (root / "says.txt").write_text("bad")
    with dg.execute_job(job, instance=instance) as result:
        assert not result.success
        assert {e.step_key for e in result.all_events if e.is_step_failure} == {"raw_numbers_is_right"}
    assert rows(root, "select min(n) as n from raw.numbers") == [(0,)]
    assert len(entries(root, "enriched.numbers")) == 1


@pytest.mark.slow
def test_a_check_that_was_killed_is_run_again_on_the_same_candidate(
    root: Path, job: Any, instance: dg.DagsterInstance
) -> None:
    (root / "says.txt").write_text("kill")
    with dg.execute_job(job, instance=instance) as result:
        assert not result.success
        first = result.run_id
    assert entries(root, "raw.numbers") == []
    (root / "says.txt").write_text("")
    options = dg.ReexecutionOptions.from_failure(first, instance)
    with dg.execute_job(job, instance=instance, reexecution_options=options) as result:
        assert result.success
        assert "raw_numbers" not in {e.step_key for e in result.all_events if e.is_step_success}
    (entry,) = entries(root, "raw.numbers")
    assert entry.run_id == first
    assert rows(root, "select max(n) as n from raw.numbers") == [(4,)]  # what the killed run had computed
    assert len(entries(root, "enriched.numbers")) == 1
