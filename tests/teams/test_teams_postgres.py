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
