"""Signed web requests that start a job: over a real HTTP server on loopback, with Dagster down and with Dagster up."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import uvicorn
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.sensor import execute_sensor_iteration

from ratatouille.dagster import webhook
from ratatouille.dagster.webhook import secrets_from, signature, webhook_app, webhook_sensor
from ratatouille.errors import RequestError

SECRET, NEXT, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
BODY = b'{"day": "2026-11-21", "note": "\xc3\xa9t\xc3\xa9"}'


class Served:
    """The application of a workspace behind uvicorn on a free port of loopback."""

    def __init__(self, root: Path, hooks=None, **options):
        app = webhook_app(root, {"sales": [SECRET], "f1": [OTHER]} if hooks is None else hooks, **options)
        self.server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="none"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(timeout=10)

    def post(self, headers, body=BODY, path="/hooks/sales", method="POST"):
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as link:
            link.putrequest(method, path)
            for name, value in [*headers, ("content-length", str(len(body)))]:
                link.putheader(name, value)
            link.endheaders(body)
            answer = link.getresponse()
            return answer.status, json.loads(answer.read() or b"null") if method == "POST" else None


def signed(id="msg_1", at=None, body=BODY, secret=SECRET):
    at = int(time.time()) if at is None else at
    return [
        ("webhook-id", id),
        ("webhook-timestamp", str(at)),
        ("webhook-signature", signature(secret, id, at, body)),
    ]


def changed(name, value, headers=None):
    return [(n, value if n == f"webhook-{name}" else v) for n, v in (headers or signed())]


@pytest.fixture
def served(kitchen):
    with Served(kitchen.root) as made:
        made.root = kitchen.root
        yield made


def kept(root: Path) -> list[tuple]:
    store = root / ".rat/webhook.sqlite"
    if not store.exists():
        return []
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute("select id, hook, body, started_at is null from requests order by id").fetchall()


def test_the_signature_is_that_of_standard_webhooks():
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signed_request_is_written_down_and_accepted(served):
    assert served.post(signed()) == (202, {"accepted": "msg_1"})
    assert kept(served.root) == [("msg_1", "sales", BODY, 1)]
    store = served.root / ".rat/webhook.sqlite"
    assert store.stat().st_mode & 0o777 == 0o600


def test_one_good_signature_of_several_is_enough(served):
    good = dict(signed())["webhook-signature"]
    bad = dict(signed(secret=OTHER))["webhook-signature"]
    assert served.post(changed("signature", f"{bad} v1a,xyz v2,{good[3:]} {good}"))[0] == 202


def test_secrets_are_replaced_while_both_are_good(kitchen):
    with Served(kitchen.root, {"sales": [NEXT, SECRET]}) as served:
        assert served.post(signed("old"))[0] == 202
        assert served.post(signed("new", secret=NEXT))[0] == 202
        assert served.post(signed("none", secret=OTHER))[0] == 401
    with Served(kitchen.root, {"sales": [NEXT]}) as served:
        assert served.post(signed("old2"))[0] == 401


now = int(time.time())
good = dict(signed("msg_1", now))["webhook-signature"]
FORGED = {
    "no headers": [],
    "no id": [h for h in signed() if h[0] != "webhook-id"],
    "no timestamp": [h for h in signed() if h[0] != "webhook-timestamp"],
    "no signature": [h for h in signed() if h[0] != "webhook-signature"],
    "an empty signature": changed("signature", ""),
    "another secret": signed(secret=OTHER),
    "an empty secret": signed(secret=b""),
    "another body": signed(body=BODY + b" "),
    "another id": changed("id", "msg_2", signed(at=now)),
    "another time": changed("timestamp", str(now - 1), signed(at=now)),
    "only the version": changed("signature", "v1,"),
    "another version": changed("signature", "v2" + good[2:], signed(at=now)),
    "no version": changed("signature", good[3:], signed(at=now)),
    "half of a signature": changed("signature", good[:20], signed(at=now)),
    "hexadecimal": changed("signature", "v1," + base64.b64decode(good[3:]).hex(), signed(at=now)),
    "not ASCII": changed("signature", "v1,\xe9", signed(at=now)),
    "an id with a dot": signed("msg.1"),
    "an id with a slash": signed("../msg"),
    "an id that is too long": signed("m" * 129),
    "an empty id": signed(""),
    "an id with a quote": signed("a'b"),
    "a time with a sign": signed(at=f"+{now}"),
    "a time with a space": signed(at=f"{now} "),
    "a time with an underscore": signed(at=f"{str(now)[:2]}_{str(now)[2:]}"),
    "a time as a float": signed(at=f"{now}.0"),
    "a time in milliseconds": signed(at=now * 1000),
    "a time that is huge": signed(at=10**30),
    "no time": signed(at=""),
    "the same header twice": [*signed(), ("webhook-signature", dict(signed())["webhook-signature"])],
    "two ids": [("webhook-id", "msg_0"), *signed()],
}
EXPIRED = [-(10**9), -86_400, -3_600, -330, -302, 330, 302 + 60, 86_400, 10**9]


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_request_is_refused(served, name):
    headers = FORGED[name]
    status, said = served.post([(n, v.encode("latin-1")) for n, v in headers])
    assert (status, said) == (401, {"error": "refused"}) and kept(served.root) == []


@pytest.mark.parametrize("offset_s", EXPIRED)
def test_an_old_request_and_one_of_the_future_are_refused(served, offset_s):
    assert served.post(signed(at=int(time.time()) + offset_s)) == (401, {"error": "refused"})
    assert kept(served.root) == []


def test_a_few_minutes_of_difference_are_not(served):
    for number, offset_s in enumerate((-290, 290)):
        assert served.post(signed(f"m{number}", at=int(time.time()) + offset_s))[0] == 202


def test_a_signature_with_a_moved_border_is_refused(served):
    """`a.T` + `T` + `b` and `a` + `T` + `T.b` are the same bytes: an id with a dot is never read."""
    at = int(time.time())
    genuine = signed("a", at, f"{at}.x".encode())
    moved = [("webhook-id", f"a.{at}"), ("webhook-timestamp", str(at)), genuine[2]]
    assert served.post(moved, b"x")[0] == 401
    assert served.post(genuine, f"{at}.x".encode())[0] == 202


def test_many_random_forgeries_are_all_refused(served):
    import random

    chance = random.Random(20261121)
    statuses = set()
    for _ in range(300):
        headers, body = signed(f"r{chance.randrange(10**6)}"), bytearray(BODY)
        where = chance.randrange(3)
        if where == 0:
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        elif where == 1:
            raw = bytearray(base64.b64decode(headers[2][1][3:]))
            raw[chance.randrange(32)] ^= 1 << chance.randrange(8)
            headers[2] = ("webhook-signature", f"v1,{base64.b64encode(raw).decode()}")
        else:
            headers[0] = ("webhook-id", headers[0][1] + chance.choice("abc123"))
        statuses.add(served.post(headers, bytes(body))[0])
    assert statuses == {401} and kept(served.root) == []


def test_a_replay_is_refused_also_after_a_restart_and_with_a_new_signature(kitchen):
    first = signed("once")
    with Served(kitchen.root) as served:
        assert served.post(first)[0] == 202
        assert served.post(first) == (409, {"error": "this id was accepted before"})
    with Served(kitchen.root) as served:
        assert served.post(first)[0] == 409
        assert served.post(signed("once", at=int(time.time()) - 3))[0] == 409
    assert len(kept(kitchen.root)) == 1


def test_a_request_for_one_hook_is_none_for_another(kitchen):
    with Served(kitchen.root, {"sales": [SECRET], "f1": [SECRET], "own": [OTHER]}) as served:
        assert served.post(signed(), path="/hooks/own")[0] == 401
        assert served.post(signed(), path="/hooks/f1")[0] == 202
        assert served.post(signed(), path="/hooks/sales")[0] == 409


def test_only_posts_to_hooks_that_exist(served):
    assert served.post(signed(), path="/hooks/none")[0] == 404
    assert served.post(signed(), method="GET")[0] == 405
    assert kept(served.root) == []


def test_only_one_of_many_at_once_is_accepted(served):
    headers, statuses = signed("race"), []
    threads = [threading.Thread(target=lambda: statuses.append(served.post(headers)[0])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202] + [409] * 11


def test_many_at_once_are_all_kept(served):
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: statuses.extend(served.post(signed(f"m{n}-{k}"))[0] for k in range(10)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [202] * 40 and len(kept(served.root)) == 40


def test_a_body_has_a_limit_whether_or_not_it_says_how_long_it_is(kitchen):
    with Served(kitchen.root, largest_body=1_000) as served:
        fits, large = b"x" * 1_000, b"x" * 1_001
        assert served.post(signed(body=fits), fits)[0] == 202
        assert served.post(signed("m2", body=large), large)[0] == 413
        with closing(socket.create_connection(("127.0.0.1", served.port), timeout=10)) as link:
            headers = "".join(f"{name}: {value}\r\n" for name, value in signed("m3", body=large))
            link.sendall(
                f"POST /hooks/sales HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n{headers}\r\n".encode()
            )
            for _ in range(4):
                link.sendall(b"ff\r\n" + b"x" * 255 + b"\r\n")
            assert b" 413 " in link.recv(1_000).split(b"\r\n")[0]
    assert [row[0] for row in kept(kitchen.root)] == ["msg_1"]


def test_a_body_that_does_not_come_is_not_waited_for(served, monkeypatch):
    monkeypatch.setattr(webhook, "BODY_WITHIN_S", 0.3)
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=10)) as link:
        headers = "".join(f"{name}: {value}\r\n" for name, value in signed())
        link.sendall(f"POST /hooks/sales HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n{headers}\r\nhalf".encode())
        assert b" 408 " in link.recv(1_000).split(b"\r\n")[0]
    assert kept(served.root) == []


def test_what_cannot_be_written_down_is_not_accepted(served):
    store = served.root / ".rat/webhook.sqlite"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(b"this is no database" * 100)
    assert served.post(signed())[0] == 503
    store.unlink()
    assert served.post(signed())[0] == 202  # the sender tries again


def test_more_than_can_wait_is_sent_back(served, monkeypatch):
    monkeypatch.setattr(webhook, "MOST_WAITING", 2)
    assert [served.post(signed(f"m{n}"))[0] for n in range(3)] == [202, 202, 503]


def test_old_ids_go_and_waiting_ones_stay(served):
    served.post(signed("started"))
    served.post(signed("waiting"))
    long_ago = time.time() - webhook.KEPT_S - 1
    with closing(sqlite3.connect(served.root / ".rat/webhook.sqlite")) as connection:
        connection.execute("update requests set received_at = ?", (long_ago,))
        connection.execute("update requests set started_at = ? where id = 'started'", (long_ago,))
        connection.commit()
    served.post(signed("new"))
    assert [row[0] for row in kept(served.root)] == ["new", "waiting"]


def test_a_server_that_is_killed_has_kept_what_it_accepted(kitchen, tmp_path):
    """kill -9 right after the answer, from another process."""
    (tmp_path / "hooks.py").write_text(
        "from ratatouille.dagster.webhook import secrets_from, webhook_app\n"
        f"app = webhook_app({str(kitchen.root)!r}, {{'sales': secrets_from('SALES_SECRETS')}})\n"
    )
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "SALES_SECRETS": f"whsec_{base64.b64encode(SECRET).decode()}"}
    words = ["-m", "uvicorn", "hooks:app", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen([sys.executable, *words], cwd=tmp_path, env=environment)
    try:
        served = Served.__new__(Served)
        served.port = port
        for _ in range(300):
            try:
                status, _ = served.post(signed("last"))
                break
            except OSError:
                time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert status == 202 and [row[0] for row in kept(kitchen.root)] == ["last"]
    finally:
        process.kill()
        process.wait()


# Secrets


def test_secrets_come_from_the_environment(monkeypatch):
    first, second = (base64.b64encode(one).decode() for one in (SECRET, NEXT))
    monkeypatch.setenv("HOOK", f"whsec_{first}, {second}")
    assert secrets_from("HOOK") == (SECRET, NEXT)


@pytest.mark.parametrize("value", ["", "hunter2hunter2!", base64.b64encode(b"short").decode(), "whsec_", None])
def test_what_is_no_secret_is_refused_and_not_repeated(monkeypatch, value):
    monkeypatch.delenv("HOOK", raising=False)
    if value is not None:
        monkeypatch.setenv("HOOK", value)
    with pytest.raises(RequestError) as caught:
        secrets_from("HOOK")
    assert "HOOK does not hold a secret" in caught.value.what and "[hidden]" not in str(caught.value)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize("secrets", [[], [b"short"], ["x" * 32]])
def test_a_hook_without_a_secret_does_not_start(kitchen, secrets):
    with pytest.raises(RequestError, match="sales"):
        webhook_app(kitchen.root, {"sales": secrets})


# The sensor


@dg.asset(config_schema={"day": dg.Field(str, default_value="today")})
def report(context) -> None:
    context.log.info(context.op_execution_context.op_config["day"])


@dg.asset
def other() -> None: ...


SALES, F1 = dg.define_asset_job("sales_job", [report]), dg.define_asset_job("f1_job", [other])


def day_of(accepted):
    return dg.RunRequest(run_config={"ops": {"report": {"config": {"day": accepted.payload["day"]}}}})


def defs_of(root, **options):
    sensor = webhook_sensor(root, {"sales": SALES, "f1": F1}, **options)
    return dg.Definitions([report, other], sensors=[sensor]).get_repository_def()


def tick(repository, instance):
    sensor = repository.get_sensor_def("webhook")
    with dg.build_sensor_context(instance, repository_def=repository) as context:
        return sensor.evaluate_tick(context)


def start(repository, instance, request):
    """What the daemon does with a request: the run carries its key and the sensor's name."""
    tags = {**request.tags, "dagster/run_key": request.run_key, "dagster/sensor_name": "webhook"}
    job = repository.get_job(request.job_name)
    return job.execute_in_process(instance=instance, tags=tags, run_config=request.run_config)


