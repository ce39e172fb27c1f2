"""Cleaning: what the rules keep can be read, what they do not goes in two steps, and nothing that anybody reads."""

from __future__ import annotations

import shutil
import time
import uuid

import pytest

from ratatouille import project as files
from ratatouille.cli.entry import run_command
from ratatouille.engine import open_workbench
from ratatouille.engine.artifacts import store_artifact
from ratatouille.engine.holds import roll_back
from ratatouille.engine.native import Given, native_asset
from ratatouille.engine.native_tables import store
from ratatouille.engine.plan import Outer
from ratatouille.engine.verdicts import Verdict, judge
from ratatouille.errors import RequestError
from ratatouille.lake import artifacts, ledger
from ratatouille.lake import versions as lake_versions
from ratatouille.lake.care import upkeep
from ratatouille.lake.catalogs.lock import nobody_looks_back
from ratatouille.upkeep import diff as comparing
from ratatouille.upkeep import export as exporting
from ratatouille.upkeep.clean import DAY_S, clean
from ratatouille.upkeep.verify import verify

YAML = "name: shop\nresources: {memory: 1GB, threads: 2}\nretention: {versions: 2, days: 0}\n"


def swept(shop, *, days=1.5, **options):
    return clean(files.load(shop.root), now=time.time() + days * DAY_S, **options)


def versions(shop, asset):
    return [entry.version for entry in reversed(shop.entries(asset))]


def parquet(shop):
    return {path: path.stat().st_size for path in (shop.root / ".rat/data").rglob("*.parquet")}


def every_version(shop, name):
    """version -> its rows."""
    with open_workbench(shop.root) as bench, bench.lake.session() as session:
        known = [entry.version for entry in ledger.entries(session, name)]
        return {v: session.rows(f"select id, _file from lake.{name} at (version => {v}) order by all") for v in known}


@pytest.fixture(scope="module")
def five_versions(tmp_path_factory):
    """Five versions of silver.b on five of bronze.a."""
    root = tmp_path_factory.mktemp("five") / "shop"
    for folder in ("bronze", "silver"):
        (root / "pipelines" / folder).mkdir(parents=True)
    (root / "workspace.yaml").write_text(YAML)
    (root / "pipelines/silver/b.sql").write_text("select n * 2 as n from {{ ref('bronze.a') }}")
    for size in range(1, 6):
        (root / "pipelines/bronze/a.sql").write_text(f"select i as n from range({size}00) t(i)")
        assert run_command(["-w", str(root), "run", "--json"]) == 0
    return root


@pytest.fixture
def grown(shop, five_versions):
    shutil.rmtree(shop.root)
    shutil.copytree(five_versions, shop.root)
    return shop


def test_versions_beyond_the_retention_expire_and_their_files_go_a_day_later(grown):
    before, known = parquet(grown), versions(grown, "silver.b")
    assert swept(grown, days=0.9).expired == 0, "they were current today: somebody may be reading them"
    planned = swept(grown, dry_run=True)
    assert parquet(grown) == before and planned.expired > 0
    assert grown.value("select count(*) from silver.b", at=known[0]) == 100, "a dry run changes nothing"
    assert {one.name: one.versions for one in planned.removed} == {
        name: tuple(versions(grown, name)[:3]) for name in ("bronze.a", "silver.b")
    }

    done = swept(grown)
    assert (done.expired, done.later_bytes) == (planned.expired, planned.later_bytes)
    assert parquet(grown) == before, "the files stay for a day: somebody may be reading them"
    for version, rows in zip(known[-2:], (400, 500), strict=True):
        assert grown.value("select count(*) from silver.b", at=version) == rows
    with pytest.raises(RequestError, match="no version"):
        grown.value("select 1", at=known[0])
    with open_workbench(grown.root, write=True) as bench, pytest.raises(RequestError, match="not kept any more"):
        roll_back(bench, "silver.b", known[0])

    later = swept(grown, days=3)
    gone = set(before) - set(parquet(grown))
    assert later.bytes == planned.later_bytes == sum(before[path] for path in gone) > 0, "the bytes that were foretold"
    assert grown.value("select count(*) from silver.b") == 500
    assert swept(grown, days=5).removed == (), "nothing is left to do"
    assert len(grown.entries("silver.b")) == 5, "the ledger still tells of what was published"


