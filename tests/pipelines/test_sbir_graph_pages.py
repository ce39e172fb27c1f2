"""The pages about the graph: their picture, their questions and their statements are what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import neo4j as driver
import pytest
from graph_lab import Lab, small_world
from pipelines.sbir import ask
from pipelines.sbir.graph import in_neo4j
from pipelines.sbir.graph.model import AWARDED_TO, COMPANY, NODES, RELATIONS, Node, Property
from pipelines.sbir.graph.picture import picture
from pipelines.sbir.graph.settings import Loading, file_of, graph_settings

DOCS = Path(__file__).resolve().parents[2] / "docs"
PATTERNS = (DOCS / "sbir" / "neo4j-patterns.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(cypher|json)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_picture_is_drawn_from_the_model() -> None:
    assert (DOCS / "pictures" / "sbir-graph.svg").read_text(encoding="utf-8") == picture()
    assert all(f">{one.label}<" in picture() for one in NODES) and all(
        f">{one.type}<" in picture() for one in RELATIONS
    )


def test_the_patterns_page_runs_on_a_real_server_and_says_what_is_run(neo4j: Any) -> None:
    with driver.GraphDatabase.driver(neo4j.uri, auth=(neo4j.user, neo4j.password)) as connected:
        answer: list[dict[str, Any]] = []
        for language, text in BLOCK.findall(PATTERNS):
            if language == "json":
                assert answer == json.loads(text), text
                continue
            found = re.match(r":param rows => (.*)\n", text)
            rows = json.loads(found[1]) if found else []
            answer = [
                one.data() for one in connected.execute_query(text[found.end() if found else 0 :], rows=rows).records
            ]
    # What is shown is what the code makes, for a company with two properties.
    shown = _squeezed(PATTERNS)
    company = Node("Company", "company_id", "", (Property("name"), Property("state")))
    assert _squeezed(in_neo4j._write_node(company)) in shown and _squeezed(in_neo4j._delete(company)) in shown
    for name, statement in in_neo4j._schema([COMPANY]):
        if name in ("company_company_id", "company_state", "company_words"):
            assert _squeezed(statement) in shown
    assert "MATCH (a:Award {award_id: row[0]}) MATCH (b:Company {company_id: row[1]})" in in_neo4j._write_relation(
        AWARDED_TO
    ).replace("`", "")
    told = dict(re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", PATTERNS, re.MULTILINE))
    assert told == {name: str(getattr(Loading(), name)).lower() for name in Loading.__dataclass_fields__}


def _squeezed(said: str) -> str:
    return " ".join(said.replace("`", "").split())


def test_a_question_is_asked_from_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(tmp_path / "lab")
    monkeypatch.setattr(ask, "workspace", lambda: lab.workspace)
    assert ask.main(["MATCH (c:Company) RETURN c.name AS name"]) == 1
    assert capsys.readouterr().err.splitlines()[0] == "there is no graph yet"
    lab.put({name: rows for name, rows in small_world().items() if name == "raw.cet_taxonomy"})
    lab.run("+loaded.cet_areas")
    assert ask.main(["MATCH (a:CETArea) RETURN a.cet_id AS area, a.keywords AS words ORDER BY area LIMIT 2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["area", "words"] and said[2] == "area_0  ['k0', 'x y']" and said[-1] == "2 rows"
    assert ask.main(["--json", "MATCH (a:CETArea {cet_id: 'area_4'}) RETURN a.name AS name"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "Area 4"}
    assert ask.main(["MATCH (a:CETArea) DETACH DELETE a"]) == 1 and "questions only read" in capsys.readouterr().err
    assert ask.main([]) == 2


def test_settings_come_from_the_configuration_and_the_environment_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"graph": {"backend": "neo4j"}, "neo4j": {"loading": {"batch_size": 50}}}
    assert (graph_settings(said).backend, graph_settings(said).loading.batch_size) == ("neo4j", 50)
    monkeypatch.setenv("SBIR_ETL__NEO4J__LOADING__BATCH_SIZE", "7")
    monkeypatch.setenv("SBIR_ETL__NEO4J__LOADING__DELETE_WITHDRAWN", "false")
    with Lab(tmp_path / "lab").graph() as graph:
        assert (graph.loading.batch_size, graph.loading.delete_withdrawn) == (7, False)
    assert file_of(graph_settings({}), tmp_path) == tmp_path / ".rat/sbir.lbug"
    monkeypatch.setenv("RATATOUILLE_ENV", "dev")
    assert file_of(graph_settings({}), tmp_path) == tmp_path / ".rat/environments/dev/sbir.lbug"
    for wrong, message in (
        ({"graph": {"backend": "x"}}, "may be ladybug or neo4j"),
        ({"graph": {"bakend": "x"}}, "no setting bakend"),
    ):
        with pytest.raises(ValueError, match=message):
            graph_settings(wrong)
