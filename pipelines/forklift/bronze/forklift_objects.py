"""The telemetry files that are in landing/forklift now: which machine's, and the commit that brought their content."""

from pathlib import Path

from pipelines.forklift import landing

ROOT = Path(__file__).parents[3]


def build(context):  # type: ignore[no-untyped-def]
    return landing.objects(ROOT)


def what_is_there():  # type: ignore[no-untyped-def]
    return landing.state(ROOT)
