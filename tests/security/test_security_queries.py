"""`rat query` and Workspace.query under attack: no statement writes, none reads what lies outside the lake."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from ratatouille.cli.entry import run_command
from ratatouille.engine import open_workbench
from ratatouille.errors import RatError
from ratatouille.handle import Workspace

SECRET = "what-lies-outside-7a1f"
WRITES = [
    "insert into silver.t values (2)", "delete from silver.t", "update silver.t set id = 9", "truncate silver.t",
    "drop table silver.t", "drop schema silver cascade", "create table silver.u as select 1", "create table u (i int)",
    "create view silver.v as select 1", "create or replace table silver.t as select 1", "create schema evil",
    "create macro evil() as 1", "create function evil() as 1", "create type e as enum ('a')", "create sequence s",
    "create secret x (type s3)", "create index i on silver.t (id)", "alter table silver.t add column x int",
    "merge into silver.t using (select 1 as id) s on (s.id = t.id) when matched then delete",
    "copy silver.t to '{out}'", "copy (select 1) to '{out}' (format csv)", "copy silver.t from '{file}'",
    "export database '{folder}'", "import database '{folder}'", "attach '{out}' as x", "attach '{out}' (type sqlite)",
    "detach lake", "use memory", "begin", "commit", "rollback", "checkpoint", "force checkpoint", "vacuum", "analyze",
    "install httpfs", "load httpfs", "load '{file}'", "force install spatial", "update extensions",
    "set memory_limit = '1MB'", "set global threads = 1", "reset memory_limit", "set allow_unsigned_extensions = true",
    "pragma enable_profiling", "pragma database_list", "pragma memory_limit = '1MB'", "call pragma_version()",
    "call lake.set_commit_message('x', 'y')", "call ducklake_expire_snapshots('lake', versions => [1])",
    "call ducklake_cleanup_old_files('lake', cleanup_all => true)", "call ducklake_merge_adjacent_files('lake')",
    "call ducklake_delete_orphaned_files('lake', cleanup_all => true)", "prepare p as select 1", "execute p",
    "deallocate p", "comment on table silver.t is 'x'", "explain analyze insert into silver.t values (3)",
    "explain insert into silver.t values (3)", "with x as (delete from silver.t returning *) select * from x",
    "with x as (insert into silver.t values (4) returning *) select * from x", "select 1 into silver.u",
    "select * from ducklake_expire_snapshots('lake', versions => [1])",
    "select * from ducklake_delete_orphaned_files('lake', cleanup_all => true, older_than => now())",
    "select * from ducklake_cleanup_old_files('lake', cleanup_all => true)",
    "select * from ducklake_add_data_files('lake', 't', '{file}', schema => 'silver')",
    "select * from ducklake_flush_inlined_data('lake')", "select * from ducklake_merge_adjacent_files('lake')",
    "select * from ducklake_rewrite_data_files('lake')", "select * from ducklake_set_option('lake', 'a', 'b')",
    "select * from query('insert into silver.t values (5)')", "select * from sqlite_query('lake', 'delete from x')",
    "select * from lake.set_commit_message('x', 'y')", "select nextval('s')", "select setseed(0.5)",
]  # fmt: skip
READS = [
    "select * from read_text('{file}')", "select content from read_blob('{file}')", "from '{file}'",
    "select * from read_csv('{file}')", "select * from read_csv_auto('{file}')", "select * from read_json('{file}')",
    "select * from read_json_objects('{file}')", "select * from read_ndjson('{file}')", "select * from sniff_csv('{file}')",
    "select * from read_parquet('{file}')", "select * from parquet_scan('{file}')", "select * from parquet_schema('{file}')",
    "select * from parquet_metadata('{file}')", "select * from parquet_kv_metadata('{file}')", "select * from glob('{folder}/*')",
    'select * from "{file}"', "select * from '{folder}/*.csv'", "select * from sqlite_scan('{file}', 't')",
    "select * from postgres_scan('host={folder}', 'public', 't')", "select * from mysql_scan('host=x', 'a', 'b')",
    "select * from query_table('{file}')", "select * from query('select * from read_text(''{file}'')')",
    "select getenv('RATATOUILLE_TEST_SECRET')", "select * from duckdb_secrets()", "select * from which_secret('{file}', 's3')",
    "select (select content from read_text('{file}'))", "with x as (from read_text('{file}')) select * from x",
    "select * from silver.t union all select content from read_text('{file}')",
    "select * from silver.t where exists (select * from read_text('{file}') where content like '%7a1f%')",
    "select * from read_text(['{file}'])", "select * from read_text('{folder}/' || 'secret.csv')",
    "pivot (from read_csv('{file}')) on a", "describe from '{file}'", "summarize '{file}'", "describe select * from '{file}'",
    "from read_text('{file}') select content", "values ((select content from read_text('{file}')))",
    "select * from (from '{file}')", "select * from silver.t, '{file}'", "select * from silver.t join read_text('{file}') on true",
    "select * from silver.t, lateral (select content from read_text('{file}'))", "select * from arrow_scan(1, 2, 3)",
    "select * from pandas_scan(1)", "select * from iceberg_scan('{folder}')", "select * from delta_scan('{folder}')",
    "select * from read_xlsx('{file}')", "select * from st_read('{file}')", "select * from read_duckdb('{file}')",
    "select list(content) from read_text('{file}')", "select unnest((select list(content) from read_text('{file}')))",
    "select * from read_csv('http://127.0.0.1:9/x')", "select * from 's3://bucket/x.parquet'",
    "select * from __ducklake_metadata_lake.sqlite_master", "select * from duckdb_settings() where name like '%secret%'",
]  # fmt: skip
# One statement in other clothes: case, comments, several at once, layout.
CLOTHES: list[Callable[[str], str]] = [
    lambda sql: sql,
    lambda sql: f"select 1; {sql}",
    lambda sql: f"/* a */ {sql.upper() if '{' not in sql else sql} -- b",
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("asked") / "shop"
    (root / "pipelines/silver").mkdir(parents=True)
    (root / "workspace.yaml").write_text("name: shop\nresources: {memory: 500MB, threads: 1}\n")
    (root / "pipelines/silver/t.sql").write_text("select 1 as id")
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text(f"a\n{SECRET}\n")
    assert run_command(["-w", str(root), "run", "--json"]) == 0
    return root


def digest(root: Path) -> dict[str, str]:
    """Every file of the workspace and beside it; what a reader's connection leaves beside a catalog is none."""
    kept = (path for path in sorted(root.parent.rglob("*")) if path.is_file())
    passing = ("-wal", "-shm", ".lock", ".readers", "journal.sqlite")
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept if not p.name.endswith(passing)}


