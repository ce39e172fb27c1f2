"""SAM.gov's entity API and USAspending: a real server on this machine that throttles, fails, dawdles and breaks off."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pipelines.sbir.asking import Asker, Manners, Refused, Throttled, Unavailable
from pipelines.sbir.sam_api import COLUMNS, SamApi, Settings
from pipelines.sbir.usaspending import UsaSpending

KEY = "a-key-of-nobody-0123456789"
QUICK = Manners(timeout_s=0.3, attempts=3, wait_s=0.001, longest_wait_s=0.02, jitter_s=0, per_minute=None)


def uei(number: int) -> str:
    return f"{number:012d}"


def entity(name: str, **more: Any) -> dict[str, Any]:
    return {
        "entityRegistration": {
            "ueiSAM": name,
            "cageCode": "1ABC2",
            "legalBusinessName": f"FIRM {name}",
            "dbaName": None,
            "registrationStatus": "Active",
            **more,
        },
        "coreData": {
            "physicalAddress": {
                "addressLine1": "1 MAIN ST",
                "addressLine2": None,
                "city": "BOSTON",
                "stateOrProvinceCode": "MA",
                "zipCode": "02110",
                "zipCodePlus4": "1234",
            }
        },
        "assertions": {
            "goodsAndServices": {
                "primaryNaics": "541715",
                "naicsList": [{"naicsCode": "541715"}, {"naicsCode": 541330}],
            }
        },
    }


class Sam:
    """What the server knows and does. `troubles` are answers that come first: (status, headers, body), "slow", "cut"."""

    def __init__(self, entities: dict[str, dict[str, Any]]) -> None:
        self.entities, self.troubles, self.questions, self.keys = entities, [], [], []
        self.address = ""
        self.contracts: dict[str, dict[str, Any]] = {}


@contextmanager
def serving(sam: Sam) -> Iterator[Sam]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version, wbufsize = "HTTP/1.1", 1 << 16  # headers and body in one packet

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            sam.questions.append(asked)
            sam.keys.append(self.headers.get("X-Api-Key"))
            trouble = sam.troubles.pop(0) if sam.troubles else None
            if trouble == "slow":
                threading.Event().wait(0.5)
                return None
            if isinstance(trouble, tuple):
                return self._say(*trouble)
            names = asked["ueiSAM"].strip("[]").split("~")
            found = [sam.entities[name] for name in names if name in sam.entities]
            page, size = int(asked["page"]), int(asked["size"])
            body = json.dumps({"totalRecords": len(found), "entityData": found[page * size : (page + 1) * size]})
            if trouble == "cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:-20].encode())
                self.close_connection = True
                return None
            return self._say(200, {}, body)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sam.questions.append(asked)
            names = [name.strip('"') for name in asked["filters"]["award_ids"]]
            found = [sam.contracts[name] for name in names if name in sam.contracts]
            at = (asked["page"] - 1) * 2  # two on a page, whatever is asked for
            more = {"page": asked["page"], "hasNext": at + 2 < len(found)}
            self._say(200, {}, json.dumps({"results": found[at : at + 2], "page_metadata": more}))

        def _say(self, status: int, headers: dict[str, str], body: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    sam.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield sam
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def sam_of_module() -> Iterator[Sam]:
    with serving(Sam({uei(i): entity(uei(i)) for i in range(230)})) as sam:
        yield sam


@pytest.fixture
def sam(sam_of_module: Sam, quiet_retries: None) -> Sam:
    for one in (sam_of_module.troubles, sam_of_module.questions, sam_of_module.keys):
        one.clear()
    return sam_of_module


def api(sam: Sam, folder: Path, **given: Any) -> SamApi:
    today = given.pop("today", None)
    return SamApi(
        Settings(folder, KEY, base_url=sam.address, **{"daily_quota": 1000, "manners": QUICK, **given}), today=today
    )


def test_hundred_ueis_are_one_question_that_is_answered_ten_at_a_time(sam: Sam, tmp_path: Path) -> None:
    with api(sam, tmp_path) as client:
        answer = client.entities([uei(i) for i in range(120)] + [uei(3), "999999999999", "no uei"])
    assert [q["ueiSAM"].count("~") for q in sam.questions] == [99] * 10 + [20] * 2
    assert [q["page"] for q in sam.questions] == [*"0123456789", "0", "1"]
    assert sam.questions[0]["ueiSAM"].startswith(f"[{uei(0)}~{uei(1)}~")
    assert len(answer.rows) == 120
    assert answer.missing == ["999999999999", "no uei"]
    assert not answer.left
    assert set(sam.keys) == {KEY}
    assert answer.rows[0] == dict(
        zip(
            COLUMNS,
            (
                *(uei(0), "1ABC2", None, f"FIRM {uei(0)}", None, "A", "1 MAIN ST", None, "BOSTON", "MA", "02110-1234"),
                *("541715", "541715~541330"),
            ),
            strict=True,
        )
    )


def test_what_is_known_is_not_asked_again_until_it_is_old_and_the_cache_holds_no_key(sam: Sam, tmp_path: Path) -> None:
    names = [uei(1), uei(2), "999999999999"]
    with api(sam, tmp_path) as client:
        first = client.entities(names)
    with api(sam, tmp_path) as client:
        again = client.entities(names)
    assert len(sam.questions) == 1
    assert again.rows == first.rows
    assert again.missing == ["999999999999"]
    assert again.from_cache == 2
    later = datetime.now(UTC) + timedelta(days=31)
    with api(sam, tmp_path, today=lambda: later) as client:
        assert client.entities(names).from_cache == 0
    with api(sam, tmp_path, today=lambda: later + timedelta(days=31), daily_quota=0) as client:
        old = client.entities(names)
    assert old.left == names
    assert old.rows == first.rows  # old news is better than none
    kept = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert uei(1) in kept
    assert KEY not in kept
    (tmp_path / "entities" / uei(1)[-2:] / f"{uei(1)}.json").write_text("{broken")
    with api(sam, tmp_path) as client:
        assert client.entities(names).rows == first.rows


def test_a_budget_that_ends_stops_the_run_and_the_next_day_goes_on(sam: Sam, tmp_path: Path) -> None:
    names = [uei(i) for i in range(25)]
    day = datetime(2026, 11, 22, 12, tzinfo=UTC)
    with api(sam, tmp_path, daily_quota=2, today=lambda: day) as client:
        answer = client.entities(names)
        assert client.quota_left() == 0
    assert len(answer.rows) == 20
    assert answer.left == names[20:]
    assert not answer.missing
    assert "5 left: the quota of 2 requests a day has ended" in answer.report
    with api(sam, tmp_path, daily_quota=2, today=lambda: day) as client:  # another process of the same day
        assert len(client.entities(names).left) == 5
    assert len(sam.questions) == 2
    with api(sam, tmp_path, daily_quota=2, today=lambda: day + timedelta(days=1)) as client:
        answer = client.entities(names)
    assert len(answer.rows) == 25
    assert not answer.left
    assert sam.questions[-1]["ueiSAM"].count("~") == 4  # only what was left


def test_a_server_that_throttles_until_the_quota_ends_is_not_an_error_and_is_not_asked_again_today(
    sam: Sam, tmp_path: Path
) -> None:
    body = json.dumps({"message": "Message throttled out", "nextAccessTime": "2026-Nov-23 00:00:00+0000 UTC"})
    sam.troubles += [None] * 10 + [(429, {"Retry-After": "0"}, body)] * 3
    with api(sam, tmp_path) as client:
        answer = client.entities([uei(i) for i in range(230)])
        assert len(answer.rows) == 100
        assert answer.left == [uei(i) for i in range(100, 230)]
        assert answer.stopped == "SAM.gov says that the quota has ended until 2026-Nov-23 00:00:00+0000 UTC"
        assert (answer.costs.requests, answer.costs.retries, answer.costs.errors["429"]) == (13, 2, 3)
        assert answer.costs.error_rate == 3 / 13
        assert client.quota_left() == 0
        assert len(client.entities([uei(0), uei(200)]).left) == 1
    assert len(sam.questions) == 13
    sam.troubles += [(429, {"Retry-After": "86400"}, "{}")]
    with api(sam, tmp_path / "other") as client:  # a wait of a day is not waited for
        assert client.entities([uei(1)]).left == [uei(1)]


def test_what_passes_by_itself_is_tried_again(sam: Sam, tmp_path: Path) -> None:
    sam.troubles += [(429, {"Retry-After": "0.01"}, "{}"), (503, {}, "down")]
    with api(sam, tmp_path) as client:
        assert len(client.entities([uei(1)]).rows) == 1
        sam.troubles += ["slow", "cut"]
        answer = client.entities([uei(2)])
        assert len(answer.rows) == 1
        assert answer.costs.retries == 4
        assert answer.costs.errors == {"429": 1, "500": 1, "timeout": 1, "broken": 1}
        sam.troubles += [(200, {}, '{"totalRecords": 1, "entit'), (200, {}, "[]")]
        assert len(client.entities([uei(3)]).rows) == 1
    assert answer.costs.errors["broken"] == 3


def test_a_server_that_stays_down_is_told_in_lines_without_the_key(sam: Sam, tmp_path: Path) -> None:
    sam.troubles += [(500, {}, KEY)] * 3
    with api(sam, tmp_path) as client, pytest.raises(Unavailable) as caught:
        client.entities([uei(1)])
    assert not isinstance(caught.value, Throttled)
    assert "SAM.gov gave no answer in 3 attempts: server error 500." in str(caught.value)
    assert KEY not in str(caught.value) + repr(caught.value.__context__) + repr(Settings(tmp_path, KEY))


@pytest.mark.parametrize("status", [400, 401, 403, 406, 415])
def test_a_refusal_is_not_repeated(sam: Sam, tmp_path: Path, status: int) -> None:
    sam.troubles += [(status, {}, json.dumps({"errorMessage": "no\x07 such thing"}))]
    with api(sam, tmp_path) as client, pytest.raises(Refused, match=f"status {status}: no  such thing"):
        client.entities([uei(1)])
    assert len(sam.questions) == 1


def test_no_key_no_address_and_no_encryption_are_said_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="There is no key") as caught:
        Settings.from_environment(tmp_path, {})
    assert "SAM_GOV_API_KEY" in str(caught.value)
    settings = Settings.from_environment(tmp_path, {"SAM_GOV_API_KEY": KEY, "SAM_GOV_DAILY_QUOTA": "1000"})
    assert settings.daily_quota == 1000
    with pytest.raises(Refused, match="is no number"):
        Settings.from_environment(tmp_path, {"SAM_GOV_API_KEY": KEY, "SAM_GOV_DAILY_QUOTA": "many"})
    with pytest.raises(Refused, match="unencrypted"):
        SamApi(Settings(tmp_path, KEY, base_url="http://api.sam.gov"))
    for address in ("ftp://x", "nonsense", "https://me:secret@api.sam.gov", "https://api.sam.gov?x=1"):
        with pytest.raises(Refused, match=r"address of SAM\.gov is none") as caught:
            SamApi(Settings(tmp_path, KEY, base_url=address))
        assert "secret" not in str(caught.value)
    with pytest.raises(Refused, match="signs that no key has"):
        SamApi(Settings(tmp_path, "line\nbreak-in-key"))


def test_no_more_than_the_limit_begin_in_any_minute(sam: Sam) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock, began = Clock(), []
    manners = Manners(per_minute=5, attempts=1)
    asker = Asker("SAM.gov", sam.address, manners, before_each=lambda: began.append(clock.now), clock=clock)
    for number in range(23):
        asker.get("/entity-information/v3/entities", {"ueiSAM": f"[{uei(number)}]", "page": "0", "size": "10"})
        clock.now += 1.0
    asker.close()
    assert all(later - earlier >= 60 for earlier, later in zip(began, began[5:], strict=False))
    assert began[-1] < 5 * 60


def test_contracts_are_asked_for_by_their_exact_number_page_by_page(sam: Sam) -> None:
    sam.contracts = {
        f"W911-{i}": {"Award ID": f"W911-{i}", "Recipient UEI": uei(i), "Award Amount": 10.5, "NAICS": naics}
        for i, naics in enumerate(["541715", {"code": "334511", "description": "Instruments"}, None])
    }
    sam.contracts["W911-3"] = {"Award ID": "W911-30"}  # not what was asked for
    with UsaSpending(sam.address, QUICK) as service:
        found = service.contracts(["W911-0", "W911-0 ", "W911-1", "W911-2", "W911-3", 'a"quote', ""])
    assert [(row["award_id_piid"], row["uei"], row["naics_code"], row["amount"]) for row in found] == [
        ("W911-0", uei(0), "541715", "10.5"),
        ("W911-1", uei(1), "334511", "10.5"),
        ("W911-2", uei(2), None, "10.5"),
    ]
    assert sam.questions[0]["filters"]["award_ids"] == ['"W911-0"', '"W911-1"', '"W911-2"', '"W911-3"']
    assert [question["page"] for question in sam.questions] == [1, 2]
