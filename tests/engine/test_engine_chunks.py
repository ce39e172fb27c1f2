"""context.chunks: bounded frames, a checkpoint for each, and what happens as memory gets scarce."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ratatouille.engine import Request, memory
from ratatouille.engine.records import Progress
from ratatouille.handle import run_request
from ratatouille.lake.limits import budget_bytes, container_limit_bytes

BASE = "select i as id, i // 7 as grp, hash(i) as h from range(1000) t(i)"
# Dies at the chunk that `die_at` names, and writes down which chunks it was given.
WORKER = """
import os, signal
from pathlib import Path

HERE = Path(__file__).parents[2]

def build(context):
    dies = HERE / "die_at"
    for chunk in context.chunks(context.ref("bronze.base"), {arguments}):
        with (HERE / "seen").open("a") as seen:
            seen.write(f"{{chunk['id'][0]}} {{len(chunk)}}\\n")
        if dies.exists() and chunk["id"][0] >= int(dies.read_text()):
            {end}
        yield chunk.select("id", "grp", total=chunk["id"] * 2)
"""
KILLED, FAILED = "os.kill(os.getpid(), signal.SIGKILL)", "raise ValueError('no')"


def worker(arguments: str = "size=100, by='id'", end: str = FAILED) -> str:
    return WORKER.format(arguments=arguments, end=end)


def seen(shop) -> list[tuple[int, int]]:
    path = shop.root / "seen"
    found = [tuple(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def command(shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ratatouille.cli", *arguments],
        cwd=shop.root,
        capture_output=True,
        text=True,
        check=False,
    )


def stopped_at(shop, row: int, files: dict[str, str] | None = None) -> None:
    """A run of silver.made that failed at the chunk that begins with `row`, after finishing those before it."""
    shop.write(
        {"pipelines/bronze/base.sql": BASE, "pipelines/silver/made.py": worker(), **(files or {}), "die_at": str(row)}
    )
    step = shop.run().step("silver.made")
    assert step.status == "failed"
    (shop.root / "die_at").unlink()
    seen(shop)


def made(shop) -> tuple[int, int, int]:
    return shop.rows("select count(*), count(distinct id), sum(total)::bigint from silver.made")[0]


WHOLE = (1000, 1000, 999_000)


def test_a_run_that_is_killed_goes_on_with_the_next_chunk(shop):
    shop.write({"pipelines/bronze/base.sql": BASE, "pipelines/silver/made.py": worker(end=KILLED), "die_at": "700"})
    assert command(shop, "run").returncode == -signal.SIGKILL
    assert [start for start, _ in seen(shop)] == [0, 100, 200, 300, 400, 500, 600, 700]
    (shop.root / "die_at").unlink()
    again = command(shop, "run")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "goes on after 7 finished chunks, 700 of 1,000 rows" in again.stderr
    assert [start for start, _ in seen(shop)] == [700, 800, 900]
    assert made(shop) == WHOLE
    assert not (shop.root / ".rat/chunks").exists()
    assert shop.run().status == "fresh"


@pytest.mark.parametrize(
    ("change", "begins_at"),
    [
        ({}, 300),
        ({"pipelines/silver/made.yaml": "description: Only words."}, 300),
        ({"pipelines/silver/made.yaml": "chunks: {rows: 50}"}, 300),
        ({"pipelines/silver/made.py": worker().replace("* 2", "* 1 * 2")}, 0),
        ({"pipelines/bronze/base.sql": BASE + " union all select 5000, 0, 0::ubigint"}, 0),
    ],
    ids=["nothing", "its description", "the size of chunks", "its code", "its input"],
)
def test_a_changed_input_or_code_begins_anew_and_nothing_else_does(shop, change, begins_at):
    stopped_at(shop, 300)
    shop.write(change)
    step = shop.run().step("silver.made")
    assert seen(shop)[0][0] == begins_at
    assert step.chunks["taken_over"] == begins_at // 100
    expected = WHOLE if "pipelines/bronze/base.sql" not in change else (1001, 1001, 1_009_000)
    assert made(shop) == expected


def test_a_chunk_whose_file_was_damaged_is_done_again(shop):
    stopped_at(shop, 300)
    second = sorted((shop.root / ".rat/chunks/silver.made").glob("*/out-*.parquet"))[1]
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    shop.run()
    assert seen(shop)[0][0] == 100
    assert made(shop) == WHOLE


def test_a_last_line_of_the_manifest_that_was_cut_off_is_a_chunk_that_was_not_finished(shop):
    stopped_at(shop, 300)
    (manifest,) = (shop.root / ".rat/chunks/silver.made").glob("*/manifest.jsonl")
    manifest.write_text(manifest.read_text()[:-40])
    shop.run()
    assert seen(shop)[0][0] == 200
    assert made(shop) == WHOLE


def test_the_error_says_which_chunks_are_kept_and_a_rebuild_forgets_them(shop):
    stopped_at(shop, 300)
    shop.write({"die_at": "500"})
    step = shop.step("silver.made")
    assert step.error["state"].endswith("5 finished chunks are kept: the next run goes on after them.")
    assert "made.py:" in step.error["where"]
    assert [start for start, _ in seen(shop)] == [300, 400, 500]
    (shop.root / "die_at").unlink()
    shop.step("silver.made", force=True)
    assert seen(shop)[0][0] == 0


def test_landing_files_in_chunks_are_counted_and_read_anew_after_a_failure(shop):
    code = (
        worker("size=2")
        .replace("context.ref('bronze.base')", "")
        .replace('context.ref("bronze.base")', "context.source('landing/*.csv')")
    )
    code = code.replace('chunk.select("id", "grp", total=chunk["id"] * 2)', "chunk")
    rules = "materialize: append\nmax_quarantine: 0.5\nsources: {landing/*.csv: {columns: {id: bigint}}}"
    shop.write(
        {
            "pipelines/bronze/made.py": code,
            "pipelines/bronze/made.yaml": rules,
            "landing/a.csv": "id\n0\n1\n2\n3\nx\n",
            "die_at": "2",
        }
    )
    assert shop.step("bronze.made").status == "failed"
    (shop.root / "die_at").unlink()
    seen(shop)
    step = shop.step("bronze.made")
    assert (step.status, step.rows_total, step.rows_rejected, step.chunks["taken_over"]) == ("built", 4, 1, 0), (
        step.error
    )
    assert shop.rows("select distinct _run_id = (select max(run_id) from rat.ledger) from bronze.made") == [(True,)]


# What build may do that a checkpoint must not break: (code, the ids that come out)
CARRIES = """
import polars
def build(context):
    held = None
    for chunk in context.chunks(context.ref("bronze.base"), size=100, by="id"):
        if (context.query("select 1").fetchone() and (__import__("pathlib").Path(__file__).parents[2] / "die_at").exists()
                and chunk["id"][0] >= 300):
            raise ValueError("no")
        rows = chunk.select("id", total=chunk["id"] * 2)
        yield rows[:-1] if held is None else polars.concat([held, rows[:-1]])
        held = rows[-1:]
    yield held
