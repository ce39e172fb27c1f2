"""Tables of databases beside the lake: a real SQLite file, a real PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ratatouille.errors import RequestError
from ratatouille.project import load

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
from postgres_server import a_postgres, with_debian_binaries

ASSET = "pipelines/bronze/customers.sql"
SIDE = "pipelines/bronze/customers.yaml"


def sqlite_file(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table if not exists customers (id integer, city text)")
        database.executemany("insert into customers values (?, ?)", rows)


def test_a_table_of_sqlite_is_read_by_sql_and_by_python(shop):
    sqlite_file(shop.root / "data/shop.sqlite", [(1, "Lyon"), (2, "Nice")])
    shop.write(
        {
            "workspace.yaml": "name: shop\ndatabases: {shop: {type: sqlite, path: data/shop.sqlite}}\n",
            ASSET: "select id, city from {{ source('shop.customers') }}"
            "{% if is_incremental() %} where id > {{ watermark('id') }} {% endif %}",
            SIDE: "materialize: append",
            "pipelines/silver/cities.py": "def build(context):\n    return context.source('shop.customers').project('city')\n",
            "pipelines/silver/cities.yaml": "refresh_every: 1h",
        }
    )
    result = shop.run()
    assert [step.error for step in result.steps] == [None, None]
    assert shop.rows("select * from bronze.customers order by id") == [(1, "Lyon"), (2, "Nice")]
    sqlite_file(shop.root / "data/shop.sqlite", [(3, "Metz")])
    plan = {step.asset: step for step in shop.plan().steps}
    assert (plan["bronze.customers"].rule, plan["silver.cities"].action) == ("always", "skip")
    assert "reads shop.customers" in plan["bronze.customers"].reason
    step = shop.step("bronze.customers")
    assert (step.mode, step.rows_written, step.rows_total) == ("incremental", 1, 3)
    (shop.root / "data/shop.sqlite").unlink()
    assert "there is no file" in shop.step("bronze.customers").error["what"]


WRONG = {
    "databases: {a: {type: sqlite}}": "a sqlite database needs a path",
    "databases: {a: {type: postgres, host: h}}": "a postgres database needs a database",
    "databases: {a: {type: sqlite, path: x, host: h}}": "a sqlite database has no host",
    "databases: {a: {type: mysql, host: h, database: d, password: hunter22}}": "a password does not belong into a file",
}


def test_what_a_database_cannot_say_is_refused(shop):
    for text, message in WRONG.items():
        shop.write({"workspace.yaml": f"name: shop\n{text}\n"})
        with pytest.raises(RequestError, match=f"(?i){message}") as refused:
            load(shop.root)
        assert "hunter22" not in str(refused.value.what)
    shop.write({"workspace.yaml": "name: shop\ndatabases: {a: {type: sqlite, path: x}}\n"})
    for sql, side, message in (
        ("select * from {{ source('a.b.c') }}", "", "is written a.table"),
        ("select * from {{ source('a.b') }}", "materialize: view", "a view cannot read a table of a database"),
        ("select * from {{ source('a.b') }}", "materialize: append", "every run appends all rows of a.b"),
        ("select * from {{ source('b') }}", "", "there is no source called 'b'"),
    ):
        shop.write({ASSET: sql, SIDE: side})
        assert any(message in problem.message and problem.line for problem in load(shop.root).problems), sql


def test_a_table_of_postgres_is_read_with_a_password_that_nobody_sees(shop, need_tool, monkeypatch):
    monkeypatch.setenv("PATH", with_debian_binaries("/usr/bin:/bin:/usr/local/bin"))
    psql = need_tool("psql", "apt-get install postgresql-client")
    with a_postgres(need_tool) as server:
        secret = server.password
        made = "create schema crm; create table crm.orders as select i as id, i * 2.5 as total from generate_series(1, 4) i"
        subprocess.run(
            [psql, "-h", server.host, "-p", str(server.port), "-U", server.user, server.database, "-c", made],
            env={"PGPASSWORD": secret},
            check=True,
            capture_output=True,
        )
        database = {"type": "postgres", "host": server.host, "port": server.port, "database": server.database}
        database |= {"user": server.user, "password": "${CRM_SECRET}"}
        shop.write({"workspace.yaml": json.dumps({"name": "shop", "databases": {"crm": database}})})
        shop.write({ASSET: "select id, total from {{ source('crm.crm.orders') }} where id > 1"})
        unset = shop.step("bronze.customers").error
        assert "the variable CRM_SECRET, the password of crm, is not set" in unset["what"]
        monkeypatch.setenv("CRM_SECRET", secret)
        step = shop.step("bronze.customers")
        assert step.error is None
        assert shop.rows("select id, total::int from bronze.customers order by id") == [(2, 5), (3, 8), (4, 10)]
        monkeypatch.setenv("CRM_SECRET", "something wrong")
        refused = shop.step("bronze.customers", "bronze.customers", retry=False).error
        assert "crm cannot be reached" in refused["what"]
        assert "something wrong" not in json.dumps(refused)
    written = [path for path in shop.root.rglob("*") if path.is_file() and not path.name.endswith(".parquet")]
    assert written
    assert not [path for path in written if secret.encode() in path.read_bytes()]
