"""A lakeFS repository, read at one commit: its head, its history, the objects below a prefix, and their bytes.

pinned      everything is asked of a commit, never of a branch, so a branch that moves meanwhile changes nothing
part        what has come of an object so far; its name holds the checksum, so only the same content is gone on with
write-back  files are put on a branch of their own, committed, and merged in one step

`Folder` gives a local folder the same few verbs, versioned by content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import stamina

if TYPE_CHECKING:
    from lakefs_sdk.client import LakeFSClient

PAGE = 1000  # objects of one answer, the most that lakeFS gives
COMMITS_A_PAGE = 100
PIECE_BYTES = 8 << 20  # of an object, in one request
T = TypeVar("T")


class LakeFSError(Exception):
    """What failed, where, what state the data is in, and what to do: four lines."""

    def __init__(self, what: str, *, where: str, next: str, state: str = "") -> None:
        self.what, self.where, self.next = what, where, next
        self.state = state or "Nothing was changed; the files in landing/ are as they were."
        super().__init__(f"{what}\n  {where}\n  {self.state}\n  {next}")


class Unreachable(LakeFSError):
    """No answer, or one that says to come again: worth another try."""


class ObjectChanged(LakeFSError):
    """The bytes are not those that the commit names."""


@dataclass(frozen=True)
class Commit:
    id: str
    message: str = ""
    committer: str = ""
    created_at: str = ""  # UTC
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Object:
    """`checksum` is what lakeFS calls so: of most stores the MD5 of the bytes."""

    path: str
    checksum: str
    bytes: int


class Source(Protocol):
    """What telemetry can be fetched from."""

    @property
    def repository(self) -> str: ...
    @property
    def branch(self) -> str: ...
    def head(self) -> Commit: ...
    def commit(self, id: str) -> Commit: ...
    def objects(self, commit: Commit, prefix: str) -> Iterator[Object]: ...
    def download(self, commit: Commit, one: Object, part: Path) -> str: ...


@dataclass(frozen=True)
class Settings:
    """`attempts` of each request; times in seconds. `checks_md5` False: a store whose checksums are no MD5."""

    endpoint_url: str
    repo: str
    branch: str = "main"
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    attempts: int = 4
    wait_s: float = 0.5
    connect_s: float = 10.0
    read_s: float = 60.0
    checks_md5: bool = True


class LakeFS:
    """A client of one repository. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: LakeFSClient | None = None
        self.repository, self.branch = settings.repo, settings.branch

    def head(self) -> Commit:
        """The newest commit of the branch."""
        ref = self._ask(
            f"reading the head of {self.branch}",
            lambda api: api.branches_api.get_branch(self.repository, self.branch, **self._timeout),
        )
        return self.commit(ref.commit_id)

    def commit(self, id: str) -> Commit:
        """A commit by its id or the beginning of it."""
        found = self._ask(
            f"reading commit {id}", lambda api: api.commits_api.get_commit(self.repository, id, **self._timeout)
        )
        return _commit(found)

    def since(self, cursor: str) -> tuple[list[Commit], bool]:
        """(commits of the branch after `cursor`, newest first; whether `cursor` was met). Pages until it is met.

        Without it that is the whole history: the branch was reset, or the cursor is of another one.
        """
        found: list[Commit] = []
        after, more = "", True
        while more:
            page = self._ask(f"reading the log of {self.branch}", self._log(after))
            for one in page.results:
                if one.id == cursor:
                    return found, True
                found.append(_commit(one))
            more, after = page.pagination.has_more, page.pagination.next_offset
        return found, False

    def _log(self, after: str) -> Callable[[Any], Any]:
        return lambda api: api.refs_api.log_commits(
            self.repository, self.branch, after=after, amount=COMMITS_A_PAGE, first_parent=True, **self._timeout
        )

    def objects(self, commit: Commit, prefix: str) -> Iterator[Object]:
        """Every object below `prefix` at a commit, in the order of its path."""
        after, more = "", True
        while more:
            page = self._ask(f"listing {prefix} at {commit.id}", self._listing(commit, prefix, after))
            for one in page.results:
                if one.path_type == "object":
                    yield Object(one.path, one.checksum, one.size_bytes or 0)
            more, after = page.pagination.has_more, page.pagination.next_offset

    def _listing(self, commit: Commit, prefix: str, after: str) -> Callable[[Any], Any]:
        return lambda api: api.objects_api.list_objects(
            self.repository, commit.id, prefix=prefix, after=after, amount=PAGE, **self._timeout
        )

    def download(self, commit: Commit, one: Object, part: Path) -> str:
        """The object's bytes in `part`, going on after those that are there; returns their sha256.

        Raises ObjectChanged when they are not those that the commit names.
        """
        for last in (False, True):
            self._ask(f"reading {one.path} at {commit.id}", lambda api: self._fetch(api, commit, one, part))
            md5, sha256, size = _hashes(part)
            if size == one.bytes and (not self._is_md5(one.checksum) or md5 == one.checksum):
                return sha256
            part.unlink()  # a part of something else may have been gone on with: once more from the beginning
            if last:
                raise ObjectChanged(
                    f"{one.path} is not what commit {commit.id[:12]} names: {size:,} bytes with MD5 {md5},"
                    f" not {one.bytes:,} with {one.checksum}",
                    where=self._where,
                    next="Look whether somebody writes to the store beside lakeFS; then ingest again.",
                )
        raise AssertionError

    def _fetch(self, api: Any, commit: Commit, one: Object, part: Path) -> None:
        """A piece after the other, so that memory holds one piece, and a broken connection costs no more."""
        have = part.stat().st_size if part.exists() else 0
        with part.open("ab") as file:
            if have > one.bytes:
                file.truncate(0)
                have = 0
            while have < one.bytes:
                last = min(have + PIECE_BYTES, one.bytes) - 1
                answer = api.objects_api.get_object_with_http_info(
                    self.repository,
                    commit.id,
                    one.path,
                    range=f"bytes={have}-{last}",
                    _preload_content=False,
                    **self._timeout,
                )
                if answer.status_code != 206:  # a server that knows no ranges gives all of it
                    file.truncate(0)
                if not answer.raw_data:
                    return
                file.write(answer.raw_data)
                have = file.tell()

    def _is_md5(self, checksum: str) -> bool:
        return self._settings.checks_md5 and len(checksum) == 32 and "-" not in checksum

    def write_back(
        self, files: Mapping[str, Path], *, branch: str, message: str, metadata: Mapping[str, str]
    ) -> Commit:
        """Put files (object -> file) on `branch`, commit, merge into ours; returns the commit that merged.

        The branch goes afterwards. One that a stopped attempt has left is gone on with, wherever that was stopped. Of an
        object that ours has changed meanwhile what is written now stays. Files that are there as they are change
        nothing: then the head is returned.
        """
        from lakefs_sdk.models.branch_creation import BranchCreation
        from lakefs_sdk.models.commit_creation import CommitCreation

        doing = f"writing results to {branch}"
        creation = BranchCreation(name=branch, source=self.branch, force=True)
        with suppress(Conflict):  # left by an attempt that was stopped
            self._ask(doing, lambda api: api.branches_api.create_branch(self.repository, creation, **self._timeout))
        for path, file in files.items():
            self._ask(doing, self._upload(branch, path, file))
        said = CommitCreation(message=message, metadata=dict(metadata))
        with suppress(NothingToCommit):  # the stopped attempt has committed, and perhaps not merged
            self._ask(doing, lambda api: api.commits_api.commit(self.repository, branch, said, **self._timeout))
        merged = self._merged(branch, message, metadata)
        self._ask(
            doing, lambda api: api.branches_api.delete_branch(self.repository, branch, force=True, **self._timeout)
        )
        return self.commit(merged) if merged else self.head()

    def _merged(self, branch: str, message: str, metadata: Mapping[str, str]) -> str:
        """Merge a branch of ours; the id of the commit, or "" where there was nothing to merge."""
        from lakefs_sdk.models.merge import Merge

        merge = Merge(message=message, metadata=dict(metadata), strategy="source-wins")
        try:
            found = self._ask(
                f"merging {branch} into {self.branch}",
                lambda api: api.refs_api.merge_into_branch(
                    self.repository, branch, self.branch, merge=merge, **self._timeout
                ),
            )
        except NothingToCommit:
            return ""
        return str(found.reference)

    def _upload(self, branch: str, path: str, file: Path) -> Callable[[Any], Any]:
        return lambda api: api.objects_api.upload_object(
            self.repository, branch, path, content=str(file), force=True, **self._timeout
        )

    @property
    def _where(self) -> str:
        return f"lakeFS {self._settings.endpoint_url}, repository {self.repository}, branch {self.branch}"

    @property
    def _timeout(self) -> dict[str, Any]:
        return {"_request_timeout": (self._settings.connect_s, self._settings.read_s)}

    def _api(self) -> LakeFSClient:
        if self._client is None:
            from lakefs_sdk.client import LakeFSClient
            from lakefs_sdk.configuration import Configuration
            from urllib3.util import Retry

            said = self._settings
            host = said.endpoint_url.rstrip("/").removesuffix("/api/v1") + "/api/v1"
            configuration: Any = Configuration(host=host, username=said.access_key, password=said.secret_key)
            configuration.retries = Retry(0, redirect=3)  # stamina does it, and says so
            configuration.connection_pool_maxsize = 16
            self._client = LakeFSClient(configuration)
        return self._client

    def _ask(self, doing: str, call: Callable[[Any], T]) -> T:
        """The answer; what may pass is tried again, with growing pauses. Raises LakeFSError."""
        said = self._settings
        tries = stamina.retry_context(
            on=Unreachable, attempts=said.attempts, wait_initial=said.wait_s, wait_max=20.0, timeout=None
        )
        for attempt in tries:
            with attempt:
                try:
                    return call(self._api())
                except Exception as error:
                    raise self._explained(error, doing) from None  # its own text may quote headers
        raise AssertionError

    def _explained(self, error: Exception, doing: str) -> Exception:
        from lakefs_sdk.exceptions import ApiException, OpenApiException
        from pydantic import ValidationError
        from urllib3.exceptions import HTTPError

        where = f"{self._where}, {doing}"
        if isinstance(error, HTTPError | OSError) and not isinstance(error, FileNotFoundError):
            return Unreachable(
                f"lakeFS does not answer: {_plainly(error)}",
                where=where,
                next="Look whether the server runs and endpoint_url is right; for no server set fallback_local_path.",
            )
        if isinstance(error, OpenApiException | ValidationError | ValueError) and not isinstance(error, ApiException):
            return LakeFSError(
                "lakeFS gave an answer that is none of its API",
                where=where,
                next="Look whether endpoint_url is that of a lakeFS server, without a path.",
            )
        if not isinstance(error, ApiException):
            return error
        status = error.status or 0
        if status == 400 and "no changes" in str(error.body):
            return NothingToCommit("there is nothing to commit", where=where, next="")
        if status == 409:
            return Conflict(
                f"lakeFS says there is a conflict: {_said(error)}",
                where=where,
                next="Look at the branch, then try again.",
            )
        if status in (401, 403):
            return LakeFSError(
                f"lakeFS refuses the key ({status})",
                where=where,
                next="Set LAKEFS_ACCESS_KEY and LAKEFS_SECRET_KEY to a key that may read the repository.",
            )
        if status == 404:
            return LakeFSError(
                f"lakeFS knows no such thing: {_said(error)}",
                where=where,
                next="Look at repo, branch and prefix of the lakefs resource.",
            )
        if status == 429 or status >= 500 or status == 0:
            return Unreachable(
                f"lakeFS failed ({status}): {_said(error)}", where=where, next="Try again later; what has come is kept."
            )
        return LakeFSError(
            f"lakeFS says {status}: {_said(error)}", where=where, next="Look at the settings of the lakefs resource."
        )


