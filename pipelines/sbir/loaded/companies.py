"""Companies, in the graph."""

from pipelines.sbir.graph.model import COMPANY
from pipelines.sbir.loaded._load import load, mark_of

KINDS = [COMPANY]


def version() -> str:
    return mark_of(__file__, "loaded.companies", KINDS)


def build(context):
    tables = {
        "companies": context.ref("transformed.companies"),
        "matches": context.ref("enriched.company_matches"),
    }
    return load(context, __file__, KINDS, tables)
