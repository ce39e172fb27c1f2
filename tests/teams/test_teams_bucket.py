"""A catalog on PostgreSQL and the data in a bucket of a real S3 server: what works on a laptop works for a team."""

from __future__ import annotations

import json
import os
import time
import uuid

import polars
import pytest

from ratatouille import project as files
from ratatouille.engine import open_workbench
from ratatouille.engine.artifacts import read_artifact, store_artifact
from ratatouille.engine.native import Given, native_asset
from ratatouille.engine.plan import Outer
from ratatouille.engine.verdicts import Verdict, judge
from ratatouille.errors import LakeError, RatError
from ratatouille.pages.console import Console
from ratatouille.upkeep.clean import DAY_S, clean

ROWS = "select * exclude (_loaded_at) from silver.sales order by id"


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def errors(result):
    return [step.error for step in result.steps if step.error]


def the_console_tells_nobody_the_keys(machine, data):
    project, console = files.load(machine.root), Console()
    keys = [os.environ[name] for name in ("LAKE_PASSWORD", "AWS_SECRET_ACCESS_KEY")]
    try:
        assert console.ask(project, "select count(*) from silver.sales").rows == (("3",),)
        for sql in (
            "from duckdb_secrets()",
            "select getenv('AWS_SECRET_ACCESS_KEY')",
            f"from '{data}/**'",
            "from silver.no",
        ):
            with pytest.raises(RatError) as refused:
                console.ask(project, sql)
            assert not [key for key in keys if key in str(refused.value)]
    finally:
        console.close()


def test_the_whole_of_a_laptop_works_for_a_team(team, s3, capsys):
    here, there = team.machine("here"), team.machine("there")
    objects = s3.folder / team.data.rpartition("/")[2]
    here.land("a.csv", [(1, 1, 10), (2, 2, 20)])
    assert here.rat("run") == 0 and here.rat("plan") == 0, capsys.readouterr()
    assert there.rows(ROWS) == [(1, 1, 10), (2, 2, 20)]
    first = here.entries("silver.sales")[0].version
    here.land("b.csv", [(2, 3, 30), (3, 4, 40)])
    assert errors(here.run()) == [], "a merge deletes rows of objects"
    assert there.rows(ROWS) == [(1, 1, 10), (2, 3, 30), (3, 4, 40)]
    assert there.rows("select count(*) from silver.sales", at=first) == [(2,)]
    assert not files_below(here.root / ".rat" / "stage"), "what was uploaded does not stay on this machine"
    assert all(path.suffix == ".parquet" for path in files_below(objects)), "no second names, no parts"
    the_console_tells_nobody_the_keys(there, team.data)

    # Looking back, from the other machine.
    (there.root / "landing" / "a.csv").write_bytes((here.root / "landing" / "a.csv").read_bytes())
    (there.root / "landing" / "b.csv").write_bytes((here.root / "landing" / "b.csv").read_bytes())
    capsys.readouterr()
    assert there.rat("rollback", "silver.sales", "--to", str(first)) == 0, capsys.readouterr()
    assert here.rows(ROWS) == [(1, 1, 10), (2, 2, 20)]
    assert here.run("silver.sales").step("silver.sales").status == "held"
    assert here.rat("release", "silver.sales") == 0
    assert there.run("silver.sales", force=True).step("silver.sales").status == "built"
    for words in (
        ["history", "silver.sales"], ["runs"], ["show"], ["diff", "silver.sales"], ["doctor"], ["verify"],
        ["export", "gold.totals", "--to", str(there.root / "out")],
    ):  # fmt: skip
        assert there.rat(*words) == 0, (words, capsys.readouterr())
    said = capsys.readouterr().out
    assert said.count("on PostgreSQL") >= 2 and "0 going on, on PostgreSQL" in said, "the catalog, and the journal"
    assert "LAKE_PASSWORD" not in said.replace("${LAKE_PASSWORD}", "")
    assert files_below(there.root / "out")

    # A candidate that a gate keeps out leaves nothing in the bucket.
    before = files_below(objects)
    here.land("c.csv", [(9, 9, -1)])
    assert here.run("silver.sales", "bronze.sales").step("silver.sales").status == "failed"
    assert set(files_below(objects / "silver")) == {p for p in before if "silver" in p.parts}

    # Orphans go by age, what is named stays, what is not ours is not looked at.
    orphan = objects / "silver" / "sales" / "20261101T000000-abcdef-1" / "data_0.parquet"
    foreign = objects / "notes" / "mine.parquet"
    for path in (orphan, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (time.time() - 2 * DAY_S,) * 2)
    cleaned = clean(files.load(here.root))
    assert not orphan.exists() and foreign.exists(), cleaned
    assert errors(there.run("gold.totals", force=True)) == []
    clean(files.load(here.root), now=time.time() + 40 * DAY_S)
    clean(files.load(here.root), now=time.time() + 42 * DAY_S)
    assert there.rat("verify", "--all") == 0, capsys.readouterr()

    # Damage in the bucket.
    damaged = objects / here.entries("silver.sales")[0].manifest[0]["path"]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    capsys.readouterr()
    assert there.rat("verify", "--json") == 1
    assert damaged.name in capsys.readouterr().out
    damaged.unlink()
    step = there.run("gold.totals", force=True).step("gold.totals")
    assert step.status == "failed" and "gone" in step.error["where"]


