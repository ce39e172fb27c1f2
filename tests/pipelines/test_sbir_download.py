"""Bulk downloads: only what changed, from where a broken one stopped, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pipelines.sbir.download import ATTEMPTS, DownloadError, download

BODY = bytes(range(256)) * 40
SHA = hashlib.sha256(BODY).hexdigest()
URL = "https://files.example/award_data.csv"


class Server:
    """Answers by the rules of HTTP about ranges and ETags; `cut` ends the next answers after so many bytes."""

    def __init__(self, body: bytes = BODY, etag: str = '"v1"') -> None:
        self.body, self.etag = body, etag
        self.cut: list[int] = []
        self.codes: list[int] = []
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.codes:
            return httpx.Response(self.codes.pop(0))
        if request.headers.get("If-None-Match") == self.etag:
            return httpx.Response(304)
        at, code = 0, 200
        if "Range" in request.headers and request.headers.get("If-Range") == self.etag:
            at, code = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-")), 206
        body = self.body[at:]
        sent = body[: self.cut.pop(0)] if self.cut else body
        headers = {"ETag": self.etag, "Content-Length": str(len(body))}
        return httpx.Response(code, headers=headers, stream=_Stream(sent, broken=len(sent) < len(body)))


class _Stream(httpx.SyncByteStream):
    def __init__(self, sent: bytes, broken: bool) -> None:
        self.sent, self.broken = sent, broken

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield self.sent
        if self.broken:
            raise httpx.ReadError("the line broke")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Callable[..., object]:
    def go(**wish: str) -> object:
        with httpx.Client(transport=httpx.MockTransport(server)) as client:
            return download(URL, tmp_path / "award_data.csv", client=client, pause=lambda _: None, **wish)

    return go


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()}


def test_a_file_is_fetched_once_and_again_only_when_it_changed(server: Server, fetch, tmp_path: Path) -> None:
    first, second = fetch(sha256=SHA.upper()), fetch()
    assert (first.status, first.sha256, second.status, second.sha256) == ("new", SHA, "unchanged", SHA)
    assert (tmp_path / "award_data.csv").read_bytes() == BODY and len(server.asked) == 2
    assert left(tmp_path) == {"award_data.csv", ".award_data.csv.json"}
    server.body, server.etag = b"other", '"v2"'
    assert fetch().status == "new" and (tmp_path / "award_data.csv").read_bytes() == b"other"


def test_a_broken_download_goes_on_where_it_stopped(server: Server, fetch, tmp_path: Path) -> None:
    server.cut = [1000, 2000]
    done = fetch()
    assert (done.resumed_at, done.sha256) == (3000, SHA)
    assert [request.headers.get("Range") for request in server.asked] == [None, "bytes=1000-", "bytes=3000-"]


def test_what_came_waits_for_the_next_call_and_a_file_that_changed_meanwhile_begins_anew(
    server: Server, fetch, tmp_path: Path
) -> None:
    server.cut = [100] * ATTEMPTS
    with pytest.raises(DownloadError, match="the line broke, 4 times"):
        fetch()
    assert (
        "award_data.csv" not in left(tmp_path) and (tmp_path / "award_data.csv.part").stat().st_size == 100 * ATTEMPTS
    )
    server.body, server.etag = b"another file", '"v2"'
    done = fetch()
    assert (done.resumed_at, (tmp_path / "award_data.csv").read_bytes()) == (0, b"another file")


def test_a_wrong_checksum_leaves_the_file_of_before(server: Server, fetch, tmp_path: Path) -> None:
    fetch()
    server.body, server.etag = b"tampered", '"v2"'
    with pytest.raises(DownloadError, match="was asked for"):
        fetch(sha256=SHA)
    assert (tmp_path / "award_data.csv").read_bytes() == BODY and "award_data.csv.part" not in left(tmp_path)


@pytest.mark.parametrize(
    ("codes", "calls", "fails"), [([503, 429], 3, False), ([500] * ATTEMPTS, ATTEMPTS, True), ([404], 1, True)]
)
def test_only_answers_that_may_change_are_asked_again(
    codes: list[int], calls: int, fails: bool, server: Server, fetch
) -> None:
    server.codes = codes
    if fails:
        with pytest.raises(DownloadError, match=f"answered {codes[-1]}"):
            fetch()
    else:
        assert fetch().status == "new"
    assert len(server.asked) == calls


def test_without_a_strong_etag_nothing_is_gone_on_with(server: Server, fetch) -> None:
    server.etag, server.cut = 'W/"v1"', [1000]
    done = fetch()
    assert (done.resumed_at, done.sha256) == (0, SHA) and "Range" not in server.asked[1].headers
