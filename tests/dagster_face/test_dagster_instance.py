"""The Dagster home of `rat dev`, and runs whose process is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG, RUN_FAILURE_REASON_TAG

from ratatouille.dagster import dead_runs, instance
from ratatouille.dagster.dead_runs import dead_runs_sensor, mark_dead_runs
from ratatouille.errors import LakeError

SOURCE = Path(instance.__file__).resolve().parents[2]

# Two steps, so that a re-execution has something that it need not do again; the second waits to be killed.
JOB = """
import time
from pathlib import Path
import dagster as dg

MARKS = Path({marks!r})

def mark(name):
    with (MARKS / name).open("a") as file:
        file.write("x")

@dg.op
def first():
    mark("first")

@dg.op(ins={{"after": dg.In(dg.Nothing)}})
def second():
    mark("second")
    if not (MARKS / "go-on").exists():
        time.sleep(600)

@dg.job(executor_def=dg.in_process_executor)
def two_steps():
    second(first())

if __name__ == "__main__":
    with dg.DagsterInstance.from_config({home!r}) as instance:
        dg.execute_job(dg.reconstructable(two_steps), instance)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return instance.prepare_home(instance.home_of(tmp_path))


@pytest.fixture
def history(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


@pytest.fixture
def running(home: Path, tmp_path: Path, history: dg.DagsterInstance) -> Iterator[subprocess.Popen[bytes]]:
    """A run in its second step, in a process of its own."""
    module = tmp_path / "two_steps_of_a_test.py"
    module.write_text(JOB.format(marks=str(tmp_path), home=str(home)))
    process = subprocess.Popen([sys.executable, str(module)], stderr=subprocess.DEVNULL, cwd=tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "second").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is left a zombie


def only_run(history: dg.DagsterInstance) -> dg.DagsterRun:
    [run] = history.get_runs()
    return run


def last_message(history: dg.DagsterInstance, run_id: str) -> str:
    return [entry.user_message or entry.message for entry in history.all_logs(run_id)][-1]


# Settings


def test_the_home_is_private_and_everything_is_kept_in_it(tmp_path: Path, home: Path) -> None:
    assert home == tmp_path / ".rat" / "dagster"
    assert [oct(folder.stat().st_mode & 0o777) for folder in (home, home.parent)] == ["0o700", "0o700"]
    with dg.DagsterInstance.from_config(str(home)) as made:
        ref = made.get_ref()
        for data in (ref.run_storage_data, ref.event_storage_data, ref.schedule_storage_data, ref.compute_logs_data):
            assert Path(data.config_dict["base_dir"]).is_relative_to(home)


def test_the_settings_are_what_dagster_takes_them_for(history: dg.DagsterInstance) -> None:
    assert not history.telemetry_enabled and not history.nux_enabled
    assert history.run_monitoring_enabled and history.run_monitoring_poll_interval_seconds == 15
    assert history.run_retries_enabled and history.run_retries_max_retries == 2
    assert not history.run_retries_retry_on_asset_or_op_failure
    concurrency = history.get_concurrency_config()
    assert concurrency.run_queue_config is not None and concurrency.run_queue_config.max_concurrent_runs == 4
    assert concurrency.pool_config.pool_granularity is not None
    assert concurrency.pool_config.pool_granularity.value == "op"
    kept = history.get_tick_retention_settings(dg._core.definitions.run_request.InstigatorType.SENSOR)
    assert {status.value: days for status, days in kept.items()}["SKIPPED"] == 2


def test_what_a_person_wrote_stays(home: Path) -> None:
    settings = home / "dagster.yaml"
    edited = settings.read_text().replace("max_concurrent_runs: 4", "max_concurrent_runs: 7")
    settings.write_text(edited)
    instance.prepare_home(home)
    assert settings.read_text() == edited
    settings.write_text("")  # what `touch` makes is a person's as well
    instance.prepare_home(home)
    assert settings.read_text() == ""


def test_settings_of_an_older_version_are_replaced(home: Path) -> None:
    settings = home / "dagster.yaml"
    now = settings.read_text()
    older = "telemetry:\n  enabled: false\n"
    settings.write_text(instance._MARK + instance._checksum(older) + "\n" + older)
    instance.prepare_home(home)
    assert settings.read_text() == now
    written_at = settings.stat().st_mtime_ns
    instance.prepare_home(home)
    assert settings.stat().st_mtime_ns == written_at and [p.name for p in home.iterdir()] == ["dagster.yaml"]


def test_a_chosen_home_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o750)
    assert instance.prepare_home(instance.home_of(tmp_path, tmp_path / "shared")) == tmp_path / "shared"
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o750


def test_a_home_that_cannot_be_made_is_four_lines(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match="cannot be written") as failed:
        instance.prepare_home(tmp_path / "file" / "dagster")
    assert failed.value.where and "--home" in failed.value.next


