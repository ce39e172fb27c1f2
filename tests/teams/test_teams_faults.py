"""Servers that die, hang, refuse and cut: a publish happens or it does not, and an error comes in time.

RATATOUILLE_TRIALS=50 makes 100 trials of R19 and R20.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import crash_lab
import pytest
from s3_server import a_proxy
from team import Machine

from ratatouille.engine import open_workbench
from ratatouille.lake import journal as journal_module
from ratatouille.lake import open_journal
from ratatouille.lake.catalogs.server import Server
from ratatouille.lake.unsettled import FOLDER

WORKER = Path(__file__).with_name("team_worker.py")
SEED = int(os.environ.get("RATATOUILLE_SEED", "1"))
ROWS = "select * exclude (_loaded_at) from silver.sales order by id"


def whole(machine: Machine) -> None:
    """What nobody may ever see broken: every table can be read, and says what the ledger says of it."""
    with open_workbench(machine.root) as bench, bench.lake.session() as session:
        session.execute("use lake")
        for name, rows in session.rows(
            "select asset, rows_total from rat.ledger qualify row_number()"
            " over (partition by asset order by snapshot_id desc) = 1"
        ):
            assert session.value(f"select count(*) from (select * from {name})") == rows, name
        twice = session.rows(
            "select asset, run_id from rat.ledger where action = 'build' group by all having count(*) > 1"
        )
        assert twice == [], "a run publishes an asset at most once"


def _is_told(error: dict[str, str]) -> bool:
    whole = all(error[line] for line in ("what", "where", "state", "next"))
    return whole and error["error"] in ("TransientError", "LakeError")


def steps(machine: Machine) -> list[str]:
    return [step.status for step in machine.run("silver.sales", "gold.totals", force=True).steps]


# R19: the catalog's server


@pytest.fixture
def killed(team):
    """Ends the connections of this process that fit, at a moment that the test chooses."""
    server = Server.of(team.catalog)

    def now(condition: str) -> int:
        with server.connect("a fault", "the fault") as connection:
            found = connection.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> pg_backend_pid()"
                f" and application_name like 'rat %' and {condition}"
            ).fetchone()
            return int(found[0])

    return now


def around_commit(monkeypatch, before=lambda: None, after=lambda: None, times: int = 1):
    """Do something just before, or just after, the COMMIT of a publish."""
    from ratatouille.lake.session import Session

    execute, left = Session.execute, [times]

    def execute_with_a_fault(self, sql):
        hit = sql == "commit" and left[0] > 0 and "publish" in self.doing
        if hit:
            left[0] -= 1
            before()
        made = execute(self, sql)
        if hit:
            after()
            raise psycopg_lost(self)
        return made

    def psycopg_lost(session):
        return session._plainly(RuntimeError("server closed the connection unexpectedly"))

    monkeypatch.setattr(Session, "execute", execute_with_a_fault)


def test_a_connection_that_is_lost_before_the_commit_costs_a_retry_and_one_lost_after_it_nothing(
    team, killed, monkeypatch
):
    here = team.machine("here")
    here.land("a.csv", [(1, 1, 10), (2, 2, 20)])
    here.run()
    count = len(here.entries("gold.totals"))
    with monkeypatch.context() as patched:
        around_commit(patched, before=lambda: killed("backend_xid is not null or state = 'idle in transaction'"))
        assert here.run("gold.totals", force=True).step("gold.totals").status == "built"
    assert len(here.entries("gold.totals")) == count + 1
    with monkeypatch.context() as patched:
        around_commit(patched, after=lambda: None)
        with pytest.MonkeyPatch.context():
            step = here.run("gold.totals", force=True).step("gold.totals")
    assert step.status == "built" and len(here.entries("gold.totals")) == count + 2, (
        "asked of the ledger, not done twice"
    )
    # A merge: DuckLake's own delete files must outlive a COMMIT whose answer is lost.
    here.land("b.csv", [(2, 3, 30)])
    with monkeypatch.context() as patched:
        around_commit(patched, before=lambda: killed("backend_xid is not null"), times=2)
        assert [s.status for s in here.run().steps if s.status == "failed"] == []
    assert here.rows(ROWS) == [(1, 1, 10), (2, 3, 30)]
    whole(here)


def test_an_idle_timeout_of_the_server_does_not_end_a_build(team, postgres):
    server = Server.of(team.catalog)
    here = team.machine("here")
    here.land("a.csv", [(1, 1, 10)])
    with server.connect("a fault") as admin:
        role = postgres.user
        admin.execute(f"alter role {role} set idle_in_transaction_session_timeout = '100ms'")
        try:
            here.run()
            with open_workbench(here.root) as bench, bench.lake.pinned() as session:
                assert session.value("select count(*) from lake.silver.sales") == 1
                time.sleep(0.4)
                assert session.value("select count(*) from lake.silver.sales") == 1
            assert "failed" not in steps(here)
        finally:
            admin.execute(f"alter role {role} reset idle_in_transaction_session_timeout")


def test_publishers_and_their_server_are_killed_at_random_moments(team, killed, postgres, figure):
    """kill -9 of a publisher, of the server itself, an immediate restart of it, lost connections, or two at once."""
    here, there = team.machine("here"), team.machine("there")
    here.land("a.csv", [(i, i, 10) for i in range(1, 50)])
    here.run()
    dice = random.Random(SEED)
    acknowledged = done = told = 0
    for trial in range(crash_lab.trials(2)):
        child = subprocess.Popen(
            [sys.executable, str(WORKER), str(there.root), "gold.totals", "3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(dice.uniform(0.3, 1.5))
        what = ("publisher", "server", "connections", "restart", "both")[trial % 5]
        if what in ("server", "restart"):
            postgres.restart(signal.SIGKILL if what == "server" else signal.SIGQUIT)
        if what in ("connections", "both"):
            killed("true")
        if what in ("publisher", "both"):
            child.send_signal(signal.SIGKILL)
        out, complaints = child.communicate(timeout=120)
        assert "Traceback" not in complaints, complaints
        said = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
        versions = [one["version"] for one in said if one["status"] == "built"]
        acknowledged += len(versions)
        known = {entry.version for entry in here.entries("gold.totals")}
        assert set(versions) <= known, f"trial {trial}, seed {SEED}: an acknowledged version is gone"
        # Who loses a connection while opening the lake is told so; whoever publishes goes on.
        untold = [one["error"] for one in said if one["error"] and not _is_told(one["error"])]
        assert not untold, f"trial {trial}, {what}, seed {SEED}:\n{json.dumps(untold, indent=1)}"
        told += sum(one["error"] is not None for one in said)
        whole(here)
        step = here.run("gold.totals", force=True).step("gold.totals")
        # Where the killed run had published already, this one, which asks the same, goes on from it.
        gone_on = step.status == "skipped" and what in ("publisher", "both") and step.version == max(known)
        assert step.status == "built" or gone_on, f"trial {trial}, {what}, seed {SEED}: {step}"
        done += 1
    figure(
        "a publisher, PostgreSQL or its connections killed at a random moment, and a rerun",
        size=f"{done} kills",
        seeds=str(SEED),
        said=f"{acknowledged} acknowledged versions, {told} times told of it in four lines",
        wrong=0,
    )


def test_two_machines_publish_at_once_and_nothing_is_lost(team, figure):
    """R5: one asset and own assets, by two processes."""
    here, there = team.machine("here"), team.machine("there")
    here.land("a.csv", [(i, i, 10) for i in range(1, 50)])
    here.run()
    before, count = len(here.entries("gold.totals")), crash_lab.trials(2)
    children = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(one.root), asset, str(count)], stdout=subprocess.PIPE, text=True
        )
        for one in (here, there)
        for asset in ("gold.totals", "gold.moment")
        for _ in range(int(os.environ.get("RATATOUILLE_WRITERS", "4")) // 4)
    ]
    limit = 120 + 15 * count * len(children)  # seconds; a busy machine takes one for each commit
    said = [[json.loads(line) for line in child.communicate(timeout=limit)[0].splitlines()][1:] for child in children]
    assert [one for lines in said for one in lines if one["error"]] == []
    versions = [one["version"] for lines in said for one in lines]
    assert len(versions) == len(set(versions)) == len(children) * count
    assert len(here.entries("gold.totals")) == before + len(children) // 2 * count
    whole(here)
    figure(
        "writers on two machines, two assets, PostgreSQL and a bucket",
        size=f"{len(children)} x {count} commits",
        wrong=0,
    )


# Leases of other machines


def test_a_lease_of_another_machine_is_judged_by_its_heartbeat_and_by_the_servers_clock(team):
    here = team.machine("here")
    here.land("a.csv", [(1, 1, 10)])
    here.run()
    server = Server.of(team.catalog)
    other = journal_module.Owner(1, "1", "another boot", "another machine")
    with open_journal(server) as theirs:
        theirs._me = other
        theirs.start_run("other-run", {})
        token = theirs.take_lease("gold.totals", "other-run")
    with open_journal(server) as mine:
        assert mine.take_lease("gold.totals", "my-run") is None, "its heart beats"
        assert mine.reap() == []
        with pytest.MonkeyPatch.context() as skewed:
            real = time.time
            skewed.setattr(time, "time", lambda: real() + 3600)
            with open_journal(server) as late:
                assert late.take_lease("gold.totals", "my-run") is None, "a clock that is an hour ahead changes nothing"
        mine.do("update leases set heartbeat_at = heartbeat_at - 60 where asset = ?", ("gold.totals",))
        mine.do("update runs set heartbeat_at = heartbeat_at - 60 where run_id = ?", ("other-run",))
        assert mine.reap() == ["other-run"]
        taken = mine.take_lease("gold.totals", "my-run")
        assert taken == token + 1
        assert mine.holds_leases({"gold.totals": token}) == ["gold.totals"], "what it stages now cannot be published"


def test_the_lock_says_who_holds_it_and_is_free_when_its_holder_is_gone(team):
    server = Server.of(team.catalog)
    from ratatouille.errors import LakeError
    from ratatouille.lake.catalogs.lock import exclusive, looking_back, nobody_looks_back

    with exclusive(server, "publishing x"):
        for wait in (0, 0.2):
            with pytest.raises(LakeError) as held, exclusive(server, "publishing y", wait_s=wait):
                pass
            assert "write lock" in held.value.what and "publishing x" in held.value.where
    with exclusive(server, "publishing y", wait_s=0):
        pass
    with looking_back(server), looking_back(server), nobody_looks_back(server) as alone:
        assert not alone
    with nobody_looks_back(server) as alone:
        assert alone


# R20: the bucket's server


def upload(line: str) -> bool:
    return line.startswith(("PUT", "POST"))


def of_ducklake(line: str) -> bool:
    """DuckLake's own file: written inside the transaction."""
    return upload(line) and "/ducklake-" in line


