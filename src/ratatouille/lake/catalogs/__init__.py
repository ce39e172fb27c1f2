"""The two kinds of catalog behind one interface: a SQLite file, and a schema on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from ratatouille.lake.catalogs.file import CatalogFile
from ratatouille.lake.catalogs.server import Server
from ratatouille.lake.places.bucket import Bucket


class Catalog(Protocol):
    """What opening and publishing ask of a catalog."""

    @property
    def extension(self) -> str:
        """DuckDB's extension that reads it."""

    def attaching(self) -> AbstractContextManager[bool]:
        """The block attaches the catalog. Gives whether it may be looked at beside that; `detached` ends it."""

    def detached(self) -> None: ...

    def is_created(self) -> bool:
        """Whether there is a lake's catalog."""

    def has_tables(self) -> bool:
        """Whether there is more than a catalog: whoever makes a lake may die before its ledger is there."""

    def follow(self, data: Path | Bucket) -> None:
        """Mend what it says of the data folder, if it was moved together with it."""

    def newest_version(self) -> tuple[int, str] | None:
        """The newest version and when it was made, in the catalog's own words; None if that cannot be told now."""

    def attach(self, run: Callable[[str], object], alias: str, options: Sequence[str], *, write: bool) -> None:
        """Attach the lake as `alias` by the statements that `run` is given."""

    def example_sql(self) -> str:
        """What any DuckDB of the same version runs to read the lake."""

    def settle(self, about: str, before: int) -> int | None:
        """After a failed COMMIT, under the lock: the version above `before` that it made, 0 if it made none,
        None if nobody can tell."""


class _ServerCatalog:
    extension = "postgres_scanner"

    def __init__(self, server: Server) -> None:
        self.server = server

    def attaching(self) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def detached(self) -> None:
        pass

    def is_created(self) -> bool:
        return self.server.exists()

    def has_tables(self) -> bool:
        return self.server.exists()  # and open_lake looks whether it has any

    def follow(self, data: Path | Bucket) -> None:
        pass  # the data is where everybody who shares the catalog says it is

    def newest_version(self) -> tuple[int, str] | None:
        return self.server.newest_version()

    def attach(self, run: Callable[[str], object], alias: str, options: Sequence[str], *, write: bool) -> None:
        for statement in self.server.attach_sql(alias, list(options)):
            run(statement)

    def example_sql(self) -> str:
        return self.server.example_sql()

    def settle(self, about: str, before: int) -> int | None:
        return self.server.settle(about, before)


def catalog_of(place: Path | Server) -> Catalog:
    return _ServerCatalog(place) if isinstance(place, Server) else CatalogFile(place)


def newest_version(place: Path | Server) -> tuple[int, str] | None:
    """The newest version of a lake and when it was made, without opening it; None if that cannot be told now."""
    return catalog_of(place).newest_version()
