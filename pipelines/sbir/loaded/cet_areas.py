"""Areas of critical and emerging technologies, in the graph."""

from pipelines.sbir.graph.model import AREA
from pipelines.sbir.loaded._load import load, mark_of


def version() -> str:
    return mark_of(__file__, "loaded.cet_areas")


def build(context):
    return load(context, __file__, [AREA], {"taxonomy": context.ref("raw.cet_taxonomy")})
