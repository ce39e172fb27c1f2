"""dbt projects on the lake: candidates, tests, one commit or none. Real dbt, tiny projects: a call takes seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ratatouille import dbt
from ratatouille.dbt_project.build import Built, build
from ratatouille.dbt_project.copy import Asked
from ratatouille.dbt_project.project import read_selection, selected
from ratatouille.engine import holds, look, open_workbench
from ratatouille.engine.plan import Outer
from ratatouille.errors import GateFailed, RequestError, StepFailed
from ratatouille.project import load

pytestmark = pytest.mark.slow  # dbt takes seconds to start

DBT = "pipelines/shop/dbt"
PLAIN_SCHEMAS = """
{% macro generate_schema_name(custom_schema_name, node) %}{{ custom_schema_name or target.schema }}{% endmacro %}
"""
PROJECT = """
name: shop
profile: not_ours
models:
  shop:
    silver: {+schema: silver, +materialized: table}
    gold: {+schema: gold, +materialized: table}
"""
SALES = "id,store,amount\n1,a,10\n2,a,20\n3,b,5\n"
SOURCES = """
sources:
  - name: bronze
    schema: bronze
    tables: [{name: sales}]
"""
CLEAN = "select id, store, amount from {{ source('bronze', 'sales') }}"
STORES = "select store, sum(amount) as total, count(*) as n from {{ ref('clean') }} group by store"


def written(shop: Any, files: Mapping[str, str]) -> Path:
    """A dbt project in the workspace, with plain schema names."""
    named = {"dbt_project.yml": PROJECT, "macros/schemas.sql": PLAIN_SCHEMAS, "models/sources.yml": SOURCES, **files}
    shop.write({f"{DBT}/{name}": text for name, text in named.items()})
    return Path(shop.root / DBT)


def built(shop: Any, select: str = "", *, run_id: str = "", **options: Any) -> Built:
    outer = Outer(run_id, "a test") if run_id else None
    asked = Asked(shop.root / DBT, select, vars=options.pop("vars", {}))
    return build(shop.root, asked, outer=outer, **options)


def checked(**columns: list[Any]) -> str:
    """A schema.yml: `clean__id=["unique"]` puts a test on the column `id` of the model `clean`."""
    models: dict[str, list[dict[str, Any]]] = {}
    for name, tests in columns.items():
        model, _, column = name.partition("__")
        models.setdefault(model, []).append({"name": column, "data_tests": tests})
    return json.dumps({"models": [{"name": model, "columns": each} for model, each in models.items()]})


def sales(shop: Any, rows: str) -> None:
    shop.write({"pipelines/bronze/sales.csv": "id,store,amount\n" + rows})
    shop.run("bronze.sales")


def versions(shop: Any, *names: str) -> list[int]:
    return [shop.entries(name)[0].version for name in names]


def files_of(shop: Any, *names: str) -> int:
    return sum(len(list((shop.root / ".rat/data" / name.replace(".", "/")).rglob("*.parquet"))) for name in names)


@pytest.mark.usefixtures("warm_dbt")
def test_a_failing_test_keeps_readers_on_the_last_good_version_of_every_model_of_the_selection(shop: Any) -> None:
    warns = {"accepted_values": {"arguments": {"values": ["a", "b"]}, "config": {"severity": "warn"}}}
    written(
        shop,
        {
            "models/silver/clean.sql": CLEAN,
            "models/gold/stores.sql": STORES,
            "models/gold/numbers.sql": "select count(*) as n from {{ ref('stores') }}",
            "models/tests.yml": checked(clean__id=["not_null"], clean__store=[warns], stores__store=["unique"]),
            "tests/no_negative_total.sql": "select * from {{ ref('stores') }} where total < 0",
        },
    )
    sales(shop, "1,a,10\n2,a,20\n3,b,5\n")
    first = built(shop)
    assert (first.status, first.tests_passed, len(first.checks)) == ("built", 4, 4)
    names = ("silver.clean", "gold.stores", "gold.numbers")
    assert set(versions(shop, *names)) == {shop.entries("gold.stores")[0].version}  # one commit
    kept = files_of(shop, *names)

    sales(shop, "1,a,10\n2,a,20\n3,b,-500\n4,c,1\n")
    failed = built(shop)

    assert failed.status == "failed" and isinstance(failed.error, GateFailed)
    assert "the test no_negative_total failed: 1 row" in failed.error.what
    assert "gold.stores" in failed.error.where and "tests/no_negative_total.sql" in failed.error.where
    assert f"still see version {first.steps[0].version}" in failed.error.state
    said = {check.name: (check.passed, check.severity, check.bad) for check in failed.checks}
    assert said["no_negative_total"] == (False, "error", 1)
    assert said["not_null_clean_id"] == (True, "error", 0)
    assert shop.rows("select total from gold.stores order by 1") == [(5,), (30,)]
    assert shop.value("select count(*) from silver.clean") == 3
    assert versions(shop, *names) == [step.version for step in first.steps]
    assert files_of(shop, *names) == kept  # what was staged is gone
    assert not list((shop.root / ".rat/dbt").iterdir())

    sales(shop, "1,a,10\n2,a,20\n3,b,500\n4,c,1\n")
    again = built(shop)
    assert again.status == "built"
    assert shop.rows("select store, total from gold.stores order by 1") == [("a", 30), ("b", 500), ("c", 1)]
    warned = next(check for check in again.checks if check.name.startswith("accepted_values"))
    assert (warned.passed, warned.severity, warned.bad) == (False, "warn", 1)  # seen, and published
    entry = shop.entries("gold.stores")[0]
    assert entry.materialize == "dbt" and entry.rows_total == 3 and entry.rows_in == 4
    assert [check["name"] for check in entry.checks] == ["no_negative_total", "unique_stores_store"]


@pytest.mark.usefixtures("warm_dbt")
def test_an_incremental_model_replaces_the_slices_that_its_delta_names_and_nothing_else(shop: Any) -> None:
    laps = """
    {{ config(materialized='incremental', unique_key=['session', 'kind'], on_schema_change='append_new_columns') }}
    select store as session, 'lap' as kind, id, amount{{ var('more', '') }}
    from {{ source('bronze', 'sales') }}
    {% if is_incremental() %}
    where store not in (select session from {{ this }}) or store in ({{ var('again', "''") }})
    {% endif %}
    """
    written(
        shop,
        {
            "models/silver/laps.sql": laps,
            "models/silver/log.sql": "{{ config(materialized='incremental') }} select count(*) as n"
            " {% if is_incremental() %}, (select max(n) from {{ this }}) {% else %}, 0 {% endif %} as before"
            " from {{ ref('laps') }}",
            "models/tests.yml": checked(laps__id=["unique", "not_null"]),
        },
    )
    sales(shop, "1,a,10\n2,a,20\n3,b,5\n")
    assert built(shop).steps[0].mode == "full"
    sales(shop, "1,a,11\n2,a,20\n3,b,500\n4,c,1\n5,c,2\n")
    second = built(shop)  # c is new; what changed in a and b was not asked for
    laps_step = next(step for step in second.steps if step.asset == "silver.laps")
    assert (laps_step.mode, laps_step.rows_written, laps_step.rows_total) == ("incremental", 2, 5)
    assert shop.rows("select session, id, amount from silver.laps order by id") == [
        ("a", 1, 10), ("a", 2, 20), ("b", 3, 5), ("c", 4, 1), ("c", 5, 2),
    ]  # fmt: skip

    sales(shop, "1,a,11\n3,b,500\n4,c,1\n5,c,2\n")
    third = built(shop, vars={"again": "'a'", "more": ", amount > 10 as good"})
    laps_step = next(step for step in third.steps if step.asset == "silver.laps")
    assert (laps_step.rows_written, laps_step.rows_total) == (1, 4)  # two rows of slice a went, one came
    assert shop.rows("select session, id, amount, good from silver.laps order by id") == [
        ("a", 1, 11, True), ("b", 3, 5, None), ("c", 4, 1, None), ("c", 5, 2, None),
    ]  # fmt: skip
    # Each run appended what it saw, and `this` were the published rows.
    assert shop.rows("select n, before from silver.log order by n") == [(3, 0), (4, 5), (5, 3)]

    sales(shop, "1,a,11\n1,b,500\n")
    failing = built(shop, vars={"again": "'b'"})
    assert isinstance(failing.error, GateFailed) and "unique_laps_id" in failing.error.what  # 1 is in slice a already
    assert shop.value("select count(*) from silver.laps") == 4

    sales(shop, "7,z,1\n")
    full = built(shop, full_refresh=True)
    assert full.status == "built" and shop.rows("select id from silver.laps") == [(7,)]


def test_two_selections_one_after_the_other_and_the_second_reads_what_was_pinned(shop: Any) -> None:
    written(
        shop,
        {
            "models/silver/clean.sql": CLEAN,
            "models/silver/only_here.sql": "{{ config(materialized='ephemeral') }} select * from {{ ref('clean') }}",
            "models/gold/stores.sql": "select store, sum(amount) as total from {{ ref('only_here') }} group by store",
            "models/gold/best.sql": "{{ config(materialized='view') }} select * from {{ ref('stores') }} -- memory.gold.x\n"
            "where total = (select max(total) from {{ ref('stores') }}) and 'memory.gold' <> 'lake'",
            "seeds/names.csv": "store,name\na,Anna\nb,Bo\n",
            "models/tests.yml": checked(
                clean__id=["unique"],
                # Read with gold, because it cannot be true before gold is built.
                clean__store=[{"relationships": {"arguments": {"to": "ref('stores')", "field": "store"}}}],
                stores__store=[{"relationships": {"arguments": {"to": "ref('names')", "field": "store"}}}],
            ),
        },
    )
    sales(shop, "1,a,10\n2,a,20\n3,b,5\n")
    with pytest.raises(RequestError) as missing:
        built(shop, "gold")
    assert "reads silver.clean, which is not in the lake" in missing.value.what
    assert str(missing.value).count("\n") == 3

    silver = built(shop, "silver names")
    assert [step.asset for step in silver.steps] == ["silver.clean", "default.names"]
    assert [check.name for check in silver.checks] == ["unique_clean_id"]
    assert shop.rows('select * from "default".names order by store') == [("a", "Anna"), ("b", "Bo")]
    before = shop.entries("silver.clean")[0]

    meanwhile: list[Built] = []

    def publish_silver_meanwhile(line: str) -> None:
        if "Running with dbt" in line and not meanwhile:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            (child,) = [int(pid) for pid in children if b"dbt" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            os.kill(child, signal.SIGSTOP)  # it has read nothing yet
            sales(shop, "1,a,10\n2,a,20\n3,b,5000\n")
            meanwhile.append(built(shop, "silver"))
            os.kill(child, signal.SIGCONT)

    gold = built(shop, "gold", listener=publish_silver_meanwhile)
    assert gold.error is None and meanwhile[0].error is None
    assert shop.rows("select store, total from gold.best") == [("a", 30)]  # of the version that was pinned
    entry = shop.entries("gold.stores")[0]
    assert entry.inputs == {"silver.clean": before.version, "default.names": before.version}  # names: for its test
    assert before.version < shop.entries("silver.clean")[0].version
    assert shop.entries("gold.best")[0].materialize == "view"
    assert {check.name.partition("_")[0] for check in gold.checks} == {"relationships"} and len(gold.checks) == 2

    assert built(shop, "gold", skip_fresh=True).status == "built"  # silver has a newer version
    assert shop.rows("select store, total from gold.best") == [("b", 5000)]
    skipped = built(shop, "gold", skip_fresh=True)
    assert skipped.status == "skipped" and skipped.dbt_seconds == 0
    assert skipped.reason == f"unchanged since version {shop.entries('gold.stores')[0].version}"
    assert len(skipped.checks) == 2


BEFORE = {
    "ignoring": "{{ config(materialized='incremental') }} select 1 as id, 10 as n",
    "appending": "{{ config(materialized='incremental', on_schema_change='append_new_columns') }} select 1 as id, 10 as n",
    "syncing": "{{ config(materialized='incremental', on_schema_change='sync_all_columns') }} select 1 as id, 10 as n",
    "retyping": "{{ config(materialized='incremental', unique_key='ID', on_schema_change='sync_all_columns') }}"
    " select unnest([1, 2]) as id, sum(10) as n",
    "failing": "{{ config(materialized='incremental', on_schema_change='fail') }} select 1 as id, 10 as n",
    "losing": "{{ config(materialized='incremental') }} select 1 as id, 10 as n",
    "merging": "{{ config(materialized='incremental', incremental_strategy='merge', unique_key='id') }} select 1 as id, 10 as n",
    "misnaming": "{{ config(materialized='incremental', unique_key='key') }} select 1 as id, 10 as keys",
}  # fmt: skip
AFTER = {
    "ignoring": "select 2::smallint as ID, 'new' as note, 20 as n",
    "appending": "select 2 as id, 'new' as note",
    "syncing": "select 2 as id, 'new' as note",
    "retyping": "select 1 as id, 2.5::double as n",
    "failing": "select 2 as id, 'text' as n",
    "losing": "select 2 as id",
    "merging": "select unnest([1, 1]) as id, unnest([20, 30]) as n",
    "misnaming": "select 2 as id, 20 as keys",
}


@pytest.mark.usefixtures("warm_dbt")
def test_what_on_schema_change_and_a_merge_allow_and_what_they_refuse(shop: Any) -> None:
    written(shop, {f"models/silver/{name}.sql": text for name, text in BEFORE.items()})
    assert built(shop).status == "built"  # a first run is full, so the misnamed key is not looked at
    later = {name: BEFORE[name].partition(" select")[0] + " " + text for name, text in AFTER.items()}
    written(shop, {f"models/silver/{name}.sql": text for name, text in later.items()})

    lines: list[str] = []
    refused = built(shop, listener=lines.append)
    said = " ".join(" ".join(lines).split())
    assert isinstance(refused.error, StepFailed)
    assert "silver.failing: its columns changed (of another type: n), and on_schema_change is fail" in said
    assert "silver.losing: the query has no column n any more" in said
    assert "silver.merging: the unique_key (id) of a merge must be unique and not null: 1 keys are there twice" in said
    assert "silver.misnaming: its unique_key names key, which is no column of it. Did you mean 'keys'?" in said
    assert shop.value("select count(*) from silver.ignoring") == 1  # one that is refused keeps the others out
    assert not list((shop.root / ".rat/data").rglob(f"{refused.run_id}*"))

    done = built(shop, "ignoring appending syncing retyping")
    assert done.error is None
    assert shop.rows("select * from silver.ignoring order by id") == [(1, 10), (2, 20)]
    assert shop.rows("select id, n, note from silver.appending order by id") == [(1, 10, None), (2, None, "new")]
    assert shop.rows("select * from silver.syncing order by id") == [(1, None), (2, "new")]
    assert [float(n) for (n,) in shop.rows("select n from silver.retyping order by id")] == [2.5, 10.0]
    assert dict(shop.entries("silver.retyping")[0].columns)["n"] == "DOUBLE"
    assert shop.entries("silver.retyping")[0].mode == "incremental"


KILLED = """
import os, signal, sys
from pathlib import Path
import ratatouille.dbt_project.build as dbt
from ratatouille.dbt_project.copy import Asked
from ratatouille.dbt_project.project import read_selection, selected
from ratatouille.engine.plan import Outer