"""
COLLECTS = CARRIES.replace(
    "        yield rows[:-1] if held is None else polars.concat([held, rows[:-1]])\n", ""
).replace("held = rows[-1:]", "held = rows if held is None else polars.concat([held, rows])")
LEAVES = CARRIES.replace("        held = rows[-1:]\n    yield held\n", "").replace(
    "yield rows[:-1] if held is None else polars.concat([held, rows[:-1]])",
    "yield rows\n        held = (held or 0) + 1\n        if held == 5: break",
)


@pytest.mark.parametrize(
    ("code", "rows"), [(CARRIES, 1000), (COLLECTS, 1000), (LEAVES, 500)], ids=["carry", "collect", "leave"]
)
def test_a_build_that_keeps_something_between_chunks_loses_nothing_by_going_on(shop, code, rows):
    stopped_at(shop, 300, {"pipelines/silver/made.py": code})
    assert shop.step("silver.made").status == "built"
    assert made(shop)[:2] == (rows, rows)


COUNTS = """
from pathlib import Path
def build(context):
    n = 0
    for chunk in context.chunks(context.ref("bronze.base"), size=100, by="id", resume=False):
        if (Path(__file__).parents[2] / "die_at").exists() and n == 300:
            raise ValueError("no")
        n += len(chunk)
        yield chunk.select("id", total=n)
