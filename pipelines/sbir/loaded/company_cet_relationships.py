"""In which technologies companies specialise, in the graph."""

from pipelines.sbir.graph.model import SPECIALIZES_IN
from pipelines.sbir.loaded._load import load, mark_of, nodes_of

KINDS = [SPECIALIZES_IN]


def version() -> str:
    return mark_of(__file__, "loaded.company_cet_relationships", KINDS)


def build(context):
    tables = {"profiles": context.ref("transformed.cet_company_profiles")}
    nodes = nodes_of(context.ref("loaded.companies"), context.ref("loaded.cet_areas"))
    return load(context, __file__, KINDS, tables, nodes)
