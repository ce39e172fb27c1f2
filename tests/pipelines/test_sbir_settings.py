"""Settings: one file, an overlay, the environment; types and ranges; a wrong one stops the pipeline."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipelines.sbir.settings import SettingsError, flat, read
from sbir_lake import ROOT, Lake

from ratatouille import workspace
from ratatouille.errors import RequestError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration alone: no asset is looked at to read it."""
    folder = tmp_path_factory.mktemp("configured")
    shutil.copy(ROOT / "workspace.yaml", folder)
    shutil.copytree(ROOT / "pipelines/sbir/config", folder / "pipelines/sbir/config")
    return folder


@pytest.fixture
def values(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv("SBIR_ETL_ENVIRONMENT", raising=False)
    return copy.deepcopy(workspace(folder).vars["sbir"])


def test_the_overlay_and_the_environment_go_over_the_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBIR_ETL_ENVIRONMENT", "test")
    monkeypatch.setenv("SBIR_ETL__DATA_QUALITY__MAX_DUPLICATE_RATE", "0.25")
    settings = read(workspace(folder).vars["sbir"])
    assert settings.neo4j.loading.batch_size == 50  # test.yaml
    assert settings.neo4j.loading.deadlock_retries == 3  # base.yaml, beside what the overlay says
    assert settings.data_quality.max_duplicate_rate == 0.25  # the environment
    assert settings.data_quality.year_bands[0].from_ == 1983


@pytest.mark.parametrize("overlay", ["dev", "prod", "test"])
def test_every_overlay_is_within_its_ranges(folder: Path, overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBIR_ETL_ENVIRONMENT", overlay)
    read(workspace(folder).vars["sbir"])


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("data_quality.max_duplicate_rate", 0.6, "less than or equal to 0.5"),
        ("pipeline.chunk_sizes.graph", 99, "greater than or equal to 100"),
        ("neo4j.loading.batch_size", 0, "greater than or equal to 1"),
        ("enrichment.max_retries", 11, "less than or equal to 10"),
        ("enrichment.timeout_seconds", 4, "greater than or equal to 5"),
        ("enrichment.timeout_seconds", 301, "less than or equal to 300"),
        ("data_quality.minimum_completeness", "most", "valid number"),
        ("graph.backend", "neptune", "'ladybug' or 'neo4j'"),
        ("enrichment.batchsize", 5, "extra inputs are not permitted"),
        ("enrichment.match.review", 95, "review must not be above automatic"),
    ],
)
def test_a_value_out_of_its_range_is_named_with_its_key(
    values: dict[str, Any], path: str, value: Any, said: str
) -> None:
    section = values
    *above, key = path.split(".")
    for name in above:
        section = section[name]
    section[key] = value
    with pytest.raises(SettingsError) as refused:
        read(values)
    assert len(refused.value.problems) == 1
    assert said in refused.value.problems[0] and path.rpartition(".")[0] in refused.value.problems[0]


def test_two_formats_that_read_one_text_as_two_dates_are_refused(values: dict[str, Any]) -> None:
    values["extract"]["date_formats"]["web"].append("%d-%m-%Y")
    with pytest.raises(SettingsError, match="%m-%d-%Y and %d-%m-%Y, which read one text as two dates"):
        read(values)


def test_a_gap_between_bands_of_years_is_refused(values: dict[str, Any]) -> None:
    values["data_quality"]["year_bands"][1]["from"] = 2001
    with pytest.raises(SettingsError, match="must begin in 2000, after 1983-1999"):
        read(values)


def test_a_slip_of_the_pen_in_the_environment_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBIR_ETL__ENRICHMENT__CANDIDATE", "10")
    with pytest.raises(RequestError) as refused:
        _ = workspace(folder).vars
    assert "SBIR_ETL__ENRICHMENT__CANDIDATE" in refused.value.what and "candidates" in refused.value.next


def test_a_setting_out_of_its_range_stops_the_run_before_a_line_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path)
    lake.land("bulk/a.csv", [{}])
    monkeypatch.setenv("SBIR_ETL__DATA_QUALITY__PASS_RATE", "1.5")
    done = lake.run("+validated.sbir_award_lines")
    assert done.step("validated.sbir_award_lines").status == "blocked"
    error = done.step("raw.sbir_settings").error
    assert error is not None and "data_quality.pass_rate" in error["what"]


def test_every_setting_is_read_somewhere() -> None:
    """A setting that no code reads is a promise that nobody keeps."""
    code = "\n".join(
        path.read_text("utf-8")
        for folder in (ROOT / "pipelines" / "sbir", ROOT / "macros")
        for path in folder.rglob("*")
        if path.suffix in (".py", ".sql", ".yaml") and path.name != "settings.py" and path.parent.name != "config"
    )
    base = yaml.safe_load((ROOT / "pipelines/sbir/config/base.yaml").read_text("utf-8"))
    names = {key.rpartition(".")[2] for key, _ in flat(base)}
    assert {name for name in names if not re.search(rf"\b{name}\b", code)} == set()
