"""Telemetry from a real lakeFS, and from one that misbehaves: what arrives, what does not, and what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lakefs_server import KEY, SECRET, Between, Repository, between, found_lakefs
from own_modules import modules_of
from pipelines.forklift import landing
from pipelines.forklift.arrival import Arrival, fetch
from pipelines.forklift.lakefs import Folder, LakeFS, LakeFSError, ObjectChanged, Settings, Unreachable

pytestmark = pytest.mark.service
ROOT = Path(__file__).resolve().parents[2]
DAY = b"7;0.0;0;1;2026-03-02 08:00:00;51.0;13.7;0.0\n7;0.5;1;1;2026-03-02 08:00:01;51.0;13.7;4.2\n"


@pytest.fixture(scope="module")
def server(need_tool: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with found_lakefs(need_tool, tmp_path_factory.mktemp("lakefs")) as address:
        yield address


@pytest.fixture
def repository(server: str, request: pytest.FixtureRequest) -> Repository:
    return Repository(server, f"r{abs(hash(request.node.name)) % 10**12}")


@pytest.fixture
def spoiled(server: str, repository: Repository) -> Iterator[tuple[LakeFS, Between]]:
    with between(server) as (address, how):
        yield LakeFS(replace(repository.settings, endpoint_url=address)), how


def there(root: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in landing.telemetry_files(root).items()}


def test_a_commit_arrives_once_then_only_what_changed_and_what_was_removed_leaves_a_tombstone(
    repository: Repository, tmp_path: Path
) -> None:
    files = {f"real_data/FL-{n}.csv": DAY * n for n in range(1, 6)}
    first = repository.commit({**files, "real_data/readme.txt": b"no telemetry", "other/x.csv": DAY}, site="north")
    came = fetch(tmp_path, repository.client, "real_data")
    assert (came.commit.id, set(came.new), came.skipped) == (first, set(files), ("real_data/readme.txt",))
    assert there(tmp_path) == files and came.commit.metadata == {"site": "north"}
    assert fetch(tmp_path, repository.client, "real_data/").unchanged == 5
    state = landing.state(tmp_path)
    repository.commit({"other/y.csv": DAY})
    assert fetch(tmp_path, repository.client, "real_data").unchanged == 5
    assert landing.state(tmp_path) == state, "another commit of the same files is nothing new for the tables"

    second = repository.commit({"real_data/FL-2.csv": DAY, "real_data/FL-9.csv": DAY}, delete=("real_data/FL-1.csv",))
    came = fetch(tmp_path, repository.client, "real_data")
    said = (came.new, came.changed, came.removed, came.unchanged)
    assert said == (("real_data/FL-9.csv",), ("real_data/FL-2.csv",), ("real_data/FL-1.csv",), 3)
    manifest = landing.read_manifest(tmp_path)
    assert landing.state(tmp_path) != state
    assert manifest.commit_id == second and manifest.removed == {"real_data/FL-1.csv": second}
    assert {name: one.commit_id for name, one in manifest.files.items()} == {
        **{f"real_data/FL-{n}.csv": first for n in (3, 4, 5)},
        **{f"real_data/FL-{n}.csv": second for n in (2, 9)},
    }
    assert there(tmp_path)["real_data/FL-1.csv"] == landing.TOMBSTONE
    rows = {row["machine"]: row for row in landing.objects(tmp_path).to_pylist()}
    assert set(rows) == {"FL-2", "FL-3", "FL-4", "FL-5", "FL-9"} and rows["FL-3"]["commit_id"] == first

    # A commit of before, pinned, while the branch is elsewhere.
    back = fetch(tmp_path, repository.client, "real_data", commit_id=first)
    assert back.removed == ("real_data/FL-9.csv",) and back.new == ("real_data/FL-1.csv",)
    assert {name: text for name, text in there(tmp_path).items() if text != landing.TOMBSTONE} == files
    # A file that somebody wrote over is fetched again; one that was only touched is not.
    (tmp_path / landing.FOLDER / "real_data/FL-3.csv").write_bytes(b"scribble")
    (tmp_path / landing.FOLDER / "real_data/FL-4.csv").touch()
    assert fetch(tmp_path, repository.client, "real_data", commit_id=first).changed == ("real_data/FL-3.csv",)


def test_the_log_is_paged_until_the_cursor_and_a_cursor_of_another_history_is_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.forklift.lakefs.COMMITS_A_PAGE", 3)
    commits = [repository.commit({}) for _ in range(8)]
    found, met = repository.client.since(commits[0])
    assert met and [one.id for one in found] == commits[:0:-1]
    found, met = repository.client.since("feed" * 16)
    assert not met and len(found) == 9  # the first one is made with the repository
    assert repository.client.head().id == commits[-1]


def test_listings_have_pages_too(repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pipelines.forklift.lakefs.PAGE", 2)
    repository.commit({f"real_data/FL-{n}.csv": DAY for n in range(5)})
    assert len(fetch(tmp_path, repository.client, "real_data").new) == 5


def test_a_download_that_broke_off_goes_on_where_it_was(
    repository: Repository, spoiled: tuple[LakeFS, Between], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.forklift.lakefs.PIECE_BYTES", 1000)
    repository.commit({"real_data/FL-1.csv": DAY * 50, "real_data/FL-2.csv": DAY})
    client, how = spoiled
    how.spoil = lambda method, path: (0, b"") if "FL-1" in path and how.count("FL-1") > 2 else None
    with pytest.raises(Unreachable, match="does not answer"):
        fetch(tmp_path, client, "real_data")
    assert there(tmp_path) == {}, "nothing is in place before all of it is"
    assert not (tmp_path / landing.FOLDER / landing.MANIFEST).exists()
    how.spoil, how.asked = lambda method, path: None, []
    fetch(tmp_path, client, "real_data")
    assert there(tmp_path)["real_data/FL-1.csv"] == DAY * 50
    assert next(line.rpartition(" ")[2] for line in how.asked if "FL-1" in line) == "bytes=2000-2999"
    assert how.count("FL-2") == 0, "what had come whole is not asked for again"


@pytest.mark.parametrize(
    ("status", "error", "words", "tries"),
    [
        (401, LakeFSError, "refuses the key \\(401\\)", 1),
        (403, LakeFSError, "refuses the key \\(403\\)", 1),
        (404, LakeFSError, "knows no such thing", 1),
        (500, Unreachable, "failed \\(500\\)", 2),
        (429, Unreachable, "failed \\(429\\)", 2),
        (0, Unreachable, "does not answer", 2),
    ],
)
def test_a_server_that_fails_is_said_in_four_lines_without_the_secret(
    spoiled: tuple[LakeFS, Between], tmp_path: Path, status: int, error: type[Exception], words: str, tries: int
) -> None:
    client, how = spoiled
    how.spoil = lambda method, path: (status, b'{"message": "the oven is cold"}')
    with pytest.raises(error, match=words) as raised:
        fetch(tmp_path, client, "real_data")
    assert (
        len(str(raised.value).splitlines()) == 4 and SECRET not in repr(raised.value) and KEY not in str(raised.value)
    )
    assert len(how.asked) == tries and raised.value.__cause__ is None
    assert SECRET not in repr(client._settings)


def test_an_answer_of_another_program_and_no_answer_at_all(repository: Repository, tmp_path: Path) -> None:
    with between("http://127.0.0.1:9") as (address, how):
        how.spoil = lambda method, path: (200, b"<html>welcome</html>")
        with pytest.raises(LakeFSError, match="none of its API"):
            fetch(tmp_path, LakeFS(replace(repository.settings, endpoint_url=address)), "real_data")
    with pytest.raises(Unreachable, match="does not answer"):
        fetch(tmp_path, LakeFS(replace(repository.settings, endpoint_url=address)), "real_data")


def test_an_object_that_changed_in_the_store_never_arrives(
    server: str, repository: Repository, spoiled: tuple[LakeFS, Between], tmp_path: Path
) -> None:
    repository.commit({"real_data/FL-1.csv": DAY, "real_data/FL-2.csv": DAY})
    client, how = spoiled
    how.spoil = lambda method, path: (200, DAY.replace(b"0.5", b"9.9")) if "FL-2" in path else None
    with pytest.raises(ObjectChanged, match=r"FL-2\.csv is not what commit"):
        fetch(tmp_path, client, "real_data")
    assert there(tmp_path) == {}
    how.spoil = lambda method, path: (-1, b"") if "FL-2" in path and how.count("FL-2") == 1 else None
    how.asked = []
    fetch(tmp_path, client, "real_data")  # half an answer is asked for again
    assert there(tmp_path)["real_data/FL-2.csv"] == DAY


def test_a_branch_that_moves_meanwhile_changes_nothing(
    repository: Repository, spoiled: tuple[LakeFS, Between], tmp_path: Path
) -> None:
    first = repository.commit({"real_data/FL-1.csv": DAY})
    client, how = spoiled

    def moves(method: str, path: str) -> None:
        if "/objects/ls" in path:
            repository.commit({"real_data/FL-1.csv": DAY * 2, "real_data/FL-2.csv": DAY})

    how.spoil = moves
    assert fetch(tmp_path, client, "real_data").commit.id == first and there(tmp_path) == {"real_data/FL-1.csv": DAY}


def test_names_that_would_leave_the_folder_are_left_where_they_are(repository: Repository, tmp_path: Path) -> None:
    bad = {"real_data/../../x.csv": DAY, "real_data/.hidden/y.csv": DAY, "real_data/a\tb.csv": DAY}
    repository.commit({**bad, "real_data/FL-1.csv": DAY})
    came = fetch(tmp_path, repository.client, "real_data")
    assert set(there(tmp_path)) == {"real_data/FL-1.csv"} and set(came.skipped) == set(bad)


def test_results_are_written_back_on_a_branch_and_merged(repository: Repository, tmp_path: Path) -> None:
    before = repository.commit({"real_data/FL-1.csv": DAY})
    result = tmp_path / "report.json"
    result.write_text(json.dumps({"pulses": 3}))
    said = {"branch": "results-1", "message": "results", "metadata": {"run": "r1"}}
    files = {"results/report.json": result}
    merged = repository.client.write_back(files, **said)  # type: ignore[arg-type]
    assert merged.id != before and merged.metadata["run"] == "r1"
    assert repository.read("results/report.json") == result.read_bytes() and repository.branches() == ["main"]
    assert repository.client.write_back(files, **said).id == merged.id  # type: ignore[arg-type]
    assert fetch(tmp_path, repository.client, "real_data").file_count == 1


@pytest.mark.parametrize("stopped_after", ["branch", "upload", "commit", "merge"])
def test_a_write_back_that_was_stopped_is_gone_on_with(
    repository: Repository, tmp_path: Path, stopped_after: str
) -> None:
    import lakefs_sdk

    repository.commit({"results/report.json": b"of an earlier run"})
    result = tmp_path / "report.json"
    result.write_bytes(b"of this run")
    creation = lakefs_sdk.BranchCreation(name="results-2", source="main")
    repository.sdk.branches_api.create_branch(repository.name, creation)
    if stopped_after == "upload":
        repository.sdk.objects_api.upload_object(
            repository.name, "results-2", "results/report.json", content=result.read_bytes()
        )
    if stopped_after in ("commit", "merge"):
        repository.commit({"results/report.json": result.read_bytes()}, branch="results-2")
    if stopped_after == "merge":
        repository.sdk.refs_api.merge_into_branch(repository.name, "results-2", "main")
    else:
        repository.commit({"results/report.json": b"of a run that was quicker", "real_data/FL-1.csv": DAY})
    repository.client.write_back(
        {"results/report.json": result}, branch="results-2", message="results", metadata={"run": "r2"}
    )
    assert repository.read("results/report.json") == b"of this run" and repository.branches() == ["main"]
    assert stopped_after == "merge" or repository.read("real_data/FL-1.csv") == DAY


def test_a_local_folder_is_versioned_by_its_content(tmp_path: Path) -> None:
    shop, root = tmp_path / "share", tmp_path / "kitchen"
    (shop / "real_data").mkdir(parents=True)
    (shop / "real_data/FL-1.csv").write_bytes(DAY)
    (shop / "real_data/FL-2.csv").write_bytes(DAY)
    source = Folder(shop, "real_data")
    first = fetch(root, source, "real_data")
    assert first.commit.id.startswith("local:") and len(first.new) == 2
    shutil.copytree(shop, tmp_path / "moved")
    moved: Arrival = fetch(root, Folder(tmp_path / "moved", "real_data"), "real_data")
    assert (moved.commit.id, moved.unchanged) == (first.commit.id, 2)
    (shop / "real_data/FL-2.csv").unlink()
    (shop / "real_data/FL-1.csv").write_bytes(DAY * 2)
    second = fetch(root, source, "real_data")
    assert second.commit.id != first.commit.id and (second.changed, second.removed) == (
        ("real_data/FL-1.csv",),
        ("real_data/FL-2.csv",),
    )
    with pytest.raises(LakeFSError, match="folder of telemetry is not there"):
        fetch(root, Folder(tmp_path / "nowhere", "real_data"), "real_data")


# In Dagster


class Job:
    """The sensor on the repository, an instance of its own, and the runs that a tick asks for."""

    def __init__(self, settings: Settings, per: Any = "head", **more: str) -> None:
        import dagster as dg
        from pipelines.forklift.resources import LakeFSResource
        from pipelines.forklift.sensors import new_commit_sensor

        self.resource = LakeFSResource(
            endpoint_url=settings.endpoint_url,
            repo=settings.repo,
            access_key=KEY,
            secret_key="${FORKLIFT_SECRET}",
            **more,
        )
        self.sensor, self.instance, self.dg = new_commit_sensor("anything", per=per), dg.DagsterInstance.ephemeral(), dg

    def tick(self, cursor: str | None) -> Any:
        context = self.dg.build_sensor_context(self.instance, cursor=cursor, resources={"lakefs": self.resource})
        return self.sensor(context)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_sensor_asks_for_each_commit_once_and_says_what_the_server_says(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.forklift.lakefs.COMMITS_A_PAGE", 10)
    job = Job(repository.settings)
    assert "FORKLIFT_SECRET is not set" in job.tick(None).skip_message
    monkeypatch.setenv("FORKLIFT_SECRET", SECRET)
    commits = [repository.commit({}) for _ in range(25)]
    first = job.tick(None)
    assert [(r.run_key, r.tags["lakefs_commit"]) for r in first.run_requests] == [(commits[-1], commits[-1])]
    assert "as before" in job.tick(first.cursor).skip_message

    late = job.tick(commits[0])
    assert [r.run_key for r in late.run_requests] == [commits[-1]] == [late.cursor], "one run for the head"
    each = Job(repository.settings, "commit").tick(commits[0])
    assert [r.run_key for r in each.run_requests] == commits[1:], "more than a page of commits, oldest first, none lost"
    tags = each.run_requests[0].tags
    assert each.cursor == commits[-1] and int(tags["dagster/max_retries"]) > 0
    assert tags["dagster/retry_on_asset_or_op_failure"] == "true"
    assert [r.run_key for r in job.tick("feed" * 16).run_requests] == [commits[-1]], "a branch that was reset"

    ours = repository.commit({}, written_by="ratatouille/forklift")
    only = job.tick(commits[-1])
    assert not only.run_requests and only.cursor == ours and "only results" in str(only.skip_reason), "or it never ends"
    assert [r.run_key for r in job.tick(commits[0]).run_requests] == [commits[-1]]
    assert [r.run_key for r in job.tick(None).run_requests] == [ours], "whoever begins there begins at the head"

    monkeypatch.setenv("FORKLIFT_SECRET", "wrong")
    refused = job.tick(commits[0])
    assert "refuses the key (401)" in refused.skip_message and SECRET not in str(refused) + str(job.resource)
    nobody = Job(replace(repository.settings, endpoint_url="http://127.0.0.1:9"))
    monkeypatch.setattr("pipelines.forklift.lakefs.Settings.attempts", 1, raising=False)
    monkeypatch.setattr("pipelines.forklift.resources.lakefs.Settings", lambda *a: Settings(*a, attempts=1))
    assert "does not answer" in nobody.tick(None).skip_message


def test_a_resource_reads_its_variables_late_and_a_folder_takes_the_place_of_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.forklift.resources import LakeFSResource

    local = LakeFSResource(fallback_local_path="${FORKLIFT_SHARE}/x", prefix="real_data/")
    with pytest.raises(LakeFSError, match="FORKLIFT_SHARE is not set"):
        local.source()
    monkeypatch.setenv("FORKLIFT_SHARE", str(tmp_path))
    assert local.source() == Folder(tmp_path / "x", "real_data") and "${FORKLIFT_SHARE}" in str(local)
    with pytest.raises(LakeFSError, match="neither a server nor a folder"):
        LakeFSResource().source()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_commit_goes_through_dagster_to_reports_and_its_id_is_in_every_table(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg
    from pipelines.forklift import simulate

    monkeypatch.setenv("FORKLIFT_SECRET", SECRET)
    simulate.write(simulate.Fleet(forklifts=1, trucks=1, days=1), tmp_path / "sent")
    sent = {
        f"real_data/{p.name}": b"".join(p.read_bytes().splitlines(True)[30_000:45_000])
        for p in (tmp_path / "sent").iterdir()
    }
    first = repository.commit({**sent, "real_data/FL-0009.csv": b"a;b\nthis is no telemetry\n"})
    repository.commit({"real_data/FL-0001.csv": DAY})  # comes after the one that is asked for

    kitchen = tmp_path / "kitchen"
    shutil.copytree(
        ROOT / "pipelines/forklift", kitchen / "pipelines/forklift", ignore=shutil.ignore_patterns("__pycache__")
    )
    (kitchen / "pipelines/__init__.py").touch()  # or the repository's own package would be found, and its workspace
    (kitchen / "workspace.yaml").write_text("name: kitchen\nresources: {memory: 1GB, threads: 2}\n")
    monkeypatch.setenv("RATATOUILLE_WORKSPACE", str(kitchen))
    from ratatouille.dagster import artifact_io_manager, guard
    from ratatouille.handle import Workspace

    with modules_of(kitchen), dg.DagsterInstance.ephemeral() as instance:
        assets, checks = _assets()
        defs = guard(
            dg.Definitions(
                assets,
                asset_checks=checks,
                resources={
                    "lakefs": Job(repository.settings).resource,
                    "artifact_io_manager": artifact_io_manager(kitchen),
                },
            )
        )
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, tags={"lakefs_commit": first}, raise_on_error=False
        )
        assert result.success, [e.message for e in result.all_events if e.is_failure]
        stored = str(instance.get_run_by_id(result.run_id).run_config)
    assert SECRET not in stored
    for table in (
        "bronze.forklift_telemetry",
        "silver.forklift_header",
        "silver.forklift_carrying",
        "gold.forklift_safety",
    ):
        assert Workspace(kitchen).query(f"select distinct commit_id from {table}").rows() == [(first,)]
    [event] = result.asset_materializations_for_node("raw_forklift_snapshot")
    said = {name: value.value for name, value in event.metadata.items()}
    assert (said["commit_id"], said["file_count"], said["lakefs_branch"]) == (first, 3, "main")
    assert said["local_path"] == str(kitchen / landing.FOLDER)
    [verdict] = [
        e for e in result.get_asset_check_evaluations() if e.check_name == "raw_forklift_snapshot_complete_check"
    ]
    assert not verdict.passed and "FL-0009.csv" in str(verdict.metadata["missing"]), (
        "set aside, named, and others go on"
    )
    [report] = result.asset_materializations_for_node("safety_report")
    assert "data:image/png" in str(report.metadata["oscillations_per_h"].value)
    assert (
        json.loads((Workspace(kitchen).artifact("reports.safety_report") / "report.json").read_text())["machines"] == 1
    )


def _assets() -> tuple[list[Any], list[Any]]:
    """The pipeline's assets and checks, as the workspace whose modules count has them."""
    import importlib

    parts = [
        importlib.import_module(f"pipelines.forklift.assets.{name}") for name in ("ingest", "processing", "reports")
    ]
    assets = [*parts[0].all_ingest_assets, *parts[1].all_processing_assets, *parts[2].all_report_assets]
    return assets, [*parts[0].all_ingest_checks, *parts[1].all_processing_checks, *parts[2].all_report_checks]
