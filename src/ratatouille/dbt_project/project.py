"""A dbt project as records: which models and tests a selection has, in which order, and what it reads from outside.

selection   what `dbt build --select ...` builds: models and seeds, and the tests that read them
test        runs with the selection that builds the last of what it reads: not before the table that it compares with

dbt itself runs in a process of its own (engine/process.py). Nothing here imports it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ratatouille.dbt_project import process
from ratatouille.dbt_project.copy import Asked, Copy, copied, hash_of, write_aside
from ratatouille.engine.native import RESERVED
from ratatouille.errors import RatError, RequestError, StepFailed
from ratatouille.lake.faults import plainly
from ratatouille.project.find import DBT_PROJECT, NAME
from ratatouille.project.records import Workspace

_REMEMBERED = 16  # selections of a project
BUILT = ("model", "seed")
TESTS = ("test", "unit_test")
STRATEGIES = (None, "", "append", "delete+insert", "merge")
MATERIALIZATIONS = ("table", "incremental", "view", "ephemeral", "seed")
_PARTIAL_UPDATES = (
    *("merge_update_columns", "merge_exclude_columns", "merge_clauses", "merge_update_condition"),
    *("merge_insert_condition", "merge_on_using_columns", "merge_update_set_expressions", "merge_returning_columns"),
    *("incremental_predicates", "predicates"),
)
# What may change without a change of the files and of the tables that are read. A stamp of the run (run_started_at)
# does not count: it says when rows were made, and that alone is no reason to make them again.
_UNSEEN = re.compile(
    r"\b(now|today|random|uuid|gen_random_uuid|get_current_timestamp|nextval|getenv|glob|read_\w+|\w+_scan)\s*\("
    r"|\b(current_timestamp|current_date|current_time|localtimestamp|localtime)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Model:
    """A model or seed of the selection, and the table that it becomes."""

    id: str
    name: str  # schema.table
    kind: str  # table | incremental | view | seed
    path: str  # in the project
    code_hash: str
    above: tuple[str, ...] = ()  # tables of the selection that it reads
    outside: tuple[str, ...] = ()  # tables of the lake that it reads
    compared: tuple[str, ...] = ()  # those that only its tests read
    unseen: bool = False  # reads what the lake cannot see: the clock, files
    description: str = ""
    columns: tuple[tuple[str, str], ...] = ()  # (name, description)


@dataclass(frozen=True, slots=True)
class Test:
    id: str
    name: str
    severity: str  # error | warn
    on: str  # the table that it is about
    path: str
    column: str = ""
    description: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """`models` are in the order in which they are built; `needs` says who reads each table from outside."""

    label: str
    models: tuple[Model, ...]
    tests: tuple[Test, ...]
    needs: Mapping[str, str]
    left_out: tuple[str, ...] = ()  # tests that run with a later selection, as dbt's `--exclude` names them

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models)

    def tests_on(self, name: str) -> tuple[Test, ...]:
        return tuple(test for test in self.tests if test.on == name)


@plainly("reading the dbt project")
def read_selection(workspace: Workspace, asked: Asked, *, recall: bool = False) -> tuple[Copy, Selection]:
    """The selection as the project's files are now. dbt runs only if nobody has asked this of these files before.

    Raises RequestError for what cannot be guarded, or is no dbt project; StepFailed with dbt's words for the rest.
    With `recall` an error of the same files is raised again without asking dbt.
    """
    copy = copied(workspace, asked)
    said = _kept(copy, asked)
    if "models" in said:
        return copy, _from_json(said)
    if said and recall:
        raise StepFailed(said["what"], where=said["where"], state=said["state"], next=said["next"])
    # What is asked of one project is asked of its next version: all of it at once, because dbt's start takes longest.
    others = [replace(asked, select=one, exclude=other) for one, other in _asked_before(copy, asked)]
    together = [asked, *(one for one in others if one != asked)]
    try:
        which = [(one.select, one.exclude) for one in together]
        listed = process.list_nodes(workspace, copy.project, copy.folder, which, asked.vars)
    except RatError as wrong:
        for one in together:
            write_aside(_place(copy, one), json.dumps(wrong.as_record()))
        raise
    made = [_selected_and_kept(copy, one, ids) for one, ids in zip(together, listed, strict=True)]
    write_aside(_memory(copy, asked), json.dumps(which[:_REMEMBERED]))
    if isinstance(made[0], RatError):
        raise made[0]
    return copy, made[0]


def _selected_and_kept(copy: Copy, asked: Asked, ids: Sequence[str]) -> Selection | RatError:
    try:
        found = selected(copy, asked, ids)
    except RatError as wrong:
        write_aside(_place(copy, asked), json.dumps(wrong.as_record()))
        return wrong
    write_aside(_place(copy, asked), json.dumps(asdict(found)))
    return found


def _place(copy: Copy, asked: Asked) -> Path:
    return copy.folder / f"selection-{hash_of(asked.select, asked.exclude)[:16]}.json"


def _kept(copy: Copy, asked: Asked) -> dict[str, Any]:
    """What is known of a selection of these files: the selection, or the four lines of an error. Nothing: {}."""
    try:
        said = json.loads(_place(copy, asked).read_text())
        if "models" in said:
            _from_json(said)
        return dict(said) if "models" in said or "what" in said else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _memory(copy: Copy, asked: Asked) -> Path:
    named = hash_of(str(asked.project), asked.vars, asked.schema)[:16]
    return copy.folder.parent / f"asked-{named}.json"


def _asked_before(copy: Copy, asked: Asked) -> list[tuple[str, str]]:
    try:
        return [(one, other) for one, other in json.loads(_memory(copy, asked).read_text())]
    except (OSError, ValueError, TypeError):
        return []


# From dbt's manifest


def selected(copy: Copy, asked: Asked, ids: Sequence[str]) -> Selection:
    """The nodes `ids` of the manifest as a selection."""
    manifest = copy.manifest
    nodes = {**manifest["nodes"], **manifest.get("unit_tests", {}), **manifest["sources"]}
    chosen = {one for one in ids if nodes[one]["resource_type"] not in TESTS}
    for one in ("on-run-start", "on-run-end"):
        hook = next(
            (n for n in manifest["nodes"].values() if n["resource_type"] == "operation" and one in n["tags"]), None
        )
        if hook is not None:
            raise _refused(
                f"{one}: {hook['raw_code']}", hook, "remove the hook; what it does belongs into a model or an asset"
            )
    for one in sorted(chosen):
        _refuse(nodes[one])
    below = _below(manifest, chosen)
    order = [one for one in _in_order(nodes, chosen) if not _is_ephemeral(nodes[one])]
    names = {one: _name(nodes[one]) for one in order}
    lower = [name.lower() for name in names.values()]
    twice = next((name for name in names.values() if lower.count(name.lower()) > 1), None)
    if twice:
        raise RequestError(
            f"two models build {twice}",
            where=str(asked.project),
            state="Nothing was built.",
            next="give one of them another alias",
        )
    wanted: list[str] = []
    left_out: list[str] = []
    for one in ids:
        if nodes[one]["resource_type"] in TESTS:
            (left_out if any(p in below for p in _parents(nodes, one)) else wanted).append(one)
    needs = {
        _name(nodes[above]): nodes[one]["original_file_path"]
        for one in (*order, *wanted)
        for above in _parents(nodes, one)
        if above not in chosen
    }
    for one in {above for built in (*order, *wanted) for above in _parents(nodes, built)}:
        if nodes[one]["resource_type"] == "source":
            _refuse_source(nodes[one])
    variables = [asked.vars, (yaml.safe_load((copy.project / DBT_PROJECT).read_text()) or {}).get("vars")]
    codes = _Codes(copy, nodes, variables)
    tests = _each_name_once([_test(nodes, one, names) for one in wanted])
    models = []
    for one in order:
        parents = _parents(nodes, one)
        mine = [test.id for test in tests if one in _parents(nodes, test.id)]
        models.append(
            Model(
                id=one,
                name=names[one],
                kind=nodes[one]["config"]["materialized"],
                path=nodes[one]["original_file_path"],
                code_hash=codes.of(one, mine),
                above=tuple(names[p] for p in parents if p in names),
                outside=tuple(_name(nodes[p]) for p in parents if p not in names),
                compared=tuple(
                    sorted({_name(nodes[p]) for test in mine for p in _parents(nodes, test) if p not in names})
                ),
                unseen=bool(_UNSEEN.search("\n".join([_code(nodes, one), *codes.macros_of(one)]))),
                description=nodes[one].get("description") or "",
                columns=tuple((c["name"], c.get("description") or "") for c in nodes[one].get("columns", {}).values()),
            )
        )
    excluded = tuple(f"fqn:{'.'.join(nodes[one]['fqn'])}" for one in left_out)
    if not models:
        raise RequestError(
            f"the selection {asked.label!r} has no models",
            where=str(asked.project),
            state="Nothing was built.",
            next=f"dbt ls --select {asked.label}",
        )
    return Selection(asked.label, tuple(models), tests, needs, excluded)


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['schema']}.{node.get('alias') or node.get('identifier') or node['name']}"


def _is_ephemeral(node: Mapping[str, Any]) -> bool:
    return bool(node["config"].get("materialized") == "ephemeral")


def _parents(nodes: Mapping[str, Any], one: str) -> list[str]:
    """What a node reads, through ephemeral models, which are a part of whoever reads them."""
    found: dict[str, None] = {}
    for above in nodes[one].get("depends_on", {}).get("nodes", ()):
        if above not in nodes:
            continue  # a function, a metric
        if _is_ephemeral(nodes[above]):
            found |= dict.fromkeys(_parents(nodes, above))
        else:
            found[above] = None
    return list(found)


def _in_order(nodes: Mapping[str, Any], chosen: set[str]) -> list[str]:
    done: dict[str, None] = {}

    def visit(one: str) -> None:
        for above in nodes[one].get("depends_on", {}).get("nodes", ()):
            if above in chosen and above not in done:
                visit(above)
        done[one] = None

    for one in sorted(chosen):
        if one not in done:
            visit(one)
    return list(done)


def _below(manifest: Mapping[str, Any], chosen: set[str]) -> set[str]:
    """The models outside of the selection that read it."""
    children, found, waiting = manifest["child_map"], set[str](), list(chosen)
    while waiting:
        for one in children.get(waiting.pop(), ()):
            if one.startswith("model.") and one not in found:
                found.add(one)
                waiting.append(one)
    return found - chosen


def _test(nodes: Mapping[str, Any], one: str, names: Mapping[str, str]) -> Test:
    node = nodes[one]
    parents = [p for p in _parents(nodes, one) if p in names]
    on = node.get("attached_node")
    last = max(parents, key=list(names).index) if parents else next(iter(names))
    severity = str(node["config"].get("severity") or "error").lower()
    return Test(
        id=one,
        name=node["name"] if node["resource_type"] == "test" else f"{node['model']}_{node['name']}",
        severity=severity if severity in ("error", "warn") else "error",
        on=names[on if on in names else last],
        path=node["original_file_path"],
        column=node.get("column_name") or "",
        description=node.get("description") or "",
        kind=(node.get("test_metadata") or {}).get("name") or node["resource_type"],
    )


def _each_name_once(tests: Sequence[Test]) -> tuple[Test, ...]:
    taken: dict[str, int] = {}
    found = []
    for test in tests:
        taken[test.name] = number = taken.get(test.name, 0) + 1
        found.append(test if number == 1 else replace(test, name=f"{test.name}_{number}"))
    return tuple(found)


def _code(nodes: Mapping[str, Any], one: str) -> str:
    """A node's code with that of the ephemeral models in it."""
    more = [a for a in nodes[one].get("depends_on", {}).get("nodes", ()) if a in nodes and _is_ephemeral(nodes[a])]
    return "\n".join([nodes[one].get("raw_code") or "", *(_code(nodes, above) for above in more)])