def test_without_dagster_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['dagster_webserver'] = None\n"
        "from ratatouille.dagster.instance import need_dagster\n"
        "from ratatouille.errors import RequestError\n"
        "try:\n    need_dagster()\nexcept RequestError as error:\n    print(error)\n"
        "assert 'dagster' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[0] == "rat dev needs dagster-webserver, which is not installed."
    assert ran.stdout.splitlines()[-1] == "pip install 'ratatouille-lakehouse[dagster]'"


# Dead runs


def test_a_run_that_lives_is_left_alone(history: dg.DagsterInstance, running: subprocess.Popen[bytes]) -> None:
    assert mark_dead_runs(history) == []
    running.send_signal(signal.SIGSTOP)  # asleep is not dead
    assert mark_dead_runs(history) == []
    assert only_run(history).status == dg.DagsterRunStatus.STARTED


def test_a_killed_run_is_failed_and_goes_on_from_where_it_was(
    history: dg.DagsterInstance, running: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(running)  # and nobody asks how it ended: a zombie is as dead
    run = only_run(history)
    assert mark_dead_runs(history) == [run.run_id]
    assert mark_dead_runs(history) == []
    failed = only_run(history)
    assert failed.status == dg.DagsterRunStatus.FAILURE
    assert failed.tags[RUN_FAILURE_REASON_TAG] == "UNEXPECTED_TERMINATION"
    said = last_message(history, run.run_id)
    assert f"number {running.pid}) is gone" in said and "What it had published stands." in said

    (tmp_path / "go-on").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import two_steps_of_a_test

    options = dg.ReexecutionOptions.from_failure(run.run_id, history)
    job = dg.reconstructable(two_steps_of_a_test.two_steps)
    with dg.execute_job(job, history, reexecution_options=options) as result:
        assert result.success
    assert ((tmp_path / "first").read_text(), (tmp_path / "second").read_text()) == ("x", "xx")


def test_a_run_that_was_being_canceled_is_canceled(
    history: dg.DagsterInstance, running: subprocess.Popen[bytes]
) -> None:
    run = only_run(history)
    history.report_run_canceling(run)
    kill(running)
    assert mark_dead_runs(history) == [run.run_id]
    assert only_run(history).status == dg.DagsterRunStatus.CANCELED


def test_a_number_that_was_given_out_again_is_not_the_process() -> None:
    assert dead_runs._lives(os.getpid(), seen_at=time.time())
    assert not dead_runs._lives(os.getpid(), seen_at=time.time() - 365 * 86_400)
    assert not dead_runs._lives(2**22 + 1, seen_at=time.time())


def test_the_sensor_marks_them_and_says_so(history: dg.DagsterInstance, running: subprocess.Popen[bytes]) -> None:
    sensor = dead_runs_sensor()
    assert (sensor.name, sensor.minimum_interval_seconds) == ("dead_runs", 30)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    with dg.build_sensor_context(history) as context:
        assert "Every run in progress has a process." in sensor.evaluate_tick(context).skip_message
    kill(running)
    with dg.build_sensor_context(history) as context:
        tick = sensor.evaluate_tick(context)
    assert tick.skip_message == f"Marked as failed: {only_run(history).run_id}" and not tick.run_requests


@pytest.mark.parametrize("listens", [True, False])
def test_a_run_without_a_process_waits_for_its_code_server(
    history: dg.DagsterInstance, tmp_path: Path, listens: bool
) -> None:
    path = tmp_path / "code-server"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as server:
        server.bind(str(path))
        if listens:
            server.listen()
        tags = {GRPC_INFO_TAG: f'{{"host": "localhost", "socket": "{path}"}}'}
        run = history.create_run_for_job(_tiny_job(), status=dg.DagsterRunStatus.STARTING, tags=tags)
        assert mark_dead_runs(history) == ([] if listens else [run.run_id])
    assert only_run(history).is_failure is not listens


def test_a_run_that_was_not_given_to_a_code_server_yet_is_left_alone(history: dg.DagsterInstance) -> None:
    history.create_run_for_job(_tiny_job(), status=dg.DagsterRunStatus.STARTING)
    assert mark_dead_runs(history) == []


def test_only_runs_of_the_asked_location(history: dg.DagsterInstance, running: subprocess.Popen[bytes]) -> None:
    kill(running)
    assert mark_dead_runs(history, "another") == []
    assert mark_dead_runs(history, "") == [only_run(history).run_id]  # started in a shell: of no location


def test_runs_of_another_launcher_are_left_to_it(
    home: Path, history: dg.DagsterInstance, running: subprocess.Popen[bytes]
) -> None:
    kill(running)
    (home / "dagster.yaml").write_text(
        "run_launcher: {module: dagster._core.launcher.sync_in_memory_run_launcher, class: SyncInMemoryRunLauncher}\n"
    )
    with dg.DagsterInstance.from_config(str(home)) as other:
        assert mark_dead_runs(other) == []


def _tiny_job() -> dg.JobDefinition:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def tiny() -> None:
        nothing()

    return tiny
