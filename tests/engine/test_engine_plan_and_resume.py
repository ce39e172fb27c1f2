"""Which asset runs and why; rollback and holds; resume after a kill; leases; retries."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from ratatouille.engine import Request, open_workbench, run
from ratatouille.errors import RequestError
from ratatouille.lake import roll_back

CHAIN = {
    "pipelines/bronze/a.sql": "select 1 as n",
    "pipelines/silver/b.sql": "select n from {{ ref('bronze.a') }}",
    "pipelines/gold/c.sql": "select n from {{ ref('silver.b') }}",
}


def statuses(result):
    return {step.asset: step.status for step in result.steps}


def test_a_bare_name_runs_that_asset_and_warns_about_stale_inputs(shop):
    shop.write(CHAIN)
    shop.run()
    shop.write({"pipelines/bronze/a.sql": "select 2 as n"})
    result = shop.run("gold.c")
    assert statuses(result) == {"gold.c": "skipped"}
    assert any("bronze.a is stale" in warning for warning in result.warnings)
    assert statuses(shop.run("+gold.c")) == dict.fromkeys(["bronze.a", "silver.b", "gold.c"], "built")


def test_an_asset_whose_input_was_never_built_says_what_to_run(shop):
    shop.write(CHAIN)
    error = shop.step("silver.b").error
    assert "bronze.a, which was never built" in error["what"]
    assert "rat run +silver.b" in error["next"]
    for reads in ("ref", "changes"):
        shop.write({"pipelines/gold/p.py": f"def build(context):\n    return context.{reads}('bronze.a')\n"})
        error = shop.step("gold.p").error
        assert "bronze.a, which was never built" in error["what"] and "rat run +gold.p" in error["next"], error


def test_forcing_rebuilds_what_was_named_and_below_it_becomes_stale(shop):
    shop.write(CHAIN)
    shop.run()
    assert statuses(shop.run("silver.b", force=True)) == {"silver.b": "built"}
    planned = {step.asset: (step.action, step.rule) for step in shop.plan().steps}
    assert planned["bronze.a"] == ("skip", "fresh")
    assert planned["gold.c"] == ("build", "inputs changed")


def test_every_rule_of_the_plan(shop):
    shop.write(CHAIN)
    assert {step.rule for step in shop.plan().steps} == {"new"}
    shop.run()
    assert {step.rule for step in shop.plan().steps} == {"fresh"}
    assert {step.rule for step in shop.plan(force=True).steps} == {"forced"}
    shop.write({"pipelines/bronze/a.sql": "select 2 as n", "pipelines/bronze/now.sql": "select now() as t"})
    rules = {step.asset: step.rule for step in shop.plan().steps}
    assert rules == {
        "bronze.a": "code changed",
        "silver.b": "inputs changed",
        "gold.c": "inputs changed",
        "bronze.now": "new",
    }
    shop.run()
    assert shop.plan("bronze.now").steps[0].rule == "always"


def test_a_description_changes_the_comment_and_not_the_data(shop):
    shop.write(CHAIN | {"pipelines/bronze/a.yaml": "description: one"})
    shop.run()
    shop.write({"pipelines/bronze/a.yaml": "description: two"})
    assert shop.run().status == "fresh"


def test_an_unknown_name_is_refused_with_the_near_miss(shop):
    shop.write(CHAIN)
    with pytest.raises(RequestError, match=r"silver\.b"):
        shop.run("silver.bb")


def test_a_merge_without_new_rows_leaves_what_is_below_fresh(shop):
    shop.write(
        {
            "pipelines/bronze/a.sql": "select i as id, i % 2 as odd from range(4) t(i)",
            "pipelines/silver/b.sql": "select id from {{ ref('bronze.a') }}"
            "{% if is_incremental() %} where id > {{ watermark('id') }} {% endif %}",
            "pipelines/silver/b.yaml": "materialize: merge\nunique_key: id",
            "pipelines/gold/c.sql": "select count(*) as n from {{ ref('silver.b') }}",
        }
    )
    shop.run()
    shop.write({"pipelines/bronze/a.sql": "select i as id, i % 3 as odd from range(4) t(i)"})
    result = shop.run()
    assert result.step("silver.b").rows_written == 0
    assert shop.plan("gold.c").steps[0].rule == "fresh"


def roll(shop, asset, to):
    with open_workbench(shop.root, write=True) as bench:
        token = bench.journal.take_lease(asset, "by-hand")
        entry = roll_back(bench.lake, bench.journal, "by-hand", asset, to, token)
        bench.journal.drop_lease(asset, token)
    return entry


def test_rollback_restores_rows_and_memory_and_holds_the_asset(shop):
    shop.write(
        {
            "pipelines/bronze/sales.sql": "select * from {{ source('landing/*.csv') }}",
            "pipelines/bronze/sales.yaml": "materialize: append",
            "pipelines/silver/n.sql": "select count(*) as n from {{ ref('bronze.sales') }}",
            "landing/1.csv": "id\n1\n",
        }
    )
    first = shop.step("bronze.sales")
    shop.write({"landing/2.csv": "id\n2\n"})
    shop.run()
    entry = roll(shop, "bronze.sales", first.version)
    assert (entry.action, entry.restored_version, entry.rows_total) == ("rollback", first.version, 1)
    assert shop.value("select count(*) from bronze.sales") == 1
    planned = {step.asset: step.rule for step in shop.plan().steps}
    assert planned == {"bronze.sales": "on hold", "silver.n": "inputs changed"}
    assert statuses(shop.run())["bronze.sales"] == "held"
    assert shop.value("select n from silver.n") == 1
    shop.write({"pipelines/bronze/sales.sql": "select *, 1 as extra from {{ source('landing/*.csv') }}"})
    after = shop.step("bronze.sales")
    assert (after.status, after.rows_total) == ("built", 2), "a change of code lets it go on, with both files again"


def test_rollback_across_a_change_of_columns(shop):
    shop.write({"pipelines/bronze/a.sql": "select 1 as n"})
    first = shop.step("bronze.a")
    shop.write({"pipelines/bronze/a.sql": "select 2 as n, 'x' as letter"})
    shop.run()
    roll(shop, "bronze.a", first.version)
    assert [row[0] for row in shop.rows("describe bronze.a")] == ["n"]
    assert shop.value("select n from bronze.a") == 1


def test_rollback_to_a_version_that_is_not_there_names_those_that_are(shop):
    shop.write({"pipelines/bronze/a.sql": "select 1 as n"})
    first = shop.step("bronze.a")
    with pytest.raises(RequestError) as refused:
        roll(shop, "bronze.a", 999)
    assert str(first.version) in refused.value.where


KILLED = """
import os, sys
from pathlib import Path
from ratatouille.engine import Request, open_workbench, run

