"""Companies, in the graph."""

from pipelines.sbir.graph.model import COMPANY
from pipelines.sbir.loaded._load import load, mark_of


def version() -> str:
    return mark_of(__file__, "loaded.companies")


def build(context):
    tables = {
        "companies": context.ref("transformed.companies"),
        "matches": context.ref("enriched.company_matches"),
    }
    return load(context, __file__, [COMPANY], tables)
