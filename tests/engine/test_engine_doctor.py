"""verify names whatever is not as it was published; doctor knows what keeps a lake from opening, and touches nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from random import Random

import pytest

from ratatouille import project as files
from ratatouille.cli.entry import run_command
from ratatouille.engine.artifacts import store_artifact
from ratatouille.engine.native import Given, native_asset, plan_native, stands
from ratatouille.engine.plan import Outer
from ratatouille.errors import RequestError
from ratatouille.handle import Workspace
from ratatouille.lake import open_lake
from ratatouille.lake.care import health
from ratatouille.lake.catalogs.lock import exclusive
from ratatouille.upkeep.doctor import examine
from ratatouille.upkeep.verify import verify


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A merge of two days (so there is a delete file), a table below it, and an artifact in two versions."""
    root = tmp_path_factory.mktemp("built") / "shop"
    for name, text in {
        "workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 1}\n",
        "pipelines/bronze/m.sql": "select * from {{ source('landing/*.csv') }}",
        "pipelines/bronze/m.yaml": "materialize: merge\nunique_key: id\n"
        "sources: {landing/*.csv: {columns: {id: integer}}}\n",
        "pipelines/silver/t.sql": "select id from {{ ref('bronze.m') }}",
        "landing/a.csv": "id\n" + "\n".join(map(str, range(500))) + "\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert run_command(["-w", str(root), "run", "--json"]) == 0
    (root / "landing/b.csv").write_text("id\n" + "\n".join(map(str, range(400, 900))) + "\n")
    assert run_command(["-w", str(root), "run", "--json"]) == 0
    for number in (1, 2):
        given = Given(native_asset("gold.report", "code"), Outer(f"run-{number}", "test"))
        store_artifact(root, given, {"n": number})
    return root


@pytest.fixture
def root(built, tmp_path):
    shutil.copytree(built, tmp_path / "shop", symlinks=True)
    with open_lake(storage(tmp_path / "shop")):
        pass  # a copy is taken in once: its catalog names the new folder then
    return tmp_path / "shop"


def storage(root):
    from ratatouille.engine.workbench import storage_of

    return storage_of(files.load(root).workspace)


def the(root, pattern):
    """The newest file that matches, writable."""
    path = max((root / ".rat").glob(pattern), key=lambda found: (found.stat().st_mtime_ns, str(found)))
    os.chmod(path.parent, 0o700)
    os.chmod(path, 0o600)
    return path


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path):
    other = next(p for p in path.parent.parent.rglob("data_0.parquet") if p != path)
    os.chmod(other, 0o600)
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def damage_of(root, **options):
    return [(one.asset, one.what, one.current) for one in verify(files.load(root), **options).damaged]


def test_a_whole_lake_is_whole(root):
    done = verify(files.load(root), every_version=True)
    assert done.whole and not done.damaged and done.files >= 5 and done.assets == 2 and done.bytes > 1000
    assert verify(files.load(root), ["silver/t"]).files == 1
    with pytest.raises(RequestError, match=r"silver\.t"):
        verify(files.load(root), ["silver.tt"])


@pytest.mark.parametrize(
    ("pattern", "damage", "asset", "said"),
    [
        ("data/bronze/m/*/*.parquet", flip, "bronze.m", "checksum"),
        ("data/bronze/m/*/*.parquet", lambda p: p.write_bytes(p.read_bytes()[:-10]), "bronze.m", "bytes instead of"),
        ("data/bronze/m/*/*.parquet", lambda p: p.unlink(), "bronze.m", "gone"),
        ("data/bronze/m/*/*.parquet", swap, "bronze.m", " "),
        (
            "data/bronze/m/ducklake-*-delete.parquet",
            lambda p: p.write_bytes(b"x" * p.stat().st_size),
            "bronze.m",
            "read",
        ),
        ("artifacts/gold.report/run-2/value.json", flip, "gold.report", "checksum"),
        ("artifacts/gold.report/run-2/manifest.json", lambda p: p.unlink(), "gold.report", "manifest"),
        ("artifacts/gold.report/current.json", lambda p: p.write_text("{"), "gold.report", "pointer"),
    ],
)
def test_damage_to_a_current_version_is_named(root, pattern, damage, asset, said, capsys):
    damage(the(root, pattern))
    found = damage_of(root)
    assert found and {one[0] for one in found} == {asset} and all(said in one[1] and one[2] for one in found), found
    assert run_command(["-w", str(root), "verify"]) == 1
    assert asset in capsys.readouterr().out