def test_candidates_and_artifacts_of_native_assets(team, s3):
    here, there = team.machine("here"), team.machine("there")
    outer = Outer(str(uuid.uuid4()), "test")
    frame = polars.DataFrame({"n": [1, 2]})
    from ratatouille.engine.native_tables import store

    store(here.root, Given(native_asset("silver.judged", "code"), outer, gates=("g",)), frame)
    assert judge(there.root, "silver.judged", [outer.run_id], Verdict("g", passed=True), outer).version
    assert here.rows("select sum(n) from silver.judged") == [(3,)]

    asset = native_asset("gold.model", "code")
    folder = here.root / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "big.bin").write_bytes(os.urandom(100_000))
    (folder / "deep" / "note.txt").write_text("one")
    store_artifact(here.root, Given(asset, Outer("run-1", "test")), folder)
    (folder / "deep" / "note.txt").write_text("two")
    store_artifact(here.root, Given(asset, Outer("run-2", "test")), folder)
    stored = s3.folder / team.data.rpartition("/")[2] / ".artifacts" / "gold.model"
    assert len(files_below(stored / "files")) == 3, "equal bytes are stored once"
    place, manifest, version = read_artifact(there.root, "gold.model")
    assert version == 2 and (place / "deep" / "note.txt").read_text() == "two"
    assert len(manifest["files"]) == 2 and (place / "big.bin").stat().st_size == 100_000
    with open_workbench(there.root, write=True) as bench:
        from ratatouille.engine.holds import roll_back

        roll_back(bench, "gold.model", 1)
    assert (read_artifact(here.root, "gold.model")[0] / "deep" / "note.txt").read_text() == "one"
    clean(files.load(here.root), now=time.time() + 400 * DAY_S)
    assert read_artifact(here.root, "gold.model")[2] == 3
    for path in files_below(stored / "files"):
        path.write_bytes(b"other" + path.read_bytes()[5:])
    assert read_artifact(here.root, "gold.model")[2] == 3, "what was fetched once is kept by its hash"
    with pytest.raises(LakeError, match="damaged"):
        read_artifact(team.machine("third").root, "gold.model")
    assert there.rat("verify") == 1


def test_a_second_catalog_over_the_same_objects_is_refused(team, postgres):
    from team import Team

    from ratatouille.errors import RequestError

    here = team.machine("here")
    here.run("gold.moment")
    other = Team(team.folder / "other", team.catalog + "_other", team.data).machine("here")
    with pytest.raises(RequestError, match="belongs to another lake"):
        other.run("gold.moment")
    assert here.rat("verify") == 0


def test_an_environment_of_ones_own_reads_the_rest_from_the_team(team, monkeypatch):
    more = "environments: {dev: {vars: {}}}\n"
    here = team.machine("here", more)
    here.land("a.csv", [(1, 1, 10)])
    here.run()
    monkeypatch.setenv("RATATOUILLE_ENV", "dev")
    result = here.run("gold.totals")
    assert errors(result) == []
    assert here.rows("select sales from gold.totals") == [(1,)]
    assert (here.root / ".rat/environments/dev/catalog.sqlite").exists()


def test_no_password_and_no_key_is_ever_written_down(team, postgres, s3, monkeypatch, capsys, tmp_path):
    here = team.machine("here")
    here.land("a.csv", [(1, 1, 10)])
    here.run()
    secrets = [postgres.password, s3.secret]
    monkeypatch.setenv("LAKE_PASSWORD", "wrong-canary-1")
    assert here.rat("run") == 1
    monkeypatch.setenv("LAKE_PASSWORD", postgres.password)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-canary-2")
    here.land("b.csv", [(2, 2, 10)])
    assert here.rat("run", "--json") == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert here.rat("query", "select sum(amount) from silver.sales") == 1
    assert here.rat("doctor") == 1
    monkeypatch.setenv("LAKE_PASSWORD", "")
    assert here.rat("run") == 2
    monkeypatch.setenv("LAKE_PASSWORD", postgres.password)
    monkeypatch.setenv("RATATOUILLE_S3_DEADLINE", "soon")
    assert here.rat("run") == 2
    monkeypatch.delenv("RATATOUILLE_S3_DEADLINE")
    said = capsys.readouterr()
    assert "RATATOUILLE_S3_DEADLINE is 'soon', which is no number of seconds" in said.out + said.err
    everything = said.out + said.err
    assert "refuses" in everything and "the variable LAKE_PASSWORD" in everything
    for path in files_below(here.root):
        everything += path.read_bytes().decode("latin-1")
    monkeypatch.setenv("LAKE_PASSWORD", postgres.password)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    everything += json.dumps([str(e) for e in here.entries("silver.sales")])
    everything += here.rows("select string_agg(x::varchar, ' ') from (select * from duckdb_databases()) x")[0][0]
    with open_workbench(here.root, write=True) as bench:
        everything += repr(bench.journal.runs()) + repr(
            [bench.journal.steps(r["run_id"]) for r in bench.journal.runs()]
        )
    for canary in [*secrets, "wrong-canary-1", "wrong-canary-2"]:
        assert canary not in everything
