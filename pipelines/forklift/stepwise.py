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
    above = f"above_{context.asset.replace('.', '_')}"  # assets are built side by side on one connection
    rows.create_view(above, replace=True)
    where, machines = "true", []
    if context.partition is not None:
        where = f"machine = {text(context.partition)}"
    elif context.is_incremental():
        machines = [machine for (machine,) in changed().aggregate("machine").fetchall()]
        where = among(machines) if machines else "false"
    counted = context.query(f"select machine, count(*) from {above} where {where} group by machine order by machine")
    found = counted.fetchall()
    if machines and context.partition is None:
        context.empty(*(machine for machine in machines if machine not in dict(found)))
    yield context.query(sql(above, "false", rules))  # the columns, also where there are no rows
    for group in batches(found):
        yield context.query(sql(above, among(group), rules))
