"""The SBIR graph: both back ends hold the same, count the same, refuse the same; and they follow the lake, whatever happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import ladybug
import pyarrow as pa
import pytest
from graph_lab import ARROW, Lab, Tables, companies, everything, rows, small_world
from pipelines.sbir.graph import open_graph
from pipelines.sbir.graph.delta import SQL_TYPES
from pipelines.sbir.graph.interface import Graph, GraphError, TooManyDeadLetters
from pipelines.sbir.graph.model import (
    AREA,
    AWARD,
    AWARD_APPLICABLE_TO,
    AWARDED_TO,
    COMPANY,
    FOLLOWS,
    NODES,
    PATENT,
    RELATIONS,
)
from pipelines.sbir.graph.settings import GraphSettings, Loading

from ratatouille import GateFailed, StepFailed

BACKENDS = ("ladybug", "neo4j")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sbir" / "graph.md"
QUESTIONS = re.compile(r"^```cypher\n(.*?)^```\n\n```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)
FEW_AT_ONCE = Loading(batch_size=8, parallel_threads=3, max_constraint_violations=3, reconnect_seconds=1)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each back end in turn; Neo4j's server is empty and named in the environment."""
    if request.param == "neo4j":
        request.getfixturevalue("neo4j")
    monkeypatch.setenv("SBIR_ETL__GRAPH__BACKEND", request.param)
    return str(request.param)


@pytest.fixture
def graph(backend: str, tmp_path: Path) -> Iterator[Graph]:
    with open_graph(GraphSettings(backend, loading=FEW_AT_ONCE), tmp_path) as opened:
        opened.prepare([*NODES, *RELATIONS])
        yield opened


def test_a_graph_keeps_what_it_is_given_counts_what_it_did_and_forgets_on_request(graph: Graph) -> None:
    assert set(ARROW) == set(SQL_TYPES)
    whole = {"key": "c1", "content_hash": "1", "name": "Léon's \"Société\"", "aliases": ["a", "b"], "is_multi_phase": True,
             "total_funding": 12.25, "award_count": 3, "first_award_date": date(2001, 2, 3)}  # fmt: skip
    first = graph.write(COMPANY, rows(COMPANY, whole, {"key": "c2", "content_hash": "1"}))
    assert (first.created, first.updated, first.unchanged, first.dead) == (2, 0, 0, [])
    again = graph.write(
        COMPANY,
        rows(COMPANY, {**whole, "before": "1"}, {"key": "c2", "content_hash": "2", "before": "1", "city": "Lyon"}),
    )
    assert (again.created, again.updated, again.unchanged) == (0, 1, 1)
    graph.write(COMPANY, rows(COMPANY, {"key": "c2", "content_hash": "3", "before": "2"}))  # what is null now, is gone
    asked = (
        "MATCH (c:Company) RETURN c.company_id AS k, c.name AS name, c.aliases AS aliases, c.is_multi_phase AS multi,"
    )
    asked += " c.total_funding AS funding, c.award_count AS n, c.first_award_date AS first, c.city AS city ORDER BY k"
    kept = {"k": "c1", "name": whole["name"], "aliases": ["a", "b"], "multi": True, "funding": 12.25, "n": 3, "first": date(2001, 2, 3), "city": None}  # fmt: skip
    assert graph.ask(asked)[0] == kept
    assert graph.ask("MATCH (c:Company {company_id: $k}) RETURN c.city AS city", {"k": "c2"}) == [{"city": None}]

    graph.write(AWARD, rows(AWARD, *({"key": f"a{n}", "content_hash": "1"} for n in range(30))))
    graph.write(AREA, rows(AREA, {"key": "x", "content_hash": "1"}))
    given = graph.write(
        AWARDED_TO, rows(AWARDED_TO, *({"start_key": f"a{n}", "end_key": "c1", "content_hash": "1"} for n in range(30)))
    )
    assert (given.created, graph.count(AWARDED_TO), graph.count(AWARD)) == (30, 30, 30)
    graph.write(FOLLOWS, rows(FOLLOWS, {"start_key": "a2", "end_key": "a1", "content_hash": "1", "same_pi": True}))
    at = datetime.fromisoformat("2026-01-02T03:04:05")
    about = {"start_key": "a1", "end_key": "x", "content_hash": "1", "primary": True, "classified_at": at}
    graph.write(AWARD_APPLICABLE_TO, rows(AWARD_APPLICABLE_TO, about))
    asked = "MATCH (:Award {award_id: 'a1'})-[r:APPLICABLE_TO]->(a:CETArea) RETURN a.cet_id AS area, r.`primary` AS p, r.classified_at AS at"
    assert graph.ask(asked) == [{"area": "x", "p": True, "at": at}]
    changed = graph.write(
        AWARDED_TO,
        rows(AWARDED_TO, {"start_key": "a3", "end_key": "c1", "content_hash": "2", "before": "1", "confidence": 0.5}),
    )
    assert (changed.updated, graph.count(AWARDED_TO)) == (1, 30)
    assert {"start_key": "a3", "end_key": "c1", "content_hash": "2"} in graph.state(AWARDED_TO).to_pylist()

    ends = rows(AWARDED_TO, {"start_key": "a4", "end_key": "c1"}, {"start_key": "a4", "end_key": "c2"})
    assert (graph.delete(AWARDED_TO, ends), graph.count(AWARDED_TO)) == (1, 29)
    assert graph.delete(COMPANY, rows(COMPANY, {"key": "c1"}, {"key": "nobody"})) == 1
    assert (graph.count(COMPANY), graph.count(AWARDED_TO), graph.count(FOLLOWS)) == (1, 0, 1)
    assert graph.state(COMPANY).to_pylist() == [{"key": "c2", "content_hash": "3"}]

    assert graph.mark("loaded.companies") == ""
    graph.set_mark("loaded.companies", "one")
    graph.set_mark("loaded.companies", "two")
    assert graph.mark("loaded.companies") == "two"


