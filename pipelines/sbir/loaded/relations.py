"""How companies, awards, patents and areas hang together, in the graph: every relation but those of classification."""

from pipelines.sbir.graph.model import (
    ASSIGNED_FROM,
    ASSIGNED_TO,
    ASSIGNED_VIA,
    AWARDED_TO,
    FOLLOWS,
    FUNDED,
    OWNS,
    SUBCATEGORY_OF,
)
from pipelines.sbir.loaded._load import load, mark_of, nodes_of

KINDS = [AWARDED_TO, FUNDED, FOLLOWS, ASSIGNED_VIA, ASSIGNED_FROM, ASSIGNED_TO, OWNS, SUBCATEGORY_OF]


def version() -> str:
    return mark_of(__file__, "loaded.relations", KINDS)


def build(context):
    tables = {
        "awards": context.ref("transformed.awards"),
        "award_patents": context.ref("enriched.award_patents"),
        "progressions": context.ref("transformed.award_progressions"),
        "assignments": context.ref("transformed.patent_assignments"),
        "parties": context.ref("transformed.patent_parties"),
        "company_patents": context.ref("transformed.company_patents"),
        "taxonomy": context.ref("raw.cet_taxonomy"),
    }
    nodes = nodes_of(
        context.ref("loaded.companies"),
        context.ref("loaded.awards"),
        context.ref("loaded.patents"),
        context.ref("loaded.cet_areas"),
    )
    return load(context, __file__, KINDS, tables, nodes)
