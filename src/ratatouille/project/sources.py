"""Landing files: from what `source('...')` and `sources:` say to a Source record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from ratatouille.errors import near_miss
from ratatouille.project.records import Database, Source

_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
_PACKED = (".gz", ".zst")
_BESIDE_WORDS = re.compile(r"[^a-z0-9]+")


def is_files(text: str) -> bool:
    """Whether `text` says files (`landing/x/*.csv`) and not the name of a declared source (`sales`)."""
    return any(character in text for character in "/.*?[\\")


def find_source(text: str, declared: Mapping[str, Source], databases: Mapping[str, Database] | None = None) -> Source:
    """The source that `source(text)` means. ValueError with a sentence when there is none."""
    if text in declared:
        return declared[text]
    database, *table = text.split(".")
    if databases and database in databases and "/" not in text:
        kind = databases[database].type
        most = 2 if kind == "postgres" else 1
        if not 1 <= len(table) <= most or not all(table):
            spelled = f"{database}.schema.table or {database}.table" if most == 2 else f"{database}.table"
            raise ValueError(f"a table of the {kind} database {database} is written {spelled}")
        return Source("", "table", name=text, table=(database, *(["public"] if len(table) < most else []), *table))
    if is_files(text) and (_format_of(text) or any(sign in text for sign in "/*?[\\")):
        return make_source(text, {})
    hint = (
        near_miss(text, declared)
        or near_miss(text.partition(".")[0], databases or ())
        or " Declare it under `sources:`, or give the files: landing/x/*.csv"
    )
    raise ValueError(f"there is no source called '{text}'.{hint}")


def make_source(name: str, options: Mapping[str, Any]) -> Source:
    """A source from its key and its options. ValueError with a sentence when the glob cannot be used."""
    glob = options.get("files") or name
    if not is_files(glob):
        raise ValueError(f"the source '{name}' needs files: landing/x/*.csv")
    _refuse_outside(glob)
    format = options.get("format") or _format_of(glob)
    if not format:
        raise ValueError(f"'{glob}' does not end in a known format; say format: csv, json or parquet under `sources:`")
    tab = ".tsv" in PurePosixPath(glob).suffixes
    source = Source(glob, format, delimiter="\t" if tab else ",", name=name)
    given = {key: value for key, value in options.items() if value is not None and key not in ("files", "format")}
    if "columns" in given:
        given["columns"] = tuple(given["columns"].items())
    for key in ("nulls", "optional"):
        if key in given:
            given[key] = tuple(given[key])
    if "aliases" in given:
        given["aliases"] = tuple((name, tuple(also)) for name, also in given["aliases"].items())
    source = replace(source, **given)
    declared = [name for name, _ in source.columns]
    for key, names in (("optional", source.optional), ("aliases", [name for name, _ in source.aliases])):
        unknown = next((name for name in names if name not in declared), None)
        if unknown is not None:
            raise ValueError(f"`{key}` names {unknown}, which is not under `columns:`.{near_miss(unknown, declared)}")
    said = [(spelling(source, also), name) for name, more in source.aliases for also in (name, *more)]
    meant = dict(said)
    twice = next((also for also, name in said if meant[also] != name), None)
    if twice is not None:
        raise ValueError(f"`aliases` says twice what {twice} means")
    return source


def spelling(source: Source, name: str) -> str:
    """A column's name as it is compared: without case, and where there are aliases, without blanks and punctuation."""
    return _BESIDE_WORDS.sub("_", name.lower()).strip("_") if source.aliases else name.lower()


def names_in_files(source: Source) -> dict[str, str]:
    """Each spelling that a file may have for a declared column -> that column."""
    own = {spelling(source, name): name for name, _ in source.columns}
    return {spelling(source, also): name for name, more in source.aliases for also in more} | own


def _refuse_outside(glob: str) -> None:
    inside = "landing files are named like landing/sales/*.csv, relative to the workspace, or s3://bucket/folder/*.csv"
    if glob.startswith("s3://"):
        if not glob.removeprefix("s3://").partition("/")[2]:
            raise ValueError(f"'{glob}' names no files: s3://bucket/folder/*.csv")
        return
    if "://" in glob or glob.startswith(("/", "~")) or "\\" in glob or glob[1:2] == ":":
        raise ValueError(f"'{glob}' is not a path inside the workspace: {inside}")
    if ".." in PurePosixPath(glob).parts:
        raise ValueError(f"'{glob}' leaves the workspace: {inside}")


def _format_of(glob: str) -> str:
    suffixes = [suffix.lower() for suffix in PurePosixPath(glob).suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1], "") if suffixes else ""
