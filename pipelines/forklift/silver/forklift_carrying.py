"""Whether a forklift carries: debounced, with the pulse that a row lies in."""

from pipelines.forklift.processing import Rules, carrying_sql
from pipelines.forklift.stepwise import by_machine


def build(context):  # type: ignore[no-untyped-def]
    rules = Rules.from_mapping(context.var("forklift"))
    changed = lambda: context.changes("silver.forklift_heights")  # noqa: E731
    yield from by_machine(context, context.ref("silver.forklift_heights"), changed, carrying_sql, rules)
