"""A lake that an earlier release made: it reads as it is, and whoever writes gives its ledger the columns of now."""

from __future__ import annotations

from ratatouille import project as files
from ratatouille.engine import open_workbench
from ratatouille.engine.holds import roll_back
from ratatouille.lake import ledger
from ratatouille.upkeep.clean import clean
from ratatouille.upkeep.diff import diff
from ratatouille.upkeep.verify import verify

RAW = "pipelines/bronze/raw.sql"
KEPT = "select 'hold', asset from rat.holds union all select 'file', file from rat.landing"
KEPT += " union all select 'row', checks from rat.quarantine order by all"


def made_earlier(shop):
    """Two assets, one on hold; a landing file is remembered, a row kept out; the ledger without its newer columns."""
    shop.write(
        {
            RAW: "select * replace (id::int as id) from {{ source('landing/*.csv') }}",
            "pipelines/bronze/raw.yaml": "materialize: append\non_fail: quarantine\nmax_quarantine: 1\n"
            "columns: {id: {checks: [positive]}}\n",
            "pipelines/silver/t.sql": "select 1 as id",
            "landing/a.csv": "id\n1\n-1\n",
        }
    ).run()
    shop.write({"pipelines/silver/t.sql": "select 2 as id"}).run()
    with open_workbench(shop.root, write=True) as bench:
        roll_back(bench, "silver.t", shop.entries("silver.t")[-1].version)
        with bench.lake.session() as session:
            for column in ("note", "partitions"):
                session.execute(f"alter table {ledger.LEDGER} drop column {column}")
    return shop


def test_a_lake_of_an_earlier_release_is_read_and_written_and_forgets_nothing(shop):
    made_earlier(shop)
    kept = shop.rows(KEPT)
    assert [kind for kind, _ in kept] == ["file", "hold", "row"]
    entries = shop.entries("silver.t")
    assert [(e.action, e.note, e.partitions) for e in entries] == [("rollback", "", {}), *[("build", "", {})] * 2]
    project = files.load(shop.root)
    assert verify(project).whole
    assert diff(project, "silver.t").changed_columns == {}
    assert shop.rows(KEPT) == kept
    assert not clean(project).warnings, "a clean writes, so the ledger is whole from here on"
    assert shop.rows(KEPT) == kept, "what runs go by is still there"
    assert shop.value("select count(*) from rat.ledger where note is null") == 4
    shop.write({"landing/b.csv": "id\n2\n"})
    assert shop.step("bronze.raw").rows_in == 1, "the file of before is not read again"
    assert shop.entries("silver.t")[1:] == entries[1:]
