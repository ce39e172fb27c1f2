"""Areas of critical and emerging technologies, in the graph."""

from pipelines.sbir.graph.model import AREA
from pipelines.sbir.loaded._load import load, mark_of

KINDS = [AREA]


def version() -> str:
    return mark_of(__file__, "loaded.cet_areas", KINDS)


def build(context):
    return load(context, __file__, KINDS, {"taxonomy": context.ref("raw.cet_taxonomy")})