def die(*arguments, **options):
    Path({root!r}, "staged").touch()
    os.kill(os.getpid(), signal.SIGKILL)

dbt.publish = die
dbt.build(Path({root!r}), Asked(Path({project!r})), outer=Outer("one-run", "a test"))
"""


def test_a_run_that_is_killed_between_its_tests_and_its_commit_is_healed_by_a_rerun(shop: Any) -> None:
    project = written(shop, {"models/silver/clean.sql": CLEAN, "models/gold/stores.sql": STORES})
    sales(shop, "1,a,10\n")
    first = built(shop)
    stood = files_of(shop, "silver.clean", "gold.stores")
    sales(shop, "1,a,10\n2,b,7\n")
    code = KILLED.format(root=str(shop.root), project=str(project))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL and (shop.root / "staged").exists()
    # Nobody's files, for upkeep to remove: one or more of each model, as many as DuckDB had threads for.
    assert files_of(shop, "silver.clean", "gold.stores") >= stood + 2
    assert shop.rows("select store from gold.stores") == [("a",)]
    assert versions(shop, "silver.clean", "gold.stores") == [step.version for step in first.steps]

    rerun = built(shop, run_id="another-run")
    assert rerun.status == "built" and shop.rows("select store from gold.stores order by 1") == [("a",), ("b",)]
    twice = built(shop, run_id="another-run")
    assert (twice.status, twice.reason) == ("built", "published by an earlier attempt") and twice.dbt_seconds == 0
    assert not list((shop.root / ".rat/dbt").iterdir())
    with open_workbench(shop.root) as bench:
        assert {step["status"] for step in bench.journal.steps("another-run")} == {"built"}


@pytest.mark.usefixtures("warm_dbt")
def test_a_secret_reaches_no_file_and_what_is_edited_meanwhile_is_not_published(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hunter2-hunter2"
    monkeypatch.setenv("SHOP_PASSWORD", secret)
    monkeypatch.setenv("SHOP_REGION", "north")
    shop.write({"workspace.yaml": "name: shop\nenv: [SHOP_REGION]\n"})
    written(
        shop,
        {
            "models/silver/clean.sql": CLEAN
            + " where '{{ env_var('SHOP_REGION') }}' = 'north' and '{{ var('loud', '') }}' = ''"
        },
    )
    sales(shop, "1,a,10\n")
    assert built(shop).status == "built"
    assert shop.value("select count(*) from silver.clean") == 1

    def edit_meanwhile(line: str) -> None:
        if "Running with dbt" in line:
            written(shop, {"models/silver/clean.sql": CLEAN + " where false"})

    with pytest.raises(StepFailed) as edited:
        built(shop, listener=edit_meanwhile)
    assert "changed while it was built" in edited.value.what and len(shop.entries("silver.clean")) == 1

    written(shop, {"models/silver/clean.sql": CLEAN + " where '{{ env_var('SHOP_PASSWORD') }}' = 'x'"})
    with pytest.raises(StepFailed) as refused:
        built(shop)
    assert "SHOP_PASSWORD" in refused.value.what and secret not in str(refused.value)
    for path in (path for path in (shop.root / ".rat").rglob("*") if path.is_file()):
        assert secret.encode() not in path.read_bytes(), path


SLOW = "select sum(a.range * b.range) as n from range(10000000) a, range(10000000) b"


def test_dbt_goes_when_the_process_that_wants_its_result_is_killed(shop: Any) -> None:
    project = written(shop, {"models/silver/slow.sql": SLOW})
    code = f"from ratatouille import dbt; dbt.build({str(project)!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not (orders := list((shop.root / ".rat/dbt").glob("*/staged.jsonl"))) or not _connected(orders[0].parent):
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.1)
        child = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0])
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 20
    while (
        Path(f"/proc/{child}").exists() and Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    ):
        assert time.monotonic() < deadline, "dbt goes on although nobody waits for it"
        time.sleep(0.1)


def _connected(folder: Path) -> bool:
    """Whether dbt is at work: it has compiled the model."""
    return bool(list(folder.glob("target/compiled/**/slow.sql")))


@pytest.mark.usefixtures("warm_dbt")
def test_a_held_table_keeps_its_selection_and_one_run_builds_a_table_once(shop: Any) -> None:
    written(shop, {"models/silver/clean.sql": CLEAN, "models/gold/stores.sql": STORES})
    sales(shop, "1,a,10\n")
    first = dbt.build(shop.root / DBT, "silver", workspace=shop.root)
    assert (first["status"], first["tests_passed"], first["models"]["silver.clean"]["rows_total"]) == (
        "completed",
        0,
        1,
    )
    assert json.loads(json.dumps(first)) == first
    with pytest.raises(RequestError) as overlap:
        built(shop, run_id=first["run_id"])
    assert "silver.clean, which this run has published" in overlap.value.what
    with open_workbench(shop.root, write=True) as bench:
        holds.roll_back(bench, "silver.clean", first["models"]["silver.clean"]["version"])
    held = dbt.build(shop.root / DBT)
    assert held["status"] == "held" and "rat release silver.clean" in held["reason"]
    assert dbt.build(shop.root / DBT, full_refresh=True)["status"] == "completed"
    (shown,) = [one for one in look.overview(load(shop.root)) if one.name == "gold.stores"]
    assert (shown.kind, shown.status, shown.rows) == ("dbt", "dbt", 1)


REFUSED = {
    "silver/p.py": ("Python model p", "def model(dbt, session):\n    return session.sql('select 1 as one')\n"),
    "silver/b.sql": ("a pre-hook", "{{ config(pre_hook='delete from x') }} select 1 as one"),
    "silver/a.sql": ("a post-hook", "{{ config(post_hook=['vacuum']) }} select 1 as one"),
    "silver/h.sql": ("a sql_header", "{{ config(sql_header='set threads = 1;') }} select 1 as one"),
    "silver/d.sql": ("database='other'", "{{ config(database='other') }} select 1 as one"),
    "silver/e.sql": ("materialized='external'", "{{ config(materialized='external') }} select 1 as one"),
    "silver/m.sql": (
        "incremental_strategy='microbatch'",
        (
            "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='t', batch_size='day',"
            " begin='2026-01-01') }} select 1 as t"
        ),
    ),
    "silver/u.sql": (
        "merge_update_columns",
        "{{ config(materialized='incremental', unique_key='a', merge_update_columns=['b']) }} select 1 as a, 2 as b",
    ),
    "silver/odd.sql": ("the name 'silver.a b'", "{{ config(alias='a b') }} select 1 as one"),
    "silver/ours.sql": ("the schema 'rat'", "{{ config(schema='rat', alias='ledger') }} select 1 as one"),
    "silver/far.sql": ("database='far'", "select * from {{ source('far', 't') }}"),
    "silver/out.sql": ("external_location", "select * from {{ source('out', 't') }}"),
    "../snapshots/s.sql": (
        "the snapshot s",
        "{% snapshot s %}{{ config(unique_key='id', strategy='check', check_cols='all') }}select 1 as id{% endsnapshot %}",
    ),
}
FAR = """
sources:
  - {name: far, database: far, tables: [{name: t}]}
  - {name: out, tables: [{name: t, meta: {external_location: t.csv}}]}
