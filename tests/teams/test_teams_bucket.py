"""A catalog on PostgreSQL and the data in a bucket of a real S3 server."""

from __future__ import annotations


def test_two_machines_share_one_lake(team):
    here, there = team.machine("here"), team.machine("there")
    here.land("a.csv", [(1, 1, 10), (2, 2, 20)])
    result = here.run()
    assert [step.error for step in result.steps if step.error] == []
    assert there.rows("select * exclude (_loaded_at) from silver.sales order by id") == [(1, 1, 10), (2, 2, 20)]
    here.land("b.csv", [(2, 3, 30), (3, 4, 40)])
    result = here.run()
    assert [step.error for step in result.steps if step.error] == []
    rows = there.rows("select * exclude (_loaded_at) from silver.sales order by id")
    assert rows == [(1, 1, 10), (2, 3, 30), (3, 4, 40)]
