"""The two checks of the design under their own names. The gates that keep rows out are in the files of the tables."""

from dagster import AssetCheckResult

from ratatouille import query, workspace
from ratatouille.dagster import asset_check

from .assets import enriched_sbir_awards, validated_sbir_awards
from .settings import Settings, read

REQUIRED = ("award_id", "company_name", "award_amount")


def settings() -> Settings:
    """Those of the workspace that this file lies in, as the run sees them."""
    return read(workspace(__file__).vars["sbir"])


@asset_check(asset=validated_sbir_awards, description="The least filled of the three fields that every award needs.")
def sbir_awards_completeness_check() -> AssetCheckResult:
    found = query("select count(*) as total, count(columns(*)) from validated.sbir_awards_pass").row(0, named=True)
    total = found["total"]
    if not total:
        return AssetCheckResult(passed=False, description="There is no award.", metadata={"total_count": 0})
    coverage = {field: found[field] / total for field in REQUIRED}
    return AssetCheckResult(
        passed=min(coverage.values()) >= settings().data_quality.minimum_completeness,
        metadata={"min_coverage": min(coverage.values()), "field_coverage": coverage, "total_count": total},
    )


@asset_check(asset=enriched_sbir_awards, description="The share of awards whose company is known to SAM.gov.")
def enrichment_success_rate_check() -> AssetCheckResult:
    found = query(
        "select count(*) as total, count(sam_gov_data) as enriched from ("
        " select sam_gov_data from enriched.sbir_awards_success"
        " union all select sam_gov_data from enriched.sbir_awards_partial)"
    ).row(0, named=True)
    total, enriched = found["total"], found["enriched"]
    if not total:
        return AssetCheckResult(passed=False, description="There is no award.", metadata={"total_count": 0})
    return AssetCheckResult(
        passed=enriched / total >= settings().enrichment.min_success,
        metadata={"enrichment_rate": enriched / total, "enriched_count": enriched, "total_count": total},
    )


all_checks = [sbir_awards_completeness_check, enrichment_success_rate_check]