class Conflict(LakeFSError):
    """Somebody else did it first."""


class NothingToCommit(LakeFSError):
    """The branch is as it was."""


@dataclass(frozen=True)
class Folder:
    """A local folder in the place of a repository. Its commit is the hash of all names and contents."""

    root: Path
    prefix: str = ""
    repository: str = "local"
    branch: str = "local"

    def head(self) -> Commit:
        """Raises LakeFSError where there is no such folder."""
        if not (self.root / self.prefix).is_dir():
            raise LakeFSError(
                "The local folder of telemetry is not there",
                where=str(self.root / self.prefix),
                next="Set fallback_local_path to a folder that holds the prefix.",
            )
        digest, newest = hashlib.sha256(), 0.0
        for one in self.objects(Commit(""), self.prefix):
            digest.update(f"{one.path}\0{one.checksum}\n".encode())
            newest = max(newest, (self.root / one.path).stat().st_mtime)
        said = f"the content of {self.root.name}"
        return Commit(f"local:{digest.hexdigest()[:32]}", message=said, created_at=_utc(newest))

    def commit(self, id: str) -> Commit:
        """The folder as it is; raises LakeFSError when that is no longer `id`."""
        head = self.head()
        if head.id != id:
            raise LakeFSError(
                f"The folder has changed: it is {head.id} now", where=str(self.root), next="Ingest its content of now."
            )
        return head

    def objects(self, commit: Commit, prefix: str) -> Iterator[Object]:
        for path in sorted((self.root / prefix).rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in name.split("/")):
                yield Object(name, _hashes(path)[1], path.stat().st_size)

    def download(self, commit: Commit, one: Object, part: Path) -> str:
        import shutil

        shutil.copyfile(self.root / one.path, part)
        sha256 = _hashes(part)[1]
        if sha256 != one.checksum:
            raise ObjectChanged(f"{one.path} changed while it was copied", where=str(self.root), next="Ingest again.")
        return sha256


def _commit(found: Any) -> Commit:
    return Commit(found.id, found.message, found.committer, _utc(found.creation_date), dict(found.metadata or {}))


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _hashes(path: Path) -> tuple[str, str, int]:
    """(MD5 as stores use it for a checksum, sha256, bytes) in one pass."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return md5.hexdigest(), sha256.hexdigest(), size


def _plainly(error: Exception) -> str:
    """The innermost reason in a line: urllib3 wraps it twice."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:200] or type(reason).__name__


def _said(error: Any) -> str:
    body = (
        error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason or "")
    )
    return " ".join(body.split())[:200]
