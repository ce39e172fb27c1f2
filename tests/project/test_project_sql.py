"""One select or not, decided by the parser; what counts as a change of code; what never stays the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratatouille.errors import RequestError
from ratatouille.project import parse_select
from ratatouille.project.sql import SqlMistake, canonical, parse_query, volatile_calls

READS = [
    "select 1",
    "SELECT 1;",
    "select 1;;",
    "(select 1)",
    "with a as (select 1 as x) select x from a",
    "with recursive a(n) as (select 1 union all select n + 1 from a where n < 3) from a",
    "from silver.sales",
    "from silver.sales select id where id > 1",
    "values (1), (2)",
    "select 1 union all select 2",
    "describe silver.sales",
    "describe select 1",
    "summarize silver.sales",
    "pivot silver.sales on store using sum(total)",
    "select ';' as a -- ; drop table a",
    "select /* ; drop */ 1",
    "select $$ ; drop table a $$",
    r"select e'\'; drop table a; --'",
]


@pytest.mark.parametrize("sql", READS)
def test_queries_that_read_are_allowed(sql: str) -> None:
    parse_select(sql)


REFUSED = {
    "select 1; drop table a": "a second statement starts",
    "select 1; select 2": "a second statement starts",
    r"select 'a\'; drop table a; --'": "a second statement starts",
    "insert into a values (1)": "this is INSERT",
    "update a set b = 1": "this is UPDATE",
    "delete from a": "this is DELETE",
    "merge into a using b on true when matched then delete": "this is MERGE",
    "create table a as select 1": "this is CREATE",
    "drop table a": "this is DROP",
    "alter table a add column b int": "this is ALTER",
    "truncate a": "this is TRUNCATE",
    "copy a to 'a.csv'": "this is COPY",
    "copy (select 1) to 'a.csv'": "this is COPY",
    "attach 'a.db'": "this is ATTACH",
    "detach a": "this is DETACH",
    "use a": "this is USE",
    "set threads = 1": "this is SET",
    "pragma database_list": "this is PRAGMA",
    "call pragma_version()": "this is CALL",
    "install httpfs": "this is INSTALL",
    "load httpfs": "this is LOAD",
    "begin": "this is BEGIN",
    "explain analyze delete from a": "this is EXPLAIN",
    "with a as (insert into b values (1) returning *) select * from a": "this is INSERT",
    "describe delete from a": "",
    "select * into b from a": "",
    "selec 1": "this is not a select",
    "1": "this is not a select",
    "": "there is no select here",
    "-- nothing": "there is no select here",
    "select 'a": "never closed",
    "select (1": "SQL syntax",
    "(" * 5000 + "select 1" + ")" * 5000: "",
}


@pytest.mark.parametrize("sql", REFUSED, ids=[sql[:40] for sql in REFUSED])
def test_everything_else_is_refused_by_its_name(sql: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse_select(sql)
    assert REFUSED[sql] in raised.value.what


@given(st.text(max_size=60))
def test_any_text_is_a_select_or_a_request_error(text: str) -> None:
    try:
        parse_select(text)
    except RequestError as error:
        assert error.where.count("\n") == 2


@given(st.sampled_from(READS), st.sampled_from(["drop table a", "insert into a values (1)", "copy a to 'b'"]))
def test_a_second_statement_is_never_overlooked(first: str, second: str) -> None:
    with pytest.raises(RequestError):
        parse_select(f"{first}\n; {second}")


SAME = [
    ("select a from t", "SELECT  a\n\nFROM t -- all of it"),
    ("select count(*) from t", "select COUNT(*) /* rows */ from t;"),
    ("select cast(a as varchar) from t", "select CAST(a AS VARCHAR) from t"),
]
DIFFERENT = [
    ("select 'a' from t", "select 'A' from t"),
    ("select total from t", "select Total from t"),
    ('select "a b" from t', "select 'a b' from t"),
    ("select 'it''s'", "select 'its'"),
    ("select 1 + 2", "select 12"),
    ("select a, b from t", "select a b from t"),
    ("select 'x' 'y'", "select 'x y'"),
    (r"select e'\n'", r"select '\n'"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_layout_and_comments_do_not_change_the_code(one: str, other: str) -> None:
    assert canonical(parse_query(one)) == canonical(parse_query(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_changes_the_result_changes_the_code(one: str, other: str) -> None:
    def words(sql: str) -> str:
        try:
            return canonical(parse_query(sql))
        except SqlMistake as mistake:
            return str(mistake)

    assert words(one) != words(other)


def test_text_of_a_query_ends_with_its_last_word() -> None:
    assert parse_query("select 1 as a ; -- done\n").text == "select 1 as a"


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("select now(), random() as r", ("now", "random")),
        ("select current_date", ("current_date",)),
        ("select CURRENT_TIMESTAMP, uuid()", ("current_timestamp", "uuid")),
        ("select today, now from t", ()),
        ("select t.current_date from t", ()),
        ("select 'now()' as a, \"current_date\" from t", ()),
        ("select a from t where b > today() - 1", ("today",)),
    ],
)
def test_functions_that_never_stay_the_same(sql: str, found: tuple[str, ...]) -> None:
    assert volatile_calls(parse_query(sql)) == found
