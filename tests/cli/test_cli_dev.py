"""`rat dev`: one address, one home, and nothing left when it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

# `rat dev` as a process serves the tests of the Dagster face too; its module has a name of its own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dagster_face"))

from served import Dev, children, owner_in, wait_for

from ratatouille.dagster.dead_runs import CHECK_EVERY_S
from ratatouille.dagster.serve import PORT, STOP_S, _signals_as_interrupts, _wait_until, living_members

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)

SLOW = """
import time
from pathlib import Path
import polars

def build(context):
    began = Path(__file__).with_name("began")
    with began.open("a") as file:
        file.write("x")
    while not began.with_name("go-on").exists():
        time.sleep(0.2)
    return polars.DataFrame({"one": [1]})
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """bronze.quick, and silver.slow that reads it and waits until it may go on."""
    root = tmp_path / "elsewhere"
    for name, text in {
        "workspace.yaml": "name: elsewhere\nresources: {memory: 1GB, threads: 2}\n",
        "pipelines/bronze/quick.sql": "select 1 as one",
        "pipelines/silver/slow.py": SLOW,
        "pipelines/silver/slow.yaml": "depends_on: [bronze.quick]\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def wait_for_the_slow_step(workspace: Path, times: int = 1) -> None:
    began = workspace / "pipelines" / "silver" / "began"
    wait_for(lambda: began.exists() and len(began.read_text()) >= times, 180)


# Errors, before anything is started


def test_a_busy_port_names_the_port_and_the_next_one(kitchen: Any) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = kitchen.rat("dev", "--port", str(port))
    assert said.code == 2
    assert said.err.splitlines() == [
        f"Port {port} is in use by another program.",
        f"  127.0.0.1:{port}",
        "  Dagster was not started.",
        f"  $ rat dev --port {port + 1}",
    ]
    assert not (kitchen.root / ".rat" / "dagster").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--host", "203.0.113.1"], "203.0.113.1 is not an address of this machine"),
        (["--port", "99999"], "less than or equal to 65535"),
        (["--home", "workspace.yaml/dagster"], "The Dagster home cannot be written"),
    ],
)
def test_a_request_that_cannot_be_met_is_four_lines(kitchen: Any, words: list[str], what: str) -> None:
    said = kitchen.rat("dev", *(words if "--port" in words else ["--port", "0", *words]))
    assert said.code in (1, 2)
    assert what in said.err.splitlines()[0] and len(said.err.splitlines()) <= 4


