"""Columns: what a query gives, where each comes from, and no false alarm where that cannot be known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ratatouille.project.records import Project

Make = Callable[..., Project]
FILES = {
    "bronze/sales.csv": "id,store_id,price,quantity,sold_at\n",
    "bronze/stores.csv": "store_id,city\n",
    "bronze/open.json": "[]",
}
SALES = "{{ ref('bronze.sales') }}"
STORES = "{{ ref('bronze.stores') }}"
OPEN = "{{ ref('bronze.open') }}"

# query -> {column: "asset.column ..."}; columns without an origin are given as ""
KNOWN = {
    f"select id, price * quantity as total from {SALES}": {"id": "sales.id", "total": "sales.price sales.quantity"},
    f"select * from {SALES}": {
        "id": "sales.id",
        "store_id": "sales.store_id",
        "price": "sales.price",
        "quantity": "sales.quantity",
        "sold_at": "sales.sold_at",
    },
    f"select * exclude (price, quantity, sold_at) replace (id + 1 as id) from {SALES}": {
        "id": "sales.id",
        "store_id": "sales.store_id",
    },
    f"select * rename (city as town) from {STORES}": {"store_id": "stores.store_id", "town": "stores.city"},
    f"from {STORES}": {"store_id": "stores.store_id", "city": "stores.city"},
    f"select s.id, city from {SALES} s join {STORES} using (store_id)": {"id": "sales.id", "city": "stores.city"},
    f"select a.id, t.* from {SALES} a left join {STORES} t on a.store_id = t.store_id": {
        "id": "sales.id",
        "store_id": "stores.store_id",
        "city": "stores.city",
    },
    f"select * from {STORES} semi join {SALES} using (store_id)": {
        "store_id": "stores.store_id",
        "city": "stores.city",
    },
    f"with a as (select id as x from {SALES}), b as (from a) select x + 1 as y from b": {"y": "sales.id"},
    f"with recursive r(n) as (select 1 union all select n + 1 from r) select n as m, id from r, {SALES}": {
        "m": "",
        "id": "sales.id",
    },
    f"select id from {SALES} union all select store_id from {STORES}": {"id": "sales.id stores.store_id"},
    f"select city as c, c || 'x' as d from {STORES} where c > '' order by d": {"c": "stores.city", "d": "stores.city"},
    f"select store_id, count(*) as n from {SALES} group by all having n > 1 order by all": {
        "store_id": "sales.store_id",
        "n": "",
    },
    f"select (select max(city) as m from {STORES} t where t.store_id = s.store_id) as city from {SALES} s": {
        "city": "stores.city"
    },
    f"select k from (select city from {STORES}) t(k)": {"k": "stores.city"},
    f"select id, row_number() over (partition by store_id order by sold_at) as r from {SALES} qualify r = 1": {
        "id": "sales.id",
        "r": "sales.sold_at sales.store_id",
    },
    f"select x: id from {SALES}": {"x": "sales.id"},
    f"select t.city from {STORES} t, lateral (select t.city as z) l": {"city": "stores.city"},
    f"select a from {OPEN}": {"a": "open.a"},
    f"select o.a, s.id from {OPEN} o, {SALES} s": {"a": "open.a", "id": "sales.id"},
}


@pytest.mark.parametrize("query", KNOWN)
def test_outputs_and_lineage(query: str, make: Make) -> None:
    project = make({**FILES, "silver/x.sql": query})
    assert project.problems == (), [problem.message for problem in project.problems]
    asset = project.assets["silver.x"]
    wanted = KNOWN[query]
    assert asset.outputs == tuple(wanted)
    found = {
        column: " ".join(f"{name.removeprefix('bronze.')}.{origin}" for name, origin in asset.lineage.get(column, ()))
        for column in asset.outputs
    }
    assert found == wanted


# Queries whose columns are not all known: nothing may be reported, nothing claimed.
UNKNOWN = [
    f"select * from {OPEN}",
    f"select *, id + nothing_known as x from {SALES}, {OPEN}",
    f"select columns('.*_id') from {SALES}",
    f"select id, count(*) from {SALES} group by id",
    f"select unnest({{'a': id}}, recursive := true) from {SALES}",
    f"pivot {SALES} on store_id using sum(price)",
    f"select * from (pivot {SALES} on store_id using sum(price))",
    f"select * from {SALES} pivot (sum(price) for store_id in (1, 2))",
    "select i, j from range(3) r(i), generate_series(1, 3) g(j), unnest([1]) u(k)",
    f"select list_transform([id], v -> v + quantity) as l, [w for w in [id] if w > 1] as m, * from {SALES}, range(2)",
]


@pytest.mark.parametrize("query", UNKNOWN)
def test_no_alarm_without_certainty(query: str, make: Make) -> None:
    project = make({**FILES, "silver/x.sql": query})
    assert project.problems == (), [problem.message for problem in project.problems]
    assert project.assets["silver.x"].outputs == () or "range(3)" in query


# Everything is known, and everything exists, though it takes a look to see that.
FINE = [
    f"select s.id from {SALES} s where exists (select 1 from {STORES} t where t.store_id = s.store_id and quantity > 1)",
    f"select list_transform([id], v -> v + quantity) as l from {SALES}",
    f"select [w + id for w in [quantity] if w > 1] as m from {SALES}",
    f"select struct_pack(a := id) as s, {{'b': price}} as t from {SALES}",
    f"select sales as whole, arg_max(sales, price) as best from {SALES}",
    f"select sales.id as a, date_part('year', sold_at) as y, extract(year from sold_at) as z from {SALES}",
    f"select rowid as r, id from {SALES}",
    f"select id, sum(price) over w as t from {SALES} window w as (partition by store_id)",
    f"select store_id, sum(price) filter (quantity > 1) as t, list(id order by sold_at) as l from {SALES} group by 1",
    f"select (select max(store_id) from {STORES}) as m, id from {SALES} limit (select count(*) from {STORES})",
    f"select ID, Price as p from {SALES} order by SOLD_AT",
    f"with t as (select struct_pack(f := id) as s from {SALES}) select s.f as f, t.s.f as g from t",
    f"select a.id from ({SALES} a join {STORES} b using (store_id)) where city > '' and store_id > 1",
    f"select id from {SALES} where (id, store_id) in (select store_id, store_id from {STORES})",
]


@pytest.mark.parametrize("query", FINE)
def test_no_alarm_where_everything_exists(query: str, make: Make) -> None:
    project = make({**FILES, "silver/x.sql": query})
    assert project.problems == (), [problem.message for problem in project.problems]


MISSING = {
    f"select idd from {SALES}": ("there is no column 'idd' in bronze.sales", "Did you mean 'id'?"),
    f"select s.idd from {SALES} s": ("there is no column 'idd' in bronze.sales", "Did you mean 'id'?"),
    f"select id from {SALES} where cty = 'x'": ("there is no column 'cty' in bronze.sales", ""),
    f"select cty from {SALES} join {STORES} using (store_id)": (
        "there is no column 'cty' in bronze.sales or bronze.stores",
        "Did you mean 'city'?",
    ),
    f"with a as (select id as x from {SALES}) select id from a": ("there is no column 'id' here", "the columns are x"),
    f"select id from {SALES} s where exists (select 1 from {STORES} t where t.store = s.id)": (
        "there is no column 'store' in bronze.stores",
        "Did you mean 'store_id'?",
    ),
    "select b from {{ source('s') }}": ("there is no column 'b' in s", ""),
}


@pytest.mark.parametrize("query", MISSING)
def test_missing_columns(query: str, make: Make) -> None:
    sources = "sources: {s: {files: 'landing/*.csv', columns: {aaa: int}}}"
    project = make({**FILES, "silver/x.sql": query, "workspace.yaml": sources})
    assert [problem.message for problem in project.problems] == [MISSING[query][0]]
    assert MISSING[query][1] in project.problems[0].hint


def test_origin_columns_of_landing_files_exist(make: Make) -> None:
    project = make(
        {
            "workspace.yaml": "sources: {s: {files: 'landing/*.csv', columns: {a: int}}}",
            "bronze/x.sql": "select a, _file, _loaded_at, _run_id from {{ source('s') }}",
            "bronze/y.sql": "select a from {{ source('s') }}",
            "bronze/y.yaml": "columns: {_file: {description: where it came from}}",
        }
    )
    assert project.problems == ()


def test_incremental_and_full_queries_are_both_followed(make: Make) -> None:
    query = f"select id from {SALES} {{% if is_incremental() %}} where nope > {{{{ watermark('id') }}}} {{% endif %}}"
    project = make({**FILES, "silver/x.sql": query, "silver/x.yaml": "materialize: append"})
    assert [problem.message for problem in project.problems] == ["there is no column 'nope' in bronze.sales"]


def test_thousands_of_selects_do_not_break_it(make: Make) -> None:
    query = " union all ".join([f"select id from {SALES}"] * 1500)
    project = make({**FILES, "silver/x.sql": query})
    assert {problem.message for problem in project.problems} <= {"this SQL is nested too deeply"}
