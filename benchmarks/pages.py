"""What a page costs the server, and how much of that is the bare SQL behind it.

    python benchmarks/pages.py                          # 1,000 assets, 10,000 runs; writes results/pages.md and .json
    python benchmarks/pages.py --assets 60 --runs 200   # a quick look
    python benchmarks/pages.py --keep /tmp/bench        # makes the workspace there, or takes it from there

The workspace is real: `rat run` has built every asset (a third in each layer, each reads one of the layer above). The
history is written as runs write it: for each run a row of runs, a step, a short row and a ledger entry for each of five
assets, the last in a commit of its own. One run in fifty has failed.

A page is asked for in this process, through the guard and all, with the lake open: what a browser waits for is this and
the loopback. The statements that a page sends are noted once, and then sent again by themselves, one after the other, on a
session of the same kind: the bare SQL. Pages and bare SQL take turns. Medians; the ratio is of processor time, since other
people may be at work. What the first page after a start, and after a publish, takes is measured as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ratatouille import project as files
from ratatouille.engine import Request, storage_of
from ratatouille.handle import run_request
from ratatouille.lake import Entry, Session, ledger, open_journal, open_lake
from ratatouille.lake.journal import Journal, points
from ratatouille.pages import server
from ratatouille.pages.guard import access
from ratatouille.pages.server import make_app

HERE = Path(__file__).resolve().parent
LAYERS = ("bronze", "silver", "gold")
GOAL_MS = 100.0
STEPS = 5  # of a run
CHECKS = """description: Table number {number} of the kitchen.
columns:
  id: {{description: The key, checks: [not_null, unique]}}
  amount: {{description: How much it is, checks: [positive]}}
  name: {{description: What it is called, sensitive: true}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--keep", type=Path, default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = asked.keep or Path(folder)
        if not (root / "workspace.yaml").exists():
            make(root, asked.assets, asked.runs)
        found = asyncio.run(measure(root, asked.times))
    report = written(asked, found)
    print(report)
    (HERE / "results" / "pages.md").write_text(report)
    (HERE / "results" / "pages.json").write_text(json.dumps(found, indent=1) + "\n")


# The workspace


def make(root: Path, assets: int, runs: int) -> None:
    """Build it once, and write its past."""
    third = assets // 3
    for number in range(assets):
        layer = LAYERS[min(2, number // third)]
        folder = root / "pipelines" / "kitchen" / layer
        folder.mkdir(parents=True, exist_ok=True)
        rows = f"range({20 + number % 9}) t(i)"
        sql = f"select i as id, i * {number + 1} + 1 as amount, 'x' || i as name from {rows}"
        if layer != "bronze":
            above = number - third
            sql = f"select id, amount + 1 as amount, name from {{{{ ref('{LAYERS[min(2, above // third)]}.t{above:04d}') }}}}"
        (folder / f"t{number:04d}.sql").write_text(sql + "\n")
        (folder / f"t{number:04d}.yaml").write_text(CHECKS.format(number=number))
    (root / "workspace.yaml").write_text("name: kitchen\nresources: {memory: 4GB, threads: 2}\n")
    began = time.monotonic()
    assert run_request(root, Request(())).status == "done"
    print(f"built {assets} assets in {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    write_past(root, runs)
    print(f"wrote {runs} runs in {time.monotonic() - began:.0f} s", flush=True)


def write_past(root: Path, runs: int) -> None:
    workspace = files.load(root).workspace
    chance = random.Random(1)
    with (
        open_lake(storage_of(workspace), write=True) as lake,
        open_journal(root / ".rat" / "journal.sqlite") as journal,
        lake.session("writing the past") as session,
    ):
        heads = sorted(ledger.heads(session).values(), key=lambda one: one.asset)
        record = journal.last_steps(heads[0].asset, 1)[0]["record"]
        now = journal.now()
        for number in range(runs):
            at = now - (runs - number) * 60.0
            run_id = f"{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%S}-{number:06x}"
            chosen = chance.sample(heads, STEPS)
            failed = number % 50 == 49
            publish(session, [] if failed else chosen, run_id, at)
            write_run(journal, run_id, at, chosen, failed, record, chance)


def publish(session: Session, chosen: list[Entry], run_id: str, at: float) -> None:
    moment = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
    again = [replace(one, run_id=run_id, published_at=moment, unchanged_since=one.data_version) for one in chosen]
    if again:
        session.execute("begin transaction")
        ledger.write_entries(session, again)
        session.execute("commit")


def write_run(
    journal: Journal,
    run_id: str,
    at: float,
    chosen: list[Entry],
    failed: bool,
    record: dict[str, Any],
    chance: random.Random,
) -> None:
    status = "failed" if failed else "done"
    error = {"error": "StepFailed", "what": f"{chosen[0].asset}: it broke", "where": "", "state": "", "next": "rat run"}

    def write(do: Callable[..., Any]) -> None:
        do(
            "insert into runs (run_id, status, request, pid, host, started_at, heartbeat_at, ended_at)"
            " values (?, ?, ?, 1, 'bench', ?, ?, ?)",
            (run_id, status, json.dumps({"selectors": []}), at, at + 5, at + 5),
        )
        for place, one in enumerate(chosen):
            how = "failed" if failed and not place else "built"
            mine = {
                **record,
                "asset": one.asset,
                "seconds": chance.uniform(0.5, 2),
                "rows_total": one.rows_total + chance.randrange(9),
            }
            mine |= {"error": error} if how == "failed" else {}
            do("insert into steps values (?, ?, 1, ?, ?, ?, ?)", (run_id, one.asset, how, json.dumps(mine), at, at + 2))
            do(points.INSERT, points.row_of(one.asset, run_id, 1, at + 2, how, mine))

    journal.alone(write)


# Measuring


async def measure(root: Path, times: int) -> list[dict[str, Any]]:
    allowed = access("127.0.0.1", 3040)
    app = make_app(root, allowed)
    kitchen = app.state.kitchen
    names = sorted(kitchen.project.assets)
    deep = next(name for name in reversed(names) if name.startswith("gold"))
    with open_journal(root / ".rat" / "journal.sqlite") as journal:
        newest = journal.runs(3)[1:]
        (busy,) = journal.do("select run_id from steps group by run_id order by count(*) desc limit 1")[0]
    addresses = {
        "overview": "/",
        "overview, one layer": "/?layer=gold",
        "overview, a word": f"/?find={names[7].partition('.')[2]}",
        "asset": f"/asset/{quote(deep)}",
        **{f"asset, {tab}": f"/asset/{quote(deep)}?tab={tab}" for tab in server.TABS if tab},
        "asset, a column's way": f"/asset/{quote(deep)}?tab=lineage&column=amount",
        "runs": "/runs",
        "run": f"/run/{newest[0]['run_id']}",
        "run of all assets": f"/run/{busy}",
        "compare runs of all assets": f"/compare?a={newest[0]['run_id']}&b={busy}",
        "compare runs": f"/compare?a={newest[1]['run_id']}&b={newest[0]['run_id']}",
        "compare versions": f"/compare?asset={quote(deep)}",
        "console": "/console",
    }
    transport = httpx.ASGITransport(app=app)
    cookies = {allowed.cookie: allowed.token}
    found = []
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3040", cookies=cookies) as client:
        for name in ("overview, the first after a start", "overview, the first after a publish"):
            took = []
            for _ in range(3):
                if name.endswith("start"):
                    kitchen.forget_lake()
                else:
                    publish_once(root)
                began = time.perf_counter()
                await client.get("/")
                took.append(round(1000 * (time.perf_counter() - began), 1))
            found.append({"page": name, "ms": statistics.median(took), "slowest_ms": max(took)})
            print(found[-1], flush=True)
        for name, address in addresses.items():
            answer = await client.get(address)
            if answer.status_code != 200:
                raise SystemExit(f"{address}: {answer.status_code}\n{answer.text[:2000]}")
            with noted() as statements:
                await client.get(address)
            pages, worked, bare = [], [], []
            for _ in range(times):
                began = time.perf_counter(), time.process_time()
                await client.get(address)
                pages.append(time.perf_counter() - began[0])
                worked.append(time.process_time() - began[1])
                bare.append(alone(kitchen, statements))
            one = {
                "page": name,
                "statements": len(statements),
                "bytes": len(answer.content),
                "ms": round(1000 * statistics.median(pages), 1),
                "slowest_ms": round(1000 * max(pages), 1),
                "cpu_ms": round(1000 * statistics.median(worked), 1),
                "bare_ms": round(1000 * statistics.median(bare), 2),
            }
            found.append(one | {"ratio": round(one["cpu_ms"] / one["bare_ms"], 1) if one["bare_ms"] else None})
            print(found[-1], flush=True)
    kitchen.close()
    return found


def publish_once(root: Path) -> None:
    """One more version of one asset, by another writer."""
    with open_lake(storage_of(files.load(root).workspace), write=True) as lake, lake.session("publishing") as session:
        name = sorted(ledger.heads(session))[0]
        publish(session, [ledger.heads(session, [name])[name]], "one-more", time.time())


@contextmanager
def noted() -> Iterator[list[tuple[str, str, Any]]]:
    """What is asked of lake and journal meanwhile."""
    said: list[tuple[str, str, Any]] = []
    execute, do = Session.execute, Journal.do

    def on_the_lake(self: Session, sql: str) -> Any:
        said.append(("lake", sql, ()))
        return execute(self, sql)

    def in_the_journal(self: Journal, sql: str, values: Any = ()) -> Any:
        said.append(("journal", sql, values))
        return do(self, sql, values)

    Session.execute, Journal.do = on_the_lake, in_the_journal  # type: ignore[method-assign]
    try:
        yield said
    finally:
        Session.execute, Journal.do = execute, do  # type: ignore[method-assign]


def alone(kitchen: Any, statements: list[tuple[str, str, Any]]) -> float:
    """Processor seconds of the same statements and nothing else, on connections that are open."""
    with kitchen.reading() as seen:
        began = time.process_time()
        for where, sql, values in statements:
            if where == "journal":
                seen.journal.do(sql, values)
            elif not sql.startswith(("begin", "rollback", "commit")):
                seen.session.cursor.execute(sql).fetchall()
        return time.process_time() - began


def written(asked: argparse.Namespace, found: list[dict[str, Any]]) -> str:
    first = "; ".join(f"{one['page']}: {one['ms']:.0f} ms" for one in found if "statements" not in one)
    found = [one for one in found if "statements" in one]
    rows = "\n".join(
        f"| {one['page']} | {one['ms']:.0f} | {one['cpu_ms']:.0f} | {one['bare_ms']:.1f} | {one['ratio'] or ''} | {one['statements']} | {one['bytes'] / 1000:.0f} |"
        for one in found
    )
    late = {what: [one["page"] for one in found if one[what] > GOAL_MS] for what in ("ms", "cpu_ms")}
    met = {what: "met by all" if not pages else f"missed by: {', '.join(pages)}" for what, pages in late.items()}
    return f"""# What a page costs

{datetime.now(UTC):%Y-%m-%d} · {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()} · {asked.assets:,} assets, {asked.runs:,} runs with {STEPS} steps each, medians of {asked.times}

| page | server, ms | of processor, ms | bare SQL, ms | ratio | statements | kB |
|---|---:|---:|---:|---:|---:|---:|
{rows}

Beside these: {first}.

Goal: below {GOAL_MS:.0f} ms each. By processor time {met["cpu_ms"]}. By the clock, with others at work (load {os.getloadavg()[0]:.0f}), {met["ms"]}.
"""


if __name__ == "__main__":
    main()