FAULTS = [("hang", of_ducklake), ("cut", upload), ("503", of_ducklake), ("hang", upload)]
FAULTS += [("403", upload), ("cut", of_ducklake), ("503", upload), ("403", of_ducklake)]


def test_a_bucket_that_fails_costs_a_deadline_and_no_more(team, s3, monkeypatch, figure):
    """Requests of ours and of DuckLake; everyday the first two kinds."""
    here = team.machine("here")
    here.land("a.csv", [(i, i, 10) for i in range(1, 200)])
    here.run()
    monkeypatch.setenv("RATATOUILLE_S3_DEADLINE", "1")
    objects = s3.folder / team.data.rpartition("/")[2]
    slowest, seq = 0.0, 1000
    with a_proxy(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for trial in range(crash_lab.trials(2)):
            fault, fits = FAULTS[trial % len(FAULTS)]
            seq += 1
            here.land(f"{seq}.csv", [(trial % 100 + 1, seq, 30)])  # of the first file, so that DuckLake writes
            if fits is of_ducklake:
                here.run("bronze.sales")
            before = here.rows(ROWS)
            proxy.set(fault, fits)
            started = time.monotonic()
            result = here.run("bronze.sales", "silver.sales")
            slowest = max(slowest, time.monotonic() - started)
            proxy.set("pass")
            failed = [step for step in result.steps if step.status == "failed"]
            assert failed, (fault, fits, result.steps)
            said = failed[0].error
            assert all(said[line] for line in ("what", "where", "state", "next")), said
            assert "canary" not in json.dumps(said)
            assert here.rows(ROWS) == before, "readers see what they saw"
            assert "failed" not in [step.status for step in here.run().steps]
            assert (seq, 30) in here.rows("select seq, amount from silver.sales")
        # A server that answers 503 twice is asked again.
        proxy.set("503", upload, left=2)
        seq += 1
        here.land(f"{seq}.csv", [(1, seq, 40)])
        assert "failed" not in [step.status for step in here.run("bronze.sales").steps] and len(proxy.hurt) == 2
    whole(here)
    assert not [path for path in (objects / FOLDER).rglob("*") if path.is_file()]
    figure(
        "the bucket's server hangs, answers 503 or 403, or cuts the connection, and a rerun",
        size=f"{crash_lab.trials(2)} faults",
        said=f"the slowest run took {slowest:.1f} s with a deadline of 1 s",
        wrong=0,
    )


def test_delete_files_whose_commit_is_unknown_get_their_names_back(team, s3, monkeypatch):
    """The process dies between COMMIT and forgetting; its delete file was removed meanwhile."""
    here = team.machine("here")
    here.land("a.csv", [(1, 1, 10), (2, 2, 20)])
    here.run()
    here.land("b.csv", [(2, 3, 30)])
    publishing = importlib.import_module("ratatouille.lake.publish")  # the package has a function of that name

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "_forget", lambda *_: None)
        here.run()
    objects = s3.folder / team.data.rpartition("/")[2]
    kept = [path for path in (objects / FOLDER).rglob("*") if path.is_file()]
    assert len(kept) == 1 and "ducklake-" in kept[0].name
    (objects / "silver" / "sales" / kept[0].name).unlink()
    here.run("gold.moment")
    assert here.rows(ROWS) == [(1, 1, 10), (2, 3, 30)]
    assert not [path for path in (objects / FOLDER).rglob("*") if path.is_file()]
