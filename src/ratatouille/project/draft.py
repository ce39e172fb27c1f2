"""A draft: what one asset's own files say, before the other assets are known.

Nothing here looks at another asset, so a draft is as good as the bytes it was made from: the project cache keeps
it by their hash.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ratatouille.project.find import Found
from ratatouille.project.modes import MODES
from ratatouille.project.records import Asset, Check, Problem, Source
from ratatouille.project.sources import find_source
from ratatouille.project.text_file import Mention, Place, TextFile, decode
from ratatouille.project.thresholds import value_of

if TYPE_CHECKING:
    from ratatouille.project.sidecar import Sidecar
    from ratatouille.project.sql import Query, SqlMistake
    from ratatouille.project.templates import RenderedText, Values

_REF = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True)
class Draft:
    """`asset.depends_on` holds what was asked for, not what exists. `key` names the bytes and values it comes from."""

    asset: Asset
    mentions: tuple[Mention, ...] = ()
    problems: tuple[Problem, ...] = ()
    key: str = ""
    # The parsed queries and custom gates, for following columns; not cached.
    readings: list[Reading] = field(default_factory=list)
    gates: list[Reading] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reading:
    """One rendering of a template (incremental or not), parsed, with its way back to the file."""

    query: Query
    rendered: RenderedText
    file: TextFile
    gate: str = ""  # the name of the custom gate that it is the SQL of
    fixed: Place | None = None  # where that gate stands: inside YAML the template's lines are not the file's

    def problem(self, mistake: SqlMistake) -> Problem:
        """A mistake in the rendered SQL as a problem of the file."""
        place = self.place(mistake.start, mistake.length)
        about = f"the check '{self.gate}': " if self.gate else ""
        return place.problem(f"{about}{mistake}", hint=mistake.hint)

    def place(self, start: int, length: int) -> Place:
        """The place in the template of a span of the rendered SQL."""
        return self.fixed or span_in_template(self.file, self.rendered, start, length)


def draft_asset(found: Found, files: Mapping[str, bytes], values: Values, modules_hash: str) -> Draft:
    """Reads one asset: its sidecar, then its code. `files` maps paths to bytes."""
    from ratatouille.project.sidecar import Sidecar, read_sidecar

    sidecar = Sidecar()
    if found.sidecar:
        text = decode(found.sidecar, files[found.sidecar])
        if isinstance(text, Problem):
            sidecar.problems.append(text)
        else:
            sidecar = read_sidecar(text, found.kind, values.variables)
    asset = Asset(found.name, found.layer, found.table, found.kind, found.path, found.sidecar, found.pipeline)
    asset = replace(asset, file_hash=hashlib.sha256(files[found.path]).hexdigest(), **sidecar.fields)
    asset = replace(asset, group=asset.group or found.pipeline)
    maker = _Maker(asset, sidecar, replace(values, sources={**values.sources, **sidecar.sources}))
    maker.read_code(files[found.path], modules_hash)
    maker.read_gates()
    return maker.draft()


class _Maker:
    """Collects what the files of one asset say."""

    def __init__(self, asset: Asset, sidecar: Sidecar, values: Values) -> None:
        self.asset = asset
        self.sidecar = sidecar
        self.values = values
        self.depends_on = list(sidecar.depends_on)
        self.sources: dict[str, Source] = {}
        self.tables: dict[str, None] = {}
        self.mentions = list(sidecar.mentions)
        self.problems = list(sidecar.problems)
        self.readings: list[Reading] = []
        self.gates: list[Reading] = []
        self.canonical: list[str] = []
        self.volatile: set[str] = set()
        self.incremental = False
        self.outputs: tuple[str, ...] = ()

    def read_code(self, raw: bytes, modules_hash: str) -> None:
        if self.asset.kind == "seed":
            self.canonical = [hashlib.sha256(raw).hexdigest()]
            self.outputs = _csv_header(raw) if self.asset.path.lower().endswith(".csv") else ()
            return
        file = decode(self.asset.path, raw)
        if isinstance(file, Problem):
            self.problems.append(file)
        elif self.asset.kind == "python":
            self._read_python(file)
            self.canonical.append(modules_hash)
        else:
            self._read_sql(file)

    def _read_sql(self, file: TextFile) -> None:
        recorder = Recorder()
        self._read_rendering(file, recorder)
        if recorder.asked_incremental:
            recorder.incremental = True
            self._read_rendering(file, recorder)
        self.depends_on += recorder.refs
        self.sources = recorder.sources
        self.tables = recorder.tables
        self.incremental = recorder.asked_incremental
        for name in dict.fromkeys(recorder.refs):
            function = "changes" if name in recorder.changed else "ref"
            self.mentions.append(Mention(function, name, _call_place(file, function, name)))
        if self.sources:
            self._refuse_landing(_call_place(file, "source", next(iter(self.sources))))
        self._look_at_tables(file)
        self._refuse_incremental(file)

    def _read_rendering(self, file: TextFile, recorder: Recorder) -> None:
        from ratatouille.project import sql, templates

        recorder.asked.clear()
        try:
            rendered = templates.render_text(file, recorder, self.values)
        except templates.Refused as refused:
            self._add(refused.problem)
            return
        try:
            query = sql.parse_query(rendered.text)
        except sql.SqlMistake as wrong:
            place = span_in_template(file, rendered, wrong.start, wrong.length)
            self._add(place.problem(str(wrong), hint=wrong.hint))
            return
        reading = Reading(query, rendered, file)
        words = sql.canonical(query)
        if words not in self.canonical:
            self.canonical.append(words)
            self.readings.append(reading)
        self.volatile.update(sql.volatile_calls(query))
        for mistake in sql.reads_files(query):
            self._add(reading.problem(mistake))
        for function, name in recorder.asked - sql.placeholders(query):
            message = f"{{{{ {function}('{name}') }}}} stands in a comment or a text, and would be read all the same"
            self._add(_call_place(file, function, name).problem(message, hint="comment templates out with {# ... #}"))

    def _read_python(self, file: TextFile) -> None:
        from ratatouille.project import python_code

        code = python_code.read_python(file)
        if isinstance(code, Problem):
            self.problems.append(code)
            return
        self.canonical = [code.canonical]
        self.mentions += code.mentions
        self.depends_on += [mention.name for mention in code.mentions]
        self.volatile.update(code.volatile)
        self.incremental = code.incremental
        for text, place in code.sources:
            try:
                source = find_source(text, self.values.sources, self.values.databases)
                if source.table:
                    self.tables[source.name] = None
                else:
                    self.sources[source.name] = source
            except ValueError as error:
                self._add(place.problem(str(error)))
        if code.hidden and not self.sidecar.declares_inputs:
            hint = "write the name as text, or declare `depends_on: [...]` in the sidecar"
            self._add(code.hidden[0].problem("what is read here is known only when the code runs", hint=hint))
        for kind, name in code.values:
            value = _variable(name, self.values) if kind == "var" else self.values.environment.get(name)
            self.canonical.append(json.dumps([kind, name, value], default=str))
        if self.sources:
            self._refuse_landing(code.sources[0][1])
        self._look_at_tables(file)
        if self.asset.deletions != "keep":
            self._refuse_incremental(file)
        if self.asset.materialize == "view":
            self._add(self._sidecar_place("materialize").problem("a Python asset cannot be a view"))

    def _refuse_landing(self, place: Place) -> None:
        name = self.asset.materialize
        if self.asset.deletions == "remove":
            message = "with deletions: remove the query gives all rows, and a landing file is read once"
            self._add(place.problem(message, hint="land them with materialize: append, and read that"))
        if not MODES[name].reads_landing:
            hint = "use materialize: append" if name == "view" else "land them with materialize: append, and read that"
            self._add(place.problem(f"a {name} cannot read landing files", hint=hint))

    def _look_at_tables(self, file: TextFile) -> None:
        """Tables of databases: a view cannot keep them, and an append that takes all of them adds them each time."""
        for name in self.tables:
            place = _call_place(file, "source", name)
            if not MODES[self.asset.materialize].stores_rows:
                message = "a view cannot read a table of a database: whoever reads the view does not know it"
                self._add(place.problem(message, hint="use materialize: table"))
            if self.asset.materialize == "append" and not self.incremental:
                message = f"every run appends all rows of {name}"
                hint = "filter by {{ watermark(...) }} if is_incremental(), or use merge"
                self._add(place.problem(message, hint=hint, severity="warn"))

    def _refuse_incremental(self, file: TextFile) -> None:
        """Questions for what is new, where all rows are asked for."""
        name = self.asset.materialize
        if not self.incremental:
            return
        place = file.find(re.compile(r"\b(is_incremental|watermark|changes)\b"))
        if not MODES[name].grows:
            hint = "use materialize: append or merge, or remove it"
            message = f"a {name} is always built whole, so this never applies"
            self._add(place.problem(message, hint=hint, severity="warn"))
        if self.asset.deletions != "keep":
            said = self.asset.deletions
            message = f"with deletions: {said} the query gives all rows, or what is only old would look deleted"
            self._add(place.problem(message, hint="remove it, or use deletions: keep"))

    def read_gates(self) -> None:
        """Custom gates are templates too; what they read is built first."""
        from ratatouille.project import sql, templates

        for name, text, place in self.sidecar.gate_queries:
            recorder = Recorder()
            try:
                rendered = templates.render_text(TextFile(place.path, text), recorder, self.values)
                query = sql.parse_query(rendered.text)
            except templates.Refused as refused:
                self._add(place.problem(f"the check '{name}': {refused.problem.message}", hint=refused.problem.hint))
                continue
            except sql.SqlMistake as wrong:
                self._add(place.problem(f"the check '{name}': {wrong}", hint=wrong.hint))
                continue
            gate = Reading(query, rendered, TextFile(place.path, text), name, place)
            self.gates.append(gate)
            if "{" in _NAMES_OF_TABLES.sub("", text):
                # It says more than its text: what a variable or a macro says now decides about the rows, too.
                self.canonical.append(json.dumps(["gate", name, sql.canonical(query)]))
            for mistake in sql.reads_files(query):
                self._add(gate.problem(mistake))
            if recorder.changed:
                self._add(place.problem(f"the check '{name}' cannot ask for changes", hint="use ref"))
            self.mentions += [Mention("ref", ref, place) for ref in recorder.refs]
            self.depends_on += recorder.refs
            if recorder.sources or recorder.tables:
                self._add(place.problem(f"the check '{name}' cannot read landing files"))

    def draft(self) -> Draft:
        asset = self.asset
        related = [mention.name.rpartition(".")[0] for mention in self.mentions if mention.kind == "relationship"]
        depends_on = tuple(dict.fromkeys(n for n in (*self.depends_on, *related) if n != asset.name))
        if not depends_on and any(trigger.get("upstream") for trigger in asset.triggers):
            message = "this asset reads no other, so `upstream: true` never starts it"
            hint = "use a schedule or files"
            self._add(self._sidecar_place("triggers").problem(message, hint=hint, severity="warn"))
        asset = replace(
            asset,
            depends_on=depends_on,
            sources=tuple(self.sources.values()),
            tables=tuple(self.tables),
            volatile=tuple(sorted(self.volatile)),
            incremental=self.incremental,
            outputs=self.outputs,
        )
        asset = replace(asset, code_hash=_code_hash(asset, self.canonical), text_hash=_text_hash(asset))
        problems = tuple(replace(problem, asset=asset.name) for problem in self.problems)
        return Draft(asset, tuple(self.mentions), problems, readings=self.readings, gates=self.gates)

    def _add(self, problem: Problem) -> None:
        if problem not in self.problems:  # both renderings may say the same
            self.problems.append(problem)

    def _sidecar_place(self, key: str) -> Place:
        return self.sidecar.places.get(key, Place(self.asset.sidecar or self.asset.path))


_NAMES_OF_TABLES = re.compile(r"\{\{\s*(this|ref\([^()]*\))\s*\}\}")


def _variable(name: str, values: Values) -> Any:
    """What `context.var` gives without a default."""
    try:
        return value_of(name, values.variables)
    except ValueError:
        return None


class Recorder:
    """Bindings of an analysis: they remember what was asked for and answer with names that cannot be tables."""

    def __init__(self) -> None:
        self.refs: list[str] = []
        self.changed: set[str] = set()  # those whose changes were asked for
        self.sources: dict[str, Source] = {}
        self.tables: dict[str, None] = {}  # of databases
        self.asked: set[tuple[str, str]] = set()  # (function, name) in the rendering that is going on
        self.asked_incremental = False
        self.incremental = False

    def ref(self, name: str) -> str:
        self.refs.append(name)
        if not _REF.fullmatch(name):
            return '"ref:"."?"."?"'
        self.asked.add(("ref", name))
        layer, _, table = name.partition(".")
        return f'"ref:"."{layer}"."{table}"'

    def changes(self, name: str) -> str:
        self.asked_incremental = True
        self.changed.add(name)
        named = self.ref(name)
        self.asked = {("changes", name) if one == ("ref", name) else one for one in self.asked}
        return named.replace('"ref:"', '"changes:"', 1)

    def source(self, source: Source) -> str:
        if source.table:
            self.tables[source.name] = None
        else:
            self.sources[source.name] = source
        self.asked.add(("source", source.name))
        name = source.name.replace('"', '""')
        return f'"source:"."{name}"'

    def this(self) -> str:
        return '"this:"."this"'

    def is_incremental(self) -> bool:
        self.asked_incremental = True
        return self.incremental

    def watermark(self, column: str) -> str:
        self.asked_incremental = True
        text = column.replace("'", "''")
        return f"\"watermark:\"('{text}')"


def span_in_template(file: TextFile, rendered: RenderedText, start: int, length: int) -> Place:
    """Rendering keeps the lines but not the columns: the span's text is looked for in the template's line."""
    line = rendered.line_at(start)
    word = rendered.text[start : start + length].split("\n")[0]
    text = file.lines[line - 1] if 0 < line <= len(file.lines) else ""
    exact = start - (rendered.text.rfind("\n", 0, start) + 1)
    column = exact if text[exact : exact + len(word)] == word else text.find(word)
    if column < 0:
        bare = text.strip()
        return file.at(line, text.find(bare) + 1, max(1, len(bare)))
    return file.at(line, column + 1, max(1, len(word)))


def _call_place(file: TextFile, function: str, name: str) -> Place:
    return file.find(re.compile(rf"\b{function}\(\s*['\"](?P<name>{re.escape(name)})['\"]"))


def _csv_header(raw: bytes) -> tuple[str, ...]:
    """The columns of a CSV with commas; nothing when its first line is not plainly a header."""
    line = raw[:65_536].split(b"\n")[0].decode("utf-8-sig", "replace").strip()
    names = next(csv.reader(io.StringIO(line)), [])
    plain = all(re.fullmatch(r"[A-Za-z_][\w ]*", name) for name in names)
    return tuple(names) if plain and len({n.lower() for n in names}) == len(names) else ()


def _code_hash(asset: Asset, canonical: list[str]) -> str:
    return digest(
        {
            "code": canonical,
            "kind": asset.kind,
            "format": asset.path.rpartition(".")[2].lower() if asset.kind == "seed" else "",
            "materialize": asset.materialize,
            "unique_key": asset.unique_key,
            "deduplicate": asset.deduplicate,
            **_said({"updated_at": asset.updated_at, "deletions": asset.deletions.removeprefix("keep")}),
            **_said({"partition_by": asset.partition_by, "sort_by": asset.sort_by}),
            "columns": [(column.name, column.type) for column in asset.columns],
            "checks": [_check_facts(check) for check in asset.checks],
            "on_fail": [asset.on_fail, asset.max_quarantine],
            "depends_on": sorted(asset.depends_on),
            "sources": [_source_facts(source) for source in asset.sources],
        }
    )


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those that say something: a key that is new to this release must not rebuild tables that do not use it."""
    return {name: value for name, value in facts.items() if value}


def _check_facts(check: Check) -> list[Any]:
    limits = [check.warn_if, check.error_if] if check.warn_if or check.error_if else []
    return [check.kind, check.columns, dict(check.arguments), check.severity, check.name, *limits]


def _text_hash(asset: Asset) -> str:
    return digest([asset.description, [(column.name, column.description) for column in asset.columns]])


def _source_facts(source: Source) -> list[Any]:
    said = [getattr(source, name) for name in Source.__slots__ if name not in ("name", "table", "aliases")]
    return [*said, source.aliases] if source.aliases else said  # as in _said


def digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
