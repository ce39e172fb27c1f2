"""What areas of critical and emerging technology each award speaks of, and by which words: one row for each award.

Awards whose text was looked at before, by the same taxonomy, are taken over.
"""

from __future__ import annotations

from pipelines.sbir.cet import areas

TEXTS = """
select award_id as key, award_title as title, topic_code, concat_ws('. ', abstract, research_keywords) as abstract, agency, branch
from a
"""


def build(context):  # type: ignore[no-untyped-def]
    texts = context.ref("validated.sbir_awards_pass").query("a", TEXTS)
    yield from areas.in_chunks(
        context, texts, context.var("sbir.cet", {}), context.var("sbir.pipeline.chunk_sizes.enrichment")
    )
