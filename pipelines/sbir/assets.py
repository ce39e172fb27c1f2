"""The assets of the design, by its names: each brings its tables up to date and says what came of it.

The work is in the files beside: raw/, validated/, enriched/, transformed/, loaded/. What a function runs by name is its
lineage in Dagster, so the tables are named here once more.
"""

from collections.abc import Mapping
from typing import Any, Literal

from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from pydantic import Field

from ratatouille import run


class Mode(Config):
    """How much is processed: what is new and changed, or everything from scratch."""

    mode: Literal["incremental", "full_refresh"] = Field(
        "incremental", description="incremental: new, changed and withdrawn rows only. full_refresh: all, from scratch"
    )

    @property
    def full(self) -> bool:
        return self.mode == "full_refresh"


def _told(context: AssetExecutionContext, config: Mode, done: Mapping[str, Any]) -> MaterializeResult:
    """What the design asks every asset to say: rows, seconds, throughput, memory, quality, errors."""
    steps: Mapping[str, Any] = done["steps"] if "steps" in done else {done["asset"]: done}
    checks = [check for step in steps.values() for check in step["checks"]]
    seconds = sum(step["seconds"] for step in steps.values())
    rows_in = sum(step["rows_in"] for step in steps.values())
    for name, step in steps.items():
        context.log.info(
            f"{name}: {step['status']}, {step['rows_written']:,} rows written, {step['rows_total']:,} there"
        )
    return MaterializeResult(
        metadata={
            "run_id": next(iter(steps.values()))["run_id"],
            "mode": config.mode,
            "records_in": rows_in,
            "records_written": sum(step["rows_written"] for step in steps.values()),
            "records_failed": sum(step["rows_quarantined"] + step["rows_rejected"] for step in steps.values()),
            "records": {name: step["rows_total"] for name, step in steps.items()},
            "duration_seconds": round(seconds, 3),
            "records_per_second": round(rows_in / seconds) if seconds else 0,
            "peak_memory_mb": round(max(step["peak_memory_bytes"] for step in steps.values()) / 1e6, 1),
            "checks_passed": sum(check["passed"] for check in checks),
            "checks_failed": sum(not check["passed"] for check in checks),
            "issues": [
                *(
                    f"{check['name']}: {check['bad']:,} of {check['rows']:,} rows"
                    for check in checks
                    if not check["passed"]
                ),
                *(f"{name}: {said}" for name, step in steps.items() for said in step["warnings"]),
            ],
        }
    )


# Extract


@asset(group_name="sbir_ingestion", compute_kind="duckdb", description="Every line of every award file, as text.")
def raw_sbir_awards(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("raw.sbir_settings", "raw.sbir_awards", full=config.full))


@asset(group_name="sbir_ingestion", compute_kind="duckdb", description="The company file of SBIR.gov, as text.")
def raw_companies(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("raw.companies", full=config.full))


@asset(group_name="enrichment", compute_kind="duckdb", description="Entities of SAM.gov's monthly file.")
def raw_sam_entities(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("raw.sam_registrations", "raw.sam_entities", full=config.full))


@asset(group_name="enrichment", compute_kind="duckdb", description="Contract actions of USAspending.")
def raw_usaspending_awards(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("raw.usaspending_awards", full=config.full))


