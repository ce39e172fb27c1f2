"""What goes wrong while the SBIR graph is loaded, on a real server and in a real file, and how it heals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import neo4j as driver
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from graph_lab import Lab, Tables, companies, everything, rows, small_world
from pipelines.sbir.graph import in_neo4j, open_graph
from pipelines.sbir.graph.in_ladybug import InLadybug
from pipelines.sbir.graph.in_neo4j import InNeo4j
from pipelines.sbir.graph.interface import GraphError, GraphUnreachable
from pipelines.sbir.graph.marks import marks_noted
from pipelines.sbir.graph.model import AWARD, AWARDED_TO, COMPANY, NODES, RELATIONS
from pipelines.sbir.graph.settings import GraphSettings, Loading, Server, server_of_environment

from ratatouille import StepFailed, TransientError

WORKER = Path(__file__).with_name("graph_worker.py")


def loaded_in_one_go(tables: Tables, folder: Path) -> dict[str, Any]:
    """The graph as an undisturbed load of these tables makes it, in a file."""
    lab = Lab(folder)
    lab.put(tables)
    lab.run()
    with open_graph(GraphSettings(), lab.root) as graph:
        return everything(graph)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return loaded_in_one_go(small_world(), tmp_path_factory.mktemp("undisturbed"))


def killed(lab: Lab, after: int) -> bool:
    """Whether a process that loads the graph of this lab was killed, so many writes after it began."""
    command = [sys.executable, str(WORKER), str(lab.root), str(after)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == -signal.SIGKILL


def stopping_in_the_middle(server: Any, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """From the next load on: at this transaction, before it is committed, the server dies and is started again."""
    real, calls = in_neo4j._counted, []

    def counted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            server.kill()
            threading.Thread(target=server.start).start()
        return real(*given)

    monkeypatch.setattr(in_neo4j, "_counted", counted)


@pytest.mark.parametrize("backend", ["ladybug", "neo4j"])
def test_a_load_that_is_killed_and_a_server_that_is_stopped_in_the_middle_leave_nothing_that_the_next_load_does_not_mend(
    backend: str, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
    trials: Callable[[int], int], figure: Callable[..., None],
) -> None:  # fmt: skip
    monkeypatch.setenv("SBIR_ETL__GRAPH__BACKEND", backend)
    monkeypatch.setenv("SBIR_ETL__NEO4J__LOADING__BATCH_SIZE", "20")
    lab = Lab(tmp_path / "lab")
    lab.put(small_world())
    server = request.getfixturevalue("neo4j") if backend == "neo4j" else None
    assert killed(lab, 4)
    if server:
        stopping_in_the_middle(server, monkeypatch, at=3)
    try:
        lab.run()
    except TransientError as told:  # a load that connects at that very moment does not wait, and says so
        assert server and "does not answer" in told.what
        lab.run()
    with lab.graph() as graph:
        assert everything(graph) == undisturbed
    assert lab.run()["status"] == "skipped"

    tables, n_killed, more = small_world(), 0, trials(1) - 1
    for kill in range(more):
        for award in tables["transformed.awards"][kill % 7 :: 3]:
            award["award_title"] = f"Title before kill {kill}"
        lab.put({"transformed.awards": tables["transformed.awards"]})
        n_killed += killed(lab, 1 + kill % 3)
        if kill % 4 == 3:
            lab.run()
    if more:
        lab.run()
        with lab.graph() as graph:
            found = everything(graph)
        monkeypatch.setenv("SBIR_ETL__GRAPH__BACKEND", "ladybug")
        wrong = int(found != loaded_in_one_go(tables, tmp_path / "beside"))
        figure(f"kills of a load into {backend}", size=f"{n_killed + 1} kills", wrong=wrong)
        assert n_killed and not wrong


def test_a_deadlock_is_tried_again(neo4j: Any) -> None:
    """Somebody holds the last company and waits for the first one; the load has the first, and wants the last."""
    loading = Loading(batch_size=10_000, parallel_threads=1)
    n = 2_000
    with (
        InNeo4j(Server(neo4j.uri, neo4j.user, neo4j.password), loading) as graph,
        driver.GraphDatabase.driver(neo4j.uri, auth=(neo4j.user, neo4j.password)) as beside,
    ):
        graph.prepare(NODES)
        graph.write(COMPANY, companies(range(n)))
        graph.write(AWARD, rows(AWARD, *({"key": f"a{one}", "content_hash": "1"} for one in range(2 * n))))
        for trial in range(10):
            loads: list[Any] = []
            changed = companies(range(n), content_hash=f"trial {trial}", before="1")
            with beside.session() as session:
                held = session.begin_transaction()
                # Neo4j ends the one that holds fewer locks.
                held.run("MATCH (a:Award) SET a.city = 'x'").consume()
                held.run("MATCH (c:Company {company_id: $k}) SET c.city = 'x'", k=f"c{n - 1}").consume()
                load = threading.Thread(
                    target=lambda kept=loads, given=changed: kept.append(graph.write(COMPANY, given))
                )
                load.start()
                _wait_until_something_is_locked(beside)
                with suppress(driver.exceptions.Neo4jError):  # Neo4j chose to end this one: another trial
                    held.run("MATCH (c:Company {company_id: 'c0'}) SET c.city = 'x'").consume()
                    held.commit()
                held.close()
            load.join(60)
            assert (loads[0].updated, loads[0].dead) == (n, [])
            if loads[0].retried:
                break
        assert loads[0].retried == 1


def test_loads_that_begin_together_on_an_empty_server_make_its_constraints_once(neo4j: Any) -> None:
    server = Server(neo4j.uri, neo4j.user, neo4j.password)
    with driver.GraphDatabase.driver(neo4j.uri, auth=(neo4j.user, neo4j.password)) as beside:
        for kind in ("CONSTRAINT", "INDEX"):
            for one in beside.execute_query(
                f"SHOW {kind}ES YIELD name" if kind == "INDEX" else "SHOW CONSTRAINTS YIELD name"
            ).records:
                beside.execute_query(f"DROP {kind} `{one['name']}`")
        failed: list[BaseException] = []

        def load() -> None:
            try:
                with InNeo4j(server) as graph:
                    graph.prepare([*NODES, *RELATIONS])
            except BaseException as error:
                failed.append(error)

        loads = [threading.Thread(target=load) for _ in range(5)]
        for one in loads:
            one.start()
        for one in loads:
            one.join(60)
        assert failed == []
        said = "SHOW INDEXES YIELD name, type, state WHERE type <> 'LOOKUP' RETURN count(*) AS n, collect(DISTINCT state) AS states"
        [there] = beside.execute_query(said).records
        wanted = 1 + sum(1 + len(node.unique) + len(node.indexed) + bool(node.full_text) for node in NODES)
        assert (there["n"], there["states"]) == (wanted, ["ONLINE"])


def _wait_until_something_is_locked(beside: driver.Driver) -> None:
    """Until the load has begun to write: it holds its first company."""
    said = "SHOW TRANSACTIONS YIELD currentQuery, activeLockCount WHERE currentQuery STARTS WITH 'UNWIND' RETURN max(activeLockCount) AS n"
    until = time.monotonic() + 30
    while (beside.execute_query(said).records[0]["n"] or 0) < 100:
        assert time.monotonic() < until


def test_no_server_and_a_wrong_password_are_four_lines_without_the_password(
    neo4j: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBIR_ETL__GRAPH__BACKEND", "neo4j")
    monkeypatch.setenv("NEO4J_PASSWORD", "not-the-password")
    lab = Lab(tmp_path / "lab")
    yaml = lab.root / "pipelines/sbir/loaded/cet_areas.yaml"
    yaml.write_text("\n".join(line for line in yaml.read_text().splitlines() if not line.startswith("retries")))
    lab.put(small_world())
    lab.run("raw.cet_taxonomy")
    with pytest.raises(StepFailed) as refused:
        lab.run("loaded.cet_areas")
    assert str(refused.value).splitlines() == [
        f"loaded.cet_areas: {neo4j.uri} refuses the user 'neo4j' with this password",
        "NEO4J_USER, NEO4J_PASSWORD",
        "Nothing was read or written.",
        "set both as the server knows them: rat run loaded.cet_areas",
    ]
    monkeypatch.setenv("NEO4J_URI", "bolt://127.0.0.1:1")
    with pytest.raises(TransientError) as nobody:
        lab.run("loaded.cet_areas")
    lines = str(nobody.value).splitlines()
    assert lines[0].startswith("loaded.cet_areas: bolt://127.0.0.1:1 does not answer: ")
    assert lines[1:] == [
        "NEO4J_URI is bolt://127.0.0.1:1",
        "Nothing was read or written.",
        "start the server (docker compose up --detach --wait): rat run loaded.cet_areas",
    ]
    monkeypatch.setenv("NEO4J_URI", "bolt://someone:planted-canary@127.0.0.1")
    with pytest.raises(GraphError) as told, InNeo4j(server_of_environment()):
        pass
    assert "bolt://127.0.0.1 is no address" in str(told.value) and "canary" not in str(told.value)
    monkeypatch.setenv("NEO4J_URI", "127.0.0.1")
    with pytest.raises(GraphError, match=r"127\.0\.0\.1 is no address of a graph"), InNeo4j(server_of_environment()):
        pass


def test_a_file_is_written_by_one_and_read_by_many(tmp_path: Path) -> None:
    path, impatient = tmp_path / "x.lbug", Loading(reconnect_seconds=0, transaction_timeout_seconds=0)
    with pytest.raises(GraphError, match="there is no graph yet"), InLadybug(path, reading=True):
        pass
    with InLadybug(path) as graph:
        graph.prepare(NODES)
        with pytest.raises(GraphUnreachable, match=f"in use by process {os.getpid()}"), InLadybug(path, impatient):
            pass
    with InLadybug(path, impatient, reading=True) as one, InLadybug(path, impatient, reading=True) as other:
        assert one.ask("MATCH (c:Company) RETURN count(*) AS n") == other.ask("MATCH (c:Company) RETURN count(*) AS n")
    for n_written in (1, 0):  # what another opening wrote is found, not doubled
        with InLadybug(path) as graph:
            graph.prepare([*NODES, *RELATIONS])
            written = graph.write(COMPANY, companies(range(1)))
            graph.write(AWARD, rows(AWARD, {"key": "a", "content_hash": "1"}))
            related = graph.write(
                AWARDED_TO, rows(AWARDED_TO, {"start_key": "a", "end_key": "c0", "content_hash": "1"})
            )
            assert (written.created, related.created, graph.count(AWARDED_TO)) == (n_written, n_written, 1)
    assert marks_noted(path) == {}, "nothing was loaded, and nobody has touched it since"
    path.with_name("x.lbug.wal").write_bytes(b"of a process that was killed")
    assert marks_noted(path) is None
    path.with_name("x.lbug.wal").unlink()
    path.write_bytes(b"no graph at all")
    assert marks_noted(path) is None
    with pytest.raises(GraphError) as damaged, InLadybug(path):
        pass
    assert str(damaged.value).count("\n") == 3 and "move" in damaged.value.next


def test_more_is_written_than_a_file_may_hold_in_memory_and_rows_too_wide_for_it_are_refused(tmp_path: Path) -> None:
    """ladybug keeps what it writes until the file is closed, and dies of a full buffer."""

    def awards(numbers: range, hashed: str = "1", before: str | None = None, width: int = 800) -> pa.Table:
        said = (
            {"key": f"a{n}", "content_hash": hashed, "before": before, "abstract": "x" * width + str(n)}
            for n in numbers
        )
        return rows(AWARD, *said)

    class Counting(InLadybug):
        n_opened = 0

        def _open(self) -> None:
            self.n_opened += 1
            super()._open()

    with Counting(tmp_path / "x.lbug", buffer_mb=128) as graph:
        graph.prepare([*NODES, *RELATIONS])
        for start in range(0, 20_000, 10_000):
            assert graph.write(AWARD, awards(range(start, start + 10_000))).created == 10_000
        assert graph.write(AWARD, awards(range(10_000), "2", "1")).updated == 10_000
        assert graph.n_opened > 3
        hashes = graph.state(AWARD)["content_hash"]
        assert (len(hashes), pc.sum(pc.equal(hashes, "2")).as_py()) == (20_000, 10_000)
        with pytest.raises(
            GraphError, match=r"Award: rows of 9,\d\d\d bytes need a buffer of \d{3} MB, and it is 128 MB"
        ) as wide:
            graph.write(AWARD, awards(range(20_000, 20_100), width=9000))
    assert "set graph.buffer_mb to" in wide.value.next
