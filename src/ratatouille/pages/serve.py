"""Serving: the pages of one workspace on one port, until Ctrl-C."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import uvicorn

from ratatouille.beside import PAGES, announced
from ratatouille.errors import RequestError
from ratatouille.pages.guard import access
from ratatouille.pages.server import make_app


def serve(
    root: Path,
    ready: Callable[[str], None],
    *,
    host: str,
    port: int,
    names: tuple[str, ...] = (),
    password: str = "",
) -> None:
    """Show the workspace at `root`; `ready` is called with the address to open once it can be.

    `port` 0 takes any free one. RequestError: a busy port, no such address, others reach it and there is no password.
    """
    allowed = access(host, port, password, names)
    with closing(_listening(host, port)) as listening:
        allowed.port = int(listening.getsockname()[1])
        app = make_app(root, allowed)
        config = uvicorn.Config(
            app, log_level="error", access_log=False, lifespan="on", server_header=False, timeout_graceful_shutdown=3
        )
        server = uvicorn.Server(config)
        app.state.ready = lambda: ready(allowed.first_address)
        with announced(root, PAGES, allowed.address), suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(128)
        except OSError:
            made.close()
            raise
        return made
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what, then = f"Port {port} is in use by another program.", f"rat ui --port {port + 1}"
        elif error.errno == errno.EACCES:
            what, then = f"Port {port} needs more rights than you have.", "rat ui --port 3040"
        else:
            what, then = f"{host} is not an address of this machine: {error.strerror}", "rat ui --host 127.0.0.1"
        raise RequestError(what, where=f"{host}:{port}", state="Nothing was started.", next=then) from error