def test_rows_that_a_graph_refuses_stand_alone_and_the_others_of_their_batch_are_in_it(graph: Graph) -> None:
    poisoned = pa.concat_tables([companies(range(11)), rows(COMPANY, {"content_hash": "1"}), companies(range(11, 20))])
    written = graph.write(COMPANY, poisoned)
    assert (written.created, [one.number for one in written.dead], graph.count(COMPANY)) == (20, [11], 20)
    assert "null" in written.dead[0].reason
    graph.write(AWARD, rows(AWARD, *({"key": f"a{n}", "content_hash": "1"} for n in range(20))))
    ends = [(f"a{n}", "c1") for n in range(18)] + [("a18", "nobody"), ("nothing", "c1")]
    written = graph.write(
        AWARDED_TO, rows(AWARDED_TO, *({"start_key": a, "end_key": c, "content_hash": "1"} for a, c in ends))
    )
    assert written.created == graph.count(AWARDED_TO) == 18
    assert [(one.number, one.reason) for one in written.dead] == [
        (18, "missing end: Company"),
        (19, "missing end: Award"),
    ]
    # A relation that somebody wrote meanwhile is found, not doubled.
    again = rows(AWARDED_TO, {"start_key": "a1", "end_key": "c1", "content_hash": "2", "before": "1"})
    assert graph.write(AWARDED_TO, again).updated == 1 and graph.count(AWARDED_TO) == 18
    with pytest.raises(TooManyDeadLetters, match=r"Patent: [45] rows are refused, 3 may be"):
        graph.write(
            PATENT, rows(PATENT, *({"key": f"p{n}" if n % 2 else None, "content_hash": "1"} for n in range(40)))
        )


def test_a_question_only_reads(graph: Graph) -> None:
    graph.write(COMPANY, companies(range(3)))
    for said in (
        "MATCH (c:Company) SET c.name = 'x' RETURN c.name",
        "MATCH (c:Company) DETACH DELETE c",
        "CREATE (:Patent {grant_doc_num: '1'})",
    ):
        with pytest.raises(GraphError, match="questions only read"):
            graph.ask(said)
    assert graph.ask("MATCH (c:Company) RETURN c.name AS name ORDER BY name LIMIT 1") == [{"name": "Company 0"}]
    with pytest.raises(GraphError) as wrong:
        graph.ask("MATCH (c:Compny RETURN c")
    assert str(wrong.value).count("\n") == 3


def changed_world() -> Tables:
    """The small world a day later: one award is new, one changed, one withdrawn, and so are relations."""
    tables = small_world()
    awards = tables["transformed.awards"]
    awards[3]["award_title"] = "Another title"
    awards[7]["company_id"] = "UEI:C000"
    gone = awards.pop(59)["award_id"]
    awards.append({**awards[0], "award_id": "a9999"})
    tables["transformed.award_progressions"].pop()
    tables["transformed.award_progressions"][0]["confidence"] = 1.0
    classes = tables["enriched.cet_award_classifications"]
    tables["enriched.cet_award_classifications"] = [one for one in classes if one["award_id"] != gone]
    return tables


