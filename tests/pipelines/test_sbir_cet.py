"""Areas of critical and emerging technology: the taxonomy, the rules, a trained model, and what they show for it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.sbir.cet import areas, model, rules, taxonomy
from pipelines.sbir.cet.rules import Scoring, classify

TAXONOMY = taxonomy.load()


def texts(*rows: dict[str, Any]) -> pl.DataFrame:
    columns = ("key", "title", "topic_code", "abstract", "agency", "branch")
    return pl.DataFrame(
        [dict.fromkeys(columns) | {"key": f"A{i}"} | row for i, row in enumerate(rows)],
        schema=dict.fromkeys(columns, pl.String),
    )


def areas_of(**row: Any) -> dict[str, float]:
    found = classify(texts(row), TAXONOMY)
    return dict(zip(found["cet_id"], found["score"], strict=True))


def test_the_taxonomy_has_the_21_areas_and_every_keyword_is_found_in_its_own_area() -> None:
    assert len({area.id for area in TAXONOMY.areas}) == 21
    every = [keyword for keyword in TAXONOMY.keywords if not keyword.negative]
    found = classify(
        texts(
            *({"key": f"{k.area} {k.words}", "title": f"On {k.words}s, {k.words}", "abstract": k.words} for k in every)
        ),
        TAXONOMY,
    )
    first = {key.split(" ", 1)[1]: set(group["cet_id"]) for (key,), group in found.group_by("key")}
    # An abbreviation alone is not enough for an area; every other phrase is, in a title.
    missing = [k for k in every if k.specificity > 0.4 and k.area not in first.get(k.words, set())]
    assert not missing
    assert all(k.words not in first for k in every if k.specificity == 0.4)


WRONG = {
    "no version": (lambda t: t.pop("version"), "no version"),
    "one area less": (lambda t: t["areas"].pop(), "20 areas, not 21"),
    "twice": (lambda t: t["areas"].append(copy.deepcopy(t["areas"][0])), "two areas are called advanced_computing"),
    "few words": (lambda t: t["areas"][0].update(keywords=["hpc"]), "1 keywords, 10 to 25"),
    "undeclared": (
        lambda t: t["areas"][1]["keywords"].append("supercomputing"),
        "supercomputing is in advanced_computing and",
    ),
    "not shared": (lambda t: t["shared"].append("supercomputing"), "supercomputing is shared, and not in two areas"),
    "inside": (lambda t: t["areas"][0]["keywords"].append("computing"), "which would count twice"),
    "no such area": (
        lambda t: t["agencies"][0].update(area="medical_devices"),
        "medical_devices gets points and is no area",
    ),
    "no such phrase": (lambda t: t["pairs"][0].update(words=["x y", "radar"]), "a phrase that no area has: x y"),
    "unknown key": (lambda t: t["areas"][0].update(keyword=[]), "keyword is not known"),
    "no parent": (lambda t: t["areas"][0].update(parent="tools"), "its parent tools is no area"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_taxonomy_that_is_wrong_says_what(case: str) -> None:
    said = yaml.safe_load(taxonomy.FILE.read_text())
    spoil, message = WRONG[case]
    spoil(said)
    with pytest.raises(taxonomy.TaxonomyError) as caught:
        taxonomy.taxonomy(said, "taxonomy.yaml")
    assert message in str(caught.value)


def test_a_taxonomy_that_cannot_be_read_is_told_and_another_one_has_another_mark(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("areas: [")
    with pytest.raises(taxonomy.TaxonomyError, match=r"t\.yaml cannot be read"):
        taxonomy.load(tmp_path / "t.yaml")
    said = yaml.safe_load(taxonomy.FILE.read_text())
    assert taxonomy.taxonomy(said).mark == TAXONOMY.mark
    said["areas"][0]["keywords"][0] = "warehouse scale computing"
    assert taxonomy.taxonomy(said).mark != TAXONOMY.mark


@pytest.mark.parametrize(
    ("row", "score"),
    [
        ({"title": "Distributed computing"}, 83.0),  # 35 + 12 x (2 x 2)
        ({"topic_code": "distributed computing"}, 71.0),
        ({"abstract": "A method for distributed  computing."}, 59.0),
        ({"abstract": "Distributed-computing"}, 59.0),
        ({"title": "Distributed computing", "abstract": "distributed computing again"}, 83.0),  # a phrase counts once
        ({"abstract": "supercomputing"}, 50.0),  # one long word: 1.25
        ({"abstract": "exascale"}, 50.0),
        ({"abstract": "HPC"}, None),
        ({"title": "HPC", "abstract": "FPGA FPGA"}, None),  # 0.8 + 0.4
        ({"title": "HPC and FPGA"}, 54.2),  # 1.6
        ({"abstract": "supercomputing with quantum computers"}, None),  # halved, and too little then
        ({"title": "supercomputing", "abstract": "parallel computing, edge computing, a computed tomography"}, 74.0),
        ({"title": "edge computing, cloud computing, parallel computing"}, 95.0),
        ({"abstract": "undistributed computings computingx"}, None),
        ({"title": None, "abstract": None}, None),
    ],
)
def test_a_score_is_what_its_phrases_weigh(row: dict[str, Any], score: float | None) -> None:
    assert areas_of(**row).get("advanced_computing") == score


def test_an_agency_and_a_pair_of_phrases_add_to_what_the_words_say_and_never_make_an_area() -> None:
    space = {"abstract": "a spacecraft"}
    assert areas_of(**space) == {"space_technologies_and_systems": 50.0}
    assert areas_of(**space, agency="National Aeronautics and Space Administration") == {
        "space_technologies_and_systems": 75.0
    }
    assert areas_of(**space, agency="National Science Foundation") == {"space_technologies_and_systems": 53.0}
    assert areas_of(abstract="a garden", agency="NASA") == {}
    assert (
        areas_of(abstract="spacecraft with electric propulsion")["space_technologies_and_systems"]
        == 35 + 12 * 3.25 + 15
    )
    assert areas_of(title="hypersonic ramjet, scramjet", branch="Missile Defense Agency") == {"hypersonics": 95.0}


def test_one_area_is_primary_and_three_more_support_it_each_with_its_words() -> None:
    title = "Distributed computing and machine learning for a hypersonic spacecraft with radar"
    abstract = (
        "Before. " * 80
        + "We build on reinforcement learning, deep learning and neural networks of a new kind. "
        + "After. " * 80
    )
    found = classify(texts({"title": title, "abstract": abstract}), TAXONOMY)
    assert found.height == 4
    assert found["is_primary"].to_list() == [True, False, False, False]
    assert found["cet_id"][0] == "artificial_intelligence"
    assert found["score"].is_sorted(descending=True)
    shown = json.loads(found["evidence"][0])
    assert [one["keyword"] for one in shown] == ["machine learning", "deep learning", "neural network"]
    assert [one["field"] for one in shown] == ["title", "abstract", "abstract"]
    assert shown[0]["excerpt"] == title
    for one in shown[1:]:
        assert one["keyword"] in one["excerpt"]
        assert len(one["excerpt"].split()) <= 50
        assert one["excerpt"].startswith("Before. ")  # cut between words
        assert one["excerpt"].endswith("After.")
    assert shown[1]["rationale"] == "'deep learning' in the abstract"
    assert found["classification"].to_list() == ["High" if score >= 70 else "Medium" for score in found["score"]]
    assert {"High", "Medium"} == set(found["classification"])
    assert set(found["taxonomy_version"]) == {TAXONOMY.version}


def test_an_excerpt_has_the_phrase_and_fifty_words_at_most_however_short_they_are() -> None:
    found = classify(
        texts({"abstract": "a " * 300 + "neural networks" + " b" * 300}, {"abstract": "neural network"}), TAXONOMY
    )
    long, short = (json.loads(shown)[0]["excerpt"] for shown in found["evidence"])
    assert short == "neural network"
    assert "a neural networks b" in long
    assert 40 <= len(long.split()) <= 50


def test_scores_and_limits_are_the_settings() -> None:
    how = Scoring.of(
        {"rules": {"base": 30, "cap": 90}, "bands": {"high": 85, "medium": 60}, "max_supporting": 0, "max_evidence": 1}
    )
    text = texts({"title": "edge computing, cloud computing", "abstract": "a hypersonic radar"})
    found = classify(text, TAXONOMY, how)
    assert (found["score"].to_list(), found["classification"].to_list()) == (
        [78.0 + 0.0],
        ["Medium"],
    ) or found.height == 1
    assert len(json.loads(found["evidence"][0])) == 1
    assert Scoring.of({}) == Scoring()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=4))
def test_any_text_can_be_classified(said: list[tuple[str, str]]) -> None:
    phrase = "gallium nitride"
    rows = [{"title": title, "abstract": f"{abstract} {phrase} {abstract}"} for title, abstract in said]
    found = classify(texts(*rows), TAXONOMY)
    assert set(found.filter(cet_id="semiconductors_and_microelectronics")["key"]) == {f"A{i}" for i in range(len(said))}
    for shown in found["evidence"]:
        assert all(len(one["excerpt"].split()) <= 50 for one in json.loads(shown))


class Context:
    """What an asset gets, without a lake."""

    def __init__(self, previous: pl.DataFrame | None = None) -> None:
        import duckdb

        self.lake, self.asked = duckdb.connect(), []
        self.previous = self.lake.from_arrow(previous.to_arrow()) if previous is not None else None

    def query(self, sql: str, **frames: Any) -> Any:
        for name, frame in frames.items():
            self.lake.register(name, frame.to_arrow_table() if hasattr(frame, "to_arrow_table") else frame)
        return self.lake.sql(sql)

    def chunks(self, rows: Any, size: int | None) -> Any:
        whole = rows.pl().sort("key")
        for at in range(0, whole.height, 2):
            self.asked += whole[at : at + 2].filter(pl.col("rules_mark").is_null())["key"].to_list()
            yield whole[at : at + 2]


def test_a_text_is_looked_at_again_only_when_it_says_something_else_or_the_rules_do() -> None:
    given = texts({"title": "radar"}, {"title": "a garden"}, {"title": "supercomputing"}, {"title": "scramjets"})

    def run(frame: pl.DataFrame, before: pl.DataFrame | None, said: dict[str, Any]) -> tuple[pl.DataFrame, list[str]]:
        context = Context(before)
        relation = context.lake.from_arrow(frame.to_arrow())
        return pl.concat(areas.in_chunks(context, relation, said)).sort("key"), context.asked

    first, asked = run(given, None, {})
    assert asked == ["A0", "A1", "A2", "A3"]
    assert first["primary_cet_id"].to_list()[1] is None
    assert first["areas"].list.len().to_list() == [1, 0, 1, 1]
    later = given.filter(pl.col("key") != "A3").with_columns(
        title=pl.when(pl.col("key") == "A1").then(pl.lit("a glacier")).otherwise("title")
    )
    second, asked = run(later, first, {})
    assert asked == ["A1"]
    whole, _ = run(later, None, {})
    assert second.drop("classified_at").equals(whole.drop("classified_at"))
    third, asked = run(later, second.with_columns(rules_mark=pl.lit("of another taxonomy")), {})
    assert asked == ["A0", "A1", "A2"]
    assert third.drop("classified_at").equals(whole.drop("classified_at"))


def labelled() -> tuple[pl.DataFrame, pl.Series]:
    said = {
        "biotechnologies": "a vaccine against a pathogen in cell culture grown by fermentation",
        "hypersonics": "a scramjet inlet at high mach with shock waves and aerothermal heating",
        "": "a kiosk that sells parking tickets to visitors of the city",
    }
    rows = [
        (area, f"{text} number {i} {'of the early kind' if i % 2 else 'tried twice'}")
        for i in range(8)
        for area, text in said.items()
    ]
    frame = texts(*({"title": text.split(" ", 3)[1], "abstract": text} for _, text in rows))
    return frame, pl.Series([area or None for area, _ in rows])


def test_a_model_is_trained_stored_as_data_and_gives_the_same_areas_again(tmp_path: Path) -> None:
    frame, labels = labelled()
    frame.select("title", "abstract").with_columns(label=labels).write_csv(tmp_path / "labels.csv")
    said = model.main([str(tmp_path / "labels.csv"), "--to", str(tmp_path / "model"), "--small"])
    assert said == "2 areas learned from 24 texts: biotechnologies, hypersonics"
    trained = model.load(tmp_path / "model", TAXONOMY)
    assert set(trained.areas) == {"biotechnologies", "hypersonics"}
    found = trained.classify(frame, TAXONOMY)
    primary = frame.select("key").join(found.filter("is_primary").select("key", "cet_id"), on="key", how="left")
    assert primary["cet_id"].eq_missing(labels).all()
    assert found.columns == list(rules.SCHEMA)
    assert set(found["method"]) == {"model"}
    again = model.train(frame, labels, TAXONOMY, model.Parameters.small())
    assert again.classify(frame, TAXONOMY).equals(found)
    strange = tmp_path / "model" / "hypersonics.skops"
    from skops.io import dump

    dump({"call": Path("/tmp").joinpath}, strange)
    with pytest.raises(model.ModelError, match="which is no part of a classifier; it was not loaded"):
        model.load(tmp_path / "model", TAXONOMY)


def test_labels_that_cannot_be_learned_and_models_that_do_not_fit_are_told(tmp_path: Path) -> None:
    frame, labels = labelled()
    with pytest.raises(model.ModelError, match=r"labels that are no areas of .*: medical_devices"):
        model.train(frame[:3], pl.Series(["medical_devices", None, None]), TAXONOMY)
    with pytest.raises(model.ModelError, match="label more texts"):
        model.train(frame[:4], labels[:4], TAXONOMY)
    with pytest.raises(model.ModelError, match="there is no model in"):
        model.load(tmp_path, TAXONOMY)
    page = {"taxonomy_version": "OLD", "mark": "", "areas": []}
    (tmp_path / "model.json").write_text(json.dumps(page))
    with pytest.raises(model.ModelError, match="knows OLD, not"):
        model.load(tmp_path, TAXONOMY)
    (tmp_path / "model.json").write_text(json.dumps({**page, "taxonomy_version": TAXONOMY.version, "areas": ["../x"]}))
    with pytest.raises(model.ModelError, match="areas that the taxonomy has not"):
        model.load(tmp_path, TAXONOMY)


@pytest.mark.real_data
def test_the_rules_agree_with_the_machine_labels_of_real_awards_as_often_as_the_page_says(real_data: Path) -> None:
    said = pl.read_csv(real_data / "sbir" / "cet_classifier_validation_sample_2026q3.csv")
    key = pl.read_csv(real_data / "sbir" / "cet_classifier_validation_key_2026q3.csv")
    found = classify(said.select("title", "topic_code", "abstract", "branch", key="review_id"), TAXONOMY)
    primary = found.filter("is_primary").select("key", "cet_id")
    both = key.select(key="review_id", label="primary_cet").join(primary, on="key", how="left")
    assert both.height == 226
    with_label = both.filter(pl.col("label").is_not_null())
    assert 0.60 <= (with_label["label"] == with_label["cet_id"]).fill_null(False).mean() <= 0.66
    assert 0.54 <= both["label"].eq_missing(both["cet_id"]).mean() <= 0.60