def test_no_statement_writes_or_reads_outside(
    shop: Path, trials: Callable[[int], int], figure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATATOUILLE_TEST_SECRET", SECRET)
    outside = shop.parent / "outside"
    before, wrong = digest(shop), []
    asked = [dress(sql) for sql, dress in itertools.product(WRITES + READS, CLOTHES)]
    asked = asked if trials(1) > 1 else [sql for number, sql in enumerate(asked) if number % 3 == number // 3 % 3]
    workspace = Workspace(shop)
    for sql in asked:
        sql = (
            sql.replace("{out}", f"{outside}/new.csv")
            .replace("{file}", f"{outside}/secret.csv")
            .replace("{folder}", str(outside))
        )
        try:
            found = workspace.query(sql)
        except RatError as error:
            if not (error.what and error.next) or SECRET in str(error):
                wrong.append(f"{sql}: {error}")
            continue
        if SECRET in str(found.rows()) or SECRET in str(found.columns):
            wrong.append(f"read: {sql}")
        if digest(shop) != before:
            wrong.append(f"written: {sql}")
            before = digest(shop)
    if digest(shop) != before:
        wrong.append("something was written on the way to a refusal")
    assert workspace.query("select id from silver.t").rows() == [(1,)], "and an honest question is answered"
    figure(
        "statements that attack a query: 0 writes, 0 reads outside", size=f"{len(asked)} statements", wrong=len(wrong)
    )
    assert not wrong, "\n".join(wrong)


def test_once_the_lake_is_open_nothing_unsigned_is_loaded(shop: Path) -> None:
    """Its own extensions come unverified from hashed wheels; that door is closed behind them, for good."""
    with open_workbench(shop) as bench, bench.lake.session() as session:
        assert session.value("select current_setting('allow_unsigned_extensions')") is False
        with pytest.raises(RatError, match="while database is running"):
            session.execute("set allow_unsigned_extensions = true")
