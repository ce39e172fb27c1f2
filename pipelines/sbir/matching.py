"""Which SAM.gov entity a company of the awards is: by identifier where there is one, by name where there is none.

company     one identity of the awards: company_id, normalized_name, uei, duns, cage_code, city, state, zip
entity      one registration of SAM.gov; its legal name and its "doing business as" name are both looked at
method      uei, cage, duns, fuzzy or none, in this order: what an earlier method has found no later one sees again
score       how alike the names are, 0 to 100: shared words count, their order does not, and neither do words that only
            one side has (rapidfuzz's token_set_ratio)
points      the score, less up to ten for words that only one side has, and a few more or less by where both are; what
            candidates are ordered by, and what must lie `tie_points` apart for the first to be taken without a person
band        of a confidence: High, Medium or Low

A name is matched from `automatic` on, offered for review from `review` on, and not matched below. A tie is for a
person too. All of it works on whole columns; names are compared in chunks, so memory does not grow with the companies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from rapidfuzz import fuzz, process

from pipelines.sbir.ngrams import Budget, likely_pairs

UEI = r"^[A-Z0-9]{12}$"
ENTITY_COLUMNS = (
    *("unique_entity_id", "cage_code", "duns_number", "legal_business_name", "dba_name", "registration_status"),
    *("physical_address_line_1", "city", "state", "zip_postal_code", "primary_naics", "naics_code_string"),
)
MATCHED_COLUMNS = (
    *("entity_id", "unique_entity_id", "cage_code", "duns_number", "registration_status"),
    *("normalized_name", "normalized_dba", "city", "state", "zip_postal_code"),
)
_ENTITY_SCHEMA = dict.fromkeys((*ENTITY_COLUMNS, *MATCHED_COLUMNS), pl.String) | {"entity_id": pl.Int64}
PAIRS_AT_ONCE = 200_000  # whose names are in memory as Python texts
_PLACES = {"zip": 6.0, "city": 4.0, "state": 2.0, "elsewhere": -4.0}
_PLACE = pl.Enum([*_PLACES, "unknown"])


@dataclass(frozen=True, slots=True)
class Rules:
    """Scores are 0 to 100, confidences 0 to 1."""

    automatic: float = 90.0
    review: float = 75.0
    tie_points: float = 2.0
    slip: float = 95.0  # from here on two names are one, mistyped
    coincidences: float = 5.0  # entities that would share as much by chance, at most, for a name to be taken
    candidates: int = 5
    high: float = 0.80
    medium: float = 0.60
    confidence: dict[str, float] = field(default_factory=lambda: {"uei": 0.99, "cage": 0.95, "duns": 0.90})
    fuzzy: tuple[float, float] = (0.65, 0.80)  # of an automatic name match, by its points
    floor: float = 0.40  # of a candidate for review
    workers: int = -1  # threads that compare names; -1: every core
    budget: Budget = field(default_factory=Budget)

    @classmethod
    def of(cls, enrichment: Mapping[str, Any]) -> Rules:
        """The rules of the section `enrichment` of the settings; defaults for what it does not say."""
        match, bands = enrichment.get("match", {}), enrichment.get("bands", {})
        fuzzy = enrichment.get("sources", {}).get("fuzzy", {})
        said = {
            "automatic": match.get("automatic"),
            "review": match.get("review"),
            "tie_points": match.get("tie_points"),
            "candidates": enrichment.get("candidates"),
            **{name: bands.get(name) for name in ("high", "medium", "floor")},
            "fuzzy": (fuzzy["confidence"] - 0.05, fuzzy["highest"]) if fuzzy else None,
        }
        return cls(**{name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Matches:
    """`companies`: one row per company. `candidates`: up to five per company that a person should look at."""

    companies: pl.DataFrame
    candidates: pl.DataFrame


def match(
    companies: pl.DataFrame,
    entities: pl.DataFrame,
    rules: Rules | None = None,
    details: Callable[[pl.Series], pl.DataFrame] | None = None,
) -> Matches:
    """Match every company, once, by the strictest method that finds it.

    `companies` needs company_id and normalized_name, and may have uei, duns, cage_code, city, state, zip. `entities`
    needs MATCHED_COLUMNS, its entity_id unique. `details` gives entity_id and ENTITY_COLUMNS for some entity_ids, so that
    what is only shown need not be in memory for all; without it `entities` has them. Both may be empty. Rows come in the
    order of company_id, the same for the same rows in any order.
    """
    rules = rules or Rules()
    details = details or (lambda ids: entities.filter(pl.col("entity_id").is_in(ids.implode())))
    left = _companies(companies)
    right = _entities(entities)
    stages = [
        _judged(_same_key(left, right, "uei"), left, right, "uei", rules),
    ]
    waiting = left
    for method in ("cage", "duns"):
        waiting = waiting.join(stages[-1], on="left", how="anti")
        stages.append(_judged(_same_key(waiting, right, method), left, right, method, rules))
    waiting = waiting.join(stages[-1], on="left", how="anti")
    stages.append(_judged(_same_names(waiting, right, rules), left, right, "fuzzy", rules))
    ranked = pl.concat(stages).join(
        right.select("right", "entity_id", sam_uei="uei", sam_duns="duns"), on="right", maintain_order="left"
    )
    shown = details(ranked["entity_id"].unique().sort()).select("entity_id", pl.col(ENTITY_COLUMNS).cast(pl.String))
    ranked = ranked.join(shown, on="entity_id", how="left", maintain_order="left")
    return Matches(_companies_out(left, ranked, rules), _candidates_out(left, ranked))


def still_true(before: pl.DataFrame | None, companies: pl.DataFrame, mark: str) -> pl.DataFrame:
    """Rows of an earlier result that would come out the same: the company says the same, and so does SAM (`mark`)."""
    if before is None:
        return with_new(None, match(companies.clear(), pl.DataFrame(schema=_ENTITY_SCHEMA)), companies.clear(), mark)
    same = before.filter(pl.col("entities_mark") == mark)
    return same.join(companies.select("company_id", "input_hash"), on=["company_id", "input_hash"], how="semi")


def with_new(before: pl.DataFrame | None, new: Matches, companies: pl.DataFrame, mark: str) -> pl.DataFrame:
    """One row per company: matches, their candidates as a list, and what they were made from and when."""
    columns = ["rank", "method", "uei", "cage_code", "sam_name", "score", "points", "place", "city", "state"]
    candidates = new.candidates.group_by("company_id", maintain_order=True).agg(candidates=pl.struct(columns))
    made = (
        new.companies.join(candidates, on="company_id", how="left", maintain_order="left")
        .join(companies.select("company_id", "input_hash"), on="company_id", maintain_order="left")
        .with_columns(entities_mark=pl.lit(mark), matched_at=pl.lit(datetime.now(UTC).replace(tzinfo=None)))
    )
    return made if before is None else pl.concat([before, made], how="vertical_relaxed").sort("company_id")


def band(confidence: pl.Expr, rules: Rules) -> pl.Expr:
    """High, Medium or Low; null stays null."""
    return (
        pl.when(confidence.is_null())
        .then(None)
        .when(confidence >= rules.high)
        .then(pl.lit("High"))
        .when(confidence >= rules.medium)
        .then(pl.lit("Medium"))
        .otherwise(pl.lit("Low"))
    )


def digits(column: str, length: int) -> pl.Expr:
    """Only the digits of an identifier, zeros that a spreadsheet has eaten put back; null for filler and nonsense."""
    found = pl.col(column).str.replace_all(r"\D", "")
    padded = found.str.zfill(length)
    odd = (found.str.len_chars() < length - 2) | (found.str.len_chars() > length) | padded.str.contains(r"^(0+|9+)$")
    return pl.when(odd).then(None).otherwise(padded)


def _companies(given: pl.DataFrame) -> pl.DataFrame:
    frame = _with(given, ("uei", "duns", "cage_code", "city", "state", "zip")).sort("company_id")
    return frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("left"),
        "company_id",
        name=_tidy("normalized_name"),
        uei=_uei("uei"),
        cage=_cage("cage_code"),
        duns=digits("duns", 9),
        city=_place("city"),
        state=_place("state"),
        zip=_zip("zip"),
    )


def _entities(given: pl.DataFrame) -> pl.DataFrame:
    frame = given if given["entity_id"].is_sorted() else given.sort("entity_id")
    return _with(frame, MATCHED_COLUMNS[1:]).select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("right"),
        "entity_id",
        active=pl.col("registration_status").str.to_uppercase().is_in(["A", "ACTIVE"]).fill_null(False),
        name=_tidy("normalized_name"),
        other_name=_tidy("normalized_dba"),
        uei=_uei("unique_entity_id"),
        cage=_cage("cage_code"),
        duns=digits("duns_number", 9),
        in_city=_place("city"),
        in_state=_place("state"),
        in_zip=_zip("zip_postal_code"),
    )


def _with(frame: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """The frame with every one of the columns, as text; null where it had none."""
    absent = [pl.lit(None, pl.String).alias(name) for name in columns if name not in frame.columns]
    return frame.with_columns(absent).with_columns(pl.col(columns).cast(pl.String))


def _tidy(column: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text.str.len_bytes() > 0).then(text)


def _place(column: str) -> pl.Expr:
    text = pl.col(column).str.to_uppercase().str.replace_all(r"[^A-Z0-9]+", " ").str.strip_chars()
    return pl.when(text.str.len_bytes() > 1).then(text)


def _zip(column: str) -> pl.Expr:
    return pl.col(column).str.extract(r"^\s*(\d{5})")


def _uei(column: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars().str.to_uppercase()
    return pl.when(text.str.contains(UEI)).then(text)


def _cage(column: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars().str.to_uppercase()
    return pl.when(text.str.contains(r"^[A-Z0-9]{5}$") & (text != "00000")).then(text)


def _same_key(left: pl.DataFrame, right: pl.DataFrame, key: str) -> pl.DataFrame:
    """Pairs that share an identifier: left, right. Of several registrations only the active ones, if one is."""
    pairs = left.select("left", key).drop_nulls().join(right.select("right", "active", key).drop_nulls(), on=key)
    return pairs.filter(pl.col("active") | ~pl.col("active").any().over("left")).select("left", "right")


def _same_names(left: pl.DataFrame, right: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Pairs whose names are alike enough for a person to look at: left, right. Equal ones, by rare grams, in one ZIP."""
    asked = left.filter(pl.col("name").is_not_null())
    names = pl.concat(
        [
            right.select("right", "name"),
            right.filter(pl.col("other_name") != pl.col("name")).select("right", name="other_name"),
        ]
    ).filter(pl.col("name").is_not_null())
    nothing = pl.DataFrame(schema={"left": pl.UInt32, "right": pl.UInt32})
    if not asked.height or not names.height:
        return nothing
    joined = pl.col("name").str.replace_all(" ", "", literal=True)
    found = [asked.select("left", joined).join(names.select("right", joined), on="name").select("left", "right")]
    for here, there in likely_pairs(asked["name"], names["name"], rules.budget):
        pairs = pl.DataFrame({"left": asked["left"].gather(here), "one": asked["name"].gather(here)})
        found.append(_near(pl.concat([pairs, names[there].rename({"name": "other"})], how="horizontal"), rules))
    found += [_near(pairs, rules) for pairs in _neighbours(asked, right, names)]
    return pl.concat(found).unique()


