"""The settings of the pipeline, with types and ranges.

`read(values)` takes the mapping that config/base.yaml, its overlay and the environment make (`vars_files:` in
workspace.yaml), and gives Settings, or SettingsError that names every key that is wrong. raw.sbir_settings does that
in each run before a line is validated, so a value out of its range stops the run, whoever started it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Rate = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Rows = Annotated[int, Field(ge=100)]
Retries = Annotated[int, Field(ge=1, le=10)]
Timeout = Annotated[float, Field(ge=5, le=300)]
Year = Annotated[int, Field(ge=1900, le=9999)]
Positive = Annotated[float, Field(gt=0)]
Threads = Annotated[int, Field(ge=1, le=64)]


class SettingsError(ValueError):
    """Values that cannot be; `problems` says each with its key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChunkSizes(Section):
    enrichment: Rows
    graph: Rows


class Pipeline(Section):
    chunk_sizes: ChunkSizes


class Extract(Section):
    date_formats: dict[Literal["bulk", "web", "api"], Annotated[list[str], Field(min_length=1)]]

    @field_validator("date_formats")
    @classmethod
    def _one_reading(cls, formats: dict[str, list[str]]) -> dict[str, list[str]]:
        for source, spelled in formats.items():
            for one, other in _read_alike(spelled):
                raise ValueError(f"{source} declares {one} and {other}, which read one text as two dates")
        return formats


def _read_alike(formats: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of formats that differ only in the order of their numbers: 03/04/2020 would be two dates."""
    shape = {one: re.sub(r"%[dm]", "%?", one.replace("%Y", "%Y")) for one in formats}
    for number, one in enumerate(formats):
        for other in formats[number + 1 :]:
            if one != other and shape[one] == shape[other]:
                yield one, other


class YearBand(Section):
    """Limits for the awards of some years: the least share of award dates and of DUNS numbers that are filled, and of
    awards whose company SAM.gov knows."""

    name: Annotated[str, Field(pattern=r"^[\w -]{1,40}$")]
    from_: Annotated[Year, Field(alias="from")]
    to: Year
    award_date: Rate
    duns: Rate
    sam_gov: Rate


class PatentQuality(Section):
    pass_rate: Rate
    completeness: Rate


class Completeness(Section):
    award_id: Rate
    company_name: Rate
    award_amount: Rate
    program: Rate


class DataQuality(Section):
    award_year_min: Year
    amount_warning: Positive
    completeness: Completeness
    minimum_completeness: Rate
    validity: Rate
    consistency: Rate
    pass_rate: Rate
    max_duplicate_rate: Annotated[float, Field(ge=0, le=0.5)]
    year_bands: Annotated[list[YearBand], Field(min_length=1)]
    patents: PatentQuality

    @field_validator("year_bands")
    @classmethod
    def _one_after_the_other(cls, bands: list[YearBand]) -> list[YearBand]:
        for before, band in pairwise(bands):
            if before.to + 1 != band.from_:
                raise ValueError(f"the band {band.name} must begin in {before.to + 1}, after {before.name}")
        return bands


class Match(Section):
    automatic: Percent
    review: Percent
    tie_points: Percent

    @model_validator(mode="after")
    def _review_is_less(self) -> Match:
        if self.review > self.automatic:
            raise ValueError("review must not be above automatic")
        return self


class Bands(Section):
    high: Rate
    medium: Rate
    floor: Rate


class Source(Section):
    confidence: Rate


class SamSource(Source):
    ask_api: bool
    requests_per_minute: Annotated[int, Field(ge=1, le=6000)]
    daily_quota: Annotated[int, Field(ge=0)]


class FuzzySource(Source):
    highest: Rate


class Sources(Section):
    usaspending: Source
    sam_gov: SamSource
    fuzzy: FuzzySource
    proximity: Source
    agency_default: Source
    sector_default: Source


class Neighbours(Section):
    firms: Annotated[int, Field(ge=1)]
    share: Rate


class Enrichment(Section):
    max_retries: Retries
    timeout_seconds: Timeout
    min_success: Rate
    min_high_confidence: Rate
    max_fallback: Rate
    usaspending_match: Rate
    candidates: Annotated[int, Field(ge=1, le=20)]
    match: Match
    bands: Bands
    sources: Sources
    agency_naics: dict[str, Annotated[str, Field(pattern=r"^\d{2,6}$")]]
    sector_naics: Annotated[str, Field(pattern=r"^\d{2,6}$")]
    neighbours: Neighbours


class Transform(Section):
    progression_min_confidence: Rate


class CetBands(Section):
    high: Percent
    medium: Percent


class CetRules(Section):
    title: Positive
    topic_code: Positive
    abstract: Positive
    accept: Positive
    base: Percent
    per_point: Positive
    floor: Percent
    cap: Percent
    negative: Rate


class CetQuality(Section):
    min_success: Rate
    min_high_confidence: Rate
    min_evidence: Rate


class CetModel(Section):
    max_features: Annotated[int, Field(ge=100)]
    select: Annotated[int, Field(ge=10)]
    iterations: Annotated[int, Field(ge=10)]
    min_df: Annotated[int, Field(ge=1)]
    max_df: Rate
    folds: Annotated[int, Field(ge=2, le=20)]
    seed: int


class CetDrift(Section):
    warn: Positive
    alert: Positive
    least: Annotated[int, Field(ge=1)]


class Cet(Section):
    taxonomy_version: str
    bands: CetBands
    max_supporting: Annotated[int, Field(ge=0, le=20)]
    max_evidence: Annotated[int, Field(ge=0, le=20)]
    evidence_words: Annotated[int, Field(ge=5, le=500)]
    rules: CetRules
    quality: CetQuality
    drift: CetDrift
    trained_model: str
    model: CetModel


class Loading(Section):
    batch_size: Annotated[int, Field(ge=1, le=100_000)]
    parallel_threads: Threads
    transaction_timeout_seconds: Timeout
    deadlock_retries: Retries
    min_success: Rate
    max_constraint_violations: Annotated[int, Field(ge=0)]
    reconnect_seconds: Annotated[int, Field(ge=0, le=3600)]
    delete_withdrawn: bool
    max_delete_share: Rate


class Neo4j(Section):
    """Where the server is and who we are there comes from NEO4J_URI, NEO4J_USER and NEO4J_PASSWORD, never from here."""

    loading: Loading


class Graph(Section):
    backend: Literal["ladybug", "neo4j"]
    path: Annotated[str, Field(min_length=1)]
    buffer_mb: Annotated[int, Field(ge=64)]


class Settings(Section):
    pipeline: Pipeline
    extract: Extract
    data_quality: DataQuality
    enrichment: Enrichment
    transform: Transform
    cet: Cet
    graph: Graph
    neo4j: Neo4j


def read(values: Mapping[str, Any]) -> Settings:
    """Settings from plain values; SettingsError names every key that is wrong, missing or unknown."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError([_said(dict(one)) for one in error.errors(include_url=False)]) from error


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting as (section.key, its value as text), in order."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _said(problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    what = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    return f"{key}: {what[:1].lower()}{what[1:]}" + (
        f" (it is {given!r})" if isinstance(given, (int, float, str)) else ""
    )
