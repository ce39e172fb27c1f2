"""Which areas a text is about, by the phrases it uses: no labels needed, and each result shows its words.

hit        a keyword in a field; it counts once, where it weighs most
raw        the sum over an area's hits of field weight times specificity; half of it when a negative phrase occurs
score      35 + 12 x raw, between 40 and 95, then points for pairs of phrases and for the agency, never above 95
accepted   an area whose raw is at least 1.25: one long word in an abstract is enough, an abbreviation is not

Texts are columns; phrases of all areas are looked for in one pass (Aho-Corasick, by polars).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from pipelines.sbir.cet.taxonomy import Taxonomy

FIELDS = ("title", "topic_code", "abstract")
EXCERPT_SIGNS = 140  # on each side of the phrase
METHOD = "rules"


@dataclass(frozen=True, slots=True)
class Scoring:
    """Weights of fields, the line from raw to score, and what is shown. Scores are 0 to 100."""

    title: float = 2.0
    topic_code: float = 1.5
    abstract: float = 1.0
    accept: float = 1.25
    base: float = 35.0
    per_point: float = 12.0
    floor: float = 40.0
    cap: float = 95.0
    negative: float = 0.5
    high: float = 70.0
    medium: float = 40.0
    supporting: int = 3  # areas beside the primary one
    excerpts: int = 3
    excerpt_words: int = 50

    @classmethod
    def of(cls, cet: Mapping[str, Any]) -> Scoring:
        """From the section `cet` of the settings; defaults for what it does not say."""
        shown = {"supporting": "max_supporting", "excerpts": "max_evidence", "excerpt_words": "evidence_words"}
        return cls(**cet.get("rules", {}), **cet.get("bands", {}), **{k: cet[v] for k, v in shown.items() if v in cet})

    def weight(self, field: str) -> float:
        """Of a hit in a field."""
        return float(getattr(self, field))


SCHEMA = {
    "key": pl.String,
    "cet_id": pl.String,
    "score": pl.Float64,
    "classification": pl.String,
    "is_primary": pl.Boolean,
    "evidence": pl.String,
    "taxonomy_version": pl.String,
    "method": pl.String,
}


def classify(texts: pl.DataFrame, taxonomy: Taxonomy, scoring: Scoring | None = None) -> pl.DataFrame:
    """One row per text and area, at most four per text: SCHEMA.

    `texts` has `key`, any of FIELDS, and may have `agency` and `branch`. A text that speaks of no area has no row.
    """
    how = scoring or Scoring()
    found = hits(texts, taxonomy, how)
    best = _best(found)
    against = found.filter("negative").select("key", "area").unique().with_columns(halved=pl.lit(True))
    areas = (
        best.group_by("key", "area", maintain_order=True)
        .agg(raw=(pl.col("weight") * pl.col("specificity")).sum())
        .join(against, on=["key", "area"], how="left")
        .with_columns(raw=pl.when("halved").then(pl.col("raw") * how.negative).otherwise("raw"))
        .filter(pl.col("raw") >= how.accept)
    )
    scored = areas.with_columns(score=(how.base + how.per_point * pl.col("raw")).clip(how.floor, how.cap))
    for points in (_pair_points(best, taxonomy), _agency_points(texts, taxonomy)):
        scored = (
            scored.join(points, on=["key", "area"], how="left")
            .with_columns(score=(pl.col("score") + pl.col("points").fill_null(0)).clip(how.floor, how.cap))
            .drop("points")
        )
    ranked = (
        scored.sort(["key", "score", "raw", "area"], descending=[False, True, True, False])
        .with_columns(rank=pl.int_range(pl.len()).over("key"))
        .filter(pl.col("rank") <= how.supporting)
    )
    return ranked.join(_evidence(best, texts, how), on=["key", "area"], how="left", maintain_order="left").select(
        "key",
        cet_id="area",
        score=pl.col("score").round(1),
        classification=classification(pl.col("score"), how),
        is_primary=pl.col("rank") == 0,
        evidence="evidence",
        taxonomy_version=pl.lit(taxonomy.version),
        method=pl.lit(METHOD),
    )


def evidence(texts: pl.DataFrame, taxonomy: Taxonomy, how: Scoring) -> pl.DataFrame:
    """The words that speak for each area: key, area, evidence (JSON text)."""
    return _evidence(_best(hits(texts, taxonomy, how)), texts, how)


def _best(found: pl.DataFrame) -> pl.DataFrame:
    """Each keyword once for each text and area: where it weighs most, its first place there."""
    order = ["key", "area", "words", "weight", "at"]
    best = found.filter(~pl.col("negative")).sort(order, descending=[name == "weight" for name in order])
    return best.unique(["key", "area", "words"], keep="first", maintain_order=True)


def classification(score: pl.Expr, how: Scoring) -> pl.Expr:
    """High from 70, Medium from 40, else Low, unless `how` says otherwise."""
    return (
        pl.when(score >= how.high)
        .then(pl.lit("High"))
        .when(score >= how.medium)
        .then(pl.lit("Medium"))
        .otherwise(pl.lit("Low"))
    )


def plain(text: pl.Expr) -> pl.Expr:
    """Printable ASCII with single blanks, so that a position is the same in bytes, in signs and in lower case."""
    return text.fill_null("").str.replace_all(r"[^\x21-\x7e]+", " ").str.strip_chars()


def hits(texts: pl.DataFrame, taxonomy: Taxonomy, how: Scoring) -> pl.DataFrame:
    """Every occurrence: key, area, words, specificity, negative, field, weight, at (its place in the plain text)."""
    known = pl.DataFrame(
        [(k.area, k.words, k.specificity, k.negative) for k in taxonomy.keywords],
        schema={"area": pl.String, "words": pl.String, "specificity": pl.Float64, "negative": pl.Boolean},
        orient="row",
    )
    spelled = pl.concat(
        [
            known.with_columns(pattern=pl.format(" {} ", "words")),
            known.with_columns(pattern=pl.format(" {}s ", "words")),
        ]
    )
    patterns = spelled["pattern"].unique().sort().to_list()
    parts = [
        texts.select(
            "key", words=pl.format(" {} ", plain(pl.col(field)).str.to_lowercase().str.replace_all(r"[^a-z0-9]", " "))
        )
        .select(
            "key",
            pattern=pl.col("words").str.extract_many(patterns, overlapping=True),
            at=pl.col("words").str.find_many(patterns, overlapping=True),
        )
        .filter(pl.col("pattern").list.len() > 0)
        .explode("pattern", "at")
        .with_columns(field=pl.lit(field), weight=pl.lit(how.weight(field)))
        for field in FIELDS
        if field in texts.columns
    ]
    if not parts:
        return known.clear().with_columns(key=pl.lit(""), field=pl.lit(""), weight=0.0, at=pl.lit(0, pl.UInt32))
    return pl.concat(parts).join(spelled, on="pattern").drop("pattern")


def _pair_points(best: pl.DataFrame, taxonomy: Taxonomy) -> pl.DataFrame:
    pairs = pl.DataFrame(
        taxonomy.pairs,
        schema={"one": pl.String, "other": pl.String, "area": pl.String, "points": pl.Float64},
        orient="row",
    )
    said = best.select("key", "words").unique()
    both = said.join(pairs, left_on="words", right_on="one").join(
        said, left_on=["key", "other"], right_on=["key", "words"]
    )
    return both.group_by("key", "area").agg(pl.col("points").sum())


def _agency_points(texts: pl.DataFrame, taxonomy: Taxonomy) -> pl.DataFrame:
    ids = [area.id for area in taxonomy.areas]
    every = [(name, area, points) for name, of, points in taxonomy.agencies for area in (ids if of == "*" else [of])]
    points = pl.DataFrame(every, schema={"name": pl.String, "area": pl.String, "points": pl.Float64}, orient="row")
    names = [column for column in ("agency", "branch") if column in texts.columns]
    if not names:
        return points.clear().select(key=pl.col("name"), area="area", points="points")
    said = pl.concat(
        [texts.select("key", name=pl.col(column).str.to_lowercase().str.strip_chars()) for column in names]
    )
    return said.join(points, on="name").group_by("key", "area").agg(pl.col("points").max())


def _evidence(best: pl.DataFrame, texts: pl.DataFrame, how: Scoring) -> pl.DataFrame:
    """JSON text: up to three of {keyword, field, weight, excerpt, rationale}, what weighs most first."""
    worth = pl.col("weight") * pl.col("specificity")
    chosen = (
        best.with_columns(worth=worth)
        .sort(["key", "area", "worth", "words"], descending=[False, False, True, False])
        .group_by("key", "area", maintain_order=True)
        .head(how.excerpts)
    )
    parts = [_with_excerpt(chosen.filter(pl.col("field") == field), texts, field, how) for field in _present(texts)]
    if not parts:
        return best.clear().select("key", "area", evidence="words")
    rationale = pl.format("'{}' in the {}", "words", pl.col("field").replace({"topic_code": "topic code"}))
    shown = pl.struct(keyword="words", field="field", weight="worth", excerpt="excerpt", rationale=rationale)
    return (
        pl.concat(parts)
        .sort(["key", "area", "worth", "words"], descending=[False, False, True, False])
        .group_by("key", "area", maintain_order=True)
        .agg(shown.struct.json_encode().alias("each"))
        .select("key", "area", evidence=pl.format("[{}]", pl.col("each").list.join(",")))
    )


def _present(texts: pl.DataFrame) -> Iterable[str]:
    return [field for field in FIELDS if field in texts.columns]


def _with_excerpt(chosen: pl.DataFrame, texts: pl.DataFrame, field: str, how: Scoring) -> pl.DataFrame:
    """The words around each phrase, cut between words."""
    text = texts.select("key", said=plain(pl.col(field)))
    at, length = pl.col("at").cast(pl.Int64), pl.col("words").str.len_bytes()
    start, end = (at - EXCERPT_SIGNS).clip(lower_bound=0), at + length
    before = pl.col("said").str.slice(start, at - start)
    before = pl.when(start > 0).then(before.str.replace(r"^\S*\s", "")).otherwise(before)
    after = pl.col("said").str.slice(end, EXCERPT_SIGNS)
    cut = end + EXCERPT_SIGNS < pl.col("said").str.len_bytes()
    after = pl.when(cut).then(after.str.replace(r"\s\S*$", "")).otherwise(after)
    # Before the phrase two fifths of the words, behind it the others; a phrase has five at most.
    n_before = how.excerpt_words * 2 // 5
    excerpt = pl.concat_str(
        before.str.split(" ").list.tail(n_before + 1).list.join(" "),
        pl.col("said").str.slice(at, length),
        after.str.split(" ").list.head(how.excerpt_words - n_before - 4).list.join(" "),
    )
    return chosen.join(text, on="key").with_columns(excerpt=excerpt).drop("said")
