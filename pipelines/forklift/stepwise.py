"""How the silver tables are built: the machines that have new rows, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipelines.forklift.processing import Rules, among, batches, text

Sql = Callable[[str, str, Rules], str]


def by_machine(context: Any, rows: Any, changed: Callable[[], Any], sql: Sql, rules: Rules) -> Iterator[Any]:
    """Relations of `sql(table, condition, rules)` over `rows`: each machine's in one of them.

    The machines are those of all rows, of one partition, or those of which rows have `changed` since the last run.
    """
    rows.create_view("rows_above", replace=True)
    where = "true"
    if context.partition is not None:
        where = f"machine = {text(context.partition)}"
    elif context.is_incremental():
        machines = [machine for (machine,) in changed().aggregate("machine").fetchall()]
        where = among(machines) if machines else "false"
    counted = context.query(f"select machine, count(*) from rows_above where {where} group by machine order by machine")  # noqa: S608
    yield context.query(sql("rows_above", "false", rules))
    for group in batches(counted.fetchall()):
        yield context.query(sql("rows_above", among(group), rules))
