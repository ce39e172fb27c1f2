"""The SQL console under attack: no statement writes, none reads what lies outside the lake or is masked, none lasts."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ratatouille import project as files
from ratatouille.cli.entry import run_command
from ratatouille.errors import LakeError, RatError, RequestError
from ratatouille.handle import Workspace
from ratatouille.pages.console import Console, Limits
from ratatouille.project.records import Project

SECRET = "what-lies-outside-7a1f"
MASKED = "ada@example.org"
WRITES = [
    "insert into silver.t values (2)", "delete from silver.t", "update silver.t set id = 9", "truncate silver.t",
    "drop table silver.t", "drop schema silver cascade", "drop view if exists silver.t", "create table u (i int)",
    "create table silver.u as select 1", "create or replace table silver.t as select 1", "create schema evil",
    "create view silver.v as select 1", "create temp table x as select 1", "create macro evil() as 1",
    "create type e as enum ('a')", "create sequence s", "create secret x (type s3)", "create index i on silver.t (id)",
    "alter table silver.t add column x int", "alter table silver.t rename to u", "comment on table silver.t is 'x'",
    "merge into silver.t using (select 1 as id) s on (s.id = t.id) when matched then delete",
    "copy silver.t to '{out}'", "copy (select 1) to '{out}' (format csv)", "copy silver.t from '{file}'",
    "export database '{folder}'", "import database '{folder}'", "attach '{out}' as x", "attach '{out}' (type sqlite)",
    "attach if not exists 'ducklake:{out}' as y", "detach lake", "use memory", "begin", "commit", "rollback",
    "checkpoint", "force checkpoint", "vacuum", "vacuum analyze", "analyze", "install httpfs", "load httpfs",
    "load '{file}'", "force install spatial", "update extensions", "set memory_limit = '1MB'", "set threads = 64",
    "set global threads = 1", "reset memory_limit", "set allow_unsigned_extensions = true", "set variable x = 1",
    "set enable_external_access = true", "set lock_configuration = false", "set search_path = 'lake.rat'",
    "pragma enable_profiling", "pragma database_list", "pragma memory_limit = '1MB'", "pragma show_tables",
    "call pragma_version()", "call lake.set_commit_message('x', 'y')", "prepare p as select 1", "execute p",
    "call ducklake_expire_snapshots('lake', versions => [1])", "deallocate p", "explain select 1",
    "call ducklake_cleanup_old_files('lake', cleanup_all => true)", "explain analyze insert into silver.t values (3)",
    "with x as (delete from silver.t returning *) select * from x", "select 1 into silver.u",
    "with x as (insert into silver.t values (4) returning *) select * from x", "select nextval('s')",
    "select * from ducklake_expire_snapshots('lake', versions => [1])", "select setseed(0.5)",
    "select * from ducklake_delete_orphaned_files('lake', cleanup_all => true, older_than => now())",
    "select * from ducklake_cleanup_old_files('lake', cleanup_all => true)",
    "select * from ducklake_add_data_files('lake', 't', '{file}', schema => 'silver')",
    "select * from ducklake_merge_adjacent_files('lake')", "select * from ducklake_set_option('lake', 'a', 'b')",
    "select * from query('insert into silver.t values (5)')", "select * from sqlite_query('lake', 'delete from x')",
    "select * from lake.set_commit_message('x', 'y')", "select write_log('x')", "select * from enable_logging('QueryLog')",
    "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
]  # fmt: skip
READS = [
    "select * from read_text('{file}')", "select content from read_blob('{file}')", "from '{file}'",
    "select * from read_csv('{file}')", "select * from read_csv_auto('{file}')", "select * from read_json('{file}')",
    "select * from read_ndjson_objects('{file}')", "select * from sniff_csv('{file}')", "select * from read_xlsx('{file}')",
    "select * from read_parquet('{file}')", "select * from parquet_scan('{lake}/**/*.parquet')", "from '{lake}'",
    "select * from parquet_metadata('{file}')", "select * from parquet_schema('{file}')", "select * from glob('{folder}/*')",
    "select * from glob('{lake}/*')", "select * from read_parquet('{lake}/silver/t/**')", "select * from '{lake}/silver/*'",
    'select * from "{file}"', "select * from '{folder}/*.csv'", "select * from sqlite_scan('{catalog}', 't')",
    "select * from postgres_scan('host=x', 'public', 't')", "select * from mysql_scan('host=x', 'a', 'b')",
    "select * from query_table('{file}')", "select * from query('select * from read_text(''{file}'')')",
    "select getenv('RATATOUILLE_TEST_SECRET')", "select * from duckdb_secrets()", "select current_setting('temp_directory')",
    "select * from which_secret('{file}', 's3')", "select * from duckdb_settings()", "from duckdb_settings", "from pg_settings",
    "select (select content from read_text('{file}'))", "with x as (from read_text('{file}')) select * from x",
    "select * from silver.t union all select content from read_text('{file}')", "describe from '{file}'",
    "select * from silver.t where exists (select * from read_text('{file}') where content like '%7a1f%')",
    "select * from read_text(['{file}'])", "select * from read_text('{folder}/' || 'secret.csv')", "summarize '{file}'",
    "pivot (from read_csv('{file}')) on a", "describe select * from '{file}'", "from read_text('{file}') select content",
    "values ((select content from read_text('{file}')))", "select * from (from '{file}')", "select * from silver.t, '{file}'",
    "select * from silver.t join read_text('{file}') on true", "select * from arrow_scan(1, 2, 3)", "from pandas_scan(1)",
    "select * from silver.t, lateral (select content from read_text('{file}'))", "select * from iceberg_scan('{folder}')",
    "select * from delta_scan('{folder}')", "select * from st_read('{file}')", "select * from read_duckdb('{file}')",
    "select list(content) from read_text('{file}')", "select unnest((select list(content) from read_text('{file}')))",
    "select * from read_csv('http://127.0.0.1:9/x')", "select * from 's3://bucket/x.parquet'", "from 'https://x.invalid/a.csv'",
    "with \"{file}\" as (select 1 as i) select * from (select * from \"{file}\")", "from silver.\"../{file}\"",
    "with recursive a as (select content from read_text('{file}') union all select content from a) select * from a limit 1",
    "select * from silver.t order by (select content from read_text('{file}'))", "select [x for x in (from read_text('{file}'))]",
    "select sum(1) over (order by (select content from read_text('{file}')))", "select project from shop", "from sql",
]  # fmt: skip
CATALOGS = [
    "from duckdb_databases()", "from duckdb_databases", "from duckdb_tables()", "from duckdb_views", "from sqlite_master",
    "from pragma_database_list", "from pragma_database_list()", "from pg_catalog.pg_class", "from pg_tables", "show databases",
    "from information_schema.tables", "from information_schema.columns", "show tables", "show all tables", "show schemas",
    "select * from __ducklake_metadata_lake.sqlite_master", "from __ducklake_metadata_lake.ducklake_data_file",
    "from \"__ducklake_metadata_lake\".\"main\".\"ducklake_snapshot\"", "from lake.snapshots()", "from lake.table_info()",
    "from ducklake_snapshots('lake')", "from ducklake_list_files('lake', 't', schema => 'silver')", "from lake.options()",
    "from ducklake_table_changes('lake', 'silver', 't', 1, 9)", "from duckdb_temporary_files()", "from duckdb_memory()",
    "from duckdb_functions()", "from duckdb_extensions()", "from duckdb_logs", "from duckdb_variables()", "from test_all_types()",
    "with duckdb_databases as (select 1) select * from duckdb_databases", "select current_query()", "from duckdb_keywords()",
    "from rat.ledger", "from rat.quarantine", "from RAT.\"Landing\"", "from lake.rat.ledger", "from temp.t", "from main.t",
]  # fmt: skip
UNMASK = [
    "from lake.silver.t", "select email from \"lake\".silver.t", "from silver.t at (version => {version})",
    "from silver.t at (timestamp => now() + interval 1 day)", "from lake.silver.t at (version => {version})",
    "select t from silver.t", "select max(email) from silver.t", "select email || '' from silver.t", "summarize silver.t",
    "select email::int from silver.t", "select error(email) from silver.t", "select stats(email) from silver.t",
    "select * from silver.t where email like 'ada%'", "select array_agg(columns(*)) from silver.t", "from SILVER.\"T\"",
    "select to_json(t) from silver.t", "with t as (from silver.t) from t", "from (table silver.t)", "unpivot silver.t on email",
    "from memory.silver.t", "select hash(email) = hash('ada@example.org') from silver.t where id = 1 and email = 'ada@example.org'",
]  # fmt: skip
CLOTHES = [
    "select 1; {0}", "{0}; select 1", "/* a */ {0} -- b", "--\n{0}", "({0})", "select '; {0}', (select 1); {0}",
]  # fmt: skip
# Each of them would take hours, or all the memory of the machine.
HEAVY = [
    "select count(*) from silver.big a, silver.big b, silver.big c, silver.big d",
    "with recursive r as (select 1 as i union all select i + 1 from r) select sum(i) from r",
    "select levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
    "select * from silver.big a, silver.big b, silver.big c order by a.i * b.i + c.i, c.i",
    "select list(a.i) from silver.big a, silver.big b",
    "select string_agg(repeat('x', 100000), '') from silver.big a, silver.big b",
    "select " + "(" * 20_000 + "1" + ")" * 20_000, "select " + "+".join(["1"] * 30_000),
    "select [" * 3_000 + "1" + "]" * 3_000, "select * from " + ", ".join(f"silver.big t{i}" for i in range(200)),
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("consoled") / "shop"
    (root / "pipelines/silver").mkdir(parents=True)
    (root / "workspace.yaml").write_text(
        "name: shop\nresources: {memory: 700MB, threads: 1}\nenvironments: {dev: {resources: {memory: 700MB, threads: 1}}}\n"
    )
    (root / "pipelines/silver/t.sql").write_text(f"select 1 as id, '{MASKED}' as email")
    (root / "pipelines/silver/t.yaml").write_text("columns: {email: {sensitive: true}}\n")
    (root / "pipelines/silver/big.sql").write_text("select i, i % 7 as d from range(20_000) r(i)")
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text(f"a\n{SECRET}\n")
    assert run_command(["-w", str(root), "run", "--json"]) == 0
    return files.load(root)


@pytest.fixture(scope="module")
def console() -> Iterator[Console]:
    made = Console(Limits(seconds=20, memory_bytes=500_000_000))
    yield made
    made.close()


def digest(root: Path) -> dict[str, str]:
    """Every file of the workspace and beside it; what a reader's connection leaves beside a catalog is none."""
    kept = (path for path in sorted(root.parent.rglob("*")) if path.is_file())
    passing = ("-wal", "-shm", ".lock", ".readers", "journal.sqlite")
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept if not p.name.endswith(passing)}