def test_held_rolled_back_and_read_versions_stay_whatever_their_age(grown, monkeypatch):
    monkeypatch.setattr(upkeep, "MANY_FILES", 1)
    first = versions(grown, "silver.b")[0]
    with open_workbench(grown.root, write=True) as bench:
        roll_back(bench, "silver.b", first)
    assert [one.name for one in swept(grown).compacted] == ["bronze.a"], "what is held keeps the entry that says so"
    swept(grown, days=4)
    assert grown.value("select count(*) from silver.b", at=first) == 100, "the version that it was brought back to"
    read = grown.entries("silver.b")[0].inputs["bronze.a"]
    assert grown.value("select count(*) from bronze.a", at=read) > 0, "and what the current one was built from"


def test_an_assets_own_retention_goes_before_the_workspaces(grown):
    grown.write({"pipelines/bronze/a.yaml": "retention: {versions: 4}\n"})
    project = files.load(grown.root)
    assert project.assets["bronze.a"].code_hash == grown.entries("bronze.a")[0].code_hash, "no reason to rebuild"
    swept(grown)
    assert [grown.value("select count(*) from bronze.a", at=v) for v in versions(grown, "bronze.a")[1:]] == [
        200,
        300,
        400,
        500,
    ]
    with pytest.raises(RequestError):
        grown.value("select 1", at=versions(grown, "silver.b")[0])


def test_days_keep_what_the_number_of_versions_would_not(grown):
    grown.write({"workspace.yaml": YAML.replace("days: 0", "days: 7")})
    assert swept(grown, days=6).expired <= 3, "only what was no version of a table"
    assert grown.value("select count(*) from silver.b", at=versions(grown, "silver.b")[0]) == 100
    assert swept(grown, days=8).expired >= 3


def test_nothing_is_cleaned_while_a_run_or_a_step_is_going_on(grown):
    with open_workbench(grown.root, write=True) as bench:
        bench.journal.start_run("somebodys-run", {})
        assert swept(grown, days=9).waits_for == ("run somebodys-run",)
        bench.journal.end_run("somebodys-run", "done")
        token = bench.journal.take_lease("silver.b", "a-step")
        said = swept(grown, days=9)
        assert said.waits_for == ("run a-step",) and not said.removed
        bench.journal.drop_lease("silver.b", token)
    assert swept(grown, days=9).removed