class _Codes:
    """Hashes of everything that makes a model what it is: code, config, macros, variables, tests."""

    def __init__(self, copy: Copy, nodes: Mapping[str, Any], variables: Sequence[Any]) -> None:
        self.copy, self.nodes, self.variables = copy, nodes, variables
        self.macros = copy.manifest["macros"]

    def of(self, one: str, tests: Sequence[str]) -> str:
        node = self.nodes[one]
        raw = self.copy.files.get(node["original_file_path"], "") if node["resource_type"] == "seed" else ""
        said = [self._said(one), raw, self.variables]
        return hash_of(*said, *sorted(self._said(test) for test in tests))[:32]

    def _said(self, one: str) -> str:
        node = self.nodes[one]
        config = {name: value for name, value in node["config"].items() if name not in ("meta", "tags", "docs")}
        fixed = [node.get(name) for name in ("raw_code", "schema", "alias", "given", "expect", "overrides")]
        ephemeral = [
            a for a in node.get("depends_on", {}).get("nodes", ()) if a in self.nodes and _is_ephemeral(self.nodes[a])
        ]
        inside = [self._said(above) for above in ephemeral]
        return hash_of(fixed, config, (node.get("test_metadata") or {}).get("kwargs"), self.macros_of(one), inside)

    def macros_of(self, one: str) -> list[str]:
        """The code of every macro that a node calls, and of those that these call."""
        found: dict[str, str] = {}
        waiting = list(self.nodes[one].get("depends_on", {}).get("macros", ()))
        while waiting:
            name = waiting.pop()
            macro = self.macros.get(name)
            if macro is None or name in found or macro["package_name"] in ("dbt", "dbt_duckdb"):
                continue  # those of dbt itself are known by its version
            found[name] = macro["macro_sql"]
            waiting += macro["depends_on"]["macros"]
        return [f"{name} {found[name]}" for name in sorted(found)]


