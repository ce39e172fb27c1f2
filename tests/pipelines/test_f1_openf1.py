"""The client of OpenF1 against a real server on loopback: polite, patient, and clear when it gives up."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.f1 import openf1
from pipelines.f1.openf1 import (
    PUBLIC_API,
    ApiRefused,
    ApiUnavailable,
    BadRequest,
    OpenF1,
    OpenF1Error,
    SessionInProgress,
    Settings,
    TokenBucket,
    WindowTooLarge,
    query_string,
    rows_in,
)
from pipelines.f1.season import Season
from pipelines.f1.server import Server, Trouble

RACE = ("session_key", "=", 9002)
START = datetime(2024, 3, 3, 18, tzinfo=UTC)


pytestmark = pytest.mark.usefixtures("quiet_retries")


def client_of(server: Server, **wishes: Any) -> OpenF1:
    usual = {"requests_per_span": None, "wait_s": 0.01, "longest_wait_s": 2, "jitter_s": 0, "attempts": 4}
    return OpenF1(Settings(base_url=server.address, **{**usual, **wishes}))


class HandClock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


# Asking


def test_rows_arrive_as_the_api_sent_them(server: Server, season: Season) -> None:
    with client_of(server) as client:
        answer = client.rows("laps", RACE, ("driver_number", "=", 7))
    assert answer.rows == [
        row for row in season.rows("laps") if (row["session_key"], row["driver_number"]) == (9002, 7)
    ]
    assert (answer.requests, answer.retries, answer.splits) == (1, 0, 0)
    assert answer.api_s > 0


def test_operators_go_out_as_they_are(server: Server) -> None:
    with client_of(server) as client:
        fast = client.rows("laps", RACE, ("lap_duration", "<", 78.0)).rows
        client.rows("sessions", ("location", "=", "São Paulo"), ("date_start", ">", "2024-03-16"))
    assert fast and all(row["lap_duration"] < 78 for row in fast)
    assert server.queries == [
        "laps?session_key=9002&lap_duration<78.0",
        "sessions?location=S%C3%A3o%20Paulo&date_start>2024-03-16",
    ]


def test_times_go_out_as_naive_utc() -> None:
    montreal = datetime(2024, 6, 9, 14, 0, tzinfo=timezone(timedelta(hours=-4)))
    naive = datetime(2024, 6, 9, 18, 0)  # noqa: DTZ001  (this is what is tested)
    for at in (montreal, naive):
        assert query_string([("date", ">=", at)]) == "?date>=2024-06-09T18:00:00"


@settings(max_examples=300)
@given(value=st.text(), name=st.from_regex(r"\A[a-z][a-z0-9_]{0,20}\Z"), operator=st.sampled_from(openf1.OPERATORS))
def test_no_value_can_add_a_filter_of_its_own(value: str, name: str, operator: str) -> None:
    try:
        text = query_string([(name, operator, value)])
    except UnicodeEncodeError:  # half a character
        return
    assert text.startswith(f"?{name}{operator}")
    rest = text[1 + len(name) + len(operator) :]
    assert rest.isascii() and not set(rest) & set("&<>=?# +\n")


@pytest.mark.parametrize("condition", [("Date", "=", 1), ("a&b", "=", 1), ("date", "!=", 1), ("date", "==", 1)])
def test_an_operator_or_a_field_that_does_not_exist_is_refused(condition: Any) -> None:
    with pytest.raises(BadRequest):
        query_string([condition])


@pytest.mark.parametrize("endpoint", ["../token", "laps?x=1", "", "Laps"])
def test_an_endpoint_is_a_plain_name(server: Server, endpoint: str) -> None:
    with client_of(server) as client, pytest.raises(BadRequest):
        client.rows(endpoint)


def test_not_found_means_no_rows_and_is_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.troubles.append(Trouble("not_found"))
    with client_of(server) as client, caplog.at_level(logging.INFO, logger="pipelines.f1.openf1"):
        assert client.rows("pit", RACE).rows == []
    assert "no rows (404): http://127.0.0.1" in caplog.text
    assert "pit?session_key=9002" in caplog.text


# Trying again


@pytest.mark.parametrize("kind", ["429", "500", "truncated", "cut", "garbage"])
def test_what_may_pass_is_tried_again(server: Server, season: Season, kind: str) -> None:
    server.troubles.append(Trouble(kind, "drivers", times=3))
    with client_of(server) as client:
        answer = client.rows("drivers", RACE)
    assert len(answer.rows) == 8
    assert (answer.requests, answer.retries) == (4, 3)


@pytest.mark.parametrize("kind", ["429", "500", "truncated", "cut", "garbage"])
def test_after_the_last_attempt_the_error_says_what_it_was(server: Server, kind: str) -> None:
    server.troubles.append(Trouble(kind, times=None))
    with client_of(server) as client, pytest.raises(ApiUnavailable) as caught:
        client.rows("drivers", RACE)
    assert server.requests["drivers"] == 4
    reason = {"429": "429", "500": "500", "truncated": "not whole JSON", "cut": "closed", "garbage": "not whole JSON"}
    assert reason[kind] in caught.value.what and "4 attempts" in caught.value.what
    assert caught.value.where.endswith("/v1/drivers?session_key=9002")
    assert len(str(caught.value).splitlines()) == 4


def test_a_slow_answer_is_given_up_and_asked_for_again(server: Server) -> None:
    server.troubles.append(Trouble("slow", times=1, wait_s=1.5))
    with client_of(server, timeout_s=0.3) as client:
        began = time.monotonic()
        assert client.rows("drivers", RACE).retries == 1
    assert time.monotonic() - began < 1.4


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    nobody = Settings(
        base_url=f"http://127.0.0.1:{port}/v1", attempts=2, wait_s=0.01, jitter_s=0, requests_per_span=None
    )
    with OpenF1(nobody) as client, pytest.raises(ApiUnavailable, match="2 attempts"):
        client.rows("drivers")


def test_retry_after_is_honoured(server: Server) -> None:
    server.troubles.append(Trouble("429", wait_s=0.6))
    with client_of(server) as client:
        assert client.rows("drivers", RACE).api_s >= 0.6


def test_a_wait_longer_than_ours_is_an_error_at_once(server: Server) -> None:
    server.troubles.append(Trouble("429", wait_s=3600))
    with client_of(server) as client, pytest.raises(ApiUnavailable, match="too many requests"):
        client.rows("drivers", RACE)
    assert server.requests["drivers"] == 1


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("7", 7, 7), ("0.5", 0.5, 0.5), ("-3", 0, 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0)],
)
def test_retry_after_may_be_seconds_or_a_date(text: str, least: float, most: float) -> None:
    wait_s = openf1._retry_after_s({"retry-after": text})
    assert wait_s is not None and least <= wait_s <= most


@settings(max_examples=300)
@given(text=st.text() | st.sampled_from(["nan", "inf", "-inf", "1e400", "Wed, 99 Foo 2015"]))
def test_nonsense_in_retry_after_is_nobody_s_problem(text: str) -> None:
    wait_s = openf1._retry_after_s({"retry-after": text})
    assert wait_s is None or 0 <= wait_s < float("inf")


def test_waiting_grows_between_attempts(server: Server) -> None:
    server.troubles.append(Trouble("500", times=3))
    with client_of(server, wait_s=0.1) as client:
        assert client.rows("drivers", RACE).api_s >= 0.1 + 0.2 + 0.4


# Windows


def test_a_window_that_is_too_large_is_halved_until_it_fits(server: Server, season: Season) -> None:
    server.max_rows = 30
    with client_of(server) as client:
        answer = client.rows_between("location", START, START + timedelta(minutes=15), RACE, ("driver_number", "=", 7))
    expected = season.telemetry("location", 9002).filter(driver_number=7)
    inside = [row for row in expected.to_dicts() if "2024-03-03T18:00:00" <= row["date"] < "2024-03-03T18:15:00"]
    assert len(inside) > 90
    assert answer.rows == inside
    assert answer.splits >= 3
    assert answer.requests == server.requests["location"] == 1 + 2 * answer.splits


def test_a_point_on_the_edge_of_two_windows_comes_once(server: Server) -> None:
    edge = datetime(2024, 3, 3, 18, 0, 4, tzinfo=UTC)
    with client_of(server) as client:
        before = client.rows_between("location", edge - timedelta(seconds=5), edge, RACE, ("driver_number", "=", 7))
        after = client.rows_between("location", edge, edge + timedelta(seconds=5), RACE, ("driver_number", "=", 7))
    dates = [row["date"] for row in (*before.rows, *after.rows)]
    assert dates == ["2024-03-03T17:59:59+00:00", "2024-03-03T18:00:04+00:00"]


def test_a_window_that_cannot_be_smaller_is_a_clear_error(server: Server) -> None:
    server.max_rows = 0
    with client_of(server) as client, pytest.raises(WindowTooLarge, match="window of") as caught:
        client.rows_between("location", START, START + timedelta(minutes=15), RACE)
    assert server.requests["location"] == 6  # 15 min, 7.5 min, ... 28 s, and half of that is below 15 s
    assert "location?" in caught.value.where


def test_too_large_is_never_no_rows(server: Server) -> None:
    server.troubles.append(Trouble("422", times=None))
    with client_of(server) as client, pytest.raises(WindowTooLarge):
        client.rows("laps", RACE)
    assert server.requests["laps"] == 1


# Refusals


def test_a_live_session_is_come_back_later_and_never_data(server: Server) -> None:
    server.live = True
    with client_of(server) as client, pytest.raises(SessionInProgress, match="while a session is live"):
        client.rows("laps", RACE)
    assert server.requests["laps"] == 1  # asking again at once would not help


def test_a_token_goes_along_and_opens_a_live_session(server: Server) -> None:
    server.live = True
    with client_of(server, token="token-of-this-machine") as client:
        assert len(client.rows("drivers", RACE).rows) == 8
    assert server.requests["token"] == 0


def test_a_name_and_a_password_are_changed_into_a_token_once(server: Server) -> None:
    server.live = True
    with client_of(server, username="me", password="password") as client:
        for _ in range(3):
            assert len(client.rows("drivers", RACE).rows) == 8
    assert server.requests["token"] == 1


def test_a_wrong_password_is_refused_and_shown_nowhere(server: Server) -> None:
    with client_of(server, username="me", password="hunter2-secret") as client:
        with pytest.raises(ApiRefused, match="gave no token") as caught:
            client.rows("drivers", RACE)
        assert "hunter2" not in f"{caught.value}{caught.value!r}{client.settings!r}"


def test_a_secret_never_goes_out_unencrypted() -> None:
    with pytest.raises(BadRequest, match=r"unencrypted") as caught:
        OpenF1(Settings(base_url="http://example.org/v1", token="abc-secret"))
    assert "abc-secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "ftp://x/v1", "127.0.0.1:8000", "http://", "http://x:port/v1", "http://x/v1?a=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="is no address"):
        OpenF1(Settings(base_url=url))


def test_settings_come_from_the_environment() -> None:
    found = Settings.from_environment({"F1_API_URL": "http://127.0.0.1:9/v1", "OPENF1_TOKEN": "abc"})
    assert (found.base_url, found.token, found.requests_per_span) == ("http://127.0.0.1:9/v1", "abc", None)
    found = Settings.from_environment({"OPENF1_USERNAME": "me", "OPENF1_PASSWORD": "pw"})
    assert (found.base_url, found.username, found.password) == (PUBLIC_API, "me", "pw")
    assert (found.requests_per_span, found.span_s) == (30, 10)
    assert Settings.from_environment({"F1_API_URL": "https://x/v1"}, base_url="https://y/v1").base_url == "https://y/v1"


# The limit


def test_never_more_than_thirty_requests_in_any_ten_seconds() -> None:
    clock = HandClock()
    bucket = TokenBucket(30, 10, clock)
    granted = []
    for _ in range(200):
        with bucket.token():
            granted.append(clock.now)
            clock.now += 0.1  # the request itself
    for index, at in enumerate(granted):
        assert sum(at <= other < at + 10 for other in granted[index:]) <= 30
    assert granted[29] < 1_003  # the first thirty wait for nobody
    assert granted[-1] - granted[0] < 200 / 30 * 10.2  # and no time is wasted


def test_one_who_is_told_to_wait_makes_all_wait() -> None:
    clock = HandClock()
    bucket = TokenBucket(30, 10, clock)
    bucket.pause(4)
    with bucket.token():
        assert clock.now == 1_004


def test_when_one_thread_is_told_to_wait_the_others_wait_too(server: Server) -> None:
    server.troubles.append(Trouble("429", "drivers", wait_s=0.6))
    with client_of(server, requests_per_span=30) as client:
        told = threading.Thread(target=client.rows, args=("drivers",))
        told.start()
        while not server.requests["drivers"]:
            time.sleep(0.005)
        time.sleep(0.1)
        began = time.monotonic()
        client.rows("meetings")
        assert time.monotonic() - began > 0.3
        told.join()


def test_the_limit_holds_for_threads_against_a_server_that_counts(server: Server) -> None:
    server.requests_per_span, server.span_s = 30, 2
    with client_of(server, requests_per_span=30, span_s=2) as client:
        began, statuses = time.monotonic(), []
        threads = [
            threading.Thread(target=lambda: statuses.extend(client.rows("meetings").retries for _ in range(11)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [0] * 33
    assert time.monotonic() - began >= 2


# Hostile answers


@settings(max_examples=300)
@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_rows_are_tried_again_and_never_returned(body: bytes) -> None:
    try:
        found = rows_in(body)
    except openf1._Again:
        return
    assert found == json.loads(body) and isinstance(found, list)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(found=JSON)
def test_only_an_array_of_objects_is_rows(found: Any) -> None:
    is_rows = isinstance(found, list) and all(isinstance(row, dict) for row in found)
    try:
        assert rows_in(json.dumps(found).encode()) == found and is_rows
    except openf1._Again:
        assert not is_rows


@settings(max_examples=100)
@given(row=st.dictionaries(st.text(min_size=1), JSON, min_size=1, max_size=4), cut=st.integers(1, 100))
def test_an_answer_that_breaks_off_anywhere_is_never_rows(row: dict[str, Any], cut: int) -> None:
    whole = json.dumps([row]).encode()
    with pytest.raises(openf1._Again):
        rows_in(whole[: -min(cut, len(whole))])


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'[{"a": NaN}]', b'[{"a": 1e999}]', b'[{"a": ' + b"9" * 5_000 + b"}]"]
)
def test_json_that_could_hurt_is_refused(body: bytes) -> None:
    with pytest.raises(openf1._Again):
        rows_in(body)


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A socket that answers each connection with the next of `answers`, byte for byte."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve_all() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve_all, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread.join(timeout=5)


def response(status: str, body: bytes, *more: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response("401 No", b'{"detail": "Could not validate credentials"}'), ApiRefused),
        (response("403 No", b"<html>"), ApiRefused),
        (response("302 Found", b"", "location: http://example.org/"), ApiRefused),
        (response("200 OK", b'{"detail": "something else"}'), ApiRefused),
        (response("401 No", b'{"detail": "Live F1 session in progress"}'), SessionInProgress),
        (response("200 OK", b'{"rows": []}'), ApiUnavailable),
        (response("200 OK", b"[1, 2]"), ApiUnavailable),
        (response("200 OK", b"no gzip", "content-encoding: gzip"), ApiUnavailable),
        (b"rubbish\r\n\r\n", ApiUnavailable),
        (b"", ApiUnavailable),
        (response("200 OK", b'{"detail": "\\u001b[2J"}'), ApiRefused),
    ],
)
def test_an_answer_of_another_kind_is_an_error_of_four_lines(answer: bytes, error: type[OpenF1Error]) -> None:
    with answering(answer) as url:
        client = OpenF1(Settings(base_url=url, attempts=1, requests_per_span=None, timeout_s=2))
        with client, pytest.raises(error) as caught:
            client.rows("drivers")
    assert type(caught.value) is error
    assert all(sign.isprintable() for sign in caught.value.what)
    assert len(str(caught.value).splitlines()) == 4


class LeapingClock(HandClock):
    """Whoever asks for the time finds a minute gone."""

    def monotonic(self) -> float:
        self.now += 60
        return self.now


def test_a_server_that_drips_does_not_keep_us_for_ever() -> None:
    with answering(response("200 OK", b"[]")) as url:
        patience = Settings(base_url=url, attempts=1, requests_per_span=None, timeout_s=2)
        with OpenF1(patience, clock=LeapingClock()) as client, pytest.raises(ApiUnavailable, match="too slowly"):
            client.rows("drivers")


def test_an_answer_larger_than_memory_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openf1, "LARGEST_ANSWER_BYTES", 1_000)
    with client_of(server, attempts=1) as client, pytest.raises(ApiUnavailable, match="more than 1,000 bytes"):
        client.rows("laps", RACE)
