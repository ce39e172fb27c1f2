"""raw_forklift_snapshot: the telemetry of one commit. The work is in arrival.py and in bronze/."""

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    Config,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    asset,
    asset_check,
)
from pydantic import Field

from ratatouille import RatError, query, run, workspace

from ..arrival import fetch
from ..lakefs import LakeFSError, Unreachable
from ..landing import FOLDER, WrongManifest, read_manifest
from ..resources import COMES_BACK, LakeFSResource

TELEMETRY = "bronze.forklift_telemetry"
MOST_MISSING = 0.5  # share of the files of a commit without rows, above which nothing is built on it


class SnapshotConfig(Config):
    commit_id: str = Field("", description="a commit; none means that of the run's tag lakefs_commit, else the head")
    workers: int = Field(8, gt=0, le=64, description="objects that are downloaded at the same time")


@asset(
    group_name="ingest",
    description="The telemetry of one commit in landing/forklift, and in bronze with the commit of each row.",
    compute_kind="lakefs",
    retry_policy=COMES_BACK,
)
def raw_forklift_snapshot(
    context: AssetExecutionContext, config: SnapshotConfig, lakefs: LakeFSResource
) -> MaterializeResult:
    root = workspace(__file__).root
    commit_id = config.commit_id or context.run.tags.get("lakefs_commit", "")
    try:
        source = lakefs.source()
        came = fetch(root, source, lakefs.expanded("prefix"), commit_id=commit_id, workers=config.workers)
    except (LakeFSError, WrongManifest) as error:
        raise Failure(description=str(error), allow_retries=isinstance(error, Unreachable)) from error
    for name in came.removed:
        context.log.warning(f"{name} is not in {came.commit.id[:12]} any more; its rows leave the tables")
    if came.skipped:
        context.log.warning(f"{len(came.skipped)} objects are no telemetry: {', '.join(came.skipped[:5])}")
    try:
        objects, rows = run("bronze.forklift_objects"), run("bronze.forklift_telemetry")
    except RatError as error:  # a gate that has refused rows refuses them again
        raise Failure(description=str(error), allow_retries=False) from error
    context.log.info(f"{TELEMETRY}: {rows['status']}, version {rows['version']}; objects: {objects['status']}")
    return MaterializeResult(
        data_version=DataVersion(came.commit.id),
        metadata={
            "local_path": MetadataValue.path(str(root / FOLDER)),
            "file_count": came.file_count,
            "lakefs_branch": source.branch,
            "commit_id": came.commit.id,
            "commit_message": came.commit.message,
            "committed_at": came.commit.created_at,
            "commit_metadata": MetadataValue.json(dict(came.commit.metadata)),
            "new": list(came.new[:100]),
            "changed": list(came.changed[:100]),
            "removed": list(came.removed[:100]),
            "unchanged": came.unchanged,
            "skipped": list(came.skipped[:100]),
            "downloaded_bytes": came.bytes,
            "version": rows["version"],
        },
    )


@asset_check(
    asset=raw_forklift_snapshot,
    blocking=True,
    description="Every file of the commit has rows. One that cannot be read is set aside and named, and others go on.",
)
def raw_forklift_snapshot_complete_check() -> AssetCheckResult:
    manifest = read_manifest(workspace(__file__).root)
    wanted = {f"{FOLDER}/{name}" for name in manifest.files}
    found = set(query("select distinct _file from bronze.forklift_telemetry")["_file"].to_list())
    missing = sorted(wanted - found)
    few = len(missing) <= MOST_MISSING * len(wanted)
    return AssetCheckResult(
        passed=not missing,
        severity=AssetCheckSeverity.WARN if few else AssetCheckSeverity.ERROR,
        metadata={"files": len(found), "missing": missing[:20], "commit_id": manifest.commit_id},
        description=f"{len(missing)} files of the commit have no rows: {', '.join(missing[:3])}" if missing else None,
    )


all_ingest_assets = [raw_forklift_snapshot]
all_ingest_checks = [raw_forklift_snapshot_complete_check]