def test_no_request_is_nothing_to_do(kitchen, instance):
    said = tick(defs_of(kitchen.root), instance)
    assert not said.run_requests and said.skip_message == "No request is waiting."


def test_what_was_accepted_while_dagster_was_down_starts_once_and_its_body_goes(served, instance):
    served.post(signed("m1"))
    served.post(signed("m2", secret=OTHER), path="/hooks/f1")
    repository = defs_of(served.root, run_request=day_of)
    requests = tick(repository, instance).run_requests
    assert [(r.run_key, r.job_name, r.tags["rat/webhook"]) for r in requests] == [
        ("m1", "sales_job", "sales"),
        ("m2", "f1_job", "f1"),
    ]
    # The daemon died before it started them: they are asked for again, under the same keys.
    assert [r.run_key for r in tick(repository, instance).run_requests] == ["m1", "m2"]
    result = start(repository, instance, requests[0])
    assert result.success
    assert result.dagster_run.run_config["ops"]["report"]["config"] == {"day": "2026-11-21"}
    assert [r.run_key for r in tick(repository, instance).run_requests] == ["m2"]
    assert kept(served.root) == [("m1", "sales", b"", 0), ("m2", "f1", BODY, 1)]
    assert served.post(signed("m1"))[0] == 409


def test_a_payload_that_nobody_foresaw_starts_the_job_without_it(served, instance):
    body = b"not json"
    served.post(signed("m1", body=body), body)
    repository = defs_of(served.root, run_request=day_of)
    (request,) = tick(repository, instance).run_requests
    assert request.run_config == {} and start(repository, instance, request).success


