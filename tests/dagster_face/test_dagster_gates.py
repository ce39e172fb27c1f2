"""A candidate that a gate rejects, or whose gate cannot run, leaves no trace that a reader or Dagster would believe:
the table is the one of before, no materialization is recorded, and nothing below it is started.

Sixty failures and both executors with RATATOUILLE_TRIALS=10; every day a few in one process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

GOOD = "id,amount,city,note\n1,10,Lyon,ab\n2,20,Nice,cd\n3,30,Lyon,ef\n"
# One bad row for every kind of gate: a key twice, no amount, a city that nobody knows, a note that is no number.
BAD = "id,amount,city,note\n1,-5,Lyon,ab\n1,,Oz,x\n3,999,,toolong\n"
KINDS = {
    "unique": "columns: {id: {checks: [unique]}}",
    "not_null": "columns: {amount: {checks: [not_null]}}",
    "positive": "columns: {amount: {checks: [positive]}}",
    "range": "columns: {amount: {checks: [{range: {min: 0, max: 100}}]}}",
    "accepted": "columns: {city: {checks: [{accepted_values: [Lyon, Nice]}]}}",
    "relationships": "columns: {id: {checks: [{relationships: {to: bronze.ids, column: id}}]}}",
    "sql": 'checks: {a: {sql: "select * from {{ this }} where amount > 100"}}',
    "completeness": "checks: {a: {check: completeness, columns: [id, amount, city], at_least: 0.95}}",
    "a gate that cannot be computed": 'checks: {a: {sql: "select error(city) from {{ this }} where amount > 100"}}',
    "a gate that divides": "checks: {a: {sql: \"select * from {{ this }} where cast(case when note = 'x' then note else '1' end as integer) = 0\"}}",
}
PUBLISHED = "select {0!r} as name, count(*) as n, sum(hash(t)::hugeint)::varchar as said from {0} t"
RUN = """
import sys
import dagster as dg
from ratatouille.dagster.code_location import definitions

def everything():
    return definitions().get_repository_def().get_job("shop_job")

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        with dg.execute_job(dg.reconstructable(everything), instance=instance) as result:
            print(result.run_id)
"""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "executor", ["in_process", "multiprocess"] if os.environ.get("RATATOUILLE_TRIALS", "1") != "1" else ["in_process"]
)
def test_what_a_gate_rejects_leaves_no_trace(
    kitchen, instance, tmp_path: Path, trials: Callable[[int], int], figure: Callable[..., None], executor: str
) -> None:
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(trials(6) if trials(1) > 1 else len(KINDS))]
    files = {"pipelines/shop/bronze/rows.csv": GOOD, "pipelines/shop/bronze/ids.csv": "id\n1\n2\n"}
    files["pipelines/shop/bronze/ids.csv"] += "3\n"
    for number, kind in enumerate(kinds):
        files[f"pipelines/shop/silver/g{number}.sql"] = (
            f"select *, {number} as number from {{{{ ref('bronze.rows') }}}}"
        )
        files[f"pipelines/shop/silver/g{number}.yaml"] = KINDS[kind] + "\n"
        files[f"pipelines/shop/gold/d{number}.sql"] = f"select count(*) as n from {{{{ ref('silver.g{number}') }}}}"
    assert kitchen.write(files).rat("run")[0] == 0
    gated = [f"silver.g{number}" for number in range(len(kinds))]
    below = [f"gold.d{number}" for number in range(len(kinds))]
    published = " union all ".join(PUBLISHED.format(name) for name in [*gated, *below])
    before = kitchen.rows(published)
    # The relationship fails because the other side loses a row, all else because the rows are bad.
    kitchen.write({"pipelines/shop/bronze/rows.csv": BAD, "pipelines/shop/bronze/ids.csv": "id\n1\n"})
    if executor == "in_process":
        job = kitchen.defs().resolve_implicit_global_asset_job_def()
        run_id = job.execute_in_process(instance=instance, raise_on_error=False).run_id
    else:
        (tmp_path / "everything.py").write_text(RUN)
        env = {**os.environ, "DAGSTER_HOME": str(tmp_path / "dagster-home"), "RATATOUILLE_WORKSPACE": str(kitchen.root)}
        command = [sys.executable, str(tmp_path / "everything.py")]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        run_id = done.stdout.split()[-1]
    records = [record.event_log_entry.dagster_event for record in instance.get_records_for_run(run_id).records]
    events = [event for event in records if event is not None]
    failed = {event.step_key for event in events if event.event_type == dg.DagsterEventType.STEP_FAILURE}
    started = {event.step_key for event in events if event.event_type == dg.DagsterEventType.STEP_START}
    made = {
        event.asset_key.to_user_string().replace("/", ".")
        for event in events
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
    }
    wrong = [f"{name} is materialized" for name in made & {*gated, *below}]
    wrong += [f"{name} did not fail" for name in gated if name.replace(".", "__") not in failed]
    wrong += [f"{name} was started" for name in below if name.replace(".", "__") in started]
    wrong += [f"{row} was {old}" for old, row in zip(before, kitchen.rows(published), strict=True) if old != row]
    figure(
        f"candidates that a gate rejects, {executor}",
        size=f"{len(kinds)} gates of {len(KINDS)} kinds",
        wrong=len(wrong),
    )
    assert not wrong, "\n".join(wrong)
    assert "bronze.rows" in made, "what is above them was built"
