"""Extraction that fails: nothing half is visible, nothing is fetched twice, and the error says what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from f1_bench import LATER, Extract, data_in, files_in, home_of, manifest_of
from pipelines.f1 import extract_sessions as command
from pipelines.f1.extract import ExtractionIncomplete
from pipelines.f1.fetching import Step
from pipelines.f1.landing import Part
from pipelines.f1.openf1 import ApiUnavailable, OpenF1Error, SessionInProgress
from pipelines.f1.season import Season
from pipelines.f1.server import Server, Trouble

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("quiet_retries")


# Failing and going on


def kill_api_after(server: Server, good: int) -> None:
    server.troubles.append(Trouble("500", "location", times=None, after=good))


def test_the_api_dies_midway_and_the_next_run_asks_for_the_rest_only(
    server: Server, extract: Extract, tmp_path: Path, season: Season
) -> None:
    kill_api_after(server, 20)
    with pytest.raises(ApiUnavailable) as caught:
        extract(mode="manual", session_keys=[9002])
    assert "stays aside" in caught.value.state and len(str(caught.value).splitlines()) == 4
    assert server.requests["location"] <= 20 + 3 * 10  # three windows failed, some were on their way: then it gave up
    manifest, home = manifest_of(tmp_path, 9002), home_of(tmp_path, 9002)
    assert not manifest.complete and "location" in manifest.missing
    assert [path.name for path in home.iterdir()] == ["manifest.json"]  # nothing else is visible

    server.troubles.clear()
    server.requests.clear()
    done = extract(mode="manual", session_keys=[9002])
    assert server.requests == {"sessions": 1, "location": 64 - 20}
    assert done.windows.resumed == 20 + 4
    assert done.rows["location"] == season.telemetry("location", 9002).height
    assert manifest_of(tmp_path, 9002).complete
    extract(tmp_path / "undisturbed", mode="manual", session_keys=[9002])
    assert data_in(home) == data_in(home_of(tmp_path / "undisturbed", 9002))


def test_one_window_that_fails_for_good_leaves_the_session_incomplete_and_the_others_whole(
    server: Server, extract: Extract, tmp_path: Path, season: Season
) -> None:
    server.troubles.append(Trouble("500", "location", times=3, after=10))
    with pytest.raises(ExtractionIncomplete, match="9001") as caught:
        extract(mode="oldest", sessions=2, workers=1)
    done = caught.value.extraction
    assert [(one.session_key, one.status) for one in done.sessions] == [(9001, "incomplete"), (9002, "extracted")]
    assert done.windows.failed == 1
    assert manifest_of(tmp_path, 9001).missing[0].startswith("location ")
    server.requests.clear()
    healed = extract(mode="oldest", sessions=2)
    assert server.requests == {"sessions": 2, "location": 1}
    assert healed.rows["location"] == season.telemetry("location", 9001).height


def test_failures_here_and_there_do_not_mean_that_the_api_is_down(server: Server, extract: Extract) -> None:
    server.troubles += [Trouble("500", "location", times=3, after=after) for after in (5, 15, 25)]
    with pytest.raises(ExtractionIncomplete) as caught:
        extract(mode="manual", session_keys=[9002], workers=1)
    assert caught.value.extraction.windows.failed == 3
    assert extract(mode="manual", session_keys=[9002]).windows.resumed == 61 + 4


def test_a_failed_second_reading_leaves_the_first_one_standing(
    server: Server, extract: Extract, tmp_path: Path
) -> None:
    extract(mode="manual", session_keys=[9002])
    before = files_in(tmp_path)
    kill_api_after(server, 5)
    with pytest.raises(ApiUnavailable):
        extract(mode="manual", session_keys=[9002], refresh=True)
    assert files_in(tmp_path) == before


def test_a_live_session_is_retry_later_and_costs_nothing(server: Server, extract: Extract, tmp_path: Path) -> None:
    server.troubles.append(Trouble("live", "location", after=7, times=None))
    with pytest.raises(SessionInProgress) as caught:
        extract(mode="manual", session_keys=[9002])
    assert "stays aside" in caught.value.state
    assert not manifest_of(tmp_path, 9002).complete
    server.troubles.clear()
    assert extract(mode="manual", session_keys=[9002]).windows.resumed >= 7


def test_windows_of_an_old_attempt_or_of_other_times_are_not_taken_up(server: Server, extract: Extract) -> None:
    kill_api_after(server, 20)
    with pytest.raises(ApiUnavailable):
        extract(mode="manual", session_keys=[9002])
    server.troubles.clear()
    server.requests.clear()
    done = extract(mode="manual", session_keys=[9002], now=LATER + timedelta(hours=25))
    assert (done.windows.resumed, server.requests["location"]) == (0, 64)


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_a_kill_at_any_moment_leaves_whole_files_and_is_healed(
    server: Server, extract: Extract, tmp_path: Path, delay_s: float
) -> None:
    folder = tmp_path / "killed"
    arguments = ["--mode", "manual", "--session-key", "9002", "--folder", str(folder), "--api-url", server.address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    program = [sys.executable, "-m", "pipelines.f1.extract_sessions", *arguments]
    with subprocess.Popen(
        program, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        give_up_at = time.monotonic() + 60
        while not server.requests["drivers"] and process.poll() is None and time.monotonic() < give_up_at:
            time.sleep(0.002)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
    for name, content in data_in(folder).items():
        assert json.loads(content), name
    extract(folder, mode="manual", session_keys=[9002])
    extract(tmp_path / "undisturbed", mode="manual", session_keys=[9002])
    assert data_in(folder) == data_in(tmp_path / "undisturbed")
    assert manifest_of(folder, 9002).complete


def test_a_kill_between_the_renames_says_so_and_needs_no_request(
    server: Server, extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(mode="manual", session_keys=[9002], entities=["laps", "session_result"])
    assert isinstance(server.source, Season)
    server.source = server.source.corrected()

    def power_cut(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.f1.publishing.sync_folder", power_cut)
        with pytest.raises(SystemExit):
            extract(mode="manual", session_keys=[9002], entities=["laps", "session_result"], refresh=True)
    assert not manifest_of(tmp_path, 9002).complete
    server.requests.clear()
    extract(mode="manual", session_keys=[9002], entities=["laps", "session_result"])
    assert server.requests == {"sessions": 1}
    assert manifest_of(tmp_path, 9002).complete
    assert len(json.loads((home_of(tmp_path, 9002) / "laps.json").read_text())) == 78


def test_two_extractions_do_not_work_in_one_folder(extract: Extract, tmp_path: Path) -> None:
    def second(step: Step) -> None:
        with pytest.raises(OpenF1Error, match="Another extraction"):
            extract(mode="latest", entities=["sessions"])
        seen.append(step)

    seen: list[Step] = []
    extract(mode="latest", entities=["sessions"], progress=second)
    assert seen


def test_a_full_disk_is_an_error_of_four_lines(
    extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "laps.json"))

    monkeypatch.setattr(Part, "assemble", full)
    with pytest.raises(OpenF1Error, match="No space left on device") as caught:
        extract(mode="latest")
    assert len(str(caught.value).splitlines()) == 4


def test_progress_counts_the_windows(extract: Extract) -> None:
    steps: list[Step] = []
    extract(mode="manual", session_keys=[9002], progress=steps.append)
    windows = [step for step in steps if step.entity == "location" and not step.final]
    assert [step.done for step in windows[:64]] == list(range(1, 65))
    assert {step.total for step in windows} == {64}
    assert windows[-1].rows == 2_093


def test_a_damaged_manifest_is_an_error_that_names_it(extract: Extract, tmp_path: Path) -> None:
    extract(mode="manual", session_keys=[9002], entities=["laps"])
    path = home_of(tmp_path, 9002) / "manifest.json"
    for text in ("", "[]", "{}", '{"format": 99}'):
        path.write_text(text)
        with pytest.raises(OpenF1Error, match="manifest cannot be read") as caught:
            extract(mode="manual", session_keys=[9002], entities=["laps"])
        assert caught.value.where == str(path)


# The command


def test_the_command_extracts_shows_progress_and_gives_json(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("F1_API_URL", server.address)
    server.troubles.append(Trouble("429", "drivers", wait_s=0.01))
    assert command.main(["--mode", "latest", "--num-sessions", "2", "--folder", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    done = json.loads(said.out)
    assert (done["sessions_extracted"], done["files_count"], done["extraction_mode"], done["retries"]) == (
        2,
        10,
        "latest",
        1,
    )
    assert "9006 Las Vegas Race 2024-04-01: extracted, 5 files" in said.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--mode", "newest"], 2),
        (["--num-sessions", "many"], 2),
        (["--mode", "manual"], 2),
        (["--entities", "lapz"], 2),
        (["--mode", "manual", "--session-key", "1"], 2),
        (["--api-url", "nowhere"], 2),
        (["--mode", "latest"], 1),
    ],
)
def test_the_command_fails_in_four_lines(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    server.live = arguments == ["--mode", "latest"]
    assert command.main(["--api-url", server.address, "--folder", str(tmp_path), *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 4 and all(lines) and "Traceback" not in said.err


def test_the_command_writes_the_document_s_layout(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["--api-url", server.address, "--naming", "document"]) == 0
    assert len(list((tmp_path / "local_test_data").glob("*.json"))) == 4
