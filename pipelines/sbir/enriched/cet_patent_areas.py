"""What areas of critical and emerging technology each patent speaks of, and by which words: one row for each patent."""

from __future__ import annotations

from pipelines.sbir.cet import areas

TEXTS = "select grant_doc_num as key, title, null::varchar as topic_code, abstract, null::varchar as agency, null::varchar as branch from p"


def build(context):  # type: ignore[no-untyped-def]
    texts = context.ref("validated.patents").query("p", TEXTS)
    yield from areas.in_chunks(
        context, texts, context.var("sbir.cet", {}), context.var("sbir.pipeline.chunk_sizes.enrichment")
    )
