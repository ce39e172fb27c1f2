"""What `lake:` in workspace.yaml may say: a file or postgres:// for the catalog, a folder or s3:// for the data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ratatouille.errors import RequestError
from ratatouille.project.find import WORKSPACE_FILE

_SCHEME = re.compile(r"^([a-z][a-z0-9+]*)://", re.IGNORECASE)
# The variable of a password stays a name: its value reaches nobody but the server.
_SECRET = re.compile(r"(?<=:)\$\{[A-Za-z_][A-Za-z0-9_]*\}(?=@)")
_OPEN = re.compile(r"://[^/@]*:(?!\$\{)[^/@]+@")
_HERE = "\x00"


def address(said: Mapping[str, str], where: str, expand: Callable[[str], str]) -> dict[str, str]:
    """catalog and data with their variables replaced, but for the password's. RequestError for what cannot be."""
    secret = _SECRET.search(said["catalog"])
    catalog = expand(_SECRET.sub(_HERE, said["catalog"])).replace(_HERE, secret.group() if secret else "")
    data = expand(said["data"])
    place = f"{WORKSPACE_FILE}: {where}"
    if _OPEN.search(catalog):
        raise RequestError(
            "a password does not belong into the address of a catalog",
            where=place,
            next="name the variable that holds it, like postgres://rat:${LAKE_PASSWORD}@host/database",
        )
    kind, of_data = _kind(catalog), _kind(data)
    if kind not in ("", "postgres", "postgresql"):
        raise RequestError(
            f"{kind}:// is no catalog", where=place, next="catalog: is a file, or postgres://user@host/database"
        )
    if of_data not in ("", "s3"):
        raise RequestError(
            f"{of_data}:// cannot hold data", where=place, next="data: is a folder, or s3://bucket/folder"
        )
    if of_data and not kind:
        # Two workspaces with the same line would each take the other's files for orphans.
        raise RequestError(
            "data in a bucket needs a catalog on PostgreSQL: a bucket is seen by everybody, a file by one machine",
            where=place,
            next="set lake: {catalog: postgres://..., data: s3://...}, or keep both on this machine",
        )
    return {"catalog": catalog, "data": data.rstrip("/") if of_data else data}


def _kind(said: str) -> str:
    found = _SCHEME.match(said)
    return found.group(1).lower() if found else ""
