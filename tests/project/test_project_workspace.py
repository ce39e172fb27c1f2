"""workspace.yaml: found upwards, closed, expanded where allowed, and never with a value in an error or the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ratatouille.errors import RequestError
from ratatouille.project import find_root, load
from ratatouille.project.records import Project, Resources, Source

Make = Callable[..., Project]


def test_root_is_found_from_a_folder_below(write: Callable[..., Path]) -> None:
    root = write({"silver/a.sql": "select 1 as a"})
    assert find_root(root / "pipelines/sales/silver") == root


def test_without_a_workspace_the_next_step_is_init(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as raised:
        find_root(tmp_path)
    assert "rat init NAME" in raised.value.next


def test_beside_a_workspace_the_next_step_is_to_go_there(write: Callable[..., Path]) -> None:
    root = write({})
    with pytest.raises(RequestError) as raised:
        find_root(root.parent)
    assert raised.value.next == "Go there: cd shop"


def test_an_empty_file_is_a_workspace(make: Make) -> None:
    workspace = make({"workspace.yaml": ""}).workspace
    assert workspace.name == "shop"
    assert workspace.layers == ("bronze", "silver", "gold")
    assert workspace.catalog == ".rat/catalog.sqlite"
    assert make({"workspace.yaml": ""}).assets == {}


def test_every_key(make: Make) -> None:
    text = """
name: kitchen
layers: [raw, clean]
lake: {catalog: "postgres://db/${LAKE:-kitchen}", data: "${DATA}"}
resources: {memory: 4GB, threads: "${THREADS:-2}", spill: /tmp/spill}
env: [CITY]
vars: {city: "${CITY}", limit: 3}
sources: {sales: {files: "${DROP:-landing}/sales/*.csv", nulls: [NA], columns: {id: int}}}
verify_every: 2h
"""
    workspace = make({"workspace.yaml": text}, environment={"DATA": "s3://lake", "CITY": "Lyon"}).workspace
    assert (workspace.name, workspace.layers) == ("kitchen", ("raw", "clean"))
    assert (workspace.catalog, workspace.data) == ("postgres://db/kitchen", "s3://lake")
    assert workspace.resources == Resources(4_000_000_000, 2, "/tmp/spill")
    assert workspace.vars == {"city": "Lyon", "limit": 3}
    source = Source("landing/sales/*.csv", "csv", (("id", "int"),), nulls=("NA",), name="sales")
    assert workspace.sources == {"sales": source}
    assert workspace.verify_every_s == 7200


REFUSED = {
    "nam: x": ("Unknown key 'nam'", "Did you mean 'name'?"),
    "lake: {catalogue: x}": ("Unknown key 'catalogue'", "Did you mean 'catalog'?"),
    "sources: {a: {file: x}}": ("Unknown key 'file'", "Did you mean 'files'?"),
    "name: '${USER}'": ("is not replaced here, only in lake", ""),
    "env: ['${A}']": ("is not replaced here, only in lake", ""),
    "vars: {home: '${HOME}'}": ("Vars may only use variables that `env:` lists", "Add HOME to `env:`"),
    "layers: [bronze, rat]": ("'rat' cannot be the name of a layer", ""),
    "layers: [information_schema]": ("cannot be the name of a layer", ""),
    "layers: ['../up']": ("cannot be the name of a layer", ""),
    "layers: [a, A]": ("layers must be different names", ""),
    "layers: []": ("layers must be different names", ""),
    "resources: {memory: lots}": ("resources.memory in workspace.yaml: write a size", ""),
    "resources: {threads: many}": ("resources.threads in workspace.yaml: write a whole number", ""),
    "name: [a]": ("'name' must be text", ""),
    "- a": ("must be a mapping", ""),
    "a: [": ("This is not YAML", ""),
    "sources: {a: {files: '../*.csv'}}": ("leaves the workspace", ""),
    "sources: {a: {}}": ("needs files", ""),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str, make: Make) -> None:
    message, hint = REFUSED[text]
    with pytest.raises(RequestError) as raised:
        make({"workspace.yaml": text})
    assert message in raised.value.what
    assert hint in raised.value.next
    assert "workspace.yaml" in raised.value.where


def test_an_unknown_key_is_underlined(make: Make) -> None:
    with pytest.raises(RequestError) as raised:
        make({"workspace.yaml": "name: x\nlayer: [bronze]\n"})
    assert raised.value.where == "workspace.yaml:2:1\n    layer: [bronze]\n    ^^^^^"


@pytest.mark.parametrize("environment", [{}, {"LAKE_DSN": ""}])
def test_a_missing_variable_is_named(environment: Mapping[str, str], make: Make) -> None:
    with pytest.raises(RequestError) as raised:
        make({"workspace.yaml": "lake: {catalog: '${LAKE_DSN}'}"}, environment=environment)
    assert raised.value.what == "The environment variable LAKE_DSN is not set."


def test_values_of_variables_are_not_in_the_cache(write: Callable[..., Path]) -> None:
    root = write(
        {
            "workspace.yaml": "env: [CITY]\nlake: {catalog: 'postgres://${PG_PASSWORD}@db/x'}\nvars: {c: '${CITY}'}",
            "bronze/a.sql": "select '{{ env('CITY') }}' as city, '{{ var('c') }}' as c",
        }
    )
    environment = {"CITY": "Montbrison", "PG_PASSWORD": "hunter2"}
    first = load(root, environment=environment)
    again = load(root, environment=environment)
    assert first == again
    assert again.workspace.catalog == "postgres://hunter2@db/x"
    stored = b"".join(path.read_bytes() for path in (root / ".rat/cache").iterdir())
    assert b"hunter2" not in stored
    assert b"Montbrison" not in stored


def test_a_folder_without_the_file_is_a_request_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"workspace.yaml: No such file"):
        load(tmp_path)