def test_what_killed_runs_left_goes_after_a_day_and_open_candidates_stay(grown):
    data = grown.root / ".rat/data"
    left = {
        "killed": data / "silver/b/20260101T000000-dead00-1.1/data_0.parquet",
        "stray": data / "silver/b/ducklake-stray.parquet",
        "step": grown.root / ".rat/steps/run/step/value.json",
        "failed": grown.root / ".rat/failed/silver.gone/x.parquet",
        "chunks": grown.root / ".rat/chunks/silver.gone/0123/out-000000.parquet",
    }
    foreign = [data / "notes.parquet", data / "silver/b/notes.txt", data / "silver/b/backup/data_0.parquet"]
    foreign.append(data / "dev/silver/b/ducklake-of-a-lake-inside.parquet")
    for path in (*left.values(), *foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    assert not swept(grown, days=0.9).bytes, "young"
    found = swept(grown, days=1.1, dry_run=True).removed
    assert sum(one.bytes for one in found if one.what == "orphans") == 2000 and left["killed"].exists()
    swept(grown, days=1.1)
    assert [name for name, path in left.items() if path.exists()] == ["step", "failed", "chunks"]
    assert not left["killed"].parent.exists() and (data / "silver/b").exists()
    swept(grown, days=8)
    assert not left["chunks"].exists()
    swept(grown, days=31)
    assert not any(path.exists() for path in left.values())
    assert all(path.exists() for path in foreign), "what is not ours by its name is nobody's orphan"
    assert grown.value("select count(*) from silver.b") == 500


def test_many_small_files_become_one_and_everything_else_stays(shop, monkeypatch):
    monkeypatch.setattr(upkeep, "MANY_FILES", 3)
    shop.write(
        {
            "workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 1}\nretention: {versions: 30}\n",
            "pipelines/bronze/log.sql": "select * from {{ source('landing/*.csv') }}",
            "pipelines/bronze/log.yaml": "materialize: append\nsources: {landing/*.csv: {columns: {id: integer}}}\n",
            "pipelines/bronze/last.sql": "select * from {{ source('landing/*.csv') }}",
            "pipelines/bronze/last.yaml": "materialize: merge\nunique_key: id\n"
            "sources: {landing/*.csv: {columns: {id: integer}}}\n",
            "pipelines/silver/below.sql": "select count(*) as n from {{ ref('bronze.log') }}",
        }
    )
    for day in range(4):
        ids = "\n".join(str(i) for i in range(day * 5, day * 5 + 10))
        shop.write({f"landing/{day}.csv": f"id\n{ids}\n"}).run()
    names = ("bronze.log", "bronze.last")
    then = {name: every_version(shop, name) for name in names}
    assert {name: len(found) for name, found in then.items()} == dict.fromkeys(names, 4)
    done = swept(shop)
    assert {one.name for one in done.compacted} == set(names), done
    assert not done.warnings
    for name in names:
        head = shop.entries(name)[0]
        assert head.action == "compact" and len(head.manifest) == 1 and head.manifest[0]["sha256"]
    for name in names:
        assert then[name].items() <= every_version(shop, name).items(), name
    assert {step.rule for step in shop.plan().steps} == {"fresh"}, "same rows: nothing below is stale"
    shop.write({"landing/x.csv": "id\n7\n"})
    assert {step.status for step in shop.run().steps} == {"built"}
    swept(shop, days=2)
    assert shop.value("select count(*) from bronze.log") == 41
    assert shop.value("select count(*) from bronze.last") == 25


def test_a_removed_files_table_goes_only_when_asked(grown):
    grown.remove("pipelines/silver/b.sql")
    grown.write({"pipelines/silver/kept.sql": "select 1 as one"}).run()
    assert not [one for one in swept(grown).removed if one.what == "table"]
    grown.write({"pipelines/silver/broken.sql": "select from where"})
    with pytest.raises(RequestError, match="--removed"):
        swept(grown, removed=True)
    grown.remove("pipelines/silver/broken.sql")
    assert [one.name for one in swept(grown, removed=True, dry_run=True).removed if one.what == "table"] == ["silver.b"]
    version = versions(grown, "silver.b")[-1]
    assert grown.value("select count(*) from silver.b") == 500, "a dry run drops nothing"
    swept(grown, removed=True)
    assert grown.rows("from (show all tables) select name where schema = 'silver'") == [("kept",)]
    assert grown.value("select count(*) from silver.b", at=version) == 500, "its versions stay as long as the rule says"
    with open_workbench(grown.root, write=True) as bench, pytest.raises(RequestError, match="b was dropped"):
        roll_back(bench, "silver.b", version)
    left = [path for path in parquet(grown) if "/silver/b/" in str(path)]
    grown.run(force=True)
    grown.run(force=True)  # the rule keeps two versions of each table: none of them is of before now
    swept(grown, days=8)
    swept(grown, days=10)
    assert left and not [path for path in parquet(grown) if "/silver/b/" in str(path)], "in the end it leaves the disk"
    assert grown.value("select count(*) from bronze.a") == 500
    assert len(grown.entries("silver.b")) == 5, "the ledger still tells of it"
    grown.write({"pipelines/silver/b.sql": "select n * 2 as n from {{ ref('bronze.a') }}"})
    assert grown.step("silver.b").status == "built"


def test_versions_do_not_expire_under_somebody_who_looks_back(grown):
    first = versions(grown, "silver.b")[0]
    with open_workbench(grown.root, at=first) as bench, bench.lake.pinned() as session:
        assert session.value("select count(*) from lake.silver.b") == 100
        said = swept(grown)
        assert said.expired == 0 and "earlier version" in said.warnings[0] and not said.removed
        assert session.rows("select min(n), max(n) from lake.silver.b") == [(0, 198)]
    assert swept(grown).expired


def test_candidates_stay_while_they_may_become_current_and_a_week_after_a_gate_kept_them_out(grown):
    import polars

    frame = polars.DataFrame({"n": [1, 2]})
    outer = Outer(str(uuid.uuid4()), "test")  # Dagster's runs are called like this
    for name in ("waits", "fails"):
        store(grown.root, Given(native_asset(f"silver.{name}", "code"), outer, gates=("g",)), frame)
    judge(grown.root, "silver.fails", [outer.run_id], Verdict("g", passed=False), outer)

    def there(name):
        return bool(list((grown.root / ".rat/data/silver" / name).rglob("*.parquet")))

    swept(grown, days=6)
    assert there("waits") and there("fails")
    swept(grown, days=8)
    assert there("waits") and not there("fails")
    assert judge(grown.root, "silver.waits", [outer.run_id], Verdict("g", passed=True), outer).version
    assert grown.value("select sum(n) from silver.waits") == 3


def test_artifacts_are_kept_by_the_same_rule(grown):
    asset = native_asset("gold.model", "code")
    for number in range(1, 6):
        store_artifact(grown.root, Given(asset, Outer(f"run-{number}", "test")), {"n": min(number, 4)})
    store_artifact(grown.root, Given(asset, Outer("judged", "test"), gates=("g",)), {"n": 9})
    with open_workbench(grown.root, write=True) as bench:
        roll_back(bench, "gold.model", 2)
        storage = bench.lake.storage
    home = grown.root / ".rat/artifacts/gold.model"
    (home / ".killed-1").mkdir()
    folders = {path.name for path in home.iterdir() if path.is_dir()}
    swept(grown, days=0.5)
    assert {path.name for path in home.iterdir() if path.is_dir()} == folders, "folders go when they are a day old"
    swept(grown)
    assert sorted(path.name for path in home.iterdir() if path.is_dir()) == ["judged", "run-2", "run-5"]
    assert [one.entry.version for one in artifacts.published(storage, "gold.model")] == [2, 5, 6]
    assert artifacts.hold(storage, "gold.model").version == 2
    assert verify(files.load(grown.root), ["gold.model"], every_version=True).whole


def test_whatever_looks_back_keeps_versions_from_expiring(grown, monkeypatch):
    """Without the lock a rollback would copy no rows of a version that expires meanwhile, and publish that."""
    catalog, alone = grown.root / ".rat/catalog.sqlite", []

    def watched(module, name):
        real = getattr(module, name)

        def watching(*words, **options):
            with nobody_looks_back(catalog) as nobody:
                alone.append(nobody)
            return real(*words, **options)

        monkeypatch.setattr(module, name, watching)

    first = versions(grown, "silver.b")[0]
    project = files.load(grown.root)
    for module, name in ((lake_versions, "stage"), (comparing._Comparison, "of"), (exporting, "_write")):
        watched(module, name)
    comparing.diff(project, "silver.b", first)
    exporting.export(project, ["silver.b"], grown.root.parent / "out", version=first)
    with open_workbench(grown.root, write=True) as bench:
        roll_back(bench, "silver.b", first)
    assert alone == [False, False, False]
    with nobody_looks_back(catalog) as nobody:
        assert nobody