"""


@pytest.mark.usefixtures("warm_dbt")
def test_what_cannot_be_guarded_is_refused_by_the_run_too(shop: Any) -> None:
    written(shop, {f"models/{name}": text for name, (_, text) in REFUSED.items()})
    clocks = {
        f"{DBT}/macros/moment.sql": "{% macro moment() %}now(){% endmacro %}",
        f"{DBT}/models/silver/clock.sql": "select {{ moment() }} as seen_at",
        f"{DBT}/models/silver/stamp.sql": "select '{{ run_started_at }}' as made_at",
    }
    shop.write({f"{DBT}/models/far.yml": FAR, f"{DBT}/models/silver/fine.sql": "select 1 as one", **clocks})
    asked = Asked(Path(shop.root / DBT), "fine")
    copy, selection = read_selection(load(shop.root).workspace, asked)
    assert selection.names == ("silver.fine",)
    ids = {Path(node["original_file_path"]).name: one for one, node in copy.manifest["nodes"].items()}
    for name, (construct, _) in REFUSED.items():
        with pytest.raises(RequestError) as refused:
            selected(copy, asked, [ids[Path(name).name]])
        assert construct in refused.value.what and "cannot be guarded" in refused.value.what, name
        assert refused.value.where.endswith((".py", ".sql", ".yml"))

    shop.write({f"{DBT}/dbt_project.yml": PROJECT + 'on-run-end: ["drop table x"]\n'})
    with pytest.raises(RequestError) as refused:
        built(shop, "fine")
    assert "on-run-end: drop table x cannot be guarded" in refused.value.what
