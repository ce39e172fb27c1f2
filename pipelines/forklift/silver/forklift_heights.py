"""Rows of forklifts with believable heights."""

from pipelines.forklift.processing import Rules, heights_sql
from pipelines.forklift.stepwise import by_machine


def build(context):  # type: ignore[no-untyped-def]
    rules = Rules.from_mapping(context.var("forklift"))
    changed = lambda: context.changes("silver.forklift_header")  # noqa: E731
    yield from by_machine(context, context.ref("silver.forklift_header"), changed, heights_sql, rules)