def dressed() -> list[str]:
    """More than 200 statements: each once, and some in other clothes."""
    plain = WRITES + READS + CATALOGS + UNMASK
    return plain + [clothes.format(sql) for clothes, sql in zip(CLOTHES * 4, plain[::9], strict=False)]


def test_two_hundred_statements_write_nothing_and_read_nothing_outside(
    shop: Project, console: Console, figure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATATOUILLE_TEST_SECRET", SECRET)
    root = Path(shop.workspace.root)
    outside, before = root.parent / "outside", digest(root)
    places = {
        "out": f"{outside}/new.csv", "file": f"{outside}/secret.csv", "folder": str(outside), "lake": f"{root}/.rat/data",
        "catalog": f"{root}/.rat/catalog.sqlite", "version": Workspace(root).history("silver.t")[0]["version"],
    }  # fmt: skip
    asked, wrong, slowest = dressed(), [], 0.0
    for sql in asked:
        for name, place in places.items():
            sql = sql.replace(f"{{{name}}}", str(place))
        began = time.monotonic()
        try:
            found = console.ask(shop, sql)
        except RatError as error:
            slowest = max(slowest, time.monotonic() - began)
            if not (error.what and error.where and error.state and error.next) or SECRET in str(error):
                wrong.append(f"{sql}: {error}")
            if MASKED in str(error) and MASKED not in sql:
                wrong.append(f"unmasked by its error: {sql}: {error}")
            continue
        said = str((found.columns, found.rows))
        if SECRET in said or (MASKED in said and MASKED not in sql) or (MASKED in sql and found.rows):
            wrong.append(f"read: {sql}: {said[:200]}")
        if not {sql, sql[1:-1]} & set(UNMASK):
            wrong.append(f"let through: {sql}")
    assert digest(root) == before, "something was written"
    assert console.ask(shop, "select id, email from silver.t").rows == (("1", "[hidden]"),), (
        "an honest question is answered"
    )
    figure(
        "statements that attack the console: 0 writes, 0 reads outside",
        size=f"{len(asked)} statements",
        wrong=len(wrong),
    )
    assert len(asked) >= 200 and slowest < console.limits.seconds / 2, "and each is refused at once"
    assert not wrong, "\n".join(wrong)


def test_no_query_lasts_longer_or_holds_more_than_it_may(shop: Project) -> None:
    console = Console(Limits(seconds=0.8, memory_bytes=400_000_000, spill_bytes=100_000_000))
    longest_s = 0.8 + 3.0  # and a process may have to be started first, on a busy machine

    def attack(sql: str) -> str:
        began = time.monotonic()
        try:
            found = console.ask(shop, sql)
            ended = f"{len(str(found.rows)):,} letters"
        except LakeError as error:
            ended = "stopped" if "was stopped" in error.what else f"{error}"
        except RequestError as error:
            ended = "refused" if error.next else f"{error}"
        took = time.monotonic() - began
        return ended if took < longest_s else f"{took:.1f} s"

    try:
        with ThreadPoolExecutor(2) as both:
            ended = dict(zip([sql[:60] for sql in HEAVY], both.map(attack, HEAVY), strict=True))
    finally:
        console.close()
    assert set(ended.values()) == {"stopped", "refused"}, ended
    assert sum(how == "stopped" for how in ended.values()) >= 7, ended


def test_what_was_cut_is_said_and_a_file_has_all(shop: Project, console: Console, tmp_path: Path) -> None:
    found = console.ask(shop, "from silver.big order by i -- all of it;")
    assert (len(found.rows), found.more, found.rows[-1][0]) == (1000, True, "999")
    assert found.columns == (("i", "BIGINT"), ("d", "BIGINT"))
    wide = console.ask(shop, "select repeat('x', 5000) as a, repeat('y', 5000) as b from silver.big")
    assert wide.more and 0 < len(wide.rows) < 1000, "letters are limited as well"
    whole = console.ask(shop, "select 1 as a, null as a;")
    assert (whole.rows, whole.more) == ((("1", None),), False)
    for name in ("all.csv", "all.parquet"):
        assert console.write(shop, "select i, email from silver.big, silver.t", tmp_path / name) == 20_000
    text = (tmp_path / "all.csv").read_text()
    assert text.splitlines()[1].endswith(",[hidden]") and MASKED not in text
    assert MASKED.encode() not in (tmp_path / "all.parquet").read_bytes()
    with pytest.raises(RequestError, match="more than 1,000,000 rows"):
        console.write(shop, "select 1 from silver.big a, silver.big b", tmp_path / "much.csv")
    small = Console(Limits(file_bytes=1_000_000, spill_bytes=2_000_000, memory_bytes=300_000_000))
    try:
        for sql in (
            "select repeat('x', 10_000) || i from silver.big",  # 200 MB, more than a file
            "select a.i, b.i as j from silver.big a, silver.big b where b.i < 700 order by hash(a.i, b.i)",  # than memory
        ):
            with pytest.raises(LakeError, match="writes more than the console lets it"):
                small.write(shop, sql, tmp_path / "large.csv")
    finally:
        small.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "all.parquet"], "nothing half-written"
    with pytest.raises(RequestError, match="cannot be downloaded"):
        console.write(shop, "select 1", tmp_path / "all.sh")


