"""Real runs on a real lake: what is unusual joins the warnings of a step, is kept with the run, and is told."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratatouille.cli.entry import run_command
from ratatouille.engine import Request, RunResult, open_workbench
from ratatouille.engine.memory import MemoryGauge
from ratatouille.handle import run_request
from ratatouille.lake.journal import retention
from ratatouille.observe import alerts, findings
from ratatouille.project.records import Alerts
from ratatouille.upkeep.clean import clean

Kitchen = Any  # of conftest.py
SETTINGS = """name: kitchen
resources: {memory: 1GB, threads: 2}
observe: {confirm: 1, at_least: 5}
"""
RULES = """alerts:
  channels: {team: '${TEAM_CHANNEL}'}
  rules:
    all: {when: [regression, anomaly, run_failed, memory_pressure, stale, recovered], to: team}
"""
A = "select i as id, case when i % {nulls} = 0 then null else i end as price, 'secret' as name from range({n}) t(i)"
SIDECAR = "columns: {name: {sensitive: true}}\nfreshness: {warn_after: 1h, error_after: 1d}\n"


def run(kitchen: Kitchen, *selectors: str, **options: Any) -> RunResult:
    return run_request(kitchen.root, Request(selectors, **options))


def rat(kitchen: Kitchen, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run_command(("-w", str(kitchen.root), *words))
    return code, capsys.readouterr().out


def test_a_run_says_what_is_unusual_tells_it_and_tells_when_it_is_over(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "FLOOR_S", 0.0)
    kitchen.write("workspace.yaml", SETTINGS + RULES)
    kitchen.write("pipelines/silver/a.sql", A.format(nulls=2, n=2000))
    kitchen.write("pipelines/silver/a.yaml", SIDECAR)
    first = run(kitchen)
    assert first.step("silver.a").warnings == () and kitchen.told == []
    with open_workbench(kitchen.root, write=True) as bench:
        # Eight earlier runs instead of it, as the journal would have them: quick, with more rows and fewer nulls.
        record = bench.journal.steps(first.run_id)[0]["record"]
        measured = record["measured"] | {"stages": {"build": 0.0001}}
        columns = {"price": {"rows": 9000, "nulls": 90, "bytes": 4.5 * measured["columns"]["price"]["bytes"]}}
        said = record | {"rows_written": 9000, "rows_in": 9000, "measured": measured | {"columns": columns}}
        for number in range(8):
            bench.journal.record_step(f"past-{number}", "silver.a", 1, "built", said)
        bench.journal.do("delete from points where run_id = ?", (first.run_id,))
    again = run(kitchen, force=True)
    assert again.warnings == ()
    [slow, rows, nulls] = again.step("silver.a").warnings[:1] + again.step("silver.a").warnings[-2:]
    assert slow.startswith("regression: 0.") and "usually 0.0 s" in slow
    assert rows == "anomaly: 2,000 rows written, usually 9,000 (-78%)"
    assert nulls == "anomaly: 50.0% of price is null, usually 1.0%"
    [(_, title, body)] = kitchen.told
    assert title.startswith("kitchen: 2 problems") and "secret" not in body
    code, said = rat(kitchen, capsys, "runs", again.run_id)
    assert code == 0 and rows in said
    told = json.loads(rat(kitchen, capsys, "runs", again.run_id, "--json")[1])
    assert {one["figure"] for one in told["unusual"]} >= {"seconds", "rows", "nulls of price"}
    code, said = rat(kitchen, capsys, "alerts")
    assert code == 0 and "regression" in said and "anomaly" in said
    kitchen.write("pipelines/silver/a.sql", A.format(nulls=100, n=9000))
    monkeypatch.setattr(findings, "FLOOR_S", 100.0)
    run(kitchen)
    assert kitchen.told[1][1] == "kitchen: 2 work again, first: silver.a"
    assert rat(kitchen, capsys, "alerts")[1] == "Nothing is wrong, as far as 1 rule can tell.\n"


def test_a_table_that_nobody_refreshes_is_told_once_for_each_line_it_crosses(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str]
) -> None:
    kitchen.write("workspace.yaml", SETTINGS + RULES)
    kitchen.write("pipelines/silver/a.sql", A.format(nulls=2, n=10))
    kitchen.write("pipelines/silver/a.yaml", SIDECAR)
    entry = run(kitchen).step("silver.a").entry

    def look(hours: float, published: float = 0.0) -> list[tuple[str, str, bool]]:
        """What is told so many hours after the version, or after a later one."""
        head = replace(entry, published_at=entry.published_at + timedelta(hours=published))
        now = entry.published_at.replace(tzinfo=UTC).timestamp() + hours * 3600
        with kitchen.journal() as journal:
            told = alerts.look(kitchen.project, journal, heads={"silver.a": head}, now=now).told
        return [(line.level, line.said, line.recovered) for _, lines in told for line in lines]

    assert look(0.5) == []
    assert look(2) == [("warn", f"its version {entry.version} is 2 hours old", False)]
    assert look(3) == []
    assert look(25) == [("fail", f"its version {entry.version} is 25 hours old", False)]
    assert look(26) == []
    assert [level for level, _, _ in look(50)] == ["fail"], "it lasts, and a day has gone by"
    assert [recovered for _, _, recovered in look(52, published=51)] == [True]
    assert look(51.5, published=51) == []
    # And all of it together, as cron asks for it.
    assert rat(kitchen, capsys, "alerts", "tick") == (0, "Nothing to tell.\n")
    with kitchen.journal() as journal:
        journal.do("delete from alert_states")
    [(_, [line])] = alerts.tick(kitchen.project, now=time.time() + 2 * 3600).told
    assert (line.about, line.next) == ("stale", "rat run +silver.a")


def test_pressure_is_measured_said_and_told_and_a_channel_that_fails_fails_nothing(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen.write("workspace.yaml", SETTINGS + RULES)
    kitchen.write("pipelines/silver/a.sql", A.format(nulls=2, n=10))
    with monkeypatch.context() as patch:
        patch.setattr(MemoryGauge, "share", lambda self: 0.85)
        patch.setattr(alerts, "send", lambda *_: "the line is dead")
        done = run(kitchen)
    step = done.step("silver.a")
    assert (done.status, step.measured["memory_share"]) == ("done", 0.85)
    assert step.warnings[0].startswith("pressure: memory was at 85% of the profile's")
    assert "alerts: the channel team was not told: the line is dead" in done.warnings
    code, said = rat(kitchen, capsys, "alerts")
    assert code == 0 and "Waits for team, after 1 try: kitchen: silver.a was short of memory (the line is dead)" in said
    with monkeypatch.context() as patch:
        patch.setattr(alerts, "look", lambda *_, **__: 1 / 0)
        done = run(kitchen, force=True)
    assert done.status == "done" and "ZeroDivisionError" in done.warnings[-1]


def test_a_test_message_goes_to_each_channel(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen.write("workspace.yaml", SETTINGS + RULES)
    code, said = rat(kitchen, capsys, "alerts", "test")
    assert code == 0 and "team" in said and "done" in said
    assert kitchen.told[0][1] == "kitchen: a test of the channel team"
    monkeypatch.delenv("TEAM_CHANNEL")
    monkeypatch.setattr(alerts, "send", lambda addresses, *_: "no address is set" if not addresses else "")
    code, said = rat(kitchen, capsys, "alerts", "test", "team", "--json")
    assert (code, json.loads(said)) == (1, [{"channel": "team", "error": "TEAM_CHANNEL is not set"}])
    assert rat(kitchen, capsys, "alerts", "test", "taem")[0] == 2
    kitchen.write("workspace.yaml", "name: kitchen\n")
    assert kitchen.project.workspace.alerts == Alerts()
    assert "No rule is declared" in rat(kitchen, capsys, "alerts")[1]


def test_old_runs_are_summed_up_by_day_and_go_and_what_steps_are_compared_with_stays(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", SETTINGS.replace("at_least: 5", "at_least: 5, keep_runs: 30d, keep_figures: 60d"))
    kitchen.write("pipelines/silver/a.sql", A.format(nulls=2, n=10))
    run(kitchen)
    day = 86_400.0
    with open_workbench(kitchen.root, write=True) as bench:
        journal, now = bench.journal, bench.journal.now()
        for number in range(300):  # three a day for a hundred days, one of them failed
            at, run_id = now - 100 * day + number * day / 3, f"old-{number:03}"
            journal.start_run(run_id, {"selectors": [], "force": False})
            journal.record_step(run_id, "silver.a", 1, "built", {"rows_written": number})
            journal.note_sample(run_id, {"memory_bytes": 1})
            journal.end_run(run_id, "failed" if number % 3 == 0 else "done")
            for table, column in (
                ("runs", "started_at"),
                ("runs", "ended_at"),
                ("steps", "ended_at"),
                ("points", "at"),
            ):
                journal.do(f"update {table} set {column} = ? where run_id = ?", (at, run_id))
    asked = clean(kitchen.project, dry_run=True)
    done = clean(kitchen.project)
    assert [(one.what, one.files) for one in done.removed] == [(one.what, one.files) for one in asked.removed]
    gone = {one.what: one.files for one in done.removed}
    assert gone["runs"] == 201, "of 301 the newest hundred stay, and they are older than thirty days or not"
    with open_workbench(kitchen.root, write=True) as bench:
        left = bench.journal.runs(1000)
        days = retention.days(bench.journal)
        points = bench.journal.last_points("silver.a", 1000)
        orphans = bench.journal.do("select count(*) from samples where run_id not in (select run_id from runs)")
        steps = bench.journal.do("select count(*) from steps where run_id not in (select run_id from runs)")
    assert len(left) == 100 and (orphans, steps) == ([(0,)], [(0,)])
    assert (sum(one["runs"] for one in days), sum(one["failed"] for one in days)) == (201, 67)
    assert all(one["runs"] <= 4 for one in days) and len(days) >= 66
    assert min(one["at"] for one in points) > now - 61 * day
    assert len(points) == 301 - gone["figures"] > 100
    assert clean(kitchen.project).removed == ()


def test_journals_of_before_are_read_and_their_runs_compared(kitchen: Kitchen, tmp_path: Path) -> None:
    """A journal without the tables of today, and records without figures."""
    kitchen.write("workspace.yaml", SETTINGS)
    kitchen.write("pipelines/silver/a.sql", A.format(nulls=2, n=10))
    one = run(kitchen)
    with open_workbench(kitchen.root, write=True) as bench:
        for table in ("points", "samples", "findings", "alert_states", "alert_outbox", "alert_marks", "run_days"):
            bench.journal.do(f"drop table {table}")
        record = bench.journal.steps(one.run_id)[0]["record"]
        del record["measured"]
        bench.journal.do("update steps set record = ?", (json.dumps(record),))
    other = run(kitchen, force=True)
    assert other.status == "done"
    from ratatouille import workspace

    [found] = workspace(kitchen.root).compare(one.run_id, other.run_id)["assets"]
    assert found["figures"]["rows_total"] == [10, 10] and found["changed"] == []
