"""The data of a lake in a bucket: objects that are written once, whole, and checked before anybody may name them.

staged      rows are written and gated on this machine's disk; sealing uploads them
sealed      each object was sent with its SHA-256, which the server compares, and is listed with its size
deadline    every request ends within RATATOUILLE_S3_DEADLINE seconds (30); what a server answers with 5xx is asked
            again for as long. So a server that hangs costs one deadline, or two, and never a night

Keys come from the environment (AWS_ACCESS_KEY_ID, ...), or from the provider of the machine (roles of containers and
instances); they reach DuckDB as a temporary secret.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille.errors import LakeError, RatError, RequestError, TransientError, keep_secret
from ratatouille.lake.quoting import text

if TYPE_CHECKING:
    from obstore.store import S3Store

DEADLINE = "RATATOUILLE_S3_DEADLINE"
INSTALL = "pip install 'ratatouille-lakehouse[s3]'"
_PART_BYTES = 8 << 20
_REFUSED = ("PermissionDeniedError", "UnauthenticatedError")


@dataclass(frozen=True, slots=True)
class Found:
    """An object, by its path below the place that was listed. `modified` in seconds since 1970."""

    path: str
    bytes: int
    modified: float
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in a bucket: `s3://bucket/prefix`."""

    bucket: str
    prefix: str = ""  # without slashes at its ends

    @classmethod
    def of(cls, address: str) -> Bucket:
        name, _, prefix = address.removeprefix("s3://").strip("/").partition("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]", name):
            raise RequestError(
                f"'{name}' is no bucket's name", where="workspace.yaml: lake.data", next="data: s3://bucket/folder"
            )
        return cls(name, prefix.strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __truediv__(self, below: str) -> Bucket:
        return Bucket(self.bucket, f"{self.prefix}/{below}".strip("/"))

    @property
    def name(self) -> str:
        """The last part of the address."""
        return str(self).rpartition("/")[2]

    @property
    def parent(self) -> Bucket:
        return Bucket(self.bucket, self.prefix.rpartition("/")[0])

    def relative(self, path: str) -> str:
        """`path` (whole, or below this place already) below this place."""
        return path.removeprefix(f"{self}/")

    # Objects

    def upload(self, files: Iterable[tuple[Path, str]], doing: str) -> None:
        """Send (file, path below this place) and see that each is there with its size."""
        import obstore

        sent: dict[str, int] = {}
        with _told(doing, self):
            store = _store(self)
            for file, path in files:
                sent[path] = file.stat().st_size
                obstore.put(store, path, file, chunk_size=_PART_BYTES, max_concurrency=4)
            there = {one.path: one.bytes for one in self._listed(store, _common(sent))}
        wrong = [path for path, size in sent.items() if there.get(path) != size]
        if wrong:
            size = there.get(wrong[0])
            said = "is not there" if size is None else f"has {size:,} bytes instead of {sent[wrong[0]]:,}"
            raise TransientError(
                f"{doing}: an object {said} after its upload", where=f"{self}/{wrong[0]}", next="run the same again"
            )

    def put(self, path: str, content: bytes, doing: str) -> None:
        import obstore

        with _told(doing, self):
            obstore.put(_store(self), path, content)

    def listed(self, below: str = "", doing: str = "listing the data") -> list[Found]:
        """Every object below a folder of this place."""
        with _told(doing, self):
            return list(self._listed(_store(self), below))

    def is_empty(self) -> bool:
        with _told("looking into the bucket", self):
            return next(self._listed(_store(self), ""), None) is None

    def _listed(self, store: S3Store, below: str) -> Iterator[Found]:
        import obstore

        for page in obstore.list(store, prefix=below or None):
            for one in page:
                yield Found(one["path"], one["size"], one["last_modified"].timestamp(), one["e_tag"] or "")

    def chunks(self, path: str, doing: str = "reading the data") -> Iterator[bytes]:
        """The bytes of an object. FileNotFoundError if there is none."""
        import obstore

        with _told(doing, self):
            for chunk in obstore.get(_store(self), path).stream(min_chunk_size=4 << 20):
                yield bytes(chunk)

    def sha256(self, path: str) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks(path, "computing a checksum"):
            digest.update(chunk)
        return digest.hexdigest()

    def download(self, path: str, to: Path) -> str:
        """Write an object to a file; gives its SHA-256."""
        digest = hashlib.sha256()
        with open(to, "wb") as handle:
            for chunk in self.chunks(path, "fetching an artifact"):
                digest.update(chunk)
                handle.write(chunk)
            handle.flush()
            os.fsync(handle.fileno())
        return digest.hexdigest()

    def copy(self, pairs: Iterable[tuple[str, str]], doing: str) -> None:
        import obstore

        with _told(doing, self):
            store = _store(self)
            for source, target in pairs:
                obstore.copy(store, source, target)

    def delete(self, paths: Sequence[str], doing: str = "deleting data") -> None:
        """Delete objects; what is gone already is no error."""
        import obstore

        with _told(doing, self):
            store = _store(self)
            for start in range(0, len(paths), 1000):
                obstore.delete(store, list(paths[start : start + 1000]))

    # DuckDB

    def secret_sql(self) -> str:
        """The statement that gives DuckDB the keys, for this place only. It holds them: no error may show it."""
        said = {"region": _region(), "scope": str(self)}
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
        if key and secret:
            _hide_keys()
            said |= {"key_id": key, "secret": secret}
            if token := os.environ.get("AWS_SESSION_TOKEN"):
                said["session_token"] = token
        else:
            said["provider"] = "credential_chain"
        options = [f"{name} {text(value)}" for name, value in said.items()]
        if endpoint := _endpoint():
            scheme, _, host = endpoint.partition("://")
            options += [f"endpoint {text(host.rstrip('/'))}", "url_style 'path'", f"use_ssl {scheme == 'https'}"]
        name = f"rat_{hashlib.sha256(str(self).encode()).hexdigest()[:12]}"
        return f"create or replace temporary secret {name} (type s3, {', '.join(options)})"


def needs_chain() -> bool:
    """Whether keys come from the machine's provider, so that DuckDB needs its `aws` extension."""
    return not (os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"))


def deadline_s() -> float:
    said = os.environ.get(DEADLINE) or "30"
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise RequestError(
            f"{DEADLINE} is '{said}', which is no number of seconds between 0 and 86,400",
            where=f"the variable {DEADLINE}",
            next=f"export {DEADLINE}=30, then run the same command again",
        )
    return seconds


def publishing_limits() -> list[str]:
    """Settings of a session that publishes: DuckDB asks up to three times before it gives an upload up, and whoever
    publishes tries once more within the deadline."""
    return [f"set session http_timeout = {max(1, round(deadline_s() / 6))}", "set session http_retries = 0"]


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _hide_keys() -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        keep_secret(os.environ.get(name, ""))


def _store(place: Bucket) -> S3Store:
    try:
        from obstore.store import S3Store
    except ImportError:
        raise RequestError("data in a bucket needs obstore", where="workspace.yaml: lake.data", next=INSTALL) from None

    _hide_keys()
    limit, endpoint = deadline_s(), _endpoint()
    said: dict[str, Any] = {"endpoint": endpoint, "virtual_hosted_style_request": False} if endpoint else {}
    return S3Store(
        place.bucket,
        prefix=place.prefix or None,
        region=_region(),
        checksum_algorithm="sha256",
        client_options={
            "timeout": timedelta(seconds=limit),
            "connect_timeout": timedelta(seconds=min(5.0, limit)),
            "allow_http": endpoint.startswith("http://"),
        },
        retry_config={
            "max_retries": 6,
            "retry_timeout": timedelta(seconds=limit),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=max(0.2, limit / 6)),
                "base": 2,
            },
        },
        **said,
    )


def _common(paths: Iterable[str]) -> str:
    """The folder that all paths lie in."""
    folders = [path.rpartition("/")[0] for path in paths]
    return os.path.commonpath(folders) if folders and all(folders) else ""


@contextmanager
def _told(doing: str, place: Bucket) -> Iterator[None]:
    """What obstore raises, in four lines: its own text repeats itself and names keys."""
    try:
        yield
    except (RatError, FileNotFoundError):
        raise
    except Exception as error:
        said = str(error).partition("\n\nDebug source")[0].partition("<?xml")[0].strip()[:300]
        if type(error).__name__ in _REFUSED:
            raise LakeError(
                f"{doing}: the bucket refuses: {said}",
                where=str(place),
                next="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights of that key, then the same again",
            ) from None
        if isinstance(error, OSError) and error.errno is not None:
            raise  # this machine's disk
        raise TransientError(
            f"{doing}: the bucket does not answer as it should: {said}",
            where=str(place),
            next="run the same command again; finished assets are not rebuilt",
        ) from None