def test_a_process_that_is_killed_is_replaced_and_none_is_left(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATATOUILLE_TEST_SECRET", SECRET)
    console = Console(Limits(seconds=10, memory_bytes=400_000_000))
    assert console.ask(shop, "select 1").rows == (("1",),)
    (waiting,) = console._waiting
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    assert console.ask(shop, "select 2").rows == (("2",),)
    with pytest.raises(LakeError, match="memory"):  # of one value, which DuckDB itself does not count
        console.ask(shop, "select length(repeat('x', 800000000) || 'y')")
    assert console.ask(shop, "select 3").rows == (("3",),)
    (waiting,) = console._waiting
    assert "RATATOUILLE_TEST_SECRET" not in Path(f"/proc/{waiting.pid}/environ").read_text()
    console.close()
    assert waiting.returncode is not None
    for sql, what in (("  ", "no query yet"), ("select 1" + " " * 200_000, "letters at most")):
        with pytest.raises(RequestError, match=what):
            console.ask(shop, sql)


def test_what_an_environment_reads_from_the_default_lake_is_masked_too(
    shop: Project, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATATOUILLE_ENV", "dev")
    assert run_command(["-w", shop.workspace.root, "run", "silver.big", "--json"]) == 0
    project = files.load(Path(shop.workspace.root))
    assert project.workspace.environment == "dev"
    assert console.ask(project, "select email from silver.t").rows == (("[hidden]",),)
    assert console.ask(project, "select count(*) from silver.big, silver.t").rows == (("20000",),)
    for sql in ("from base_lake.silver.t", "from lake.silver.big", "from base_lake.t"):
        with pytest.raises(RequestError, match=r"names the lake as well|no layer"):
            console.ask(project, sql)
