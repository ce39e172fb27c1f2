"""A catalog on PostgreSQL: its address, its locks, and what may be asked of it without DuckDB.

schema    holds the lake's tables; `<schema>_journal` beside it the journal. So one database may hold several lakes
lock      an advisory lock of a session, held from before BEGIN to after COMMIT, which the server frees when the
          connection of its holder goes: what flock is to a catalog in a file
password  of a variable, or libpq's own business (PGPASSWORD, .pgpass, a service file). It reaches DuckDB as a
          temporary secret, and no text of ours ever has it
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from ratatouille.errors import LakeError, RatError, RequestError, TransientError, keep_secret
from ratatouille.lake.quoting import LAKE, ident, text

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgres://", "postgresql://")
CONNECT_WITHIN_S = 10
# A server that restarts is back within this time; so long is asked what became of a COMMIT.
SETTLE_WITHIN_S = 60.0
INSTALL = "pip install 'ratatouille-lakehouse[postgres]'"
_PASSWORD = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OPTIONS = ("schema", "sslmode", "sslrootcert")
# A build holds a read transaction open while it computes: a server that ends idle ones must not end this.
_SETTINGS = "-c idle_in_transaction_session_timeout=0 -c timezone=UTC"


@dataclass(frozen=True, slots=True)
class Server:
    """Where a catalog lives on PostgreSQL. What is empty libpq takes from its own variables and files."""

    host: str = ""
    port: int = 0
    database: str = ""
    user: str = ""
    password_env: str = ""
    schema: str = "ratatouille"
    ssl: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, url: str) -> Server:
        """Read `postgres://user:${VARIABLE}@host:5432/database?schema=lake`. RequestError if it says something else."""
        where = "workspace.yaml: lake.catalog"
        found = urlsplit(url)
        said = {name: values[-1] for name, values in parse_qs(found.query).items()}
        secret = _PASSWORD.fullmatch(found.password or "")
        unknown = sorted(set(said) - set(_OPTIONS))
        try:
            port = found.port or 0
        except ValueError:
            raise RequestError("the port of the catalog's server is no number", where=where, next="mend it") from None
        if found.password and not secret:
            raise RequestError(
                "a password does not belong into a file", where=where, next="name its variable: ${LAKE_PASSWORD}"
            )
        if unknown:
            raise RequestError(
                f"'{unknown[0]}' is no option of a catalog", where=where, next=f"known are {', '.join(_OPTIONS)}"
            )
        schema = said.pop("schema", "ratatouille")
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,48}", schema):
            raise RequestError(
                f"'{schema}' cannot be a schema's name", where=where, next="use small letters, digits and _"
            )
        return cls(
            unquote(found.hostname or ""), port, unquote(found.path.strip("/")), unquote(found.username or ""),
            secret.group(1) if secret else "", schema, tuple(sorted(said.items())),
        )  # fmt: skip

    def __str__(self) -> str:
        """The address as a person may see it, and as `of` reads it."""
        secret = f":${{{self.password_env}}}" if self.password_env else ""
        user = f"{quote(self.user, safe='')}{secret}@" if self.user or secret else ""
        port = f":{self.port}" if self.port else ""
        said = urlencode({"schema": self.schema, **dict(self.ssl)})
        return f"postgres://{user}{quote(self.host)}{port}/{quote(self.database, safe='')}?{said}"

    @property
    def journal_schema(self) -> str:
        return f"{self.schema}_journal"

    def exists(self) -> bool:
        """Whether there is a lake's catalog."""
        return self.ask("looking for the lake", f"select to_regclass('{self.schema}.ducklake_metadata')")[0] is not None

    # Connecting

    def password(self) -> str:
        """The value of the variable, '' where none is named. RequestError when it is not set."""
        if not self.password_env:
            return ""
        found = os.environ.get(self.password_env, "")
        if not found:
            raise RequestError(
                f"the variable {self.password_env}, the password of the catalog, is not set",
                where="workspace.yaml: lake.catalog",
                next=f"set {self.password_env} (export it), then run the same command again",
            )
        keep_secret(found)
        return found

    def _options(self, application: str) -> dict[str, str]:
        said = {"host": self.host, "port": str(self.port or ""), "dbname": self.database, "user": self.user}
        said |= dict(self.ssl) | {"connect_timeout": str(CONNECT_WITHIN_S), "options": _SETTINGS}
        return {name: value for name, value in said.items() if value} | {"application_name": application[:63]}

    def attach_sql(self, alias: str, options: list[str]) -> list[str]:
        """The statements by which DuckDB attaches the lake as `alias`; the first may hold the password."""
        said = " ".join(f"{name}={_quoted(value)}" for name, value in self._options(me()).items())
        mine = [f"metadata_schema {text(self.schema)}", f"meta_schema {text(self.schema)}"]
        statements = []
        if secret := self.password():
            statements.append(
                f"create or replace temporary secret {ident(alias)} (type postgres, password {text(secret)})"
            )
            mine.append(f"meta_secret {text(alias)}")
        return [*statements, f"attach {text(f'ducklake:postgres:{said}')} as {alias} ({', '.join([*options, *mine])})"]

    def example_sql(self) -> str:
        """What a person types to read the lake; the password is libpq's business."""
        plain = {
            name: v for name, v in self._options("").items() if name in ("host", "port", "dbname", "user", "sslmode")
        }
        said = " ".join(f"{name}={_quoted(value)}" for name, value in plain.items())
        options = f"METADATA_SCHEMA {text(self.schema)}, READ_ONLY"
        return f"LOAD ducklake; LOAD postgres; ATTACH {text(f'ducklake:postgres:{said}')} AS {LAKE} ({options});"

    def connect(self, doing: str, application: str = "") -> psycopg.Connection[Any]:
        """A connection of its own, in which each statement commits. TransientError when nobody answers."""
        try:
            import psycopg
            from psycopg.conninfo import make_conninfo
        except ImportError:
            raise RequestError(
                "a catalog on PostgreSQL needs psycopg", where="workspace.yaml: lake.catalog", next=INSTALL
            ) from None
        secret = self.password()
        try:
            named = self._options(application or me()) | ({"password": secret} if secret else {})
            return psycopg.connect(make_conninfo("", **named), autocommit=True)
        except psycopg.Error as error:
            raise self.explained(error, doing) from None

    def explained(self, error: Exception, doing: str) -> RatError:
        """A psycopg error in four lines."""
        import psycopg

        said = " ".join(str(error).split())[:400]
        refused = isinstance(error, psycopg.errors.InvalidPassword) or re.search(
            "password authentication|no password supplied|pg_hba|does not exist|permission denied", said
        )
        if refused:
            return LakeError(
                f"{doing}: the catalog's server refuses: {said}",
                where=str(self),
                next="check user, password, database and rights of lake.catalog, then run the same command again",
            )
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return TransientError(
                f"{doing}: the catalog's server does not answer: {said}",
                where=str(self),
                next="is it running? Then run the same command again; finished assets are not rebuilt",
            )
        return LakeError(f"{doing}: {said}", where=str(self), next="run the same command again")

    def ask(self, doing: str, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        """The first row of a question."""
        import psycopg

        with self.connect(doing) as connection:
            try:
                return connection.execute(sql, values or None).fetchone() or (None,)
            except psycopg.Error as error:
                raise self.explained(error, doing) from None

    def newest_version(self) -> tuple[int, str] | None:
        """The newest version and when it was made; None if there is no lake, or nobody answers."""
        newest = (
            f"select snapshot_id, snapshot_time from {ident(self.schema)}.ducklake_snapshot order by 1 desc limit 1"
        )
        try:
            found = self.ask("looking for the newest version", newest)
        except LakeError:
            return None
        return (int(found[0]), str(found[1])) if found[0] is not None else None

    # Locks

    @contextmanager
    def exclusive(self, doing: str, wait_s: float, purpose: str = "writers") -> Iterator[None]:
        """Hold the write lock of the lake, or of another `purpose`."""
        import psycopg

        with self._held(f"{me()}, {doing}", doing) as connection:
            key = self.lock_key(purpose)
            try:
                if wait_s <= 0:
                    if not connection.execute("select pg_try_advisory_lock(%s)", (key,)).fetchone()[0]:  # type: ignore[index]
                        raise self._is_locked(connection, doing, key)
                else:
                    connection.execute("select set_config('lock_timeout', %s, false)", (f"{int(wait_s * 1000)}ms",))
                    connection.execute("select pg_advisory_lock(%s)", (key,))
            except psycopg.errors.LockNotAvailable:
                raise self._is_locked(connection, doing, key) from None
            except psycopg.Error as error:
                raise self.explained(error, doing) from None
            yield

    @contextmanager
    def looking_back(self) -> Iterator[None]:
        with self._held(f"{me()}, reading an earlier version", "reading an earlier version") as connection:
            connection.execute("select pg_advisory_lock_shared(%s)", (self.lock_key("readers"),))
            yield

    @contextmanager
    def nobody_looks_back(self) -> Iterator[bool]:
        with self._held(f"{me()}, expiring versions", "expiring versions") as connection:
            found = connection.execute("select pg_try_advisory_lock(%s)", (self.lock_key("readers"),)).fetchone()
            yield bool(found and found[0])

    @contextmanager
    def _held(self, application: str, doing: str) -> Iterator[psycopg.Connection[Any]]:
        connection = self.connect(doing, application)
        try:
            yield connection
        finally:
            with suppress(Exception):
                connection.close()

    def lock_key(self, purpose: str) -> int:
        """The number of a lock. Such locks are of one database, so the schema tells its lakes apart."""
        digest = hashlib.sha256(f"ratatouille:{self.schema}:{purpose}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def _is_locked(self, connection: psycopg.Connection[Any], doing: str, key: int) -> LakeError:
        holder = (
            "select a.application_name from pg_locks l join pg_stat_activity a using (pid) where l.granted"
            " and l.locktype = 'advisory' and l.classid = ((%s::bigint >> 32) & 4294967295)::oid"
            " and l.objid = (%s::bigint & 4294967295)::oid"
        )
        found = None
        with suppress(Exception):
            found = connection.execute(holder, (key, key)).fetchone()
        return LakeError(
            f"{doing}: another process holds the lake's write lock",
            where=found[0] if found else str(self),
            next="wait for it to finish (`rat runs` shows what is running), then run the same command again",
        )

    # A COMMIT whose answer was lost

    def settle(self, about: str, before: int) -> int | None:
        """The version above `before` that says `about` of itself, 0 if there is none, None if nobody can tell.

        A connection may be lost while the server still works on its COMMIT. So first every transaction of this process
        that has written something is ended: what is not committed then never will be.
        """
        import psycopg

        ours = "application_name = %s and backend_xid is not null"
        deadline = time.monotonic() + SETTLE_WITHIN_S
        while time.monotonic() < deadline:
            with suppress(RatError, psycopg.Error), self._held(f"{me()}, settling", "settling a commit") as asking:
                asking.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {ours}", (me(),))
                while asking.execute(f"select 1 from pg_stat_activity where {ours}", (me(),)).fetchone():
                    if time.monotonic() > deadline:
                        return None
                    time.sleep(0.05)
                found = asking.execute(
                    f"select max(snapshot_id) from {ident(self.schema)}.ducklake_snapshot_changes"
                    " where commit_extra_info = %s and snapshot_id > %s",
                    (about, before),
                ).fetchone()
                return int(found[0]) if found and found[0] is not None else 0
            time.sleep(0.2)
        return None


def me() -> str:
    """This process, as its connections are called."""
    return f"rat {os.getpid()} on {socket.gethostname()}"[:40]


def _quoted(value: str) -> str:
    """A value of libpq's `name=value`."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
