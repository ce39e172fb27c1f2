"""A failed run is told to whoever asked, once, in words; the addresses are told to nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from ratatouille.dagster.alerts import VARIABLE, alert_on_failure

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
