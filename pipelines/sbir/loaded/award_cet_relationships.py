"""Which technologies awards and patents are about, in the graph."""

from pipelines.sbir.graph.model import AWARD_APPLICABLE_TO, PATENT_APPLICABLE_TO
from pipelines.sbir.loaded._load import load, mark_of, nodes_of

KINDS = [AWARD_APPLICABLE_TO, PATENT_APPLICABLE_TO]


def version() -> str:
    return mark_of(__file__, "loaded.award_cet_relationships", KINDS)


def build(context):
    tables = {
        "award_classes": context.ref("enriched.cet_award_classifications"),
        "patent_classes": context.ref("enriched.cet_patent_classifications"),
    }
    nodes = nodes_of(context.ref("loaded.awards"), context.ref("loaded.patents"), context.ref("loaded.cet_areas"))
    return load(context, __file__, KINDS, tables, nodes)