def kill_when_done(event):
    if event.stage == "done" and event.asset == sys.argv[2]:
        os.kill(os.getpid(), 9)

with open_workbench(Path(sys.argv[1]), write=True) as bench:
    run(bench, Request(), kill_when_done)
"""


def test_a_killed_run_is_resumed_and_what_it_finished_is_not_built_again(shop):
    # bronze.t is stale at every request: only the memory of the killed run can spare it.
    shop.write(CHAIN | {"pipelines/bronze/a.sql": "select 1 as n, now() as t"})
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(shop.root), "bronze.a"], check=False)
    assert done.returncode == -9
    version = shop.entries("bronze.a")[0].version
    result = shop.run()
    assert result.resumed
    assert statuses(result) == {"bronze.a": "skipped", "silver.b": "built", "gold.c": "built"}
    assert shop.entries("bronze.a")[0].version == version
    again = shop.run()
    assert not again.resumed
    assert statuses(again)["bronze.a"] == "built"


def test_a_dead_owner_loses_its_lease_and_a_living_one_keeps_it(shop):
    shop.write(CHAIN)
    shop.run()
    with open_workbench(shop.root, write=True) as bench:
        mine = bench.journal.take_lease("bronze.a", "me")
        assert mine is not None
        assert bench.journal.take_lease("bronze.a", "other") is None
        bench.journal.do("update leases set pid = 999999999")
        stolen = bench.journal.take_lease("bronze.a", "other")
        assert stolen == mine + 1
        assert bench.journal.holds_leases({"bronze.a": mine}) == ["bronze.a"]


def test_a_step_whose_lease_was_taken_publishes_nothing(shop):
    shop.write(CHAIN)
    shop.run()
    before = shop.entries("bronze.a")[0].version
    taken = []

    def steal(event):
        if event.stage == "publish" and not taken:
            bench.journal.do("update leases set token = token + 1, held = 0 where asset = 'bronze.a'")
            taken.append(True)

    with open_workbench(shop.root, write=True) as bench:
        result = run(bench, Request(("bronze.a",), force=True), steal)
    assert taken
    assert len([e for e in shop.entries("bronze.a") if e.version > before]) == 0, result


def test_transient_errors_are_retried_and_others_are_not(shop):
    shop.write(
        {
            "pipelines/bronze/flaky.py": """