def test_without_dagster_it_says_what_to_install(kitchen: Any) -> None:
    code = (
        "import sys; sys.modules['dagster'] = None; from ratatouille.cli.entry import run_command;"
        " sys.exit(run_command(['dev']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=kitchen.root, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[0] == "rat dev needs dagster, which is not installed."
    assert ran.stderr.splitlines()[-1] == "  $ pip install 'ratatouille-lakehouse[dagster]'"


def test_it_says_where_it_will_be_and_what_an_open_address_means(kitchen: Any) -> None:
    assert f"default: {PORT}" in kitchen.rat("dev", "--help").out.replace("\n", "")
    assert PORT == 3030
    from ratatouille.cli.dev import _is_private

    assert all(_is_private(host) for host in ("127.0.0.1", "::1", "localhost"))
    assert not any(_is_private(host) for host in ("10.0.0.1", "::", "kitchen.example"))


# A life of it


@pytest.mark.slow
@pytest.mark.service
def test_it_serves_a_workspace_and_leaves_nothing_behind(workspace: Path, tmp_path: Path) -> None:
    """Started from elsewhere with -w: it answers, builds, refuses a second one, and stops with a run in progress."""
    with Dev(workspace, "-w", str(workspace), cwd=tmp_path) as dev:
        assert dev.home == workspace / ".rat" / "dagster" and dev.told["dead_runs"] == []
        assert owner_in(dev.home) == dev.process.pid
        assert {"bronze/quick", "silver/slow"} <= dev.assets()
        run = dev.materialize("bronze/quick", "silver/slow")
        wait_for_the_slow_step(workspace)

        second = subprocess.run(
            [sys.executable, "-m", "ratatouille.cli", "-w", str(workspace), "dev", "--port", "0"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert second.returncode == 2
        assert second.stderr.splitlines()[:2] == [
            "rat dev is running on this workspace already.",
            f"  {dev.address} (process {dev.process.pid})",
        ]
        assert dev.status(run) == "STARTED"
        assert dev.stop() == 0  # Ctrl-C; no process is left, not even the waiting step
        assert "Traceback" not in dev.said()

    # What was built is there, in the words of `rat runs` too, and so is Dagster's history.
    with Dev(workspace) as dev:
        assert dev.status(run) in {"FAILURE", "CANCELED"}
        listed = subprocess.run(
            [sys.executable, "-m", "ratatouille.cli", "-w", str(workspace), "runs", "--json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert run in {one["run_id"] for one in json.loads(listed.stdout)}


@pytest.mark.slow
@pytest.mark.service
def test_a_run_that_a_crash_ended_goes_on_by_itself(workspace: Path) -> None:
    """kill -9 of everything, and a restart: failed within 60 seconds, resumed, and the finished asset is not rebuilt."""
    with Dev(workspace) as dev:
        run = dev.materialize("bronze/quick", "silver/slow")
        wait_for_the_slow_step(workspace)
        dev.kill_all()

    (workspace / "pipelines" / "silver" / "go-on").write_text("")
    began = time.monotonic()
    with Dev(workspace) as dev:
        assert dev.told["dead_runs"] == [run]
        assert dev.status(run) == "FAILURE"
        assert time.monotonic() - began < 60
        assert any("is gone: it was killed" in message for message in dev.messages(run))
        wait_for(lambda: len(dev.runs()) == 2, 60)
        retry = dev.runs()[0]
        assert retry["rootRunId"] == run
        assert dev.ended(retry["runId"]) == "SUCCESS"
        assert not any("bronze__quick" in message for message in dev.messages(retry["runId"]))
    assert (workspace / "pipelines" / "silver" / "began").read_text() == "xx"


@pytest.mark.slow
@pytest.mark.service
def test_a_run_that_dies_with_its_code_server_is_found_while_it_serves(workspace: Path) -> None:
    """What Dagster's own code server cannot report any more, the sensor finds."""
    with Dev(workspace) as dev:
        run = dev.materialize("bronze/quick", "silver/slow")
        wait_for_the_slow_step(workspace)
        mine = {pid: command_of(pid) for pid in living_members(dev.group)}
        for pid, command in mine.items():
            if not any(part in command for part in ("dagster dev", "dagster_webserver", "dagster._daemon")):
                os.kill(pid, signal.SIGKILL)
        took = wait_for(lambda: dev.status(run) == "FAILURE", 4 * CHECK_EVERY_S)
        assert took < 4 * CHECK_EVERY_S


@pytest.mark.slow
@pytest.mark.service
def test_when_it_is_killed_dagster_ends_too(workspace: Path) -> None:
    dev = Dev(workspace)
    group = dev.group
    assert len(living_members(group)) >= 4
    dev.process.kill()
    assert dev.ended_by_itself()[0] == -signal.SIGKILL
    wait_for(lambda: living_members(group) == [], 90)


@pytest.mark.slow
@pytest.mark.service
def test_when_dagster_ends_by_itself_it_says_so(workspace: Path) -> None:
    dev = Dev(workspace)
    group = dev.group
    os.kill(children(dev.process.pid)[0], signal.SIGKILL)
    code, said = dev.ended_by_itself()
    assert code == 1 and json.loads(said)["error"]["what"] == "Dagster ended by itself, with exit code -9."
    assert living_members(group) == []


@pytest.mark.slow
@pytest.mark.service
def test_it_serves_this_repository(tmp_path: Path) -> None:
    """A copy of its root: every pipeline and workspace. In the background, as nohup has it, and ended by SIGTERM."""
    root = tmp_path / "repository"
    root.mkdir()
    for name in ("workspace.yaml", "pipelines", "workspaces"):
        source = ROOT / name
        ignore = shutil.ignore_patterns(".rat", "__pycache__", "landing")
        shutil.copytree(source, root / name, ignore=ignore) if source.is_dir() else shutil.copy(source, root / name)
    dev = Dev(root, "--home", str(tmp_path / "dagster-home"), background=True)
    try:
        assert dev.home == tmp_path / "dagster-home" and (dev.home / "dagster.yaml").is_file()
        assert {"bronze/sales", "silver/sales", "gold/sales_summary"} <= dev.assets()
        assert not any("broken" in asset for asset in dev.assets())
        dev.process.send_signal(signal.SIGHUP)
        dev.process.send_signal(signal.SIGINT)
        assert dev.assets()  # as if nothing had happened
    finally:
        asked = time.monotonic()
        assert dev.stop(signal.SIGTERM) == 0
        assert time.monotonic() - asked < STOP_S  # they went when asked, and had not to be killed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_or_somebody_holds_back_ends_it_all_the_same() -> None:
    class Cleared:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    sleeping = subprocess.Popen(["sleep", "60"])
    try:
        with _signals_as_interrupts() as asked:
            assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            Cleared()  # what is raised there nobody gets
            with pytest.raises(KeyboardInterrupt):
                _wait_until(lambda: False, sleeping, asked)
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sleeping.kill()
        sleeping.wait()


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
