"""A failed run is told to whoever asked, once, in words; the addresses are told to nobody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from ratatouille.dagster.alerts import VARIABLE, alert_on_failure
from ratatouille.dagster.history import Gone, prune
from ratatouille.engine import Outer
from ratatouille.engine.native import Given, native_asset
from ratatouille.engine.native_tables import store
from ratatouille.errors import StepFailed
from ratatouille.lake import open_journal
from ratatouille.lake.journal import retention
from ratatouille.observe import alerts

pytestmark = pytest.mark.filterwarnings(
    # Dagster's SQLite storage closes its connections when it is collected.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:'imghdr' is deprecated:DeprecationWarning",  # of a package below apprise, on Python 3.11 and 3.12
)


class Inbox:
    """A real HTTP server that keeps what apprise sends to it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status = 200
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.messages.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(inbox.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://user:hunter2-secret@127.0.0.1:{self.server.server_port}/inbox"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@dg.asset
def broken() -> None:
    raise dg.Failure(description="the till is on fire\nNext: water")


job = dg.define_asset_job("burning", [broken])


def tick(instance: dg.DagsterInstance, sensor: Any) -> Any:
    repository = dg.Definitions(assets=[broken], jobs=[job], sensors=[sensor]).get_repository_def()
    result = repository.get_job("burning").execute_in_process(instance=instance, raise_on_error=False)
    [event] = [e for e in result.all_events if e.event_type_value == "PIPELINE_FAILURE"]
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name, dagster_instance=instance, dagster_run=result.dagster_run, dagster_event=event
    ).for_run_failure()
    return sensor(context)


def test_a_failure_is_told_in_words(
    inbox: Inbox, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, f" {inbox.address} ,")
    tick(instance, alert_on_failure())
    [message] = inbox.messages
    assert message["title"] == "burning failed"
    assert "broken: the till is on fire\nNext: water" in message["message"] and "Run " in message["message"]
    assert "hunter2" not in json.dumps(message) + caplog.text


def test_nobody_to_tell_is_said(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert VARIABLE in tick(instance, alert_on_failure()).skip_message


def test_a_message_that_is_not_delivered_is_an_error_without_the_address(
    inbox: Inbox, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox.status = 500
    monkeypatch.setenv(VARIABLE, inbox.address)
    with pytest.raises(dg.Failure, match="could not be delivered") as failed:
        tick(instance, alert_on_failure())
    assert "hunter2" not in str(failed.value)
    monkeypatch.setenv(VARIABLE, "nonsense")
    with pytest.raises(dg.Failure, match="1 of 1 addresses cannot be read"):
        tick(instance, alert_on_failure())


RULES = """name: kitchen
resources: {memory: 1GB, threads: 2}
alerts:
  channels: {team: '${TEAM_CHANNEL}'}
  rules:
    broken: {when: [run_failed, recovered], to: team}
"""


def test_the_rules_of_the_workspace_hold_in_dagster_for_files_and_for_native_assets(
    kitchen: Any, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(alerts, "send", lambda addresses, title, body: told.append(title) or "")
    monkeypatch.setenv("TEAM_CHANNEL", "json://team")
    kitchen.write({"pipelines/shop/silver/a.sql": "select 1 as id"})
    assert "kitchen_alerts" not in {one.name for one in kitchen.defs().sensors}
    kitchen.write({"workspace.yaml": RULES, "pipelines/shop/silver/a.sql": "select error('no till') as id"})
    defs = kitchen.defs()
    sensor = next(one for one in defs.sensors if one.name == "kitchen_alerts")

    def tick() -> str:
        with dg.build_sensor_context(instance) as context:
            return str(sensor.evaluate_tick(context).skip_message)

    assert tick() == "Nothing to tell."
    a = defs.get_repository_def().asset_graph.assets_def_for_key(dg.AssetKey(["silver", "a"]))
    failed = dg.materialize([a], instance=instance, raise_on_error=False)
    assert told == ["kitchen: silver.a failed"], "the step that failed tells it by itself"
    with open_journal(kitchen.root / ".rat" / "journal.sqlite") as journal:
        assert [one["run_id"] for one in journal.last_points("silver.a", 5)] == [failed.run_id]
    given = Given(native_asset("gold.model", "1"), Outer("by-dagster", "Dagster model", 1, ()))
    with pytest.raises(StepFailed):
        store(kitchen.root, given, object())
    assert tick() == "Told 1 things in 1 messages."
    assert told[1] == "kitchen: gold.model failed"
    assert tick() == "Nothing to tell."
    kitchen.write({"pipelines/shop/silver/a.sql": "select 1 as id"})
    dg.materialize([kitchen.defs().get_repository_def().asset_graph.assets_def_for_key(a.key)], instance=instance)
    assert told[2:] == ["kitchen: silver.a works again (run failed)"]


def test_old_runs_of_dagsters_history_go_summed_up_and_the_newest_of_each_asset_stays(
    kitchen: Any, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def fine() -> None: ...

    runs = [dg.materialize([one], instance=instance, raise_on_error=False).run_id for one in (fine, fine, broken)]
    with open_journal(kitchen.root / "journal.sqlite") as journal:
        old = time.time() + 3600
        assert prune(instance, journal, time.time() - 3600) == Gone(0, 0)
        assert prune(instance, journal, old, dry_run=True) == Gone(2, 1)
        assert len(instance.get_run_ids()) == 3
        assert prune(instance, journal, old) == Gone(2, 1)
        assert instance.get_run_ids() == [runs[1]]
        assert instance.get_latest_materialization_event(fine.key) is not None
        assert instance.all_logs(runs[0]) == []
        [day] = retention.days(journal)
    assert (day["runs"], day["failed"]) == (2, 1) and day["request"]["label"].startswith("Dagster ")
