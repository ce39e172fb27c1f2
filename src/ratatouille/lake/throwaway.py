"""A lake that is gone afterwards: a database in memory under the lake's name, without catalog, ledger and lock.

The stages that build and judge a candidate only read tables and write files; they cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratatouille.lake.connect import Lake, Storage, settings
from ratatouille.lake.faults import explain
from ratatouille.lake.quoting import LAKE, ident, table


@contextmanager
def throwaway_lake(folder: Path, layers: tuple[str, ...], memory_bytes: int = 0) -> Iterator[Lake]:
    """An empty lake with these layers. What it stages goes below `folder`. One thread: rows keep their order."""
    import duckdb

    storage = Storage(folder / "catalog.sqlite", folder / "data", folder / "spill", memory_bytes, threads=1)
    try:
        connection = duckdb.connect(config=settings(storage, storage.spill) | {"preserve_insertion_order": True})
        connection.execute("set global TimeZone = 'UTC'")
        connection.execute(f"attach ':memory:' as {LAKE}")
        for layer in layers:
            connection.execute(f"create schema {LAKE}.{ident(layer)}")
    except Exception as error:
        raise explain(error, "making a lake for the tests") from error
    lake = Lake(storage, connection, storage.spill, writable=True)
    try:
        yield lake
    finally:
        lake.close()


def put_table(lake: Lake, asset: str, select: str) -> None:
    """Let the rows of `select` stand under the name of `asset`."""
    with lake.session(f"making the rows of {asset}") as session:
        session.execute(f"create schema if not exists {LAKE}.{ident(asset.partition('.')[0])}")
        session.execute(f"create table {table(asset)} as {select}")


def put_view(lake: Lake, asset: str, select: str) -> None:
    """The same as a view: its columns may be null without a type."""
    with lake.session(f"making the rows of {asset}") as session:
        session.execute(f"create schema if not exists {LAKE}.{ident(asset.partition('.')[0])}")
        session.execute(f"create view {table(asset)} as {select}")
