"""Files of sessions: odd rows, odd names, half-written parts, and what changed between two readings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.f1.corrections import compare, rows_of_file
from pipelines.f1.fetching import ENTITIES
from pipelines.f1.landing import Layout, Part, Session, chunk_of

ROOT = Path(__file__).resolve().parents[2]


# Hostile rows


NAMES = (
    st.none()
    | st.text(max_size=300)
    | st.sampled_from(["../../etc", "a/b", "..", "C:\\x", "São Paulo", "\n\t", "É" * 200])
)


@settings(max_examples=300, deadline=None)
@given(
    keys=st.tuples(*[st.integers(0, 10**8)] * 3),
    location=NAMES,
    name=NAMES,
    offset=st.none() | st.text(max_size=8) | st.just("-04:00:00"),
)
def test_a_session_s_files_stay_in_its_folder_whatever_the_api_says(
    keys: tuple[int, ...], location: str | None, name: str | None, offset: str | None
) -> None:
    row = dict(zip(("session_key", "meeting_key", "year"), keys, strict=True))
    times = {"date_start": "2024-06-09 18:00:00", "date_end": "2024-06-09T20:00:00+00:00"}
    session = Session.of({**row, **times, "location": location, "session_name": name, "gmt_offset": offset})
    root = Path("/somewhere")
    assert session.batch_day == "2024-06-09" and session.local_day
    for naming in ("session", "document"):
        layout = Layout(root, naming)  # type: ignore[arg-type]
        for path in (layout.file(session, "laps"), layout.manifest(session), layout.aside(session)):
            assert path.is_relative_to(root) and ".." not in path.parts
            assert len(path.name.encode("utf-8", errors="replace")) < 200
        file = layout.file(session, "laps")
        assert file.parent == layout.home(session)
        assert file.name.startswith("laps") and file.name.isprintable() and not set(file.name) & set(' /\\:*?"<>|')


ODD_KEY = st.none() | st.booleans() | st.integers(max_value=-1) | st.integers(min_value=10**9) | st.text() | st.floats()


@settings(max_examples=200, deadline=None)
@given(column=st.sampled_from(["session_key", "meeting_key", "year", "date_start", "date_end"]), value=ODD_KEY)
def test_a_session_whose_keys_or_times_cannot_be_used_is_left_out(column: str, value: Any) -> None:
    good = {"session_key": 1, "meeting_key": 2, "year": 2024, "date_start": "2024-06-09", "date_end": "2024-06-10"}
    assert Session.of(good).key == 1
    if column.startswith("date"):
        value = f"x{value}"
    with pytest.raises(ValueError, match="session"):
        Session.of({**good, column: value})


def test_half_a_character_becomes_a_question_mark_and_not_an_error() -> None:
    assert chunk_of([{"message": "\ud800!"}], ("message",), "session") == b'{"message":"?!"}'


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["driver_number", "lap_number", "x", "é\n]},"]), VALUES, max_size=4), min_size=1
    ),
    naming=st.sampled_from(["session", "document"]),
    shuffled=st.randoms(use_true_random=False),
)
def test_odd_rows_are_written_sorted_and_read_back_as_they_are(
    rows: list[dict[str, Any]], naming: Any, shuffled: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chunk = chunk_of(rows, ENTITIES["laps"], naming)
    other = list(rows)
    shuffled.shuffle(other)
    assert chunk_of(other, ENTITIES["laps"], naming) == chunk
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_bytes(b"[\n" + chunk + b"\n]\n")
    back = list(rows_of_file(path))
    assert back == json.loads(path.read_bytes())
    assert sorted(map(repr, back)) == sorted(repr(dict(sorted(row.items()))) for row in rows)


@settings(max_examples=150, deadline=None)
@given(
    old=st.dictionaries(st.tuples(st.integers(1, 3), st.integers(1, 9)), st.integers(0, 3)),
    new=st.dictionaries(st.tuples(st.integers(1, 3), st.integers(1, 9)), st.integers(0, 3)),
)
def test_corrections_are_the_difference_of_two_sets(
    old: dict[tuple[int, int], int], new: dict[tuple[int, int], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    paths = []
    for name, content in (("old", old), ("new", new)):
        rows = [{"driver_number": driver, "lap_number": lap, "x": x} for (driver, lap), x in content.items()]
        path = tmp_path_factory.getbasetemp() / f"{name}.json"
        path.write_bytes(b"[\n" + chunk_of(rows, ENTITIES["laps"], "session") + b"\n]\n")
        paths.append(path)
    found = compare(1, "laps", *paths, ENTITIES["laps"])
    changed = sum(old[key] != new[key] for key in old.keys() & new.keys())
    assert (found.added, found.changed, found.removed) == (
        len(new.keys() - old.keys()),
        changed,
        len(old.keys() - new.keys()),
    )


@pytest.mark.parametrize("text", ["", "{}", "[", '[{"a": 1}', '[{"a": 1},', '[{"a": 1} {', "nothing"])
def test_a_file_that_breaks_off_is_not_read_as_if_it_were_whole(tmp_path: Path, text: str) -> None:
    path = tmp_path / "laps.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"no JSON array|breaks off"):
        list(rows_of_file(path))


def test_what_an_attempt_left_half_written_is_dropped(tmp_path: Path) -> None:
    cost = {"api_s": 0.1, "requests": 1, "retries": 0, "splits": 0}
    with Part(tmp_path, "laps") as part:
        for number in range(3):
            part.add(f"{number}", chunk_of([{"n": number}], ("n",), "session"), rows=1, **cost)
    for damage in (b"half a row", b""):
        with (tmp_path / "laps.part").open("ab") as file:
            file.write(damage)
        with Part(tmp_path, "laps") as part:
            assert list(part.pieces) == ["0", "1", "2"]
            part.assemble(["2", "0"], tmp_path / "laps.json")
        assert json.loads((tmp_path / "laps.json").read_text()) == [{"n": 2}, {"n": 0}]
    content = (tmp_path / "laps.part").read_bytes()
    (tmp_path / "laps.part").write_bytes(content[:8] + b"X" + content[9:])  # a bad byte in the second row
    with Part(tmp_path, "laps") as part:
        assert list(part.pieces) == ["0"]
        part.add("1", chunk_of([{"n": 1}], ("n",), "session"), rows=1, **cost)
    with Part(tmp_path, "laps") as part:
        assert list(part.pieces) == ["0", "1"]
