"""A real Neo4j community server for tests: a folder of its own, a free loopback port, a password, 512 MB of heap."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

INSTALL = "make neo4j-server"
TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "bin"
UP_WITHIN_S = 90
# Nothing is reported to anybody; one process for Bolt and nothing else.
CONFIGURATION = """
server.default_listen_address=127.0.0.1
server.bolt.listen_address=127.0.0.1:{port}
server.http.enabled=false
server.https.enabled=false
dbms.usage_report.enabled=false
client.allow_telemetry=false
dbms.security.auth_enabled=true
dbms.security.auth_max_failed_attempts=0
server.memory.pagecache.size=64m
db.tx_log.preallocate=false
db.checkpoint.interval.time=5s
"""
# Half a minute of tests is over before the second compiler has earned its keep.
JAVA = "-Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"


@dataclass
class Neo4j:
    port: int
    folder: Path
    program: str
    password: str = "planted-canary-of-neo4j"
    java: str = JAVA
    user: str = "neo4j"
    started_in_s: float = 0.0
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"bolt://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return {"NEO4J_URI": self.uri, "NEO4J_USER": self.user, "NEO4J_PASSWORD": self.password}

    def start(self) -> None:
        """Start it and wait until Bolt answers."""
        began = time.monotonic()
        with (self.folder / "out").open("ab") as out:
            process = subprocess.Popen(
                [self.program, str(self.folder)],
                env={"PATH": os.environ["PATH"], "NEO4J_JAVA_OPTS": self.java},
                stdout=out, stderr=out,
            )  # fmt: skip
        self.running[:] = [process]
        while True:
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", self.port), 1)) as line:
                line.sendall(bytes.fromhex("6060b017 00000205 00000004 00000000 00000000"))
                line.settimeout(5)
                if line.recv(4):
                    break
            said = (self.folder / "out").read_text(errors="replace")[-2000:]
            assert process.poll() is None and time.monotonic() - began < UP_WITHIN_S, f"Neo4j did not start: {said}"
            time.sleep(0.05)
        self.started_in_s = time.monotonic() - began

    def kill(self) -> None:
        """The hard way (SIGKILL): a polite end takes ten seconds, and a crash is the better test."""
        self.running[0].kill()
        self.running[0].wait(30)


@contextmanager
def a_neo4j(need_tool: Callable[[str, str], str], java: str = JAVA) -> Iterator[Neo4j]:
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{TOOLS}{os.pathsep}{before}"
    try:
        need_tool("java", "apt-get install openjdk-17-jre-headless maven")
        program = need_tool("neo4j-server", INSTALL)
    finally:
        os.environ["PATH"] = before
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="neo4j-", dir=shm if shm.is_dir() else None))
    made = Neo4j(_free_port(), folder, program, java=java)
    (folder / "conf").mkdir()
    (folder / "conf" / "neo4j.conf").write_text(CONFIGURATION.format(port=made.port))
    (folder / "data" / "dbms").mkdir(parents=True)
    (folder / "data" / "dbms" / "auth.ini").write_text(_first_password(made.user, made.password))
    try:
        made.start()
        yield made
    finally:
        if made.running:
            made.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _first_password(user: str, password: str) -> str:
    """What `neo4j-admin dbms set-initial-password` writes, without two seconds of Java."""
    salt = secrets.token_bytes(32)
    digest = hashlib.sha256(salt + password.encode()).digest()
    for _ in range(1023):
        digest = hashlib.sha256(digest).digest()
    return f"{user}:SHA-256,{digest.hex()},{salt.hex()},1024:\n"


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
