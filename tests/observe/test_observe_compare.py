"""Two runs and two versions side by side: every figure is the one that was recorded, and every change is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratatouille import workspace
from ratatouille.cli.entry import run_command
from ratatouille.engine import Request, RunResult
from ratatouille.errors import RequestError
from ratatouille.handle import run_request
from ratatouille.observe.compare import _newest_of_two

NUMBERS = "select i as id, i % 7 as store, case when i % 10 = 0 then null else i end as amount from range({n}) t(i)"
CONFIG = """columns:
  id: {{checks: [not_null]}}
  amount: {{sensitive: true}}
checks:
  filled: {{check: completeness, columns: [amount], at_least: {least}, severity: warn}}
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def run(root: Path, *selectors: str, **options: Any) -> RunResult:
    return run_request(root, Request(selectors, **options))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunResult]]:
    """Three runs: the second with more rows, another gate and a new column; the third fails below."""
    root = tmp_path_factory.mktemp("compared")
    write(
        root,
        {
            "workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 2}\n",
            "pipelines/silver/numbers.sql": NUMBERS.format(n=2000),
            "pipelines/silver/numbers.yaml": CONFIG.format(least=0.5),
            "pipelines/gold/sums.sql": "select store, count(*) as n from {{ ref('silver.numbers') }} group by all",
        },
    )
    done = [run(root)]
    write(
        root,
        {
            "pipelines/silver/numbers.sql": NUMBERS.format(n=3000).replace("as store", "as store, 'x' as note"),
            "pipelines/silver/numbers.yaml": CONFIG.format(least=0.95),
        },
    )
    done.append(run(root))
    write(root, {"pipelines/gold/sums.sql": "select error('no') as n from {{ ref('silver.numbers') }}"})
    done.append(run(root))
    return root, done


def of(found: dict[str, Any], asset: str) -> dict[str, Any]:
    return next(one for one in found["assets"] if one["asset"] == asset)


def test_two_runs_differ_in_what_changed_between_them(shop: tuple[Path, list[RunResult]]) -> None:
    root, (first, second, _) = shop
    found = workspace(root).compare(first.run_id, second.run_id)
    numbers = of(found, "silver.numbers")
    assert (found["before"]["name"], found["after"]["status"]) == (first.run_id, "done")
    for name in ("rows_in", "rows_written", "rows_total"):
        assert numbers["figures"][name] == [2000, 3000]
    for place, result in enumerate((first, second)):
        step = result.step("silver.numbers")
        assert numbers["figures"]["seconds"][place] == step.seconds
        assert numbers["figures"]["peak_memory_bytes"][place] == step.peak_memory_bytes > 0
        assert numbers["figures"]["cpu_s"][place] > 0 and numbers["figures"]["disk_left_bytes"][place] > 0
        assert {"render", "build", "gate", "seal", "publish", "wait"} == set(step.measured["stages"])
        # What is missing it waited for others that share its commit.
        assert 0 < sum(step.measured["stages"].values()) <= step.seconds + 0.01
    assert numbers["changed"] == ["code", "config"]
    assert numbers["columns"] == [{"name": "note", "before": "", "after": "VARCHAR"}]
    assert numbers["checks"] == [{"name": "filled", "passed": [True, False], "value": [0.9, 0.9], "bad": [0, 300]}]
    sums = of(found, "gold.sums")
    assert sums["changed"] == ["inputs"]
    assert sums["inputs"] == {"silver.numbers": [r.step("silver.numbers").version for r in (first, second)]}


def test_python_gives_what_the_commands_show(shop: tuple[Path, list[RunResult]]) -> None:
    root, done = shop
    kitchen = workspace(root)
    assert [one["run_id"] for one in kitchen.runs()] == [one.run_id for one in done][::-1]
    [newest, first] = kitchen.history("silver.numbers")
    assert (newest["rows_total"], first["measured"]["columns"]["store"]["distinct"]) == (3000, 7)
    assert kitchen.tell()["told"] == []


def test_without_names_the_newest_run_and_the_one_before_it_are_compared(shop: tuple[Path, list[RunResult]]) -> None:
    root, (_, second, third) = shop
    found = workspace(root).compare()
    assert [found[side]["name"] for side in ("before", "after")] == [second.run_id, third.run_id]
    assert of(found, "gold.sums")["status"] == ["built", "failed"]
    assert of(found, "silver.numbers")["status"] == ["built", ""]


def test_alone_it_is_the_newest_run_that_has_one_to_be_compared_with() -> None:
    known = [{"run_id": str(number), "request": {"selectors": [what]}} for number, what in enumerate("cbabc")]
    assert _newest_of_two(known)["run_id"] == "0"
    assert _newest_of_two(known[:4])["run_id"] == "1"
    assert _newest_of_two(known[:2])["run_id"] == "0"


def test_two_versions_differ_as_their_runs_do(
    shop: tuple[Path, list[RunResult]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, (first, second, _) = shop
    versions = [result.step("silver.numbers").version for result in (first, second)]
    found = workspace(root).compare("silver.numbers", *versions)
    assert found == workspace(root).compare("silver/numbers")
    [numbers] = found["assets"]
    assert numbers["figures"]["rows_total"] == [2000, 3000] and numbers["changed"] == ["code", "config"]
    assert run_command(["-w", str(root), "compare", "silver.numbers", *map(str, versions), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    version = second.step("gold.sums").version
    [sums] = workspace(root).compare("gold.sums", version, version)["assets"]
    assert (sums["changed"], sums["inputs"], sums["checks"]) == ([], {}, [])
    assert run_command(["-w", str(root), "compare", first.run_id, second.run_id]) == 0
    said = capsys.readouterr().out
    assert "silver.numbers: column note: not there, then varchar" in said
    assert "silver.numbers: check filled: passed (0.9), then failed (0.9)" in said
    assert "+50%" in said and "changed: code, config" in said


def test_the_ledger_keeps_what_the_footers_say_of_columns_and_nothing_sensitive(
    shop: tuple[Path, list[RunResult]],
) -> None:
    _root, (first, _, _) = shop
    columns = first.step("silver.numbers").measured["columns"]
    assert columns["store"] | {"bytes": 0} == {"rows": 2000, "nulls": 0, "bytes": 0, "distinct": 7, "min": 0, "max": 6}
    assert columns["amount"] | {"bytes": 0} == {"rows": 2000, "nulls": 200, "bytes": 0}


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (("9",), "There is no run that begins with '9'"),
        (("2", "2", "2"), "Two runs are compared"),
        (("silver.numbers", 99), "has no version 99"),
        (("silver.numbers", "x"), "'x' is not a version"),
        (("silver.nombers",), "Did you mean 'silver.numbers'"),
    ],
)
def test_what_is_not_there_is_said(
    shop: tuple[Path, list[RunResult]], what: tuple[str | int, ...], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        workspace(shop[0]).compare(*what)
