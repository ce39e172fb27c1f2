"""Awards, in the graph."""

from pipelines.sbir.graph.model import AWARD
from pipelines.sbir.loaded._load import load, mark_of

KINDS = [AWARD]


def version() -> str:
    return mark_of(__file__, "loaded.awards", KINDS)


def build(context):
    return load(context, __file__, KINDS, {"awards": context.ref("transformed.awards")})
