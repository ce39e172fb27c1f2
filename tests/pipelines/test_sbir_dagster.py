"""The SBIR pipeline as Dagster shows it: every name of its design, one run of all stages, and gates that stop what is below."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ratatouille.dagster import AssetCheckResult, asset_check, definitions, guard, workspace_io_manager
from ratatouille.handle import Workspace

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {
    "sbir_ingestion": {
        "raw_sbir_awards",
        "raw_companies",
        "validated_sbir_awards",
        "transformed_companies",
        "transformed_sbir_awards",
        "transformed_contracts",
    },
    "enrichment": {"raw_sam_entities", "raw_usaspending_awards", "enriched_sbir_awards"},
    "patent_loading": {
        "raw_patents",
        "validated_patents",
        "enriched_patents",
        "transformed_patents",
    },
    "cet_pipeline": {
        "raw_cet_taxonomy",
        "enriched_cet_award_classifications",
        "enriched_cet_patent_classifications",
        "transformed_cet_company_profiles",
        "transformed_cet_analytics",
        "validated_cet_drift_detection",
        "loaded_cet_areas",
        "loaded_award_cet_relationships",
        "loaded_company_cet_relationships",
    },
    "graph_construction": {"loaded_companies", "loaded_sbir_awards", "loaded_patents", "loaded_relations"},
}
EVERY = set().union(*GROUPS.values())

pytestmark = [
    pytest.mark.timeout(600),
    # Dagster's SQLite storage closes its connections when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Office:
    """A copy of the workspace with the SBIR pipeline alone, awards of a made-up world, and a Dagster of its own."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root, self.instance = root, instance
        self.definitions = definitions(root)

    def built(self) -> None:
        """All tables are there, also in a process that was given some of the tests only."""
        if not (self.root / ".rat" / "catalog.sqlite").exists():
            assert self.run("sbir_pipeline_job").success

    def run(self, job: str, **config: Any) -> dg.ExecuteInProcessResult:
        ops = {name: {"config": config} for name in EVERY} if config else {}
        made = self.definitions.resolve_job_def(job)
        names = {node.name for node in made.nodes}
        return made.execute_in_process(
            instance=self.instance,
            run_config={"ops": {name: one for name, one in ops.items() if name in names}},
            raise_on_error=False,
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return Workspace(self.root).query(sql).rows()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    root = tmp_path_factory.mktemp("sbir") / "kitchen"
    root.mkdir()
    shutil.copy(ROOT / "workspace.yaml", root)
    shutil.copytree(ROOT / "macros", root / "macros")
    shutil.copytree(ROOT / "pipelines" / "sbir", root / "pipelines" / "sbir")
    (root / "pipelines" / "__init__.py").write_text("")
    before = list(sys.path), {name: module for name, module in sys.modules.items() if name.split(".")[0] == "pipelines"}
    for name in before[1]:
        del sys.modules[name]
    home = root.parent / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        made = Office(root, instance)
        sample = import_module("pipelines.sbir.sample")
        sample.write(sample.sample(300, 7), root)
        yield made
    sys.path[:] = before[0]
    for name in [name for name in sys.modules if name.split(".")[0] == "pipelines"]:
        del sys.modules[name]
    sys.modules.update(before[1])


def metadata(result: dg.ExecuteInProcessResult, key: str) -> dict[str, Any]:
    [event] = result.asset_materializations_for_node(key)
    return {name: value.value for name, value in event.metadata.items()}


def test_the_design_is_kept_by_name(office: Office) -> None:
    repository = office.definitions.get_repository_def()
    graph = repository.asset_graph
    assert {name: graph.get(dg.AssetKey(name)).group_name for name in EVERY} == {
        name: group for group, names in GROUPS.items() for name in names
    }
    jobs = {
        job.name: {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
        for job in repository.get_all_jobs()
        if job.name != "__ASSET_JOB"
    }
    assert jobs.pop("sbir_pipeline_job") == EVERY
    assert jobs == {
        "sbir_ingestion_job": GROUPS["sbir_ingestion"],
        "enrichment_job": GROUPS["enrichment"],
        "cet_pipeline_job": GROUPS["cet_pipeline"],
        "patent_loading_job": GROUPS["patent_loading"],
        "graph_construction_job": GROUPS["graph_construction"],
    }
    schedules = {
        one.name: (one.job_name, one.cron_schedule, one.default_status.value) for one in repository.schedule_defs
    }
    assert schedules == {
        "daily_sbir_incremental": ("sbir_pipeline_job", "0 3 * * *", "STOPPED"),
        "monthly_sbir_full_refresh": ("sbir_pipeline_job", "0 4 10 * *", "STOPPED"),
    }
    assert {one.name for one in repository.sensor_defs} >= {"new_award_file_sensor", "sbir_alerts"}
    checks = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    assert {
        ("validated_sbir_awards", "sbir_awards_completeness_check"),
        ("enriched_sbir_awards", "enrichment_success_rate_check"),
        ("validated/sbir_awards_pass", "sbir_awards_completeness_check"),
    } <= checks


def test_every_table_of_the_pipeline_belongs_to_an_asset_of_the_design(office: Office) -> None:
    from ratatouille import project
    from ratatouille.dagster.link import names_run_by

    assets = import_module("pipelines.sbir.assets").all_assets
    owner = {name: one.key for one in assets for name in names_run_by(one)}
    files = {name: asset for name, asset in project.load(office.root).assets.items() if asset.pipeline == "sbir"}
    assert owner.keys() == files.keys() and sum(len(names_run_by(one)) for one in assets) == len(files)
    # Whoever is run alone in Dagster finds what it reads: it waits for the assets that make that.
    graph = office.definitions.get_repository_def().asset_graph
    missing = {
        (name, above)
        for name, asset in files.items()
        for above in asset.depends_on
        if owner[above] != owner[name] and owner[above] not in graph.get_ancestor_asset_keys(owner[name])
    }
    assert missing == set()


def test_all_five_stages_and_then_only_what_is_new(office: Office) -> None:
    first = office.run("sbir_pipeline_job")
    assert first.success, [event.event_specific_data for event in first.all_events if event.is_step_failure]
    assert {event.asset_key.to_user_string() for event in first.get_asset_materialization_events()} >= EVERY
    assert {one.check_name: one.passed for one in first.get_asset_check_evaluations()} == {
        "sbir_awards_completeness_check": True,
        "enrichment_success_rate_check": True,
    }
    said = metadata(first, "validated_sbir_awards")
    assert said["mode"] == "incremental" and said["records_in"] > 300 and said["records_per_second"] > 0
    assert said["peak_memory_mb"] > 10 and said["checks_passed"] > 5
    assert said["checks_failed"] == len(said["issues"]) and "validity_check: " in " ".join(said["issues"])
    [(lines, passed, failed, repeated)] = office.rows(
        "select (select count(*) from raw.sbir_awards), (select count(*) from validated.sbir_awards_pass),"
        " (select sum(n_lines) from validated.sbir_awards_fail), (select count(*) from validated.sbir_awards_duplicate)"
    )
    assert lines == passed + failed + repeated and min(passed, failed, repeated) > 0

    again = office.run("sbir_ingestion_job")
    assert again.success and metadata(again, "validated_sbir_awards")["records_written"] == 0
    whole = office.run("sbir_ingestion_job", mode="full_refresh")
    assert whole.success and metadata(whole, "validated_sbir_awards")["records_written"] >= passed
    assert metadata(whole, "validated_sbir_awards")["mode"] == "full_refresh"


def test_the_checks_of_the_design_as_they_are_printed_there(office: Office) -> None:
    """They take the rows of the asset as a pandas frame, whatever its size."""
    office.built()
    assets = import_module("pipelines.sbir.assets")
    validated_sbir_awards, enriched_sbir_awards = assets.validated_sbir_awards, assets.enriched_sbir_awards

    @asset_check(asset=validated_sbir_awards)
    def sbir_awards_completeness_check(validated_sbir_awards: pd.DataFrame) -> AssetCheckResult:
        required_fields = ["award_id", "company_name", "award_amount"]
        coverage = {
            field: 1.0 - (validated_sbir_awards[field].isna().sum() / len(validated_sbir_awards))
            for field in required_fields
        }
        min_coverage = min(coverage.values())
        passed = min_coverage >= 0.95

        return AssetCheckResult(passed=passed, metadata={"min_coverage": min_coverage, "field_coverage": coverage})

    @asset_check(asset=enriched_sbir_awards)
    def enrichment_success_rate_check(enriched_sbir_awards: pd.DataFrame) -> AssetCheckResult:
        enriched_count = enriched_sbir_awards["sam_gov_data"].notna().sum()
        enrichment_rate = enriched_count / len(enriched_sbir_awards)

        return AssetCheckResult(
            passed=enrichment_rate >= 0.90,
            metadata={
                "enrichment_rate": enrichment_rate,
                "enriched_count": enriched_count,
                "total_count": len(enriched_sbir_awards),
            },
        )

    defs = guard(
        dg.Definitions(
            assets=assets.all_assets,
            asset_checks=[sbir_awards_completeness_check, enrichment_success_rate_check],
            resources={"io_manager": workspace_io_manager(office.root)},
        )
    )
    checks = dg.AssetSelection.checks(sbir_awards_completeness_check, enrichment_success_rate_check)
    job = dg.define_asset_job("printed", checks)
    made = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("printed")
    result = made.execute_in_process(instance=office.instance, raise_on_error=False)
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert found["sbir_awards_completeness_check"].passed
    assert found["sbir_awards_completeness_check"].metadata["min_coverage"].value == 1.0
    rate = found["enrichment_success_rate_check"].metadata
    assert rate["total_count"].value == office.rows("select count(*) from validated.sbir_awards_pass")[0][0]
    assert 0 < rate["enrichment_rate"].value <= 1


def test_a_check_that_fails_stops_what_is_below(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.built()
    checks = import_module("pipelines.sbir.checks")
    monkeypatch.setattr(checks, "REQUIRED", (*checks.REQUIRED, "contract_end_date"))
    result = office.run("sbir_ingestion_job")
    [failed] = [one for one in result.get_asset_check_evaluations() if not one.passed]
    assert failed.check_name == "sbir_awards_completeness_check" and not result.success
    assert {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()} == {
        "raw_sbir_awards",
        "raw_companies",
        "validated_sbir_awards",
    }


def test_a_gate_of_a_table_stops_what_is_below_and_readers_keep_what_they_had(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.built()
    monkeypatch.setenv("SBIR_ETL__DATA_QUALITY__PASS_RATE", "1.0")
    before = office.rows("select count(*) from validated.sbir_awards_pass")
    result = office.run("sbir_ingestion_job")
    [failed] = [
        event for event in result.all_events if event.is_step_failure and event.step_key == "validated_sbir_awards"
    ]
    assert "validated_sbir_awards_pass_rate_check failed" in str(failed.event_specific_data)
    assert "validated_sbir_awards" not in {
        e.asset_key.to_user_string() for e in result.get_asset_materialization_events()
    }
    assert office.rows("select count(*) from validated.sbir_awards_pass") == before
