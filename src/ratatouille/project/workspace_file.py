"""`workspace.yaml`: read once, expanded at every load.

`${NAME}` and `${NAME:-default}` are replaced from the environment in lake, resources, vars and the files of
sources, nowhere else. The cache keeps the text before expansion, so no value of a variable is ever stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ratatouille.errors import RequestError, near_miss
from ratatouille.project import units
from ratatouille.project.find import NAME, WORKSPACE_FILE
from ratatouille.project.lake_address import address
from ratatouille.project.observe_file import alerted, observed, wrong_alerts
from ratatouille.project.problems import as_error
from ratatouille.project.records import RETENTION, Database, Problem, Resources, Workspace
from ratatouille.project.sources import make_source
from ratatouille.project.text_file import decode
from ratatouille.project.units import variable_named
from ratatouille.project.vars_files import VarsFiles, read_bytes

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_RESERVED_LAYERS = ("rat", "main", "information_schema", "pg_catalog", "system", "temp")
_ALLOWED = "lake, resources, vars, databases, environments, vars_files, the channels of alerts and the files of sources"

ENVIRONMENT = "RATATOUILLE_ENV"  # the variable that says in which of `environments:` we are
Settings = dict[str, Any]  # the validated file before expansion: plain values, JSON-safe


def read_workspace_file(path: Path, raw: bytes) -> Settings:
    """The validated settings, unexpanded. RequestError at the first mistake."""
    from ratatouille.project.yaml_models import WorkspaceModel, validated
    from ratatouille.project.yaml_text import read_yaml

    file = decode(path.name, raw)
    document = file if isinstance(file, Problem) else read_yaml(file)
    if isinstance(document, Problem):
        raise as_error(document)
    model = validated(WorkspaceModel, document)
    if isinstance(model, list):
        raise as_error(model[0])
    settings = model.model_dump(mode="json")
    for where, text in _texts(settings, ()):
        if "${" in text and not _may_expand(where):
            raise as_error(document.place(where).problem(f"${{...}} is not replaced here, only in {_ALLOWED}"))
        for match in _VARIABLE.finditer(text) if where[0] == "vars" else ():
            if match.group(1) not in settings["env"]:
                hint = f"add {match.group(1)} to `env:`"
                raise as_error(
                    document.place(where).problem("vars may only use variables that `env:` lists", hint=hint)
                )
    for name in settings["vars_files"]:
        if name in settings["vars"]:
            raise as_error(document.place(("vars_files", name), key=True).problem(f"'{name}' is under `vars:` too"))
    for name in settings["environments"]:
        if not NAME.fullmatch(name):
            raise as_error(document.place(("environments", name), key=True).problem(f"'{name}' cannot be a name"))
    for name, database in settings["databases"].items():
        for key, message in _wrong_database(name, database):
            raise as_error(document.place(("databases", name, key) if key else ("databases", name)).problem(message))
    for where, message in wrong_alerts(settings["alerts"]):
        raise as_error(document.place(where).problem(message))
    for index, layer in enumerate(settings["layers"]):
        if not NAME.fullmatch(layer) or layer.lower() in _RESERVED_LAYERS or layer.startswith("_"):
            raise as_error(document.place(("layers", index)).problem(f"'{layer}' cannot be the name of a layer"))
    if len({layer.lower() for layer in settings["layers"]}) < len(settings["layers"]) or not settings["layers"]:
        raise as_error(document.place(("layers",)).problem("layers must be different names, at least one"))
    return settings


def vars_files(root: Path, settings: Settings, environment: Mapping[str, str]) -> list[VarsFiles]:
    """The files of variables, read. RequestError where one cannot be."""
    return [
        read_bytes(root, name, _expanded(said["files"], environment, f"vars_files.{name}"), said["environment"] or "")
        for name, said in settings["vars_files"].items()
    ]


def expand(root: Path, settings: Settings, environment: Mapping[str, str]) -> Workspace:
    """The workspace with every `${NAME}` replaced. RequestError naming the variable that is missing."""
    chosen = environment.get(ENVIRONMENT, "")
    default, settings = settings, _in_environment(settings, chosen)
    lake = _lake(settings["lake"], environment, f"environments.{chosen}.lake" if chosen else "lake")
    base = _lake(default["lake"], environment, "lake") if chosen else {"catalog": "", "data": ""}
    if lake["catalog"] == base["catalog"]:
        raise RequestError(
            f"the environment {chosen} has the catalog of the default lake",
            where=f"{WORKSPACE_FILE}: environments.{chosen}.lake",
            next="give it a catalog and a data folder of its own, or remove lake",
        )
    resources = _expanded(settings["resources"], environment, "resources")
    sources = {}
    for name, options in settings["sources"].items():
        options = {**options, "files": _expanded(options["files"], environment, f"sources.{name}")}
        try:
            sources[name] = make_source(name, options)
        except ValueError as error:
            raise RequestError(
                f"{WORKSPACE_FILE}: {error}", where=f"{WORKSPACE_FILE}: sources.{name}", next="Then: rat check"
            ) from error
    return Workspace(
        root=str(root),
        name=settings["name"] or root.name,
        layers=tuple(settings["layers"]),
        catalog=lake["catalog"],
        data=lake["data"],
        environment=chosen,
        base_catalog=base["catalog"],
        base_data=base["data"],
        resources=Resources(
            _number(units.size_bytes, resources["memory"], "resources.memory"),
            _number(_threads, resources["threads"], "resources.threads"),
            resources["spill"],
        ),
        env=tuple(settings["env"]),
        vars=_expanded(settings["vars"], environment, "vars"),
        sources=sources,
        databases={name: _database(name, said, environment) for name, said in settings["databases"].items()},
        verify_every_s=settings["verify_every"],
        retention={**RETENTION, **{k: v for k, v in settings["retention"].items() if v is not None}},
        observe=observed(settings["observe"]),
        alerts=alerted(settings["alerts"]),
    )


def _lake(said: Settings, environment: Mapping[str, str], where: str) -> dict[str, str]:
    return address(said, where, lambda text: str(_expanded(text, environment, where)))


def _in_environment(settings: Settings, name: str) -> Settings:
    """The settings as they are in an environment: its lake, its resources and variables over the default ones."""
    if not name:
        return settings
    known = settings["environments"]
    if name not in known:
        raise RequestError(
            f"there is no environment called '{name}'.{near_miss(name, known)}",
            where=f"--env or {ENVIRONMENT}",
            next=f"the environments are {', '.join(known)}"
            if known
            else "declare it: `environments:` in workspace.yaml",
        )
    said = known[name]
    folder = f".rat/environments/{name}"
    own = {"catalog": f"{folder}/catalog.sqlite", "data": f"{folder}/data"}
    return {
        **settings,
        "lake": said["lake"] or own,
        "resources": said["resources"] or settings["resources"],
        "vars": {**settings["vars"], **said["vars"]},
    }


def _wrong_database(name: str, said: Settings) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) of a database."""
    if not NAME.fullmatch(name):
        yield "", f"'{name}' cannot be the name of a database: use letters, digits and _"
    local = said["type"] == "sqlite"
    for key in ("path",) if local else ("host", "database"):
        if not said[key]:
            yield "", f"a {said['type']} database needs a {key}"
    for key in ("host", "port", "database", "user", "password") if local else ("path",):
        if said[key]:
            yield key, f"a {said['type']} database has no {key}"
    if said["password"] and not variable_named(said["password"]):
        yield (
            "password",
            "a password does not belong into a file: name the variable that holds it, like ${CRM_PASSWORD}",
        )


