"""YAML with places: plain values as people wrote them, and nothing that YAML could do beyond that."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratatouille.project.records import Problem
from ratatouille.project.text_file import TextFile
from ratatouille.project.yaml_text import Document, read_yaml


def _read(text: str) -> Document | Problem:
    return read_yaml(TextFile("x.yaml", text))


def _data(text: str) -> object:
    document = _read(text)
    assert isinstance(document, Document), document
    return document.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", {"a": "yes"}),
        ("a: [no, on, off, y]", {"a": ["no", "on", "off", "y"]}),
        ("a: true", {"a": True}),
        ("a: 'true'", {"a": "true"}),
        ("a: 12:30:45", {"a": "12:30:45"}),
        ("a: 2024-01-02", {"a": "2024-01-02"}),
        ("a: 007", {"a": "007"}),
        ("a: [12, -3, 0.5, .5]", {"a": [12, -3, 0.5, 0.5]}),
        ("a: 1.5e+3", {"a": 1500.0}),
        ("a: 1e999", {"a": "1e999"}),
        ("a: .inf", {"a": ".inf"}),
        ("a: 0x1f", {"a": "0x1f"}),
        ("a: ~\nb:", {"a": None, "b": None}),
        ("a: !!str 12", {"a": "12"}),
        ("2020: x", {"2020": "x"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
        ("", None),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    assert _data(text) == value


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a:\n\tb: 1\n", "a tab in YAML", 2),
        ("a:\n  b: 1\n\tc: 2\n", "a tab in YAML", 3),
        ("a: 1\na: 2\n", "'a' appears twice", 2),
        ("a: !!python/object/apply:os.system [ls]\n", "tag", 1),
        ("a: !secret x\n", "tag", 1),
        ("? [a]\n: b\n", "a key must be plain text", 1),
        ("a: {{ ref('x') }}\n", "a key must be plain text", 1),
        ("a: [1\nb: 2\n", "not YAML", 2),
        ("a: 1\n---\nb: 2\n", "not YAML", 2),
        ("[" * 3000, "not YAML", 1),
        ("[" * 200 + "]" * 200, "too large or too deep", 1),
        (_bomb(), "too large or too deep", 0),
        ("a: &a [*a]", "too large or too deep", 0),
    ],
)
def test_refused(text: str, message: str, line: int) -> None:
    problem = _read(text)
    assert isinstance(problem, Problem)
    assert message in problem.message
    assert line in (0, problem.line)


def test_every_value_and_key_knows_its_place() -> None:
    document = _read("columns:\n  id: {type: varchar}\n  'a b': int\n")
    assert isinstance(document, Document)
    place = document.place(("columns", "id", "type"))
    assert (place.line, place.column, place.length) == (2, 14, len("varchar"))
    key = document.place(("columns", "a b"), key=True)
    assert (key.line, key.column, key.length) == (3, 3, len("'a b'"))
    assert document.place(("columns", "nothing", "here")).line == 2


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    result = _read(text)
    if isinstance(result, Document):
        json.dumps(result.data, allow_nan=False)
    else:
        assert result.message


@given(st.text(alphabet="ab:[]{}-&*!|>?'\"#%@` \n\t,0.", max_size=60))
def test_any_yaml_like_text_is_read_or_refused(text: str) -> None:
    assert isinstance(_read(text), (Document, Problem))


_LEAVES = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=10)


@given(st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)))
def test_json_is_read_as_json(value: object) -> None:
    text = json.dumps(value)
    if "\\ud" not in text:  # lone surrogates are not text
        result = _read(text)
        assert isinstance(result, Problem) or result.data == value
