"""Who may ask: a name that is not on the list, a form from elsewhere, nobody's session, a wrong password."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ratatouille.cli.entry import run_command
from ratatouille.errors import RequestError, redact
from ratatouille.pages.guard import HEADERS, TRIES, access
from ratatouille.pages.server import make_app

sys.path.insert(0, str(Path(__file__).parent))

from pages_kitchen import Served

PAGES = ("/", "/runs", "/asset/gold.dishes", "/compare", "/console", "/nothing")


def stranger(kitchen: Served, **options: Any) -> TestClient:
    """The same server, asked by somebody without a session."""
    said = {"base_url": "http://127.0.0.1:3040", "follow_redirects": False} | options
    return TestClient(kitchen.client.app, **said)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:3040", "127.0.0.1:3041", "127.0.0.1.evil.example:3040", "localhost.evil.example",
     "", "127.0.0.1:3040@evil.example", "[::1", "[::1]x:3040", "127.0.0.1:3040:1", "0.0.0.0:3040", "2130706433:3040"],
)  # fmt: skip
def test_a_request_under_another_name_is_refused_before_any_page(kitchen: Served, host: str) -> None:
    for path in (*PAGES, "/static/style.css"):
        answer = kitchen.client.get(path, headers={"host": host})
        assert answer.status_code == 421 and "kitchen" not in answer.text


def test_this_machine_is_known_by_its_names(kitchen: Served) -> None:
    for host in ("127.0.0.1:3040", "localhost:3040", "LOCALHOST:3040", "[::1]:3040", "127.0.0.1"):
        assert kitchen.client.get("/runs", headers={"host": host}).status_code == 200


def test_two_names_at_once_are_none(kitchen: Served) -> None:
    headers = [("host", "127.0.0.1:3040"), ("host", "evil.example")]
    assert kitchen.client.get("/", headers=headers).status_code == 421


def token_of(kitchen: Served) -> str:
    found = re.search(r'name="token" value="(\w+)"', kitchen.get("/console"))
    assert found
    return found[1]


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:3041"},
     {"origin": "http://127.0.0.1:3040.evil.example"}, {"origin": "http://localhost:3040"}, {"origin": ""},
     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
     {"origin": "https://evil.example", "sec-fetch-site": "same-origin"}],
)  # fmt: skip
def test_a_form_from_elsewhere_is_refused(kitchen: Served, headers: dict[str, str]) -> None:
    form = {"sql": "select 42 as answer", "token": token_of(kitchen)}
    for path in ("/console", "/console/download"):
        answer = kitchen.client.post(path, data=form, headers=headers)
        assert answer.status_code == 403 and "42" not in answer.text


def test_a_form_of_this_server_is_taken_and_needs_its_token(kitchen: Served) -> None:
    here = {"origin": "http://127.0.0.1:3040"}
    form = {"sql": "select 6 * 7 as answer", "token": token_of(kitchen)}
    assert "42" in kitchen.client.post("/console", data=form, headers=here).text
    for other in ("", "0" * 64, kitchen.access.token):
        answer = kitchen.client.post("/console", data=form | {"token": other}, headers=here)
        assert answer.status_code == 403 and "42" not in answer.text
    assert kitchen.client.post("/runs", data=form, headers=here).status_code == 405
    large = {"sql": "x" * 300_000, "token": form["token"]}
    assert kitchen.client.post("/console", data=large, headers=here).status_code == 413


def test_no_page_without_the_session(kitchen: Served) -> None:
    name = kitchen.access.cookie
    for cookies in ({}, {name: "x"}, {name: kitchen.access.token[:-1]}, {"rat_ui_3041": kitchen.access.token}):
        for path in PAGES:
            answer = stranger(kitchen, cookies=cookies).get(path)
            assert answer.status_code == 401 and "gold" not in answer.text, (cookies, path)
    form = {"sql": "select 42", "token": token_of(kitchen)}
    answer = stranger(kitchen).post("/console", data=form, headers={"origin": "http://127.0.0.1:3040"})
    assert answer.status_code == 401 and "42" not in answer.text


def test_the_address_brings_the_session_once_and_leaves_it_out_of_the_next_one(kitchen: Served) -> None:
    visitor = stranger(kitchen)
    assert kitchen.access.first_address == f"http://127.0.0.1:3040/?token={kitchen.access.token}"
    assert visitor.get("/?token=wrong").status_code == 401
    answer = visitor.get(f"/runs?token={kitchen.access.token}&status=done")
    assert answer.status_code == 303 and answer.headers["location"] == "/runs?status=done"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie
    assert visitor.get("/runs").status_code == 200
    # An address that looks like a path leads nowhere else.
    away = stranger(kitchen).get(f"http://127.0.0.1:3040//evil.example/x?token={kitchen.access.token}")
    assert away.headers["location"] == "/evil.example/x"
    assert redact(f"the token is {kitchen.access.token}!") == "the token is [hidden]!"


def test_a_browser_is_told_what_to_refuse(kitchen: Served) -> None:
    answers = [kitchen.client.get(path) for path in (*PAGES, "/static/style.css", "/asset/x?tab=y")]
    answers += [stranger(kitchen).get("/"), kitchen.client.get("/", headers={"host": "evil"}), kitchen.client.put("/")]
    for answer in answers:
        for name in HEADERS:
            assert answer.headers[name] == HEADERS[name] or name == "cache-control"
        assert "unsafe" not in answer.headers["content-security-policy"] and "server" not in answer.headers
    assert kitchen.client.get("/").headers["cache-control"] == "no-store"


def test_static_files_are_these_and_no_others(kitchen: Served) -> None:
    for path in (
        "/static/../guard.py",
        "/static/%2e%2e/guard.py",
        "/static/..%2f..%2ferrors.py",
        "/static/",
        "/static//etc/passwd",
    ):
        answer = kitchen.client.get(path)
        assert answer.status_code in (401, 404) and "import" not in answer.text
    assert stranger(kitchen).get("/static/style.css").status_code == 200


def test_elsewhere_only_with_a_password(
    kitchen: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "lake.example.org"):  # noqa: S104
        for password in ("", "short"):
            with pytest.raises(RequestError, match="can be reached by others"):
                access(host, 3040, password)
    monkeypatch.delenv("RATATOUILLE_UI_PASSWORD", raising=False)
    assert run_command(["-w", str(kitchen.root), "ui", "--host", "0.0.0.0"]) == 2  # noqa: S104
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "0.0.0.0 can be reached by others, and RATATOUILLE_UI_PASSWORD is not set" and len(said) == 4


def test_the_password_opens_the_pages_and_guessing_ends(kitchen_root: Path) -> None:
    allowed = access("0.0.0.0", 3040, "correct horse", ("Lake.Example.org",))  # noqa: S104
    assert "token" not in allowed.first_address
    client = TestClient(
        make_app(kitchen_root, allowed), base_url="http://lake.example.org:3040", follow_redirects=False
    )
    here = {"origin": "http://lake.example.org:3040"}
    assert client.get("/").status_code == 401 and "Password" in client.get("/").text
    assert client.get(f"/?token={allowed.token}").status_code == 401, "the password is the only way"
    assert (
        client.post("/login", data={"password": "correct horse"}, headers={"origin": "https://evil"}).status_code == 403
    )
    assert client.post("/login", data={"password": "correct horse"}, headers=here).status_code == 303
    assert client.get("/runs").status_code == 200
    client.cookies.clear()
    for _ in range(TRIES):
        assert client.post("/login", data={"password": "guess"}, headers=here).status_code == 401
    assert client.post("/login", data={"password": "correct horse"}, headers=here).status_code == 429
    # A proxy that speaks TLS hands the name on; so does the browser.
    assert client.get("/login", headers={"host": "lake.example.org"}).status_code == 200
