"""The guard: who may ask, and what a browser is told to refuse. It stands before every page.

host       a request must name this server by a name on the list: a foreign page whose name was pointed at this machine
           does not
origin     a form is taken only from a page of this server, and brings the token that stands in it
session    every page asks for the cookie; the address that `rat ui` prints brings its value, or the password does
policy     no script or style but this server's own files, no frame, no other server, nothing kept by the browser

It holds on 127.0.0.1 too: other programs and other people's pages reach that as well.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratatouille.errors import RequestError, keep_secret
from ratatouille.pages import html

PASSWORD = "RATATOUILLE_UI_PASSWORD"  # noqa: S105  the name of a variable
SHORTEST_PASSWORD = 8
LARGEST_FORM_BYTES = 256_000
TRIES, WITHIN_S = 10, 60.0  # wrong passwords, from everybody together
COOKIE_S = 30 * 86_400
LOGIN = "/login"
OPEN = ("/static/",)  # what a browser needs before it has a session

HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: with that a browser does not say where a form comes from.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


@dataclass(slots=True)
class Access:
    """How a server may be asked. `names` are those by which it may be called, without a port."""

    host: str
    port: int
    names: frozenset[str]
    password: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    wrong_at: list[float] = field(default_factory=list)

    @property
    def cookie(self) -> str:
        """Cookies do not know ports: two workspaces on one machine have two."""
        return f"rat_ui_{self.port}"

    @property
    def address(self) -> str:
        host = _EVERYWHERE.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def first_address(self) -> str:
        """What a person opens: where nobody asks for a password it brings the session along."""
        return self.address if self.password else f"{self.address}/?token={self.token}"

    def knows_host(self, said: str) -> bool:
        name, port = _split(said)
        if name and said.strip().lower() in self.names:  # of a proxy, with the port at which it listens
            return True
        return bool(name) and name in self.names and port in ("", str(self.port))

    def is_session(self, said: str) -> bool:
        return hmac.compare_digest(said.encode(), self.token.encode())

    @property
    def form_token(self) -> str:
        """What forms of this session bring: of no use to whoever reads it, as a cookie."""
        return hmac.new(self.token.encode(), b"form", "sha256").hexdigest()

    def is_form(self, said: str) -> bool:
        return hmac.compare_digest(said.encode(), self.form_token.encode())

    def is_password(self, said: str) -> bool:
        return bool(self.password) and hmac.compare_digest(said.encode(), self.password.encode())

    def is_tired(self) -> bool:
        """Too many wrong passwords lately."""
        self.wrong_at[:] = [at for at in self.wrong_at if monotonic() - at < WITHIN_S]
        return len(self.wrong_at) >= TRIES


_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  where to look, when it listens everywhere
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


def access(host: str, port: int, password: str = "", names: tuple[str, ...] = ()) -> Access:
    """RequestError for an address that others reach, without a password."""
    if is_private(host):
        return _with_secrets(Access(host, port, _LOCAL | {name.lower() for name in (host, *names)}, password))
    if len(password) < SHORTEST_PASSWORD:
        what = f"{PASSWORD} is shorter than {SHORTEST_PASSWORD} characters" if password else f"{PASSWORD} is not set"
        raise RequestError(
            f"{host} can be reached by others, and {what}",
            where=f"rat ui --host {host}",
            state="Nothing was started.",
            next=f"set {PASSWORD} to a password, or leave --host away: then this machine alone can look",
        )
    import socket

    mine = {host, socket.gethostname(), socket.getfqdn()} - set(_EVERYWHERE)
    return _with_secrets(Access(host, port, frozenset(name.lower() for name in _LOCAL | mine | set(names)), password))


def _with_secrets(made: Access) -> Access:
    for secret in (made.token, made.password):
        keep_secret(secret)
    return made


def is_private(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(said: str) -> tuple[str, str]:
    """(name, port) of a Host header; ('', '') for what is none."""
    said = said.strip().lower()
    if said.startswith("["):
        name, end, rest = said[1:].partition("]")
        return (name, rest.removeprefix(":")) if end and (not rest or rest.startswith(":")) else ("", "")
    name, _, port = said.partition(":")
    return ("", "") if ":" in port else (name, port)


class Guard:
    """The application behind it sees only requests that may be answered."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over a socket
            raise RuntimeError(f"no {scope['type']} here")
        html.form_token.set(self.access.form_token)
        answer = await self._refused(Request(scope, receive))
        await (answer or self.app)(scope, _limited(receive), _with_headers(send, scope["path"]))

    async def _refused(self, request: Request) -> Response | None:
        """What is answered instead of the page; None when the page may be shown."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self.access.knows_host(hosts[0]):
            return _plain(421, "This server is not called that. Use the address that `rat ui` has printed.")
        if request.method not in ("GET", "HEAD", "POST"):
            return _plain(405, "Only GET and POST.")
        if request.method == "POST":
            if not _is_from_here(request.headers, hosts[0]):
                return _plain(403, "This form was not sent by a page of this server.")
            length = request.headers.get("content-length", "")
            if not length.isdecimal() or int(length) > LARGEST_FORM_BYTES:
                return _plain(413, f"At most {LARGEST_FORM_BYTES:,} bytes.")
        path = request.url.path
        if path.startswith(OPEN) and request.method != "POST":
            return None
        if path == LOGIN and self.access.password:
            return await self._login(request)
        if self.access.is_session(request.cookies.get(self.access.cookie, "")):
            return None
        return self._without_session(request)

    def _without_session(self, request: Request) -> Response:
        said = request.query_params.get("token", "")
        if request.method == "GET" and said and not self.access.password and self.access.is_session(said):
            rest = [(n, v) for n, v in parse_qsl(request.url.query, keep_blank_values=True) if n != "token"]
            # The path is written anew: //other.example/ would lead away.
            there = "/" + quote(request.url.path.lstrip("/"))
            return self._let_in(f"{there}?{urlencode(rest)}" if rest else there)
        if self.access.password:
            return HTMLResponse(html.page("login.html", wrong=False), 401)
        return HTMLResponse(html.page("no_session.html"), 401)

    async def _login(self, request: Request) -> Response:
        if request.method != "POST":
            return HTMLResponse(html.page("login.html", wrong=False))
        if self.access.is_tired():
            return _plain(429, "Too many wrong passwords. Wait a minute.")
        said = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=5))
        if self.access.is_password(said.get("password", "")):
            return self._let_in("/")
        self.access.wrong_at.append(monotonic())
        return HTMLResponse(html.page("login.html", wrong=True), 401)

    def _let_in(self, to: str) -> Response:
        answer = RedirectResponse(to, 303)
        # Lax: a link from Dagster's pages arrives; forms and pictures of other sites come without it.
        answer.set_cookie(self.access.cookie, self.access.token, COOKIE_S, httponly=True, samesite="lax", path="/")
        return answer


def _is_from_here(headers: Headers, host: str) -> bool:
    origins = headers.getlist("origin")
    if origins:
        return len(origins) == 1 and origins[0].lower() in (f"http://{host}".lower(), f"https://{host}".lower())
    return headers.get("sec-fetch-site") == "same-origin"


def _limited(receive: Receive) -> Receive:
    """No body is longer than it said, whatever it says."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > LARGEST_FORM_BYTES:
            return {"type": "http.disconnect"}
        return message

    return limited


def _with_headers(send: Send, path: str) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if path.startswith(OPEN):
                headers["cache-control"] = "no-cache"  # kept, and asked about each time
        await send(message)

    return with_headers


def _plain(status: int, said: str) -> Response:
    return PlainTextResponse(f"{said}\n", status)
