"""results_in_lakefs: what a run has found, committed to a branch of the repository and merged. Switched off unless asked.

results    pulses.parquet (each time in which a machine carried), the report, and the model in production
receipt    what the asset keeps: receipt.json, with the commit that holds the results, and the hash of each object

The branch is named after the content. So an attempt that was stopped is gone on with by the next, and what is there
already is not written twice.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetKey,
    Config,
    Failure,
    MetadataValue,
    Output,
    asset,
    asset_check,
)
from pydantic import Field

from ratatouille import RatError, query, workspace

from ..lakefs import Folder, LakeFS, LakeFSError, Object, Unreachable
from ..landing import read_manifest, sha256_of
from ..models import read_json, write_json
from ..resources import COMES_BACK, LakeFSResource
from ..sensors.lakefs import US, WRITTEN_BY
from .model import SERVED, aside

RECEIPT, RESULTS = "receipt.json", "forklift.results_in_lakefs"
PULSES = """select machine, pulse_id, min(ts) as begins_at, max(ts) as ends_at, count(*) as rows,
    arg_max(commit_id, ts) as commit_id
from silver.forklift_carrying where carrying group by machine, pulse_id order by machine, begins_at"""


class WriteBackConfig(Config):
    """Whether and where results go. LAKEFS_WRITE_BACK=1 switches it on for every run of a code location."""

    enabled: bool = Field(os.environ.get("LAKEFS_WRITE_BACK", "") == "1", description="write results to the repository")
    folder: str = Field("results", description="where in the repository; not below the prefix of the telemetry")


@asset(
    group_name="ml",
    deps=[AssetKey("carrying_dataset"), AssetKey("production_model")],
    metadata={"table": RESULTS},
    io_manager_key="forklift_artifacts",
    output_required=False,
    description="Pulses, report and served model on a branch of the lakeFS repository, merged; off unless it is asked for.",
    compute_kind="lakefs",
    retry_policy=COMES_BACK,
)
def results_in_lakefs(
    context: AssetExecutionContext, config: WriteBackConfig, lakefs: LakeFSResource, model_performance_report: Path
) -> Iterator[Output[Path | None]]:
    standing = _receipt()
    with aside("results_in_lakefs") as folder:
        if config.enabled:
            receipt, why = _written(config, lakefs, folder, model_performance_report, standing, context.run_id)
        else:
            why = "switched off: set enabled in the config of results_in_lakefs, or LAKEFS_WRITE_BACK=1"
            receipt = {} if standing else {"written": False, "why": why}
        if why:
            context.log.info(f"Not written: {why}")
            # Where a receipt is stored, the lake says `status` and `reason`.
            context.add_output_metadata({"why": why} if receipt else {"status": "skipped", "reason": why, "why": why})
        else:
            shown = {"commit_id": receipt["commit_id"], "lakefs_branch": receipt["branch"]}
            context.add_output_metadata({**shown, "objects": MetadataValue.json(sorted(receipt["objects"]))})
        if receipt:
            write_json(folder / RECEIPT, receipt)
        yield Output(folder if receipt else None)


def _written(
    config: WriteBackConfig, lakefs: LakeFSResource, folder: Path, report: Path, standing: dict[str, Any], run_id: str
) -> tuple[dict[str, Any], str]:
    """(receipt of what was written, "") or ({}, why nothing was)."""
    results = Path(mkdtemp(prefix="forklift-results-"))
    try:
        source, where = _repository(lakefs, config.folder)
        files = {f"{where}/{name}": path for name, path in _results(results, report).items()}
        objects = {name: sha256_of(path) for name, path in files.items()}
        key = hashlib.sha256(repr(sorted(objects.items())).encode()).hexdigest()
        if standing.get("key") == key and standing["repository"] == source.repository:
            return {}, f"the same results are in {standing['commit_id'][:12]}"
        telemetry = read_manifest(workspace(__file__).root).commit_id
        said = {WRITTEN_BY: US, "run_id": run_id, "telemetry_commit": telemetry}
        branch, message = f"forklift-results-{key[:12]}", f"Results of run {run_id[:8]}"
        commit = source.write_back(files, branch=branch, message=message, metadata=said)
        about = {"repository": source.repository, "branch": source.branch, "commit_id": commit.id, **said}
        return {"written": True, "key": key, **about, "objects": objects}, ""
    except (LakeFSError, RatError) as error:
        raise Failure(description=str(error), allow_retries=isinstance(error, Unreachable)) from error
    finally:
        shutil.rmtree(results, ignore_errors=True)


def _repository(lakefs: LakeFSResource, folder: str) -> tuple[LakeFS, str]:
    """The repository, and the folder in it without slashes around. LakeFSError where nothing can be written there."""
    source, where, prefix = lakefs.source(), folder.strip("/"), lakefs.expanded("prefix").strip("/")
    state = "Nothing was written; the lake has the results all the same."
    if isinstance(source, Folder):
        raise LakeFSError(
            "A local folder has no branches to write results to",
            where="ops: results_in_lakefs: config: enabled",
            state=state,
            next="Set endpoint_url of the lakefs resource, or switch enabled off.",
        )
    if not where or not prefix or f"{where}/".startswith(f"{prefix}/"):
        raise LakeFSError(
            f"Results in '{where}' would be read as telemetry, which is below '{prefix}'",
            where="ops: results_in_lakefs: config: folder",
            state=state,
            next="Choose another folder.",
        )
    return source, where


def _receipt() -> dict[str, Any]:
    """That of the version that stands; {} where there is none."""
    try:
        return dict(read_json(workspace(__file__).artifact(RESULTS) / RECEIPT))
    except RatError as error:
        if "no version that can be read" not in str(error.what):
            raise Failure(description=str(error), allow_retries=False) from error
        return {}


def _results(folder: Path, report: Path) -> dict[str, Path]:
    """Name below the results -> file."""
    query(PULSES).write_parquet(folder / "pulses.parquet")
    found = {"pulses.parquet": folder / "pulses.parquet"}
    for name, kept in (("report", report), ("model", workspace(__file__).artifact(SERVED))):
        files = [path for path in sorted(kept.rglob("*")) if path.is_file() and path.name != "manifest.json"]
        found |= {f"{name}/{path.relative_to(kept).as_posix()}": path for path in files}
    return found


@asset_check(
    asset=results_in_lakefs,
    blocking=True,
    description="What was written is in the commit that the receipt names, byte for byte.",
)
def results_in_lakefs_are_there_check(lakefs: LakeFSResource, results_in_lakefs: Path) -> AssetCheckResult:
    receipt = read_json(results_in_lakefs / RECEIPT)
    if not receipt["written"]:
        return AssetCheckResult(passed=True, description=receipt["why"])
    try:
        source = lakefs.source()
        commit = source.commit(receipt["commit_id"])
        differ = [name for name, sha256 in receipt["objects"].items() if _sha256(source, commit, name) != sha256]
    except LakeFSError as error:
        return AssetCheckResult(passed=False, description=str(error))
    return AssetCheckResult(passed=not differ, metadata={"objects": len(receipt["objects"]), "differ": differ[:20]})


def _sha256(source: Any, commit: Any, name: str) -> str:
    """Of an object at a commit; "" where there is none."""
    found: list[Object] = [one for one in source.objects(commit, name) if one.path == name]
    if not found:
        return ""
    with aside("results_in_lakefs") as folder:
        return str(source.download(commit, found[0], folder / "object"))


all_write_back_assets = [results_in_lakefs]
all_write_back_checks = [results_in_lakefs_are_there_check]
