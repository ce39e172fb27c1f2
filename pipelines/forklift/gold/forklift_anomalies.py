"""Moments at which a load changed at speed."""

from pipelines.forklift.judging import anomalies_sql
from pipelines.forklift.processing import Rules
from pipelines.forklift.stepwise import by_machine


def build(context):  # type: ignore[no-untyped-def]
    rules = Rules.from_mapping(context.var("forklift"))
    changed = lambda: context.changes("silver.forklift_carrying")  # noqa: E731
    yield from by_machine(context, context.ref("silver.forklift_carrying"), changed, anomalies_sql, rules)