@asset(group_name="patent_loading", compute_kind="duckdb", description="The USPTO's assignments and grants, as text.")
def raw_patents(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(
        context,
        config,
        run(
            "raw.uspto_assignments",
            "raw.uspto_documents",
            "raw.uspto_assignees",
            "raw.uspto_assignors",
            "raw.uspto_conveyances",
            "raw.patents",
            "raw.patent_publications",
            full=config.full,
        ),
    )


@asset(
    group_name="cet_pipeline",
    compute_kind="duckdb",
    description="21 critical and emerging technology areas with their words.",
)
def raw_cet_taxonomy(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("raw.cet_taxonomy", full=config.full))


# Validate


@asset(
    group_name="sbir_ingestion",
    deps=[raw_sbir_awards, raw_companies],
    metadata={"table": "validated.sbir_awards_pass"},
    compute_kind="duckdb",
    description="Awards that pass, fail and repeat: each line of the files is in one of the three.",
)
def validated_sbir_awards(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(
        context,
        config,
        run(
            "validated.sbir_award_lines",
            "validated.company_keys",
            "validated.sbir_awards_duplicate",
            "validated.sbir_awards_fail",
            "validated.sbir_awards_pass",
            "validated.sbir_awards_quality",
            full=config.full,
        ),
    )


@asset(
    group_name="patent_loading",
    deps=[raw_patents],
    compute_kind="duckdb",
    description="Patents and their assignments, with references that hold.",
)
def validated_patents(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(
        context,
        config,
        run(
            "validated.patent_lines",
            "validated.patents",
            "validated.patents_fail",
            "validated.patent_publication_lines",
            "validated.patent_publications",
            "validated.patent_publications_fail",
            "validated.patent_assignment_lines",
            "validated.patent_assignments",
            "validated.patent_assignments_fail",
            full=config.full,
        ),
    )


# Enrich


@asset(
    group_name="enrichment",
    deps=[validated_sbir_awards, raw_sam_entities, raw_usaspending_awards],
    compute_kind="duckdb",
    description="Awards with what SAM.gov and USAspending know of their companies.",
)
def enriched_sbir_awards(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(
        context,
        config,
        run(
            "enriched.award_companies",
            "raw.sam_api_entities",
            "enriched.sam_api_names",
            "enriched.sam_names",
            "enriched.company_matches",
            "enriched.company_candidates",
            "enriched.award_enrichment",
            "enriched.sbir_awards_success",
            "enriched.sbir_awards_partial",
            "enriched.sbir_awards",
            "enriched.award_values",
            full=config.full,
        ),
    )


@asset(
    group_name="cet_pipeline",
    deps=[validated_sbir_awards, raw_cet_taxonomy],
    compute_kind="duckdb",
    description="Technology areas of awards, with the words that say so.",
)
def enriched_cet_award_classifications(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(
        context, config, run("enriched.cet_award_areas", "enriched.cet_award_classifications", full=config.full)
    )


@asset(
    group_name="cet_pipeline",
    deps=[validated_patents, raw_cet_taxonomy],
    compute_kind="duckdb",
    description="Technology areas of patents, with the words that say so.",
)
def enriched_cet_patent_classifications(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(
        context,
        config,
        run(
            "enriched.cet_patent_areas",
            "enriched.cet_patent_classifications",
            "enriched.cet_publication_areas",
            full=config.full,
        ),
    )


# Transform


@asset(
    group_name="sbir_ingestion",
    deps=[validated_sbir_awards, enriched_sbir_awards],
    compute_kind="duckdb",
    description="Companies, one row each, with what they were awarded.",
)
def transformed_companies(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("transformed.companies", full=config.full))


@asset(
    group_name="sbir_ingestion",
    deps=[transformed_companies],
    compute_kind="duckdb",
    description="Awards normalised, with calculated fields, and which one followed which.",
)
def transformed_sbir_awards(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("transformed.awards", "transformed.award_progressions", full=config.full))


@asset(
    group_name="sbir_ingestion",
    deps=[transformed_sbir_awards],
    compute_kind="duckdb",
    description="Contracts of an agency, with their awards.",
)
def transformed_contracts(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("transformed.contracts", full=config.full))


@asset(
    group_name="patent_loading",
    deps=[validated_patents, transformed_companies],
    compute_kind="duckdb",
    description="Patents, who assigned them to whom, and which companies own them.",
)
def transformed_patents(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(
        context,
        config,
        run(
            "transformed.patents",
            "transformed.patent_assignments",
            "transformed.patent_entities",
            "transformed.patent_parties",
            "transformed.company_patents",
            "transformed.patent_publications",
            full=config.full,
        ),
    )


@asset(
    group_name="patent_loading",
    deps=[validated_sbir_awards, transformed_patents],
    compute_kind="duckdb",
    description="Which award led to which patent, by exact grant numbers.",
)
def enriched_patents(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("enriched.award_patents", full=config.full))


@asset(
    group_name="cet_pipeline",
    deps=[transformed_companies, enriched_cet_award_classifications],
    compute_kind="duckdb",
    description="What each company specialises in.",
)
def transformed_cet_company_profiles(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("transformed.cet_company_profiles", full=config.full))


@asset(
    group_name="cet_pipeline",
    deps=[enriched_cet_award_classifications, enriched_cet_patent_classifications],
    compute_kind="duckdb",
    description="Areas by year, agency and phase.",
)
def transformed_cet_analytics(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("transformed.cet_analytics", full=config.full))


@asset(
    group_name="cet_pipeline",
    deps=[enriched_cet_award_classifications],
    compute_kind="duckdb",
    description="Whether the areas of new awards are spread as they used to be.",
)
def validated_cet_drift_detection(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("validated.cet_drift_detection", full=config.full))


# Load


@asset(
    group_name="graph_construction",
    deps=[transformed_companies],
    compute_kind="python",
    description="Companies in the graph.",
)
def loaded_companies(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("loaded.companies", full=config.full))


@asset(
    group_name="graph_construction",
    deps=[transformed_sbir_awards, loaded_companies],
    compute_kind="python",
    description="Awards in the graph.",
)
def loaded_sbir_awards(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("loaded.awards", full=config.full))


@asset(
    group_name="graph_construction",
    deps=[transformed_patents, enriched_patents, loaded_companies, loaded_sbir_awards],
    compute_kind="python",
    description="Patents, assignments and their parties in the graph.",
)
def loaded_patents(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("loaded.patents", full=config.full))


@asset(
    group_name="cet_pipeline",
    deps=[raw_cet_taxonomy],
    compute_kind="python",
    description="Technology areas in the graph.",
)
def loaded_cet_areas(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("loaded.cet_areas", full=config.full))


@asset(
    group_name="cet_pipeline",
    deps=[
        loaded_cet_areas,
        loaded_sbir_awards,
        loaded_patents,
        enriched_cet_award_classifications,
        enriched_cet_patent_classifications,
    ],
    compute_kind="python",
    description="Which award belongs to which area, in the graph.",
)
def loaded_award_cet_relationships(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("loaded.award_cet_relationships", full=config.full))


@asset(
    group_name="cet_pipeline",
    deps=[loaded_cet_areas, loaded_companies, transformed_cet_company_profiles],
    compute_kind="python",
    description="Which company specialises in which area, in the graph.",
)
def loaded_company_cet_relationships(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("loaded.company_cet_relationships", full=config.full))


@asset(
    group_name="graph_construction",
    deps=[loaded_award_cet_relationships, loaded_company_cet_relationships, enriched_patents],
    compute_kind="python",
    description="How companies, awards, patents and areas hang together, in the graph; and what it refused.",
)
def loaded_relations(context: AssetExecutionContext, config: Mode) -> MaterializeResult:
    return _told(context, config, run("loaded.relations", "loaded.dead_letters", full=config.full))


all_assets = [
    raw_sbir_awards,
    raw_companies,
    raw_sam_entities,
    raw_usaspending_awards,
    raw_patents,
    raw_cet_taxonomy,
    validated_sbir_awards,
    validated_patents,
    enriched_sbir_awards,
    enriched_patents,
    enriched_cet_award_classifications,
    enriched_cet_patent_classifications,
    transformed_companies,
    transformed_sbir_awards,
    transformed_contracts,
    transformed_patents,
    transformed_cet_company_profiles,
    transformed_cet_analytics,
    validated_cet_drift_detection,
    loaded_companies,
    loaded_sbir_awards,
    loaded_patents,
    loaded_cet_areas,
    loaded_award_cet_relationships,
    loaded_company_cet_relationships,
    loaded_relations,
]
