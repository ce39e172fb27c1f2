"""Each command does its one thing, says it in words and in JSON, and says it briefly."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ratatouille.cli.printing import took


def test_init_makes_a_workspace_that_checks_out(
    tmp_path: Path, monkeypatch: Any, capsys: Any, new_kitchen: Any
) -> None:
    here = new_kitchen({}, "outer")
    said = here.rat("init", "my-lake.2")
    assert said.code == 0
    made = here.root / "my-lake.2"
    assert (made / ".gitignore").read_text() and not (made / "gitignore").exists()
    assert "name: my-lake.2" in (made / "workspace.yaml").read_text()
    monkeypatch.chdir(made)
    assert here.rat("check").out == "3 assets, no problems.\n"
    assert [p.name for p in here.root.glob(".*")] == []  # nothing half-made is left


def test_init_writes_schemas_that_the_yaml_files_point_at(kitchen: Any) -> None:
    for path in [kitchen.root / "workspace.yaml", *kitchen.root.rglob("pipelines/**/*.yaml")]:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        schema = json.loads((path.parent / first.partition("=")[2]).read_text())
        assert schema["type"] == "object"


def test_check_writes_the_schemas_anew(kitchen: Any) -> None:
    (kitchen.root / ".schemas" / "asset.json").unlink()
    assert kitchen.rat("check", "--write-schemas").code == 0
    assert (kitchen.root / ".schemas" / "asset.json").is_file()


def test_check_shows_every_problem_with_its_place(kitchen: Any) -> None:
    kitchen.change("pipelines/gold/revenue.sql", "silver.orders", "silver.oders")
    kitchen.change("pipelines/silver/orders.yaml", "unique_key", "unique_keys")
    said = kitchen.rat("check")
    assert said.code == 2
    assert "pipelines/gold/revenue.sql:6:14" in said.out and "^^^^^^^^^^^^" in said.out
    assert "Did you mean 'silver.orders'?" in said.out and "unique_keys" in said.out
    assert "2 errors" in said.out.splitlines()[-1]
    found = kitchen.rat("check", "--json")
    assert found.code == 2
    assert {"pipelines/gold/revenue.sql", "pipelines/silver/orders.yaml"} <= {p["path"] for p in found.json["problems"]}


def test_plan_says_why_before_and_after_a_build(new_kitchen: Any, kitchen: Any) -> None:
    assert "rat run would build 0 of 3 assets." in kitchen.rat("plan").out
    kitchen.change("pipelines/gold/revenue.sql", "count(*)", "count(order_id)")
    said = kitchen.rat("plan")
    assert "code changed" in said.out and "rat run would build 1 of 3 assets." in said.out
    steps = {s["asset"]: s for s in kitchen.rat("plan", "--json").json["steps"]}
    assert steps["gold.revenue"]["action"] == "build" and steps["silver.orders"]["action"] == "skip"


def test_plan_needs_no_lake_and_makes_none(new_kitchen: Any) -> None:
    kitchen = new_kitchen({"pipelines/gold/one.sql": "select 1 as one"})
    assert kitchen.rat("plan", "--json").json["steps"][0]["rule"] == "new"
    assert not list(kitchen.root.glob(".rat/*.sqlite"))


def test_a_run_shows_what_was_built_and_what_was_kept_out(new_kitchen: Any) -> None:
    kitchen = new_kitchen(
        {
            "pipelines/silver/n.sql": "select i from range(4) t(i)",
            "pipelines/silver/n.yaml": "columns: {i: {checks: [positive]}}\non_fail: quarantine\nmax_quarantine: 0.5\n",
            "pipelines/gold/total.sql": "select sum(i) as total from {{ ref('silver.n') }}",
        }
    )
    said = kitchen.rat("run")
    assert said.code == 0
    header, _, first, *_ = said.out.splitlines()
    names = "asset status mode rows in written total quarantined seconds rows/s version"
    assert header.split() == names.split()
    assert first.split()[:3] == ["silver.n", "built", "full"]
    assert first.split()[4:7] == ["3", "3", "1"]  # written, total, quarantined
    assert "rat quarantine silver.n" in said.out and "2 built" in said.out
    assert kitchen.rat("run").out == "Nothing to do: 2 assets up to date.\n"


def test_run_as_json_is_the_result_and_nothing_else(kitchen: Any) -> None:
    said = kitchen.rat("run", "gold.revenue", "-f", "--json")
    assert said.code == 0 and said.err == ""
    assert said.json["status"] == "done"
    assert [(s["asset"], s["status"], s["rows_total"]) for s in said.json["steps"]] == [("gold.revenue", "built", 2)]
    assert kitchen.rat("run", "--json").json["status"] == "fresh"


def test_a_long_list_of_built_assets_is_shortened(new_kitchen: Any) -> None:
    kitchen = new_kitchen({f"pipelines/gold/t{i:02}.sql": f"select {i} as i" for i in range(60)})
    said = kitchen.rat("run")
    assert said.code == 0
    assert "... and 35 more built; these were the slowest." in said.out and "60 built" in said.out
    assert len(said.out.splitlines()) < 35


def test_query_shows_types_nulls_times_with_zones_and_no_control_characters(kitchen: Any) -> None:
    said = kitchen.rat(
        "query",
        "select '2026-01-05 12:00:00+02'::timestamptz as t, null as nothing, 1.50::decimal(9,2) as d,"
        " 'a' || chr(10) || 'b' || chr(27) || '[31m' as s, 1 as x, 2 as x",
    )
    assert said.code == 0
    assert "2026-01-05 10:00:00+00" in said.out and "timestamp with time zone" in said.out
    assert "null" in said.out and "1.50" in said.out and "a⏎b\\x1b[31m" in said.out
    assert "\x1b" not in said.out and said.out.endswith("1 row\n")


def test_query_keeps_the_order_and_says_that_there_is_more(kitchen: Any) -> None:
    said = kitchen.rat("query", "select range as n from range(100) order by n desc", "--limit", "3")
    assert [line.strip() for line in said.out.splitlines()[3:6]] == ["99", "98", "97"]
    assert "The first 3 rows" in said.out


def test_query_as_json_keeps_digits_and_gives_all_rows(kitchen: Any) -> None:
    rows = kitchen.rat("query", "select range as n, 'nan'::double as f from range(3000) order by n", "--json").json
    assert len(rows) == 3000 and rows[2999] == {"n": 2999, "f": None}
    said = kitchen.rat("query", "select 170141183460469231731687303715884105727 as big, 1 as a, 2 as a", "--json")
    assert said.json == [{"big": 170141183460469231731687303715884105727, "a": 1, "a_1": 2}]
    assert kitchen.rat("query", "select 1 as x where false", "--json").json == []


def test_query_at_an_earlier_version_and_time(kitchen: Any) -> None:
    old = kitchen.version("gold.revenue")
    when = kitchen.rat("history", "gold.revenue", "--json").json[0]["published_at"]
    kitchen.change("pipelines/gold/revenue.sql", "group by all", "group by all having count(*) > 4")
    assert kitchen.rat("run").code == 0
    count = "select count(*) as n from gold.revenue"
    assert kitchen.rat("query", count, "--json").json == [{"n": 1}]
    assert kitchen.rat("query", count, "--at", str(old), "--json").json == [{"n": 2}]
    assert when.endswith("Z")
    assert kitchen.rat("query", count, "--at", when, "--json").json == [{"n": 2}]


def test_query_reads_standard_input(kitchen: Any) -> None:
    ran = kitchen.rat_process("query", "-", "--json", input="select 6 * 7 as n\n")
    assert json.loads(ran.stdout) == [{"n": 42}]


@pytest.mark.parametrize("ending", ["csv", "parquet", "json", "xlsx"])
def test_query_writes_whole_files(kitchen: Any, ending: str) -> None:
    target = kitchen.root / f"out [1].{ending}"
    sql = "select *, now() as t, [1, 2] as l, interval 1 day as i from silver.orders"
    said = kitchen.rat("query", sql, "-o", str(target))
    assert (said.code, said.out) == (0, f"9 rows in {target}\n")
    assert [p.name for p in kitchen.root.glob(".out*")] == []
    if ending == "csv":
        assert len(list(csv.DictReader(target.read_text().splitlines()))) == 9
    elif ending == "json":
        assert len(json.loads(target.read_text())) == 9
    elif ending == "parquet":
        import pyarrow.parquet

        assert pyarrow.parquet.ParquetFile(target).metadata.num_rows == 9
    else:
        assert target.read_bytes()[:2] == b"PK"


def test_show_lists_the_workspace_and_one_asset_with_masked_rows(kitchen: Any) -> None:
    said = kitchen.rat("show")
    assert "silver.orders" in said.out and "ATTACH 'ducklake:sqlite:" in said.out
    found = kitchen.rat("show", "--json").json
    assert [(a["name"], a["status"], a["rows"]) for a in found["assets"]] == [
        ("bronze.orders", "fresh", 10),
        ("silver.orders", "fresh", 9),
        ("gold.revenue", "fresh", 2),
    ]
    page = kitchen.rat("show", "silver/orders")
    assert "bronze.orders.price" in page.out and "Number of the order" in page.out and "portions_positive" in page.out
    assert "[hidden]" in page.out and "Grace" not in page.out
    assert {row["customer"] for row in kitchen.rat("show", "silver.orders", "--json").json["preview"]} == {"[hidden]"}


def test_the_attach_line_works_in_plain_duckdb(kitchen: Any) -> None:
    import duckdb

    from ratatouille.lake.connect import extension_file

    line = kitchen.rat("show", "--json").json["attach"]
    for name, file in (("ducklake", "ducklake"), ("sqlite", "sqlite_scanner")):
        line = line.replace(f"LOAD {name};", f"LOAD '{extension_file(file)}';")
    with duckdb.connect() as connection:
        connection.execute(line)
        assert connection.execute("select count(*) from lake.silver.orders").fetchall() == [(9,)]


def test_show_keeps_naming_a_table_whose_file_is_gone(kitchen: Any) -> None:
    (kitchen.root / "pipelines/gold/revenue.sql").unlink()
    (kitchen.root / "pipelines/gold/revenue.yaml").unlink()
    found = {a["name"]: a for a in kitchen.rat("show", "--json").json["assets"]}
    assert found["gold.revenue"]["status"] == "no file"
    assert "gold.revenue" in kitchen.rat("show", "gold.revenue").out


def test_render_fills_the_template_in_both_ways(kitchen: Any) -> None:
    full = kitchen.rat("render", "silver.orders").out
    assert '"lake"."bronze"."orders"' in full and "where" not in full
    assert "where _loaded_at > '" in kitchen.rat("render", "silver.orders", "--incremental").out
    assert "read_csv" in kitchen.rat("render", "bronze.orders", "--json").json["sql"]


def test_render_needs_no_lake(new_kitchen: Any) -> None:
    kitchen = new_kitchen(
        {
            "pipelines/silver/a.sql": "select 1 as one",
            "pipelines/gold/b.sql": "select one from {{ ref('silver.a') }}",
            "pipelines/gold/c.py": "def build(context):\n    return None\n",
        }
    )
    assert '"lake"."silver"."a"' in kitchen.rat("render", "gold.b").out
    assert kitchen.rat("render", "gold.b", "--incremental").code == 2
    assert "Python asset" in kitchen.rat("render", "gold.c").err


def test_history_says_everything_of_each_version(kitchen: Any) -> None:
    [entry] = kitchen.rat("history", "silver.orders", "--json").json
    assert (entry["rows_in"], entry["rows_written"], entry["rows_quarantined"]) == (10, 9, 1)
    wanted = {"version", "fingerprint", "inputs", "manifest", "peak_memory_bytes", "bytes_written", "seconds", "checks"}
    assert wanted <= set(entry)
    assert "kept out" in kitchen.rat("history", "silver.orders").out
    assert len(kitchen.rat("history", "-n", "2", "--json").json) == 2


def test_runs_shows_runs_and_the_steps_of_one(kitchen: Any) -> None:
    [run] = kitchen.rat("runs", "--json").json
    assert (run["status"], run["steps"], run["started_at"][-1]) == ("done", {"built": 3}, "Z")
    found = kitchen.rat("runs", run["run_id"][:12], "--json").json
    assert {s["asset"] for s in found["steps"]} == {"bronze.orders", "silver.orders", "gold.revenue"}
    assert "everything stale" in kitchen.rat("runs").out
    assert "There is no run that begins with 'zz'" in kitchen.rat("runs", "zz").err


def test_a_run_whose_process_is_gone_is_shown_as_died(kitchen: Any) -> None:
    import sqlite3

    with sqlite3.connect(kitchen.root / ".rat" / "journal.sqlite") as journal:
        journal.execute("update runs set status = 'running', pid = 999999999, ended_at = null")
    assert kitchen.rat("runs", "--json").json[0]["status"] == "died"


def test_rollback_holds_and_release_lets_go(kitchen: Any) -> None:
    first = kitchen.version("silver.orders")
    kitchen.change("pipelines/silver/orders.sql", "portions,\n    cast", "portions + 0 as portions,\n    cast")
    assert kitchen.rat("run").code == 0
    second = kitchen.version("silver.orders")
    said = kitchen.rat("rollback", "silver.orders", "--to", str(first))
    assert said.code == 0
    assert "on hold" in said.out and "rat release silver.orders" in said.out and "gold.revenue" in said.out
    assert f"--at {second}" in said.out
    run = kitchen.rat("runs", "-n", "1", "--json").json[0]
    assert (run["status"], run["request"]) == ("done", {"rollback": "silver.orders", "to": first})
    assert "silver.orders is on hold" in kitchen.rat("run", "silver.orders").out
    assert "On hold" in kitchen.rat("history", "silver.orders").out
    assert kitchen.rat("release", "silver.orders").code == 0
    again = kitchen.rat("release", "silver.orders")
    assert again.code == 2 and "is not on hold" in again.err
    assert kitchen.rat("run", "silver.orders", "--json").json["steps"][0]["status"] == "built"


def test_rollback_to_a_version_that_never_was(kitchen: Any) -> None:
    said = kitchen.rat("rollback", "gold.revenue", "--to", "999")
    assert said.code == 2 and "rat history gold.revenue" in said.err
    assert kitchen.rat("runs", "-n", "1", "--json").json[0]["status"] == "failed"


def test_quarantine_counts_and_shows_masked_rows(kitchen: Any) -> None:
    assert kitchen.rat("quarantine", "--json").json["rows"] == [
        {"asset": "silver.orders", "check": "portions_positive", "rows": 1}
    ]
    found = kitchen.rat("quarantine", "silver.orders", "--json").json
    [row] = found["rows"]
    assert (row["row"]["order_id"], row["row"]["customer"], row["origin"]) == (1007, "[hidden]", "gate")
    said = kitchen.rat("quarantine", "silver.orders")
    assert "portions_positive" in said.out and "Donald" not in said.out
    assert kitchen.rat("quarantine", "silver.orders", "--run", "1999", "--json").json["rows"] == []
    assert kitchen.rat("quarantine", "gold.revenue").out == "Nothing of gold.revenue is kept out.\n"


def test_rows_of_the_quarantine_are_replayed_or_discarded(kitchen: Any) -> None:
    stays = kitchen.rat("quarantine", "replay", "silver.orders")
    assert stays.out.startswith("0 rows joined silver.orders.\nstill kept out by")
    wrong = kitchen.rat("quarantine", "replay", "silver.orders", "gold.revenue")
    assert wrong.code == 2 and "takes one asset" in wrong.err
    assert kitchen.rat("quarantine", "discard", "silver.orders").code == 2
    gone = kitchen.rat("quarantine", "discard", "silver.orders", "--reason", "a test order", "--json")
    assert gone.json["rows"] == 1
    assert "1 row discarded: a test order" in kitchen.rat("history", "silver.orders").out
    assert kitchen.rat("quarantine").out == "Nothing is kept out.\n"
    assert kitchen.rat("run").out.startswith("Nothing to do")


def test_quarantine_masks_raw_lines_of_an_asset_with_a_sensitive_column(new_kitchen: Any) -> None:
    header = "name,born\n"
    good = "".join(f"p{i},2000-01-{i:02}\n" for i in range(1, 29))
    kitchen = new_kitchen(
        {
            "landing/people/a.csv": f"{header}{good}Secretname,not-a-date\n",
            "pipelines/bronze/people.sql": "select * from {{ source('landing/people/*.csv') }}",
            "pipelines/bronze/people.yaml": "materialize: append\ncolumns: {name: {sensitive: true}}\n"
            "sources: {landing/people/*.csv: {columns: {name: varchar, born: date}}}\n",
        }
    )
    assert kitchen.rat("run").code == 0
    [row] = kitchen.rat("quarantine", "bronze.people", "--json").json["rows"]
    assert (row["origin"], row["file"], row["line"], row["row"]) == ("reject", "landing/people/a.csv", 30, "[hidden]")
    assert "Secretname" not in kitchen.rat("quarantine", "bronze.people").out


def test_quarantine_shows_what_stopped_the_last_attempt_until_it_passes(kitchen: Any) -> None:
    kitchen.change("pipelines/silver/orders.yaml", "on_fail: quarantine", "on_fail: block")
    assert kitchen.rat("run", "silver.orders").code == 1
    found = kitchen.rat("quarantine", "silver.orders", "--json").json
    assert "portions_positive" in found["blocked"]
    [failing] = found["failing"]
    assert (failing["check"], failing["kept"], failing["rows"][0]["customer"]) == ("portions_positive", 1, "[hidden]")
    assert "rat quarantine silver.orders" in kitchen.rat("quarantine").out
    kitchen.change("pipelines/silver/orders.yaml", "on_fail: block", "on_fail: quarantine")
    assert kitchen.rat("run", "silver.orders").code == 0
    assert kitchen.rat("quarantine", "silver.orders", "--json").json["failing"] == []


def test_files_set_aside_are_shown_by_run_show_and_quarantine(kitchen: Any) -> None:
    kitchen.write("landing/orders/broken.csv", "order_id,when\n1,2\n")
    said = kitchen.rat("run")
    assert said.code == 0 and "landing/orders/broken.csv is set aside" in said.out
    for words in (("run",), ("show",), ("quarantine",), ("quarantine", "bronze.orders")):
        assert "landing/orders/broken.csv" in kitchen.rat(*words).out, words


@pytest.mark.parametrize(
    "words",
    [
        ("check",), ("plan",), ("run",), ("run", "gold.revenue"), ("query", "select 1 as one"), ("show",),
        ("show", "gold.revenue"), ("render", "gold.revenue"), ("history",), ("history", "gold.revenue"), ("runs",),
        ("quarantine",), ("quarantine", "silver.orders"),
    ],
)  # fmt: skip
def test_every_command_speaks_json(kitchen: Any, words: tuple[str, ...]) -> None:
    said = kitchen.rat(*words, "--json")
    assert said.code == 0 and said.err == ""
    assert isinstance(said.json, dict | list)


def test_the_workspace_may_be_named_before_and_after_the_command(
    kitchen: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(kitchen.root)
    assert kitchen.rat("-w", here, "check").code == 0
    assert kitchen.rat("check", "-w", here).code == 0
    assert kitchen.rat("run", "-w", here).code == 0
    assert kitchen.rat("check").code == 2
    monkeypatch.setenv("RATATOUILLE_WORKSPACE", here)
    assert kitchen.rat("check").code == 0


def test_the_short_way_and_typer_understand_the_same(kitchen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ratatouille.cli import build, entry

    asked: list[Any] = []

    def note(root: Path, request: Any, *, as_json: bool = False) -> int:
        asked.append((root, request, as_json))
        return 0

    monkeypatch.setattr(build, "build", note)
    for words in (
        ["run"],
        ["run", "a.b", "+c", "-f", "--json"],
        ["-w", str(kitchen.root), "run", "--full", "layer:gold"],
        ["run", "--accept-schema", "--accept-loss", "--no-resume", "x"],
    ):
        short = entry._run_by_the_short_way(words)
        assert (short, entry._run_by_typer(words)) == (0, 0)
        assert asked[-1] == asked[-2], words
    for words in (["run", "--help"], ["run", "-fx"], ["-w"], ["plan"], ["a.b", "run"], ["--version"], []):
        assert entry._run_by_the_short_way(words) is None


def test_help_is_good_everywhere(kitchen: Any) -> None:
    from ratatouille.cli.commands import COMMANDS

    assert all(name in kitchen.rat("--help").out for name in COMMANDS)
    assert kitchen.rat().out == kitchen.rat("--help").out
    for name in COMMANDS:
        said = kitchen.rat(name, "--help")
        assert said.code == 0 and f"rat {name}" in said.out.partition("Examples:")[2]
    assert kitchen.rat("--version").out.startswith("rat 0.")


@pytest.mark.parametrize(("value", "said"), [(1.5, "1.50 s"), (100, "1m40s"), (3784.65, "1h03m")])
def test_a_duration_in_a_sentence_has_one_unit(value, said):
    assert took(value) == said