from pathlib import Path
from ratatouille.errors import TransientError

def build(context):
    tries = Path(__file__).with_name("_tries.txt")
    n = int(tries.read_text()) + 1 if tries.exists() else 1
    tries.write_text(str(n))
    if n < 3:
        raise TransientError("the server said 503")
    return [{"n": n}]
""",
            "pipelines/bronze/flaky.yaml": "retries: {max: 3, delay: 10ms}",
        }
    )
    step = shop.step("bronze.flaky")
    assert (step.status, step.attempts) == ("built", 3), step.error


def test_two_runs_of_one_asset_at_once_build_it_once_more_at_most(shop):
    shop.write(CHAIN)
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from ratatouille.engine import Request, open_workbench, run
        with open_workbench(Path(sys.argv[1]), write=True) as bench:
            sys.exit(run(bench, Request()).failed)
    """)
    runs = [subprocess.Popen([sys.executable, "-c", code, str(shop.root)]) for _ in range(3)]
    assert [one.wait(120) for one in runs] == [0, 0, 0]
    assert len(shop.entries("bronze.a")) == 1


def test_the_journal_may_be_deleted(shop):
    shop.write(CHAIN)
    shop.run()
    for name in ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"):
        (shop.root / ".rat" / name).unlink(missing_ok=True)
    assert shop.run().status == "fresh"


def test_a_moved_and_a_copied_workspace_go_on_by_themselves(shop, tmp_path):
    import shutil

    shop.write(CHAIN)
    shop.run()
    copy = type(shop)(tmp_path / "copy")
    shutil.copytree(shop.root, copy.root)
    copy.write({"pipelines/bronze/a.sql": "select 2 as n"})
    copy.run()
    assert (copy.value("select n from gold.c"), shop.value("select n from gold.c")) == (2, 1)
    moved = type(shop)(tmp_path / "moved")
    shop.root.rename(moved.root)
    assert moved.value("select n from gold.c") == 1
    assert moved.run().status == "fresh"


def test_odd_folder_names(new_shop):
    shop = new_shop('it\'s [a] *odd* "folder"?').write(CHAIN)
    shop.write(
        {"landing/x [1].csv": "id\n1\n", "pipelines/bronze/l.sql": "select * from {{ source('landing/*.csv') }}"}
    )
    shop.write({"pipelines/bronze/l.yaml": "materialize: append"})
    result = shop.run()
    assert set(statuses(result).values()) == {"built"}, [s.error for s in result.steps]
    assert shop.value("select _file from bronze.l") == "landing/x [1].csv"