def _database(name: str, said: Settings, environment: Mapping[str, str]) -> Database:
    where = f"databases.{name}"
    plain = {key: _expanded(said[key], environment, where) for key in ("path", "host", "port", "database", "user")}
    plain["port"] = _number(_threads, plain["port"], f"{where}.port")
    return Database(name, said["type"], **plain, password_env=variable_named(said["password"]))


def variables(settings: Settings) -> tuple[str, ...]:
    """The names of the environment variables that may change what the files mean."""
    used = {name for _, text in _texts(settings, ()) for name, _ in _VARIABLE.findall(text)}
    return tuple(sorted(used | set(settings["env"])))


def _may_expand(where: tuple[str | int, ...]) -> bool:
    return where[0] in ("lake", "resources", "vars", "databases", "environments", "vars_files") or (
        (where[0] == "sources" and where[-1] == "files") or where[:2] == ("alerts", "channels")
    )


def _texts(value: Any, where: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*where, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*where, index))


def _expanded(value: Any, environment: Mapping[str, str], where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, environment, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, environment, where) for item in value]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = environment.get(name) or default
        if found is None:
            raise RequestError(
                f"The environment variable {name} is not set.",
                where=f"{WORKSPACE_FILE}: {where}",
                next=f"Set it (export {name}=...), or give a default there: ${{{name}:-value}}",
            )
        return found

    return _VARIABLE.sub(replaced, value)


def _threads(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("write a whole number")
    return value


def _number(read: Any, value: Any, where: str) -> int:
    try:
        return int(read(value))
    except ValueError as error:
        raise RequestError(
            f"{where} in {WORKSPACE_FILE}: {error}.", where=f"{WORKSPACE_FILE}: {where}", next="Then: rat check"
        ) from error
