"""The lake by itself: one commit or nothing, read-only files, locks, damaged and foreign catalogs, quoting."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sqlite3
import stat
import threading
from dataclasses import replace

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratatouille.errors import LakeError, RatError, RequestError
from ratatouille.lake import (
    Entry,
    Publication,
    Session,
    Storage,
    attempt_folder,
    ledger,
    open_journal,
    open_lake,
    publish,
    seal,
    stage,
    types,
)
from ratatouille.lake.quoting import ident, literal, text


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / ".rat/catalog.sqlite", tmp_path / ".rat/data", tmp_path / ".rat/spill", threads=2)


@pytest.fixture
def lake(storage):
    with open_lake(storage, create=True) as opened:
        yield opened


@pytest.fixture
def journal(tmp_path):
    with open_journal(tmp_path / ".rat/journal.sqlite") as opened:
        yield opened


def candidate(lake, journal, asset, run_id, select, **how):
    """A staged, sealed publication of `select`."""
    for earlier in range(9):
        journal.drop_lease(asset, earlier)
    token = journal.take_lease(asset, run_id)
    with lake.pinned() as session:
        head = ledger.heads(session, [asset]).get(asset)
        staged = stage(session, select, asset, attempt_folder(lake.storage, asset, run_id, str(token)))
    entry = Entry(asset=asset, run_id=run_id, base_version=head.version if head else 0)
    options = {"how": "replace", "was": "table" if head else ""} | how
    staged = seal(staged, lake.storage.data)
    return Publication(entry=entry, token=token, columns=staged.columns, staged=staged, **options)


def count(lake, asset):
    with lake.session() as session:
        return session.value(f"select count(*) from lake.{asset}")


def test_several_assets_share_one_commit(lake, journal):
    both = [candidate(lake, journal, f"silver.t{n}", "one", f"select {n} as n") for n in range(3)]
    outcomes = publish(lake, journal, "one", both)
    assert len({outcome.entry.version for outcome in outcomes}) == 1


def test_a_candidate_that_cannot_be_published_leaves_the_others_alone(lake, journal):
    good = candidate(lake, journal, "silver.good", "one", "select 1 as n")
    bad = candidate(lake, journal, "silver.bad", "one", "select 1 as n")
    os.chmod(bad.staged.files[0].path, 0o600)
    os.unlink(bad.staged.files[0].path)
    outcomes = publish(lake, journal, "one", [good, bad])
    assert outcomes[0].entry is not None
    assert isinstance(outcomes[1].error, RatError)
    with lake.session() as session:
        assert set(ledger.heads(session)) == {"silver.good"}


def test_a_run_publishes_an_asset_once(lake, journal):
    one = candidate(lake, journal, "silver.t", "one", "select 1 as n")
    first = publish(lake, journal, "one", [one])[0]
    again = publish(lake, journal, "one", [one])[0]
    assert again.entry.version == first.entry.version
    assert count(lake, "silver.t") == 1


def test_an_error_inside_the_commit_changes_nothing(lake, journal):
    publish(lake, journal, "one", [candidate(lake, journal, "silver.t", "one", "select 1 as n")])
    wrong = replace(candidate(lake, journal, "silver.t", "two", "select 2 as n"), drop=("not_there",))
    (outcome,) = publish(lake, journal, "two", [wrong])
    assert outcome.entry is None
    with lake.session() as session:
        assert session.value("select n from lake.silver.t") == 1
        assert ledger.heads(session)["silver.t"].run_id == "one"


def test_published_files_are_read_only_and_their_checksums_are_in_the_ledger(lake, journal, storage):
    (outcome,) = publish(lake, journal, "one", [candidate(lake, journal, "silver.t", "one", "select 1 as n")])
    (file,) = outcome.entry.manifest
    path = storage.data / file["path"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
    assert (file["rows"], file["bytes"]) == (1, path.stat().st_size)
    assert stat.S_IMODE(storage.catalog.parent.stat().st_mode) == 0o700


def test_a_reader_keeps_its_version_while_others_publish(lake, journal):
    publish(lake, journal, "one", [candidate(lake, journal, "silver.t", "one", "select 1 as n")])
    with lake.pinned() as reader:
        before = reader.snapshot
        publish(lake, journal, "two", [candidate(lake, journal, "silver.t", "two", "select 2 as n")])
        assert (reader.snapshot, reader.value("select n from lake.silver.t")) == (before, 1)
    with lake.session() as session:
        assert session.value("select n from lake.silver.t") == 2


def test_a_reader_cannot_write(lake, journal, storage):
    publish(lake, journal, "one", [candidate(lake, journal, "silver.t", "one", "select 1 as n")])
    with open_lake(storage) as reading, reading.session() as session, pytest.raises(LakeError):
        session.execute("delete from lake.silver.t")


def test_a_locked_lake_says_who_holds_it(lake, journal, storage, monkeypatch):
    monkeypatch.setenv("RATATOUILLE_LOCK_WAIT", "0.1")
    one = candidate(lake, journal, "silver.t", "one", "select 1 as n")
    with open(f"{storage.catalog}.lock", "w") as held:
        held.write("process 42, publishing silver.other")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        (outcome,) = publish(lake, journal, "one", [one])
    assert "process 42, publishing silver.other" in outcome.error.where


def test_no_lake_is_created_by_reading(storage):
    with pytest.raises(RequestError, match="no lake here yet"), open_lake(storage):
        pass
    assert not storage.catalog.exists()


@pytest.mark.parametrize("damage", ["garbage", "foreign", "empty"])
def test_a_damaged_or_foreign_catalog_is_explained_and_not_touched(storage, damage):
    storage.catalog.parent.mkdir(parents=True)
    if damage == "garbage":
        storage.catalog.write_bytes(b"this is no database" * 100)
    elif damage == "foreign":
        with sqlite3.connect(storage.catalog) as other:
            other.execute("create table ducklake_metadata (something integer)")
        other.close()
    else:
        storage.catalog.touch()
    before = storage.catalog.read_bytes()
    with pytest.raises(RatError) as refused, open_lake(storage):
        pass
    assert str(storage.catalog) in refused.value.where
    assert storage.catalog.read_bytes() == before


def test_a_catalog_whose_files_are_elsewhere_is_refused(lake, journal, storage, tmp_path):
    publish(lake, journal, "one", [candidate(lake, journal, "silver.t", "one", "select 1 as n")])
    lake.close()
    elsewhere = replace(storage, data=tmp_path / "elsewhere")
    with pytest.raises(LakeError, match="not in this workspace"), open_lake(elsewhere):
        pass


def test_memory_and_threads_hold(storage):
    tight = replace(storage, memory_bytes=480_000_000, threads=1)  # of which Python needs a part
    with open_lake(tight, create=True) as lake, lake.session() as session:
        assert session.value("select current_setting('threads')") == 1
        assert session.value("select current_setting('memory_limit')") == "186.9 MiB"
        # Sorting 160 MB of text does not fit: it must spill into our folder, and give the right answer.
        text_rows = "select repeat(i::varchar, 10) as x from range(4000000) t(i)"
        found = session.row(
            f"select count(*), max(x) from (select x, row_number() over (order by x desc) from ({text_rows}))"
        )
        assert found == (4_000_000, "999999" * 10)
    assert not list(tight.spill.glob("*"))


@settings(max_examples=200, deadline=None)
@given(name=st.text(min_size=1, max_size=40).filter(lambda s: "\x00" not in s and s.isprintable()))
def test_any_name_survives_quoting(name):
    with duckdb.connect() as connection:
        found = connection.execute(f"select 1 as {ident(name)}").description[0][0]
    assert found == name


@settings(max_examples=200, deadline=None)
@given(
    value=st.one_of(
        st.text().filter(lambda s: "\x00" not in s and s.isascii()), st.integers(-(2**63), 2**63 - 1), st.booleans()
    )
)
def test_any_value_survives_quoting(value):
    with duckdb.connect() as connection:
        assert connection.execute(f"select {literal(value)}").fetchone()[0] == value


def test_nul_is_refused():
    for make in (ident, text):
        with pytest.raises(ValueError, match="NUL"):
            make("a\x00b")


@pytest.mark.parametrize(
    ("given_type", "stored"),
    [
        ("HUGEINT", "DECIMAL(38,0)"),
        (
            'STRUCT("HUGEINT" UHUGEINT[3], "a""[2]" ENUM(\'x)\', \'y\'))',
            'STRUCT("HUGEINT" DECIMAL(38,0)[], "a""[2]" VARCHAR)',
        ),
        ("MAP(VARCHAR, INTEGER)", "MAP(VARCHAR, INTEGER)"),
        ('"NULL"', "INTEGER"),
        ("UNION(a INTEGER)", ""),
        ("BIT", ""),
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE"),
    ],
)
def test_storable_types(given_type, stored):
    assert types.storable(given_type) == stored


def test_a_journal_on_a_full_disk_is_told_in_words(tmp_path):
    path = tmp_path / "file"
    path.write_text("not a folder")
    with pytest.raises(LakeError, match="journal"), open_journal(path / "journal.sqlite"):
        pass


def test_errors_of_sql_carry_their_line():
    with duckdb.connect() as connection, pytest.raises(RatError) as failed:
        Session(connection, "testing").rows("select 1,\n  nothing_here\nfrom range(3)")
    assert failed.value.line == 2
    assert "nothing_here" in failed.value.where


def test_a_query_that_is_interrupted_is_no_fault(lake):
    with lake.session() as session:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            session.rows("select sum(a.range * b.range) from range(10_000_000) a, range(10_000_000) b")


@pytest.mark.parametrize(
    ("sql", "command"),
    [("select * from nothing", "rat show"), ("select * from read_parquet('{}')", "rat verify"), ("selec 1", "mend")],
)
def test_an_error_of_a_query_names_the_command_that_helps(lake, tmp_path, sql, command):
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    with lake.session() as session, pytest.raises(RatError) as caught:
        session.rows(sql.format(tmp_path / "damaged.parquet"))
    assert command in caught.value.next


def test_retries_are_told_to_nobody_and_the_hooks_of_others_come_back(monkeypatch):
    from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

    from ratatouille.lake.publish import _unheard

    heard = []
    before = get_on_retry_hooks()
    set_on_retry_hooks([heard.append])
    try:
        mine = get_on_retry_hooks()
        first = threading.Thread(target=lambda: (_unheard.__enter__(), inside.wait(), _unheard.__exit__()))
        inside = threading.Event()
        with _unheard:  # this thread came first and leaves first
            first.start()
            while _unheard._inside < 2:
                first.join(0.001)
            assert get_on_retry_hooks() == ()
        assert get_on_retry_hooks() == (), "somebody else is still inside"
        inside.set()
        first.join()
        assert get_on_retry_hooks() == mine
    finally:
        set_on_retry_hooks(before)
