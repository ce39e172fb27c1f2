"""lakefs_new_commit_sensor: a run for new commits of the branch, each commit at most once."""

from typing import Literal

from dagster import (
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from ..lakefs import Commit, Folder, LakeFS, LakeFSError
from ..resources import LakeFSResource

EVERY_S = 300
RETRIES = 3  # of a run that failed: its run key is used, so no later tick asks for it again
MOST_RUNS = 100  # of one tick, oldest first; the next tick goes on
WRITTEN_BY, US = "written_by", "ratatouille/forklift"  # metadata of a commit that holds results of a run


def new_commit_sensor(
    job: str, *, per: Literal["head", "commit"] = "head", name: str = "lakefs_new_commit_sensor", every_s: int = EVERY_S
) -> SensorDefinition:
    """A sensor for `job`: one run for the head, whatever came since the last tick, or one for each new commit.

    Its cursor is the newest commit that was asked for. run_key and the tag lakefs_commit are the commit. A commit of
    our own results starts nothing, or each run would start the next. What the server answers instead is said in the
    tick, and the cursor stays.
    """

    @sensor(
        name=name,
        job_name=job,
        minimum_interval_seconds=every_s,
        default_status=DefaultSensorStatus.STOPPED,
        description=f"Starts {job} for new commits of the lakeFS branch, one run for each {per}.",
    )
    def on_new_commits(context: SensorEvaluationContext, lakefs: LakeFSResource) -> SensorResult | SkipReason:
        try:
            source = lakefs.source()
            commits, met = _since(source, context.cursor or "")
        except LakeFSError as error:
            context.log.warning(str(error))
            return SkipReason(str(error))
        if not commits:
            return SkipReason(f"{source.branch} is at {(context.cursor or '')[:12]}, as before")
        if context.cursor and not met:
            context.log.warning(f"{context.cursor[:12]} is no commit of {source.branch} any more; going on at its head")
            commits = commits[:1]
        elif context.cursor:
            newest, commits = commits[0].id, [one for one in commits if one.metadata.get(WRITTEN_BY) != US]
            if not commits:
                return SensorResult(skip_reason=f"since {context.cursor[:12]} only results were written", cursor=newest)
        chosen = commits[:1] if per == "head" or not context.cursor else commits[::-1][:MOST_RUNS]
        return SensorResult(run_requests=[_request(one, source) for one in chosen], cursor=chosen[-1].id)

    return on_new_commits


def _since(source: LakeFS | Folder, cursor: str) -> tuple[list[Commit], bool]:
    """(new commits, newest first; whether the cursor was met). Without a cursor the head alone is new."""
    head = source.head()
    if head.id == cursor:
        return [], True
    if not cursor or isinstance(source, Folder):
        return [head], True
    commits, met = source.since(cursor)
    return commits or [head], met


def _request(commit: Commit, source: LakeFS | Folder) -> RunRequest:
    tags = {"lakefs_commit": commit.id, "lakefs_branch": source.branch, "dagster/max_retries": str(RETRIES)}
    # Without it only a run whose process was killed is run again, and not one in which an asset failed.
    return RunRequest(run_key=commit.id, tags={**tags, "dagster/retry_on_asset_or_op_failure": "true"})


lakefs_new_commit_sensor = new_commit_sensor("forklift_training_job")