def test_damage_to_an_old_version_is_found_when_all_are_asked_for(root):
    for path in (root / ".rat/data/silver/t").rglob("*.parquet"):
        os.chmod(path, 0o600)
    old = min((root / ".rat/data/silver/t").rglob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    flip(old)
    flip(the(root, "artifacts/gold.report/run-1/value.json"))
    assert damage_of(root) == []
    found = damage_of(root, every_version=True)
    assert [(one[0], one[2]) for one in found] == [("silver.t", False), ("gold.report", False)], found


def test_a_ledger_that_disagrees_with_the_catalog_is_found(root):
    with open_lake(storage(root), write=True) as lake, lake.session() as session:
        session.execute("delete from lake.silver.t where id < 10")
        session.execute("create table lake.silver.stranger as select 1 as n")
    found = {(one.asset, one.severity): one.what for one in verify(files.load(root)).damaged}
    assert "890 rows, and the ledger says 900" in found["silver.t", "error"]
    assert "the ledger does not" in found["silver.stranger", "warn"]


# The doctor


def fingerprint(root):
    return {
        str(path): (path.lstat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(root.rglob("*"))
    }


def sick(root):
    """Name -> the finding that is not ok; asserts that looking has touched nothing and that each has four lines."""
    before = fingerprint(root)
    found = [one for one in examine(root) if one.status != "ok"]
    assert fingerprint(root) == before, "the doctor has touched something"
    assert all(one.what and one.where and one.state and one.next for one in found), found
    return {one.name: one for one in found}


def metadata(root, sql):
    with sqlite3.connect(root / ".rat/catalog.sqlite") as catalog:
        catalog.execute(sql)
    catalog.close()


def test_a_healthy_lake_is_healthy(root, capsys):
    assert sick(root) == {}
    assert run_command(["-w", str(root), "doctor"]) == 0
    assert "All is well" in capsys.readouterr().out


CATALOG = ".rat/catalog.sqlite"


@pytest.mark.parametrize(
    ("damage", "name", "said"),
    [
        (lambda root: (root / CATALOG).write_bytes(b"hello" * 1000), "catalog", "no SQLite file"),
        (lambda root: (root / CATALOG).write_bytes(b"\x00" * 8 + b"DUCK" + b"\x00" * 99), "catalog", "a DuckDB file"),
        (lambda root: (root / CATALOG).write_bytes(b""), "catalog", "empty"),
        (lambda root: (root / CATALOG).unlink(), "catalog", "gone, and its data files are there"),
        (lambda root: os.truncate(root / CATALOG, 20_000), "catalog", "damaged"),
        (lambda root: foreign(root / CATALOG), "catalog", "something else"),
        (lambda root: metadata(root, "update ducklake_metadata set value = '2.0' where key = 'version'"), "catalog", "newer"),
        (lambda root: metadata(root, "update ducklake_table set end_snapshot = 1 where table_name = 'ledger'"), "catalog", "no ledger"),
        (lambda root: metadata(root, "update ducklake_metadata set value = '/gone/' where key = 'data_path'"), "catalog", "moved"),
        (lambda root: metadata(root, "update ducklake_snapshot set snapshot_time = '2099-01-01 00:00:00+00'"), "clock", "2099"),
        (lambda root: (root / ".rat/journal.sqlite").write_bytes(b"x" * 9000), "journal", "damaged"),
        (lambda root: os.chmod(root / ".rat", 0o755), "permissions", "0755"),  # noqa: S103
        (lambda root: (root / CATALOG).with_name("catalog.sqlite-wal").write_bytes(b"x" * 100), "log", "left over"),
        (lambda root: (root / ".rat/data/.unsettled/run-1").mkdir(parents=True), "commits", "half-way"),
        (lambda root: (root / "pipelines/silver/t.sql").write_text("select from"), "files", "1 errors"),
        (lambda root: (root / "workspace.yaml").write_text("layers: 7"), "workspace", "layers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_recognised_and_touched_by_nobody(root, damage, name, said):
    damage(root)
    found = sick(root)
    assert said in found[name].what, found
    assert run_command(["-w", str(root), "doctor", "--json"]) == int(any(f.status == "error" for f in found.values()))


def foreign(path):
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("create table customers (id)")
    other.close()


def test_a_lock_that_another_process_holds_is_named(root):
    with exclusive(root / CATALOG, "publishing silver.t"):
        found = sick(root)["lock"]
        assert found.status == "warn" and "publishing silver.t" in found.where
    code = (
        f"import sqlite3, sys; c = sqlite3.connect({str(root / CATALOG)!r}); c.execute('pragma locking_mode=exclusive');"
        "c.execute('pragma journal_mode=delete'); c.execute('begin exclusive'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        found = sick(root)["lock"]
        assert found.status == "error" and str(other.pid) in found.where
        other.stdin.close()


def test_the_machine_is_looked_at_too(root, monkeypatch):
    full = os.statvfs(root)

    class Full:
        f_bavail, f_blocks, f_frsize, f_flag, f_files, f_favail = 10, full.f_blocks, 4096, 0, 0, 0

    monkeypatch.setattr(health.os, "statvfs", lambda path: Full)
    assert "nearly full" in sick(root)["disk"].what
    monkeypatch.undo()
    monkeypatch.setattr(health.time, "time", lambda: 1_000_000_000.0)
    assert "clock is wrong" in sick(root)["clock"].what
    monkeypatch.undo()
    real = health.version
    monkeypatch.setattr(health, "version", lambda name: "1.4.0" if name == "duckdb-extension-excel" else real(name))
    found = sick(root)["extensions"]
    assert "1.4.0" in found.what and found.next.startswith("pip install 'duckdb-extension-excel==")


def test_whatever_happens_to_a_file_is_found(root, trials, figure):
    """Any bit, any length, another file in its place, or nothing: RATATOUILLE_TRIALS times five of them."""
    project = files.load(root)
    stored = [*(root / ".rat/data").rglob("*.parquet"), *(root / ".rat/artifacts").rglob("value.json")]
    stored = [path for path in stored if not path.name.endswith("-delete.parquet")]
    for path in stored:
        os.chmod(path, 0o600)
    random, count = Random(7), trials(5)
    missed = []
    for _ in range(count):
        path, kind = random.choice(stored), random.choice(["bit", "shorter", "longer", "zeros", "other", "gone"])
        whole = path.read_bytes()
        damaged = bytearray(whole)
        at = random.randrange(len(damaged))
        if kind == "bit":
            damaged[at] ^= 1 << random.randrange(8)
        elif kind == "zeros":
            damaged[at : at + 16] = bytes(len(damaged[at : at + 16]))
        elif kind == "other":
            damaged = bytearray(random.choice([p for p in stored if p != path]).read_bytes())
        elif kind != "gone":
            damaged = damaged[:at] if kind == "shorter" else damaged + b"x"
        if kind == "gone":
            path.unlink()
        else:
            path.write_bytes(damaged)
        asset = path.parent.parent.name if path.suffix == ".json" else ".".join(path.parts[-4:-2])
        found = {one.asset for one in verify(project, every_version=True).damaged}
        path.write_bytes(whole)
        if bytes(damaged) != whole and asset not in found:
            missed.append((str(path), kind, at))
    figure("a stored file damaged, then rat verify --all", size=f"{count} files", seeds="7", wrong=len(missed))
    assert not missed


def test_a_lake_whose_maker_died_before_its_ledger_was_there_is_no_lake_yet(shop, monkeypatch):
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    shop.write({"pipelines/gold/a.sql": "select 1 as x"})
    with monkeypatch.context() as patched:
        patched.setattr("ratatouille.lake.connect._create_ledger", dies)
        with pytest.raises(KeyboardInterrupt):
            shop.run()
    kitchen = Workspace(shop.root)
    assert kitchen.history() == [] and [step["action"] for step in kitchen.plan()["steps"]] == ["build"]
    with pytest.raises(RequestError, match="there is no lake here yet") as told:
        kitchen.query("select 1")
    assert told.value.next == "rat run"
    rain = native_asset("raw.rain", "1")
    assert stands(shop.root, rain, Outer("again", "Dagster", resumes=("killed",))) is None
    assert plan_native(shop.root, rain).reason == "never built"
    assert shop.run().step("gold.a").status == "built" and shop.rows("select x from gold.a") == [(1,)]
