"""Landing files in a bucket: read exactly once, by every machine together."""

from __future__ import annotations

import re

import pytest
from s3_server import BUCKET

from ratatouille.engine.landing import objects
from ratatouille.engine.landing.objects import _as_regex
from ratatouille.lake.places.bucket import Bucket


def send(place: Bucket, name: str, content: str) -> None:
    """As others do, by the API: the server gives each content a tag, which tells two of one second and size apart."""
    place.put(name, content.encode(), "landing a file")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("in/*.csv", ["in/a.csv"], ["in/b/a.csv", "in/.a.csv", "in/a.csvx", "xin/a.csv"]),
        ("in/**/*.csv", ["in/a.csv", "in/b/a.csv", "in/b/c/a.csv"], ["in/.b/a.csv", "a.csv"]),
        ("in/day=?/[ab].csv", ["in/day=1/a.csv"], ["in/day=12/a.csv", "in/day=1/c.csv"]),
        ("in/a.b+(c).csv", ["in/a.b+(c).csv"], ["in/aXb+(c).csv"]),
    ],
)
def test_patterns_mean_what_they_mean_on_a_disk(pattern, yes, no):
    wanted = re.compile(_as_regex(pattern))
    assert [name for name in [*yes, *no] if wanted.fullmatch(name)] == yes


def test_objects_are_read_exactly_once_and_changed_ones_again(team, s3):
    here, there = team.machine("here"), team.machine("there")
    inbox = Bucket(BUCKET, f"inbox/{team.data.rpartition('/')[2]}")
    glob = f"{inbox}/**/*.csv"
    for machine in (here, there):
        folder = machine.root / "pipelines" / "bronze"
        (folder / "sales.yaml").write_text(
            f"materialize: append\nsources:\n  '{glob}':\n    columns: {{id: bigint, seq: bigint, amount: bigint}}\n"
        )
        (folder / "sales.sql").write_text(
            f"select id, seq, amount, _file, _loaded_at, _run_id from {{{{ source('{glob}') }}}}\n"
        )
    send(inbox, "a.csv", "id,seq,amount\n1,1,10\n2,2,20\n")
    more = "".join(f"{i},{i},1\n" for i in range(10, 60))
    send(inbox, "deep/b.csv", f"id,seq,amount\n3,3,30\nx,4,40\n{more}")
    send(inbox, "c.csv.part", "id,seq")
    step = here.run("bronze.sales").step("bronze.sales")
    assert step.error is None, step.error
    assert (step.rows_in, step.entry.rows_rejected) == (54, 1)
    files = here.rows("select _file, count(*) from bronze.sales group by all order by all")
    assert files == [(f"{inbox}/a.csv", 2), (f"{inbox}/deep/b.csv", 51)]

    # The other machine knows them, and fetches nothing.
    assert there.run("bronze.sales").step("bronze.sales").status == "skipped"
    assert not (there.root / objects.MIRROR).exists()

    # New, changed, touched and bad ones.
    send(inbox, "a.csv", "id,seq,amount\n1,1,11\n2,2,22\n")
    send(inbox, "d.csv", "id,seq,amount\n7,7,70\n")
    send(inbox, "e.csv", 'id,seq,amount\n8,8,"80\n')
    step = there.run("bronze.sales").step("bronze.sales")
    assert step.error is None, step.error
    found = here.rows("select id, amount from bronze.sales where id < 10 order by id")
    assert found == [(1, 11), (2, 22), (3, 30), (7, 70)]
    assert not (there.root / objects.MIRROR / BUCKET / "inbox" / inbox.name / "deep").exists(), "b.csv is known"
    result = here.run("bronze.sales")
    assert [one["file"] for one in result.set_aside] == [f"{inbox}/e.csv"]
    assert result.step("bronze.sales").status == "skipped"
    send(inbox, "e.csv", "id,seq,amount\n8,8,80\n")
    here.run("bronze.sales")
    assert (8, 80) in here.rows("select id, amount from bronze.sales")

    # A rebuild refuses to lose the rows of an object that is gone.
    inbox.delete(["d.csv"])
    step = here.run("bronze.sales", force=True).step("bronze.sales")
    assert step.status == "failed" and "would lose the rows of 1 landing file" in step.error["what"]
    assert (7, 70) in here.rows("select id, amount from bronze.sales")


def test_a_sensor_asks_for_a_run_when_objects_arrive_and_says_when_nobody_answers(team, s3, monkeypatch):
    from ratatouille.dagster.triggers import _look

    here = team.machine("here")
    inbox = Bucket(BUCKET, f"inbox/{team.data.rpartition('/')[2]}")
    pattern = f"{inbox}/**/*.csv"
    first = _look("inbox", here.root, pattern, None)
    assert not first.run_requests and "0 known" in first.skip_reason.skip_message

    send(inbox, "deep/a.csv", "id\n1\n")
    second = _look("inbox", here.root, pattern, first.cursor)
    assert [one.tags["rat/files"] for one in second.run_requests] == [f"{pattern[:-8]}deep/a.csv"]
    assert _look("inbox", here.root, pattern, first.cursor).run_requests[0].run_key == second.run_requests[0].run_key
    assert not _look("inbox", here.root, pattern, second.cursor).run_requests

    send(inbox, "deep/a.csv", "id\n2\n3\n")
    third = _look("inbox", here.root, pattern, second.cursor)
    assert len(third.run_requests) == 1 and third.run_requests[0].run_key != second.run_requests[0].run_key

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RATATOUILLE_S3_DEADLINE", "1")
    silent = _look("inbox", here.root, pattern, third.cursor)
    assert silent.cursor == third.cursor and "cannot be listed" in silent.skip_reason.skip_message
