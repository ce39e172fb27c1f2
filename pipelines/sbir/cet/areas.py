"""One row for each text, with the areas it speaks of: new and changed texts are classified, the others taken over.

text_mark   what a text says, as a hash; a row whose mark is the same need not be made again
rules_mark  the taxonomy and the model that classified it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
from pipelines.sbir.cet import model, rules
from pipelines.sbir.cet.taxonomy import Taxonomy, load

MARKED = """
select *, md5(concat_ws('|', coalesce(title, ''), coalesce(topic_code, ''), coalesce(abstract, ''), coalesce(agency, ''),
    coalesce(branch, ''))) as text_mark
from t
"""
JOINED = """
select
    key,
    case when rules_mark is null then title end as title,
    case when rules_mark is null then topic_code end as topic_code,
    case when rules_mark is null then abstract end as abstract,
    case when rules_mark is null then agency end as agency,
    case when rules_mark is null then branch end as branch,
    primary_cet_id,
    primary_score,
    areas,
    taxonomy_version,
    text_mark,
    rules_mark,
    classified_at
from marked
left join (from before semi join rules using (rules_mark)) using (key, text_mark)
"""
_AREA = pl.Struct(
    {
        "cet_id": pl.String,
        "score": pl.Float64,
        "classification": pl.String,
        "is_primary": pl.Boolean,
        "evidence": pl.String,
        "method": pl.String,
    }
)
SCHEMA = {
    "key": pl.String,
    "primary_cet_id": pl.String,
    "primary_score": pl.Float64,
    "areas": pl.List(_AREA),
    "taxonomy_version": pl.String,
    "text_mark": pl.String,
    "rules_mark": pl.String,
    "classified_at": pl.Datetime("us"),
}


def in_chunks(context: Any, texts: Any, settings: Mapping[str, Any], size: int | None = None) -> Iterator[pl.DataFrame]:
    """Frames of SCHEMA for a relation of texts (key, title, topic_code, abstract, agency, branch).

    `context` gives `previous` (rows of SCHEMA, or None), `query` and `chunks`. `settings` is the section `cet`; its
    `trained_model` is the folder of a model, or '' for the rules. What is taken over goes through the same chunks,
    without its text, so that a step that was killed goes on after its last one.
    """
    taxonomy, scoring, trained = load(), rules.Scoring.of(settings), settings.get("trained_model")
    classifier = model.load(trained, taxonomy) if trained else None
    mark = f"{taxonomy.mark}:{classifier.mark if classifier else rules.METHOD}"
    marked = texts.query("t", MARKED)
    before = pl.DataFrame(schema=SCHEMA) if context.previous is None else context.previous
    both = context.query(JOINED, marked=marked, before=before, rules=pl.DataFrame({"rules_mark": [mark]}))
    for chunk in context.chunks(both, size=size):
        known = pl.col("rules_mark").is_not_null()
        new = classified(chunk.filter(~known), taxonomy, mark, scoring, classifier)
        yield pl.concat([chunk.filter(known).select(list(SCHEMA)).cast(SCHEMA), new])  # type: ignore[arg-type]


def classified(
    texts: pl.DataFrame,
    taxonomy: Taxonomy,
    mark: str,
    scoring: rules.Scoring,
    classifier: model.Classifier | None = None,
) -> pl.DataFrame:
    """One row for each text, also for one that speaks of no area: its `areas` is an empty list."""
    found = (classifier or rules).classify(texts, taxonomy, scoring)
    listed = found.group_by("key", maintain_order=True).agg(
        areas=pl.struct(list(_AREA.to_schema())),
        primary_cet_id=pl.col("cet_id").filter("is_primary").first(),
        primary_score=pl.col("score").filter("is_primary").first(),
    )
    return (
        texts.select("key", "text_mark")
        .join(listed, on="key", how="left", maintain_order="left")
        .with_columns(
            areas=pl.col("areas").fill_null(pl.lit([], dtype=pl.List(_AREA))),
            taxonomy_version=pl.lit(taxonomy.version),
            rules_mark=pl.lit(mark),
            classified_at=pl.lit(datetime.now(UTC).replace(tzinfo=None)),
        )
        .select(list(SCHEMA))
        .cast(SCHEMA)  # type: ignore[arg-type]
    )
