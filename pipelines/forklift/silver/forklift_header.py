"""Telemetry with names, in the order of time: forklifts and trucks, without redundant off-duty rows."""

from pipelines.forklift.processing import Rules, header_sql
from pipelines.forklift.stepwise import by_machine


def build(context):  # type: ignore[no-untyped-def]
    rules = Rules.from_mapping(context.var("forklift"))
    changed = lambda: context.changes("bronze.forklift_telemetry")  # noqa: E731
    yield from by_machine(context, context.ref("bronze.forklift_telemetry"), changed, header_sql, rules)