# What cannot be guarded


def _refuse(node: Mapping[str, Any]) -> None:
    """RequestError for a node that could change something before its tests have passed, or not be undone."""
    config = node["config"]
    name = node["name"]
    if node["resource_type"] not in BUILT:
        raise _refused(f"the {node['resource_type']} {name}", node, "a merge asset keeps history in one commit")
    if node.get("language", "sql") != "sql":
        raise _refused(f"the Python model {name}", node, "write it as SQL, or as a file asset with a `build`")
    if config["materialized"] not in MATERIALIZATIONS:
        raise _refused(f"materialized={config['materialized']!r}", node, f"use one of {', '.join(MATERIALIZATIONS)}")
    if (config.get("database") or "") not in ("", "memory"):
        raise _refused(f"database={config['database']!r}", node, "leave `database` out: everything is in the lake")
    for hook in ("pre-hook", "post-hook", "sql_header"):
        if config.get(hook):
            raise _refused(f"a {hook}", node, "put it into the model, or into an asset of its own")
    if config["materialized"] == "incremental" and config.get("incremental_strategy") not in STRATEGIES:
        raise _refused(
            f"incremental_strategy={config['incremental_strategy']!r}", node, "use append, delete+insert or merge"
        )
    for option in _PARTIAL_UPDATES:
        if config.get(option):
            raise _refused(f"the option {option}", node, "leave it out: whole rows are replaced by their unique_key")
    constraints = [
        *node.get("constraints", ()),
        *(c for col in node.get("columns", {}).values() for c in col.get("constraints", ())),
    ]
    if constraints and node.get("contract", {}).get("enforced"):
        raise _refused("a constraint", node, "write it as a test: a test of severity error keeps the rows out")
    if config["materialized"] == "ephemeral":
        return
    schema, short = node["schema"], node.get("alias") or name
    if not NAME.fullmatch(schema) or not NAME.fullmatch(short):
        raise _refused(f"the name {_name(node)!r}", node, "use letters, digits and _")
    if schema.lower() in RESERVED:
        raise _refused(f"the schema {schema!r}", node, f"choose another one than {', '.join(RESERVED)}")


