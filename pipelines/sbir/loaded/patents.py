"""Patents, their assignments, and who took part in them, in the graph."""

from pipelines.sbir.graph.model import ASSIGNMENT, ENTITY, PATENT
from pipelines.sbir.loaded._load import load, mark_of

KINDS = [PATENT, ASSIGNMENT, ENTITY]


def version() -> str:
    return mark_of(__file__, "loaded.patents", KINDS)


def build(context):
    tables = {
        "patents": context.ref("transformed.patents"),
        "assignments": context.ref("transformed.patent_assignments"),
        "entities": context.ref("transformed.patent_entities"),
    }
    return load(context, __file__, KINDS, tables)