def test_the_graph_follows_the_lake_by_what_is_new_changed_or_withdrawn_alone(backend: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    lab.put(small_world())
    lab.run()
    assert lab.statuses() == {
        "awards": {"created": 60}, "companies": {"created": 12}, "patents": {"created": 24}, "cet_areas": {"created": 5},
        "award_cet_relationships": {"created": 70}, "company_cet_relationships": {"created": 12}, "relations": {"created": 134},
    }  # fmt: skip
    with lab.graph() as graph:
        assert graph.ask("MATCH (c:Company) WHERE c.cage IS NOT NULL RETURN c.cage AS cage") == [{"cage": "1AB23"}]
        assert graph.ask("MATCH (:CETArea)-[:SUBCATEGORY_OF]->(a) RETURN a.cet_id AS above") == [{"above": "area_0"}]
        for cypher, sql in QUESTIONS.findall(PAGE.read_text(encoding="utf-8")):
            assert graph.ask(cypher) == lab.workspace.query(sql).to_dicts() != []
    assert lab.run()["status"] == "skipped"

    lab.put(changed_world())
    lab.run()
    told = lab.statuses()
    assert told["awards"] == {"created": 1, "updated": 1, "unchanged": 58, "deleted": 1}
    assert told["relations"] == {"created": 2, "updated": 1, "unchanged": 130, "deleted": 1}
    assert told["award_cet_relationships"] == {"unchanged": 69}
    with lab.graph() as graph:
        step_by_step = everything(graph)
    assert lab.run()["status"] == "skipped"

    # Restored from an old copy, emptied, or changed by somebody: the lake says "loaded", the graph knows better.
    for harm in (_forget, _tamper) if backend == "ladybug" else (_forget_and_tamper,):
        harm(lab)
        lab.run()
        assert lab.statuses()["companies"] == ({"created": 12} if harm is _forget else {"created": 2, "unchanged": 10})
        with lab.graph() as graph:
            assert everything(graph) == step_by_step
    assert lab.run()["status"] == "skipped"


def _forget(lab: Lab) -> None:
    lab.file.unlink()


def _tamper(lab: Lab) -> None:
    with ladybug.Database(lab.file, max_db_size=1 << 30) as database, ladybug.Connection(database) as connection:
        connection.execute("MATCH (c:Company) WHERE c.company_id < 'UEI:C002' DETACH DELETE c")


def _forget_and_tamper(lab: Lab) -> None:
    """Two companies are deleted under a mark that stands. Of the rest some is as in an old copy, some is gone."""
    with lab.graph() as graph:
        graph.delete(COMPANY, graph.state(COMPANY).slice(0, 2))
        graph.write(AWARD, rows(AWARD, {"key": "a0001", "content_hash": "old", "before": "?", "title": "An old title"}))
        for kind in NODES[2:]:
            graph.delete(kind, graph.state(kind))
        for name in ("awards", "patents", "relations", "cet_areas", "award_cet_relationships"):
            graph.set_mark(f"loaded.{name}", "of an old copy")


def test_what_the_lake_can_see_is_refused_before_it_is_sent_and_the_share_decides(tmp_path: Path) -> None:
    """Whatever keeps the graph: here a file does."""

    lab = Lab(tmp_path / "lab")
    tables = small_world(n_awards=120, n_companies=110)
    tables["transformed.companies"].append({**tables["transformed.companies"][5], "company_id": "ZZZ"})  # the same UEI
    tables["transformed.awards"].append({**tables["transformed.awards"][4], "award_title": "again"})  # the same key
    tables["transformed.award_progressions"].append(
        {"from_award_id": "a0001", "to_award_id": "lost", "confidence": 0.5}
    )
    lab.put(tables)
    lab.run()
    assert lab.query("select asset, kind, key, reason from loaded.dead_letters order by all") == [
        ("loaded.awards", "Award", "a0004", "the same key twice"),
        ("loaded.companies", "Company", "ZZZ", "uei is that of another"),
        ("loaded.relations", "(Award)-[AWARDED_TO]->(Company)", "a0004", "the same key twice"),
        ("loaded.relations", "(Award)-[FOLLOWS]->(Award)", "lost", "missing end: Award"),
    ]
    with lab.graph() as graph:
        assert (graph.count(AWARD), graph.count(COMPANY), graph.count(FOLLOWS)) == (120, 110, 60)

    # Two relations of 120 lose their ends: below 0.99. What readers see of the graph is what it was.
    tables["enriched.cet_award_classifications"][0]["award_id"] = "lost"
    tables["enriched.cet_award_classifications"][1]["award_id"] = "lost too"
    lab.put(tables)
    with pytest.raises(GateFailed, match="loaded_award_cet_relationships_success_check failed for 2 of 132"):
        lab.run()
    assert lab.statuses()["award_cet_relationships"] == {"created": 130}
    lab.put(
        {name: rows for name, rows in small_world(120, 110).items() if name == "enriched.cet_award_classifications"}
    )
    lab.run()
    with lab.graph() as graph:
        assert graph.count(AWARD_APPLICABLE_TO) == 120

    # An empty source is no reason to empty the graph.
    lab.put({"transformed.awards": []})
    with pytest.raises(
        StepFailed, match=r"120 of 120 Award left the source, more than 50% \(max_delete_share\)"
    ) as emptied:
        lab.run("+loaded.awards")
    assert str(emptied.value).count("\n") == 3 and lab.statuses()["awards"] == {"created": 120, "dead_letter": 1}

    # What one lake loads, another would delete.
    with lab.graph() as graph:
        graph.set_mark("owner", "the environment dev")
    with pytest.raises(
        StepFailed, match="this graph is that of the environment dev, and this run is one of the default lake"
    ):
        lab.run("loaded.companies", full=True)
