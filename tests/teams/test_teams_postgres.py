"""A catalog and a journal on PostgreSQL, the data in a folder: what works on a laptop works for a team."""

from __future__ import annotations


def test_two_machines_share_one_lake(local_team):
    here, there = local_team.machine("here"), local_team.machine("there")
    here.land("a.csv", [(1, 1, 10), (2, 2, 20)])
    result = here.run()
    assert [step.error for step in result.steps if step.error] == []
    assert there.rows("select * exclude (_loaded_at) from silver.sales order by id") == [(1, 1, 10), (2, 2, 20)]
    assert {s.asset: s.status for s in here.run("silver.sales", "gold.totals").steps}["silver.sales"] == "skipped"
    here.land("b.csv", [(2, 3, 30), (3, 4, 40)])
    here.run()
    assert there.rows("select * exclude (_loaded_at) from silver.sales order by id") == [
        (1, 1, 10),
        (2, 3, 30),
        (3, 4, 40),
    ]
    first = here.entries("silver.sales")[-1].version
    assert here.rows("select count(*) from silver.sales", at=first) == [(2,)]


def test_what_happened_is_compared_found_and_told_on_a_server(local_team, monkeypatch):
    from ratatouille import workspace
    from ratatouille.engine import open_workbench
    from ratatouille.lake.journal import retention
    from ratatouille.observe import alerts

    told = []
    monkeypatch.setattr(alerts, "send", lambda addresses, title, body: told.append(title) or "")
    monkeypatch.setenv("TEAM_CHANNEL", "json://team")
    rules = "alerts:\n  channels: {team: '${TEAM_CHANNEL}'}\n  rules:\n    it: {when: [gate_warned, anomaly, recovered], to: team}\n"
    here, there = local_team.machine("here", rules), local_team.machine("there", rules)
    here.land("a.csv", [(1, 1, 10), (2, 2, 20)])
    runs = [here.run(), here.run(force=True)]
    names = [run.run_id for run in runs]
    found = workspace(there.root).compare(*names)
    assert {one["asset"]: one["changed"] for one in found["assets"]}["silver.sales"] == ["inputs"]
    with open_workbench(here.root, write=True) as bench:
        journal = bench.journal
        record = journal.steps(names[1])[0]["record"] | {"rows_in": 10**4, "rows_written": 10**4}
        asset = journal.steps(names[1])[0]["asset"]
        journal.do("delete from points")
        for number in range(8):
            journal.record_step(f"past-{number}", asset, 1, "built", record)
    again = here.run(asset, force=True)
    assert [one for one in again.step(asset).warnings if one.startswith("anomaly: 2 rows written, usually 10,000")]
    assert told == [f"kitchen: {asset} is unusual"]
    assert alerts.tick(there_project := _project(there)).told == ()
    assert [one.subject for one in alerts.overview(there_project).wrong] == [asset]
    with open_workbench(here.root, write=True) as bench:
        bench.journal.note_sample(names[0], {"memory_bytes": 1})
        monkeypatch.setattr(retention, "NEWEST_RUNS", 1)
        monkeypatch.setattr(retention, "NEWEST_POINTS", 2)
        pruned = retention.prune(bench.journal, bench.journal.now(), bench.journal.now())
        assert (pruned.runs, sum(day["runs"] for day in retention.days(bench.journal))) == (2, 2)
        assert pruned.points == 7 and len(bench.journal.last_points(asset, 99)) == 2


def _project(machine):
    from ratatouille import project

    return project.load(machine.root)