def test_a_tick_has_a_limit_and_the_oldest_come_first(served, instance, monkeypatch):
    monkeypatch.setattr(webhook, "STARTED_PER_TICK", 2)
    for number in range(3):
        served.post(signed(f"m{number}"))
    assert [r.run_key for r in tick(defs_of(served.root), instance).run_requests] == ["m0", "m1"]


def test_a_damaged_store_is_a_reason_and_no_error(kitchen, instance):
    store = kitchen.root / ".rat/webhook.sqlite"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(b"this is no database" * 100)
    assert "cannot be read now" in tick(defs_of(kitchen.root), instance).skip_message


def test_the_daemon_starts_it(kitchen, tmp_path):
    """From the web request to a finished run: the real sensor daemon, a real code location, a run process."""
    code = tmp_path / "location.py"
    folder = str(kitchen.root)
    code.write_text(
        "import dagster as dg\n"
        "from ratatouille.dagster.webhook import webhook_sensor\n"
        "@dg.asset\n"
        "def report(): ...\n"
        "job = dg.define_asset_job('sales_job', [report])\n"
        f"defs = dg.Definitions([report], sensors=[webhook_sensor({folder!r}, {{'sales': job}})])\n"
    )
    with Served(kitchen.root) as served:
        assert served.post(signed("m1"))[0] == 202
    at_once = {"run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}}
    (tmp_path / "home").mkdir()
    target = PythonFileTarget(str(code), attribute=None, working_directory=str(tmp_path), location_name="here")
    with (
        dg.DagsterInstance.local_temp(str(tmp_path / "home"), overrides=at_once) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        list(execute_sensor_iteration(workspace, logging.getLogger("test"), None, None))
        (run,) = instance.get_runs()
        assert (run.job_name, run.tags["rat/webhook_id"], run.tags["dagster/run_key"]) == ("sales_job", "m1", "m1")
        until = time.monotonic() + 60
        while not instance.get_run_by_id(run.run_id).is_finished and time.monotonic() < until:
            time.sleep(0.1)
        assert instance.get_run_by_id(run.run_id).is_success
