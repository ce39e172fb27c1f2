"""Awards, in the graph."""

from pipelines.sbir.graph.model import AWARD
from pipelines.sbir.loaded._load import load, mark_of


def version() -> str:
    return mark_of(__file__, "loaded.awards")


def build(context):
    return load(context, __file__, [AWARD], {"awards": context.ref("transformed.awards")})