"""


def test_a_build_that_counts_says_so_and_begins_with_the_first_chunk(shop):
    stopped_at(shop, 300, {"pipelines/silver/made.py": COUNTS})
    assert shop.step("silver.made").status == "built"
    assert shop.rows("select count(*), count(distinct id), max(total) from silver.made") == [(1000, 1000, 1000)]


# What it loads is kept elsewhere, as by a server: a later attempt sends what is missing there, and nothing else.
SENDS = """
from pathlib import Path

import polars

HERE = Path(__file__).parents[2]

def build(context):
    for kind, columns in (("a", "id"), ("b", "id, grp")):
        if not (HERE / kind).exists():
            rows = context.query(f"select {columns} from base where id < 500", base=context.ref("bronze.base"))
            for chunk in context.chunks(rows, size=100, resume=False):
                if (HERE / "die_at").exists() and kind == "b" and len(SENT) == 7:
                    raise ValueError("no")
                SENT.append(chunk.columns)
            (HERE / kind).touch()
    return polars.DataFrame({"sent": [", ".join(one) for one in SENT]})

SENT = []
"""


def test_a_loop_that_does_not_resume_never_gets_the_rows_of_another_one(shop):
    stopped_at(shop, 0, {"pipelines/silver/made.py": SENDS})
    assert (shop.root / "a").exists() and not (shop.root / "b").exists()
    step = shop.run().step("silver.made")
    assert step.status == "built", step.error
    assert shop.rows("select sent, count(*) from silver.made group by all") == [("id, grp", 5)]


def test_rows_with_the_same_value_stay_together(shop):
    shop.write(
        {
            "pipelines/bronze/base.sql": BASE.replace("i // 7", "i // 30"),
            "pipelines/silver/made.py": worker("size=100, by='grp'"),
        }
    )
    assert shop.run().step("silver.made").chunks == {"done": 9, "taken_over": 0}
    sizes = [rows for _, rows in seen(shop)]
    assert all(size % 30 == 0 for size in sizes[:-1])
    assert sum(sizes) == 1000
    assert made(shop) == WHOLE


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("for c in context.chunks('select i as id from range(10) t(i)', 4): yield c", 10),
        ("import polars\n    for c in context.chunks(polars.DataFrame({'id': [1, 2, 3]}), 2, form='arrow'): yield c", 3),
        ("for c in context.chunks(context.query('select 1 as id'), form='relation'): yield c.project('id + 1 as id')", 1),
        ("for c in context.chunks('select 1 as id where false'): yield c", 0),
        ("return [{'id': sum(len(c) for c in context.chunks('select * from range(10)', 3))}]", 1),
        ("for c in context.chunks('select 1 as id'): yield c\n    for c in context.chunks('select 2 as id'): yield c", 2),
        ("for c in context.chunks('select 1 as id', 0): yield c", "a chunk of 0 rows"),
        ("for c in context.chunks('select 1 as id', form='pandas'): yield c", "not as 'pandas'"),
        ("for c in context.chunks('select 1 as id'):\n        for d in context.chunks('select 1 as id'): yield d", "inside a loop"),
        ("for c in context.chunks('selec 1 as id'): yield c", "selec"),
    ],
)  # fmt: skip
def test_what_can_be_taken_in_chunks(shop, body, rows):
    shop.write({"pipelines/bronze/rows.py": f"def build(context):\n    {body}\n"})
    step = shop.run().step("bronze.rows")
    if isinstance(rows, str):
        assert rows in step.error["what"], step.error
    else:
        assert step.error is None, step.error
        assert step.rows_total == rows


def test_progress_is_told_and_written_down(shop):
    shop.write({"pipelines/bronze/base.sql": BASE, "pipelines/silver/made.py": worker()})
    told: list[str] = []
    written: list[str] = []

    def listen(event: Progress) -> None:
        if event.stage == "chunk":
            told.append(event.text)
            with closing(sqlite3.connect(shop.root / ".rat/journal.sqlite")) as journal:
                written.extend(
                    row[0] for row in journal.execute("select record from steps where status = 'running'") if row[0]
                )

    run_request(shop.root, Request(), listen)
    assert len(told) == 10
    assert told[3].startswith("chunk 4: 400 of 1,000 rows (40%), ")
    assert told[3].endswith(" s left")
    noted = json.loads(written[0])
    assert noted["reason"] == told[0]
    assert (noted["chunks"]["rows"], noted["chunks"]["of_rows"]) == (100, 1000)


def test_chunks_are_halved_at_80_percent_and_grow_again(shop, monkeypatch):
    shop.write(
        {
            "pipelines/bronze/base.sql": BASE.replace("1000", "20000"),
            "pipelines/silver/made.py": worker("size=4000, by='id'"),
        }
    )
    monkeypatch.setattr(memory.MemoryGauge, "_watch", lambda gauge: None)
    level = [0.1]
    monkeypatch.setattr(memory.MemoryGauge, "share", lambda gauge: level[0])
    marks = {0: 0.1, 1: 0.85, 2: 0.85, 3: 0.85, 4: 0.1, 5: 0.1, 6: 0.1, 7: 0.1, 8: 0.1}
    count = [0]

    def listen(event: Progress) -> None:
        if event.stage == "chunk":
            level[0] = marks.get(count[0], 0.1)
            count[0] += 1

    result = run_request(shop.root, Request(), listen)
    assert [rows for _, rows in seen(shop)] == [4000, 4000, 2000, 1000, 1000, 2000, 4000, 2000]
    assert shop.value("select count(*) from silver.made") == 20000
    assert any("80 %" in warning for warning in result.warnings)


@pytest.mark.parametrize("share", [0.1, 0.85])
def test_above_80_percent_steps_wait_for_each_other(shop, monkeypatch, share):
    monkeypatch.setattr(memory.MemoryGauge, "_watch", lambda gauge: None)
    monkeypatch.setattr(memory.MemoryGauge, "share", lambda gauge: share)
    wait = "import time\ndef build(context):\n    time.sleep(0.2)\n    return [{'a': 1}]\n"
    shop.write({f"pipelines/bronze/t{n}.py": wait for n in range(3)})
    told: list[tuple[str, str]] = []
    result = run_request(shop.root, Request(), lambda event: told.append((event.stage, event.asset)))
    assert {step.status for step in result.steps} == {"built"}
    steps = [stage for stage, _ in told if stage in ("render", "seal")]
    assert (steps == ["render", "seal"] * 3) is (share > 0.8), steps


def test_at_95_percent_the_step_stops_and_keeps_its_chunks(shop, monkeypatch):
    shop.write({"pipelines/bronze/base.sql": BASE, "pipelines/silver/made.py": worker()})
    monkeypatch.setattr(memory.MemoryGauge, "_watch", lambda gauge: None)
    level, let_go = [0.1], []
    monkeypatch.setattr(memory.MemoryGauge, "share", lambda gauge: level[0])
    monkeypatch.setattr(memory.MemoryGauge, "_let_go", lambda gauge: let_go.append(1))

    def listen(event: Progress) -> None:
        if event.text.startswith("chunk 4:"):
            level[0] = 0.97

    step = run_request(shop.root, Request(), listen).step("silver.made")
    assert step.error["what"].startswith("silver.made: memory is full: ")
    assert "4 finished chunks are kept" in step.error["state"]
    assert "chunks: {rows: ...}" in step.error["next"]
    assert let_go
    level[0] = 0.1
    assert shop.step("silver.made").chunks == {"done": 6, "taken_over": 4}
    assert made(shop) == WHOLE


def test_what_is_let_go_of_is_given_back_to_the_system_and_comes_back_when_it_is_calm():
    shares: list[float] = []
    gauge = memory.MemoryGauge(1, shares.append)  # one byte: full at once
    with pytest.raises(Exception, match="memory is full"):
        gauge.refuse_when_full("silver.made")
    assert shares == [0.5]
    gauge._keep_below(0.7)
    assert shares == [0.5]
    gauge._keep_below(0.5)
    assert shares == [0.5, 1.0]


def test_what_a_notebook_held_before_is_not_the_runs(monkeypatch):
    held = [900_000_000]
    monkeypatch.setattr(memory, "resident_bytes", lambda: held[0])
    gauge = memory.MemoryGauge(1_000_000_000)
    assert gauge.share() == 0.2, "of which the libraries are a part"
    held[0] += 600_000_000
    assert gauge.is_high
    assert memory.MemoryGauge(10**12, ceiling_bytes=1_600_000_000).is_high, "the container counts all of it"


def test_the_container_limits_what_the_profile_may_ask_for(tmp_path: Path):
    groups = tmp_path / "cgroup"
    deep = tmp_path / "fs" / "kube" / "pod"
    deep.mkdir(parents=True)
    (deep / "memory.max").write_text("max\n")
    (deep.parent / "memory.max").write_text("2000000000\n")
    groups.write_text("0::/kube/pod\n")
    assert container_limit_bytes(groups, tmp_path / "fs") == 2_000_000_000
    (tmp_path / "fs/memory/docker").mkdir(parents=True)
    (tmp_path / "fs/memory/docker/memory.limit_in_bytes").write_text("1500000000\n")
    (tmp_path / "fs/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    groups.write_text("4:memory:/docker\n0::/\n")
    assert container_limit_bytes(groups, tmp_path / "fs") == 1_500_000_000
    groups.write_text("4:memory:/host/path/of/docker\n")
    assert container_limit_bytes(groups, tmp_path / "fs") is None
    assert container_limit_bytes(tmp_path / "none", tmp_path / "fs") is None
    assert budget_bytes(10**15) <= max(10**15, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def test_a_profile_that_is_larger_than_the_container_is_told_once(shop, monkeypatch):
    shop.write({"pipelines/bronze/base.sql": BASE})
    monkeypatch.setattr("ratatouille.lake.limits.container_limit_bytes", lambda: 700_000_000)
    # Beside it a process that holds more than that already, as other tests may have left this one, is told so.
    (warning,) = [said for said in shop.run().warnings if "container" in said]
    assert warning == "resources: memory: 1.0 GB is more than the container's limit, 700 MB, which counts"


LIMITED = {
    "workspace.yaml": "name: small\nresources: {memory: 600MB, threads: 1}\n",
    "pipelines/bronze/texts.sql": "select i as id, repeat(hash(i)::varchar, 20) as words from range(1200000) t(i)",
    "pipelines/bronze/texts.yaml": "materialize: view",
    "pipelines/silver/chunked.py": "import pyarrow.compute as pc\ndef build(context):\n"
    "    for t in context.chunks(context.ref('bronze.texts'), form='arrow'):\n"
    "        yield t.set_column(1, 'words', pc.replace_substring(t['words'], '1', '2'))\n",
    "pipelines/silver/whole.py": "import pyarrow.compute as pc\ndef build(context):\n"
    "    t = context.ref('bronze.texts').to_arrow_table()\n"
    "    return t.set_column(1, 'words', pc.replace_substring(t['words'], '1', '2'))\n",
}
LIMIT_BYTES = 1000 << 20


def test_under_a_real_limit_chunks_end_where_one_frame_cannot(shop):
    """The kernel refuses more than LIMIT_BYTES; address space counts, of which threads and arenas reserve a good part."""
    shop.write(LIMITED)
    limited = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT_BYTES}, {LIMIT_BYTES}))"
    run = f"{limited}; sys.argv = ['rat', 'run']; runpy.run_module('ratatouille.cli', run_name='__main__')"
    ran = subprocess.run([sys.executable, "-c", run], cwd=shop.root, capture_output=True, text=True, check=False)
    said = {step.asset: step for step in shop.plan().steps}
    assert said["silver.chunked"].action == "skip", ran.stdout + ran.stderr
    assert said["silver.whole"].action == "build", ran.stdout + ran.stderr
    assert shop.rows("select count(*), count(distinct id), count(*) filter (words like '%1%') from silver.chunked") == [
        (1_200_000, 1_200_000, 0)
    ]