def _near(pairs: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    score = alike(fuzz.token_set_ratio, pairs["one"], pairs["other"], rules, at_least=rules.review)
    return pairs.filter(pl.Series(score) >= rules.review).select("left", "right")


def _neighbours(left: pl.DataFrame, right: pl.DataFrame, names: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Everybody in a company's own ZIP code, however its name is mistyped: left, right, one, other; in parts."""
    there = names.join(right.select("right", zip="in_zip"), on="right").drop_nulls()
    crowd = there.group_by("zip").agg(n=pl.len())
    here = left.select("left", "zip", one="name").join(crowd, on="zip").sort("left")
    part = (pl.col("n").cum_sum() // PAIRS_AT_ONCE).alias("part")
    for some in here.with_columns(part).partition_by("part", include_key=False):
        yield some.join(there, on="zip").select("left", "right", "one", other="name")


def _coincidences(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """How many entities would be expected by chance to share as much with the company: left, chance.

    That is how many names hold the rarest word that both names share, times the share of all entities that are in the
    place which both have in common. Names of one place that are equal but for a slip count as sharing every word.
    """
    names = pl.concat([right["name"], right["other_name"]]).drop_nulls().str.split(" ")
    held = names.explode().value_counts(name="names").rename({"name": "word"})
    in_state, in_zip = ["in_state"], ["in_zip"]
    shares = [(pl.len() / right.height).over(by) for by in (in_zip, [*in_state, "in_city"], in_state)]
    there = right.select("right", "name", "other_name", *(s.alias(n) for s, n in zip(shares, _PLACES, strict=False)))
    both = pairs.join(left.select("left", one=pl.col("name").str.split(" ")), on="left").join(there, on="right")
    other = pl.when("by_trade_name").then("other_name").otherwise("name").str.split(" ")
    likely = pl.lit(1.0)
    for place in ("zip", "city", "state"):
        likely = pl.when(pl.col("place") == place).then(place).otherwise(likely)
    both = both.with_columns(other=other, likely=likely)
    mistyped = (pl.col("whole") >= rules.slip) & (pl.col("place") != "elsewhere")
    shared = pl.when(mistyped).then("other").otherwise(pl.col("one").list.set_intersection("other"))
    words = both.select("left", "likely", word=shared).explode("word", empty_as_null=True).join(held, on="word")
    return words.group_by("left").agg(chance=(pl.col("names") * pl.col("likely")).min())


def alike(scorer: object, one: pl.Series, other: pl.Series, rules: Rules, at_least: float = 0.0) -> np.ndarray:
    """Scores of pairs, position by position; 0 below `at_least`, and where a name is missing."""
    if not len(one):
        return np.empty(0, dtype=np.float32)
    return process.cpdist(  # type: ignore[no-any-return]
        one.fill_null("").to_list(),
        other.fill_null("").to_list(),
        scorer=scorer,
        score_cutoff=at_least,
        workers=rules.workers,
        dtype=np.float32,
    )


def _judged(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame, method: str, rules: Rules) -> pl.DataFrame:
    """The best candidates of each company, first the one with most points, and whether it is to be taken."""
    scored = pl.concat([_empty(), *(_scored(part, left, right, rules) for part in _parts(pairs))])
    ranked = (
        scored.sort(["left", "points", "active", "right"], descending=[False, True, True, False])
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over("left"))
        .filter(pl.col("rank") <= rules.candidates)
        .with_columns(next_points=pl.col("points").shift(-1).over("left"))
    )
    clear = pl.col("next_points").is_null() | (pl.col("points") - pl.col("next_points") >= rules.tie_points)
    good = pl.lit(True)
    if method == "fuzzy":
        good = (pl.col("score") >= rules.automatic) & (pl.col("points") >= rules.automatic)
        chance = _coincidences(ranked.filter(pl.col("rank") == 1), left, right, rules)
        ranked = ranked.join(chance, on="left", how="left", maintain_order="left")
        good &= (pl.col("chance") <= rules.coincidences).fill_null(False)
    else:
        ranked = ranked.with_columns(chance=pl.lit(None, pl.Float64))
    first = pl.col("rank") == 1
    return ranked.with_columns(
        method=pl.lit(method),
        ambiguous=(first & ~clear).any().over("left"),
        matched=(first & clear & good).any().over("left"),
    )


def _parts(pairs: pl.DataFrame, rows: int = PAIRS_AT_ONCE) -> Iterator[pl.DataFrame]:
    for at in range(0, pairs.height, rows):
        yield pairs[at : at + rows]


def _empty() -> pl.DataFrame:
    numbers = {"score": pl.Float32, "whole": pl.Float32, "points": pl.Float32}
    known = {"left": pl.UInt32, "right": pl.UInt32, "active": pl.Boolean, "place": _PLACE, "by_trade_name": pl.Boolean}
    return pl.DataFrame(schema={**known, **numbers})


def _scored(pairs: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """How alike both names are, and how near to each other both are."""
    both = pairs.join(left.select("left", "name", "city", "state", "zip"), on="left").join(
        right.select("right", "active", "in_city", "in_state", "in_zip", "other_name", there="name"), on="right"
    )
    # "Data Link" and "Datalink" are one name.
    joined = both.select(pl.col("name", "there", "other_name").str.replace_all(" ", "", literal=True))
    part, whole = (
        [
            np.where(
                (joined["name"] == joined[there]).fill_null(False), 100, alike(how, both["name"], both[there], rules)
            )
            for there in ("there", "other_name")
        ]
        for how in (fuzz.token_set_ratio, fuzz.token_sort_ratio)
    )
    by_trade_name = (part[1] > part[0]) | ((part[1] == part[0]) & (whole[1] > whole[0]))
    same_state = pl.col("state") == pl.col("in_state")
    place = (
        pl.when(pl.col("zip") == pl.col("in_zip"))
        .then(pl.lit("zip"))
        .when(same_state & (pl.col("city") == pl.col("in_city")))
        .then(pl.lit("city"))
        .when(same_state)
        .then(pl.lit("state"))
        .when(~same_state)
        .then(pl.lit("elsewhere"))
        .otherwise(pl.lit("unknown"))
        .cast(_PLACE)
    )
    both = both.with_columns(
        place=place,
        by_trade_name=pl.Series(by_trade_name),
        **{
            name: pl.Series(np.where(by_trade_name, of[1], of[0]), dtype=pl.Float32)
            for name, of in (("score", part), ("whole", whole))
        },
    )
    worth = pl.col("place").replace_strict(_PLACES, default=0.0, return_dtype=pl.Float32)
    points = pl.col("score") - (100 - pl.col("whole")) / 10 + worth
    columns = ("left", "right", "active", "place", "by_trade_name", "score", "whole")
    return both.select(columns, points=points.cast(pl.Float32))


def _companies_out(left: pl.DataFrame, ranked: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    first = ranked.filter(pl.col("rank") == 1)
    found = left.select("left", "company_id", "name", "uei", "duns").join(
        first, on="left", how="left", maintain_order="left"
    )
    taken = pl.col("matched").fill_null(False)
    method = pl.when(pl.col("method").is_null()).then(pl.lit("none")).otherwise(pl.col("method"))
    status = pl.when(taken).then(pl.lit("matched")).when(pl.col("method").is_null()).then(pl.lit("none"))
    differs = (pl.col("uei") != pl.col("sam_uei")) & (pl.col("method") != "uei")
    compared = (
        pl.when(pl.col("method") == "uei")
        .then("sam_uei")
        .when(pl.col("method") == "cage")
        .then("cage_code")
        .when(pl.col("method") == "duns")
        .then("sam_duns")
        .otherwise(pl.concat_str("name", pl.lit(" = "), "legal_business_name", ignore_nulls=True))
    )
    evidence = pl.struct(
        compared=compared,
        name_score=pl.col("score").round(1),
        points=pl.col("points").round(1),
        next_points=pl.col("next_points").round(1),
        coincidences=pl.col("chance").round(3),
        by_trade_name="by_trade_name",
        place=pl.col("place").cast(pl.String),
        uei_differs=differs,
    ).struct.json_encode()
    out = found.with_columns(confidence=_confidence(rules), status=status.otherwise(pl.lit("review")))
    kept = pl.struct(ENTITY_COLUMNS).struct.json_encode()
    return out.select(
        "company_id",
        uei=pl.when(taken).then("sam_uei"),
        cage_code=pl.when(taken).then("cage_code"),
        method=method,
        score=pl.col("score").cast(pl.Float64).round(2),
        confidence=pl.col("confidence").round(4),
        band=band(pl.col("confidence"), rules),
        status="status",
        sam_name=pl.when(taken).then("legal_business_name"),
        primary_naics=pl.when(taken).then("primary_naics"),
        evidence=pl.when(pl.col("method").is_not_null()).then(evidence),
        ambiguous=pl.col("ambiguous").fill_null(False),
        sam_gov_data=pl.when(taken).then(kept),
    )


def _confidence(rules: Rules) -> pl.Expr:
    """By method; of names by points. A match by an identifier whose UEI is another one is worth a twentieth less."""
    low, high = rules.fuzzy
    share = ((pl.col("points").cast(pl.Float64) - rules.automatic) / (100 - rules.automatic)).clip(0, 1)
    offered = ((pl.col("score").cast(pl.Float64) - rules.review) / (100 - rules.review)).clip(0, 1)
    known = pl.col("method").replace_strict(rules.confidence, default=None, return_dtype=pl.Float64)
    differs = ((pl.col("uei") != pl.col("sam_uei")) & (pl.col("method") != "uei")).fill_null(False)
    return (
        pl.when(~pl.col("matched"))
        .then(rules.floor + offered * (rules.medium - 0.01 - rules.floor))
        .when(pl.col("method") == "fuzzy")
        .then(low + share * (high - low))
        .otherwise(known - pl.when(differs).then(0.05).otherwise(0.0))
    )


def _candidates_out(left: pl.DataFrame, ranked: pl.DataFrame) -> pl.DataFrame:
    chosen = ranked.filter(~pl.col("matched")).sort(["left", "rank"])
    joined = chosen.join(left.select("left", "company_id", "name"), on="left", maintain_order="left")
    return joined.select(
        "company_id",
        "rank",
        "method",
        uei="unique_entity_id",
        cage_code="cage_code",
        sam_name="legal_business_name",
        score=pl.col("score").cast(pl.Float64).round(2),
        points=pl.col("points").cast(pl.Float64).round(2),
        place=pl.col("place").cast(pl.String),
        city="city",
        state="state",
        company_name="name",
    )
