"""The data dictionary as a static site: a page for each table and one for all, and a search that needs no server.

Every link is relative, so the folder works from a disk, on any web server, or in an archive. Its one script searches;
without it everything is still there. Nothing is loaded from elsewhere, and no row of a table is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from ratatouille.errors import RequestError
from ratatouille.lake.faults import plainly
from ratatouille.pages import html, words
from ratatouille.pages.dictionary import Dictionary, Table, dictionary, in_short, promises
from ratatouille.pages.graph import Node, around, graph, joined
from ratatouille.project.records import Project

# The list of what we wrote: the next writing removes what it no longer makes, and nothing else.
MANIFEST = ".rat-docs.json"
MOST_IN_A_PICTURE = 120  # tables; beyond that a picture tells nobody anything
_PLAIN = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,80}")
_ASSETS = ("style.css", "charts.css", "icon.svg", "site.js")


@dataclass(frozen=True, slots=True)
class Written:
    folder: Path
    pages: int
    removed: int  # files of an earlier writing


def write_site(project: Project, folder: Path) -> tuple[Dictionary, Written]:
    """Write the site of a workspace into `folder`; RequestError when other people's files are in it."""
    found = dictionary(project)
    before = _ours(folder)
    files = dict(site_files(found))
    with plainly("writing the site"):
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _put(path, content)
        gone = before - set(files)
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        _put(folder / MANIFEST, json.dumps(sorted(files), indent=0))
    return found, Written(folder, sum(1 for name in files if name.endswith(".html")), len(gone))


def _ours(folder: Path) -> set[str]:
    """The files that an earlier writing left in `folder`."""
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise RequestError(f"{folder} is a file", where=str(folder), next="Name a folder: rat docs -o FOLDER")
    if not any(folder.iterdir()):
        return set()
    try:
        names = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RequestError(
            f"{folder} has files in it that are not of rat docs",
            where=str(folder),
            next="Name an empty folder, or one of an earlier rat docs: rat docs -o FOLDER",
        ) from None
    safe = (name for name in names if isinstance(name, str) and ".." not in Path(name).parts)
    return {name for name in safe if not Path(name).is_absolute()}


def _put(path: Path, content: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_text(content, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def site_files(found: Dictionary) -> Iterator[tuple[str, str]]:
    """(path, text) of every file of the site."""
    names = file_names([table.name for table in found.tables])
    reads = {table.name: [one for one in table.reads if one in names] for table in found.tables}
    shared: dict[str, Any] = {"site": found, "short": in_short(found)}
    yield "index.html", _page("index", names, "", shared, picture=_whole_picture(found, names, reads))
    yield "check.html", _page("check", names, "", shared)
    for table in found.tables:
        facts = shared | {"table": table, "promises": promises(table.asset) if table.asset else []}
        picture = _picture_around(found, table, names, reads)
        yield f"tables/{names[table.name]}", _page("table", names, "../", facts, picture=picture)
    for name in _ASSETS:
        yield f"static/{name}", (html.STATIC / name).read_text(encoding="utf-8")
    yield "static/index.js", _search_index(found, names)


def file_names(tables: Sequence[str]) -> Mapping[str, str]:
    """A file name for each table: its own where that is safe on every disk, else one with a hash."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(tables, key=lambda one: (one != one.lower(), one)):
        plain = name if _PLAIN.fullmatch(name) and not name.endswith(".") else ""
        if not plain or plain in taken:
            letters = re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-.")[:60]
            plain = f"{letters or 'table'}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"
        taken.add(plain)
        found[name] = f"{plain}.html"
    return found


def _page(kind: str, names: Mapping[str, str], up: str, facts: Mapping[str, Any], picture: Markup | str = "") -> str:
    def href(name: str, column: str = "") -> str:
        anchor = f"#{column_id(column)}" if column else ""
        return f"{up}tables/{quote(names[name])}{anchor}" if name in names else ""

    return html.page(f"site/{kind}.html", up=up, href=href, column_id=column_id, picture=picture, **facts)


def column_id(column: str) -> str:
    """An anchor: what is no letter of a plain name becomes a hash."""
    plain = column.lower()
    return f"c-{plain}" if re.fullmatch(r"[a-z0-9_]{1,60}", plain) else f"x-{hashlib.sha256(plain.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"  # fmt: skip


def _whole_picture(found: Dictionary, names: Mapping[str, str], reads: Mapping[str, Sequence[str]]) -> Markup:
    edges = _edges(reads)
    nodes = joined([_node(table, names, "tables/") for table in found.tables], edges)
    return graph(nodes, edges, title="Lineage of all tables") if len(nodes) <= MOST_IN_A_PICTURE else Markup("")


def _picture_around(found: Dictionary, table: Table, names: Mapping[str, str], reads: Mapping[str, Sequence[str]]) -> Markup:  # fmt: skip
    """What is near it: two steps away, or one where two are too many."""
    near = next((some for steps in (2, 1) if len(some := around(table.name, reads, steps)) <= 40), set())
    if len(near) < 2:
        return Markup("")
    nodes = [_node(one, names, "", focus=table.name) for one in found.tables if one.name in near]
    return graph(nodes, _edges(reads), title=f"Lineage around {table.name}")


def _edges(reads: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    return [(above, name) for name, some in reads.items() for above in some]


def _node(table: Table, names: Mapping[str, str], folder: str, focus: str = "") -> Node:
    kind = "focus" if table.name == focus else ""
    below = f"{table.kind}, {len(table.columns)} columns" if table.columns else table.kind
    return Node(table.name, words.cell(table.name), below, kind, f"{folder}{quote(names[table.name])}")


def _search_index(found: Dictionary, names: Mapping[str, str]) -> str:
    """A script that names one constant, because a page from a disk may load scripts and no data."""
    tables = [
        {
            "name": words.cell(table.name),
            "page": f"tables/{quote(names[table.name])}",
            "text": words.cell(table.description),
            "words": [*(table.asset.owners if table.asset else ()), *(table.asset.tags if table.asset else ())],
            "columns": [[words.cell(c.name), words.cell(c.description), column_id(c.name)] for c in table.columns],
        }
        for table in found.tables
    ]
    text = json.dumps(tables, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return f"window.RAT_TABLES = {text};\n"
