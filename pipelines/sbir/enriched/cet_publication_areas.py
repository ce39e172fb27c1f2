"""What areas of critical and emerging technology each published application speaks of, and by which words."""

from __future__ import annotations

from pipelines.sbir.cet import areas

TEXTS = "select publication_number as key, title, null::varchar as topic_code, abstract, null::varchar as agency, null::varchar as branch from p"


def build(context):  # type: ignore[no-untyped-def]
    texts = context.ref("validated.patent_publications").query("p", TEXTS)
    yield from areas.in_chunks(
        context, texts, context.var("sbir.cet", {}), context.var("sbir.pipeline.chunk_sizes.enrichment")
    )