def _refuse_source(node: Mapping[str, Any]) -> None:
    said = {**node.get("meta", {}), **node.get("config", {}).get("meta", {}), **node.get("source_meta", {})}
    for option in ("external_location", "plugin"):
        if said.get(option) or node.get("config", {}).get(option):
            raise _refused(
                f"{option} of the source {node['source_name']}", node, "read the files with an asset of its own"
            )
    if (node.get("database") or "memory") != "memory":
        raise _refused(f"database={node['database']!r}", node, "leave `database` out: everything is in the lake")


def _refused(construct: str, node: Mapping[str, Any], cure: str) -> RequestError:
    return RequestError(
        f"{construct} cannot be guarded",
        where=node["original_file_path"],
        state="Nothing was built.",
        next=f"{cure}, then run it again",
    )


# Plain values


def _from_json(said: Mapping[str, Any]) -> Selection:
    models = tuple(
        Model(
            **{
                **one,
                "above": tuple(one["above"]),
                "outside": tuple(one["outside"]),
                "compared": tuple(one["compared"]),
                "columns": tuple((name, about) for name, about in one["columns"]),
            }
        )
        for one in said["models"]
    )
    tests = tuple(Test(**one) for one in said["tests"])
    return Selection(said["label"], models, tests, said["needs"], tuple(said["left_out"]))
