"""Which files are assets, and what they are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ratatouille.project.find import NAME, Found, attach_sidecars, duplicates, wrong_name
from ratatouille.project.records import Project

Make = Callable[..., Project]
ONE = "select 1 as a"
BUILD = "def build(context):\n    return None\n"


def test_path_is_the_name(make: Make) -> None:
    project = make(
        {
            "bronze/orders.sql": ONE,
            "silver/orders.py": BUILD,
            "gold/cities.csv": "a\n1\n",
            "pipelines/silver/flat.sql": ONE,
            "pipelines/f1/ingest/bronze/laps.sql": ONE,
        }
    )
    assert project.problems == ()
    found = {name: (asset.kind, asset.pipeline, asset.group) for name, asset in project.assets.items()}
    assert found == {
        "bronze.laps": ("sql", "f1", "f1"),
        "bronze.orders": ("sql", "sales", "sales"),
        "gold.cities": ("seed", "sales", "sales"),
        "silver.flat": ("sql", "shop", "shop"),
        "silver.orders": ("python", "sales", "sales"),
    }


def test_what_is_not_an_asset(make: Make) -> None:
    project = make(
        {
            "silver/client.py": "def fetch():\n    return 1\n",
            "silver/texts.py": '"""\ndef build(context): ...\n"""\n',
            "silver/_draft.sql": "selec",
            "silver/.hidden.sql": "selec",
            "silver/notes.md": "# notes",
            "pipelines/sales/tests/silver/a.sql": "selec",
            "pipelines/sales/macros/silver/a.sql": "selec",
            "pipelines/sales/_old/silver/a.sql": "selec",
            "pipelines/sales/silver/__pycache__/a.py": BUILD,
            "pipelines/warehouse/dbt_project.yml": "name: x",
            "pipelines/warehouse/silver/a.sql": "selec",
            "workspaces/x/pipelines/silver/a.sql": "selec",
            "config.yaml": "anything: [goes",
        }
    )
    assert project.assets == {}
    assert project.problems == ()


def test_layers_are_those_of_the_workspace(make: Make) -> None:
    project = make({"workspace.yaml": "layers: [raw]", "raw/a.sql": ONE, "silver/b.sql": ONE})
    assert list(project.assets) == ["raw.a"]
    assert [problem.severity for problem in project.problems] == ["warn"]


def test_order_is_by_dependency_then_by_name(make: Make) -> None:
    project = make(
        {
            "gold/a.sql": "from {{ ref('silver.z') }}",
            "silver/z.sql": "from {{ ref('bronze.m') }}",
            "silver/b.sql": ONE,
            "bronze/m.sql": ONE,
            "pipelines/a/silver/y.sql": ONE,
        }
    )
    assert list(project.assets) == ["bronze.m", "silver.b", "silver.y", "silver.z", "gold.a"]


def test_no_pipelines_folder_is_an_empty_project(make: Make) -> None:
    assert make({}).assets == {}


@given(st.text(min_size=1, max_size=40).filter(lambda t: "/" not in t and "\x00" not in t))
def test_a_name_is_plain_or_refused_with_a_plain_suggestion(table: str) -> None:
    problem = wrong_name(Found(f"silver.{table}", "silver", table, "sql", f"pipelines/p/silver/{table}.sql", "p"))
    if problem is None:
        assert NAME.fullmatch(table)
    else:
        suggestion = problem.hint.removeprefix("rename the file to ").removesuffix(".sql")
        assert NAME.fullmatch(suggestion)


@given(
    st.lists(st.sampled_from(["a", "A", "b", "c"]), max_size=6), st.lists(st.sampled_from(["a", "b", "x"]), max_size=4)
)
def test_every_name_has_one_file_and_every_sidecar_an_owner_or_a_problem(tables: list[str], stems: list[str]) -> None:
    assets = [Found(f"l.{t}", "l", t, "sql", f"pipelines/{i}/l/{t}.sql", "p") for i, t in enumerate(tables)]
    kept, problems = duplicates(assets)
    assert len({found.name.lower() for found in kept}) == len(kept)
    assert len(kept) + len(problems) == len(assets)
    sidecars = [f"pipelines/{i}/l/{stem}.yaml" for i, stem in enumerate(stems)]
    attached, wrong = attach_sidecars(assets, sidecars)
    assert len(attached) + len(wrong) == len(sidecars)


def test_paths_are_relative_with_forward_slashes(make: Make, tmp_path: Path) -> None:
    asset = make({"silver/a.sql": ONE, "silver/a.yml": "description: x"}).assets["silver.a"]
    assert (asset.path, asset.sidecar) == ("pipelines/sales/silver/a.sql", "pipelines/sales/silver/a.yml")
    assert asset.description == "x"
