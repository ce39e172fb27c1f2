"""Columns that change: six kinds of drift, in files that land and in queries, under each policy. One table, no surprises.

add · drop · rename · widen (values that the type cannot hold) · narrow (values that need less) · reorder
"""

from __future__ import annotations

FIRST = "id,amount,note\n1,1.50,x\n2,2.50,y\n"
LANDS = {
    "add": "id,amount,note,extra\n3,3.50,z,e\n",
    "drop": "id,note\n3,z\n",
    "rename": "id,price,note\n3,3.50,z\n",
    "widen": "id,amount,note\n9999999999,3.50,z\n4,4.50,z\n",
    "narrow": "id,amount,note\n3,3,z\n",
    "reorder": "note,id,amount\nz,3,3.50\n",
}
DECLARED = "columns: {id: integer, amount: 'decimal(10,2)', note: varchar}"
FILES = {"text": "{}", "declared": f"{{{DECLARED}}}", "optional": f"{{{DECLARED}, optional: [amount]}}"}
JOINS, NULL, ASIDE, REJECT, FITS, STOPS = "joins", "null", "set aside", "a row is rejected", "fits", "stops"
AFTER_FILES = {
    # what becomes of the file:  text (nothing declared), declared, declared and optional
    "add": (JOINS, JOINS, JOINS),
    "drop": (STOPS, ASIDE, NULL),
    "rename": (STOPS, ASIDE, JOINS),
    "widen": (FITS, REJECT, REJECT),
    "narrow": (FITS, FITS, FITS),
    "reorder": (FITS, FITS, FITS),
}


def of_file(step, columns: list[str], amounts: list[object]) -> str:
    """What became of the second file, in the words of the table."""
    if step.set_aside:
        assert len(amounts) == 2, step
        return ASIDE
    if step.error:
        assert "its columns changed" in step.error["what"] and "--accept-schema" in step.error["next"], step
        return STOPS
    if step.rows_rejected:
        assert step.rows_in == step.rows_written + step.rows_rejected
        return REJECT
    assert step.rows_written == step.rows_in, step
    if len(columns) > 3:
        return JOINS
    return NULL if None in amounts else FITS


def test_drift_in_files_is_met_as_the_source_says(shop, figure):
    wrong = []
    for policy, source in FILES.items():
        for drift in LANDS:
            name = f"{policy}_{drift}"
            shop.write(
                {
                    f"pipelines/bronze/{name}.sql": f"select * from {{{{ source('landing/{name}/*.csv') }}}}",
                    f"pipelines/bronze/{name}.yaml": "materialize: append\nmax_quarantine: 0.6\n"
                    f"sources:\n  landing/{name}/*.csv: {source}\n",
                    f"landing/{name}/1.csv": FIRST,
                }
            )
    assert {step.status for step in shop.run().steps} == {"built"}
    for name in (f"{policy}_{drift}" for policy in FILES for drift in LANDS):
        shop.write({f"landing/{name}/2.csv": LANDS[name.partition("_")[2]]})
    result = shop.run()
    for position, policy in enumerate(FILES):
        for drift, wanted in AFTER_FILES.items():
            asset = f"bronze.{policy}_{drift}"
            held = [c for (c,) in shop.rows(f"select column_name from (describe {asset})") if c[0] != "_"]
            amounts = [row[0] for row in shop.rows(f"select amount from {asset} where note is not null")]
            found = of_file(result.step(asset), held, amounts)
            if found != wanted[position]:
                wrong.append(f"{asset}: {found}, not {wanted[position]}: {result.step(asset)}")
            if shop.value(f"select count(*) from {asset} where note in ('x', 'y')") != 2:
                wrong.append(f"{asset}: rows of the first file are gone")
    figure("drift of columns in landing files, 6 kinds x 3 policies", size="18", wrong=len(wrong))
    assert not wrong, "\n".join(wrong)


BEFORE = "select 1::integer as id, 2::bigint as amount, 'x' as note"
QUERIES = {
    "add": "select 1::integer as id, 2::bigint as amount, 'x' as note, 4 as extra",
    "drop": "select 1::integer as id, 'x' as note",
    "rename": "select 1::integer as id, 2::bigint as price, 'x' as note",
    "widen": "select 1::bigint as id, 2::bigint as amount, 'x' as note",
    "narrow": "select 1::integer as id, 2::integer as amount, 'x' as note",
    "reorder": "select 'x' as note, 2::bigint as amount, 1::integer as id",
}
AFTER_QUERIES = {
    # what becomes of the edit:  a plain run, on_change: forward, rat run -f --accept-schema
    "add": ("built", "built", "built"),
    "drop": ("failed", "failed", "built"),
    "rename": ("failed", "failed", "built"),
    "widen": ("failed", "failed", "built"),
    "narrow": ("failed", "built", "built"),
    "reorder": ("built", "built", "built"),
}


def test_drift_in_queries_stops_what_would_be_lost_until_it_is_accepted(shop, figure):
    wrong = []
    policies = ("plain", "forward", "accepted")
    for policy in policies:
        for drift in QUERIES:
            yaml = "materialize: merge\nunique_key: id\n" + "on_change: forward\n" * (policy == "forward")
            shop.write(
                {f"pipelines/silver/{policy}_{drift}.sql": BEFORE, f"pipelines/silver/{policy}_{drift}.yaml": yaml}
            )
    assert {step.status for step in shop.run().steps} == {"built"}
    before = {f"silver.{p}_{d}": shop.rows(f"describe silver.{p}_{d}") for p in policies for d in QUERIES}
    for policy in policies:
        for drift, query in QUERIES.items():
            shop.write({f"pipelines/silver/{policy}_{drift}.sql": query})
    plain = shop.run(*(f"silver.{p}_{d}" for p in policies[:2] for d in QUERIES))
    accepted = shop.run(*(f"silver.accepted_{d}" for d in QUERIES), force=True, accept_schema=True)
    for position, policy in enumerate(policies):
        for drift, wanted in AFTER_QUERIES.items():
            asset = f"silver.{policy}_{drift}"
            step = (accepted if policy == "accepted" else plain).step(asset)
            if step.status != wanted[position]:
                wrong.append(f"{asset}: {step.status}, not {wanted[position]}: {step.error or step.reason}")
            same = shop.rows(f"describe {asset}") == before[asset]
            if step.status == "failed" and not (same and step.error["next"]):
                wrong.append(f"{asset}: failed, and the table changed: {step.error}")
    figure("drift of columns in queries, 6 kinds x 3 policies", size="18", wrong=len(wrong))
    assert not wrong, "\n".join(wrong)
