"""Large data on small profiles, the lock of a rebuild, and what care costs. See README.md.

python benchmarks/large.py                                  # everything: 10M in 1 GB, 50M in 8 GB; needs 15 GB of disk
python benchmarks/large.py --part limits --sizes 1000000:1GB --runs 1
python benchmarks/large.py --part costs --runs 3

limits   three layers (README.md, scenario full) in a resource profile: peak memory, the delta, clustered files
chunks   a Python asset over all rows: as one frame, and in chunks that are kept
lock     how long a rebuild of a large table keeps other writers out
costs    gates, verification, ledger and journal, as parts of a run
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import events
import report
import scenarios
from measure import Command, measure
from systems import rat
from systems.system import HERE, plain_env, write
from workload import Job

PARTS = ("limits", "chunks", "lock", "costs")
BRONZE, SILVER = "pipelines/shop/bronze/events", "pipelines/shop/silver/events"
CLUSTERED = f"{rat.SILVER_RULES}sort_by: event_id\n"
SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--inside"]:
        print(json.dumps(_inside(arguments[1])))
        return 0
    asked = _parse(arguments)
    found = _before(asked.results) | {"measured_at": report._today(), "machine": report.machine()}
    for part in asked.parts:
        earlier, measured = found.get(part, []), []
        for number in range(asked.runs):
            load = round(os.getloadavg()[0], 1)
            measured += [row | {"run": number, "load": load} for row in _PLAY[part](asked)]
            found[part] = [row for row in earlier if _what(row) not in map(_what, measured)] + measured
            _write(found, asked.results)
    return 0


def _before(folder: Path) -> dict[str, Any]:
    """What an earlier call has measured: parts and sizes that are not asked for stay."""
    path = folder / "large.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _what(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["rows"], row["profile"], row["variant"], row["stage"]


# The parts: each gives rows of figures


def _limits(asked: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for n_rows, memory in asked.sizes:
        job = _job(asked, n_rows, memory)
        expected = scenarios.generate("full", job)
        for variant in asked.variants:
            folder = _workspace(asked, job, variant)
            for stage, day in (("full", events.DAY_ONE), ("delta", events.DAY_TWO)):
                _land(job, day, variant, folder)
                took = measure(rat.Rat().command(folder, stage), folder / "log.txt")
                tables = rat.Rat().tables(folder)
                answer = scenarios.ask([*tables.attach, tables.answer_sql], folder)
                scenarios._compare(answer, expected[stage], f"{n_rows} {variant} {stage}")
                rows.append(_row(took, rows=n_rows, profile=memory, variant=variant, stage=stage))
            shutil.rmtree(folder)
    return rows


def _chunks(asked: argparse.Namespace) -> list[dict[str, Any]]:
    n_rows, memory = asked.sizes[0]
    frame = "frame.with_columns(day=frame['occurred_at'].dt.date(), kind=frame['event_type'].str.strip_chars())"
    ways = {
        "one frame": f"    frame = context.ref('bronze.events').pl()\n    return {frame}",
        "chunks": f"    for frame in context.chunks(context.ref('bronze.events')):\n        yield {frame}",
        "chunks by key": f"    for frame in context.chunks(context.ref('bronze.events'), by='event_id'):\n        yield {frame}",
    }
    rows = []
    for way, body in ways.items():
        # One frame of all rows takes what it takes: its profile is the machine.
        job = _job(asked, n_rows, memory if way != "one frame" else "16GB")
        scenarios.generate("full", job)
        folder = _workspace(asked, job, "parquet")
        _land(job, events.DAY_ONE, "parquet", folder)
        measure(_only(folder, "bronze.events"), folder / "log.txt")
        write(folder, {"pipelines/shop/silver/made.py": f"def build(context):\n{body}\n"})
        took = measure(_only(folder, "silver.made"), folder / "log.txt")
        count = scenarios.ask([*rat.Rat().tables(folder).attach, "select count(*) as n from lake.silver.made"], folder)
        if count["n"] != n_rows:
            raise scenarios.WrongAnswer(f"{way}: {count}")
        rows.append(_row(took, rows=n_rows, profile=job.memory, variant=way, stage="build"))
        shutil.rmtree(folder)
    return rows


def _lock(asked: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for way in ("emptied", "made anew"):
        job = _job(asked, asked.lock_rows, "8GB")
        folder = _empty(asked, job)
        query = "select i as id, i * 2 as twice, hash(i) as h from range({n}) t(i)"
        write(folder, {"pipelines/shop/bronze/base.sql": query.format(n=asked.lock_rows)})
        measure(_only(folder, "bronze.base"), folder / "log.txt")
        write(folder, {"pipelines/shop/bronze/base.sql": query.format(n=asked.lock_rows + 1)})
        (folder / "inside.json").write_text(json.dumps({"remade_from": 10**12 if way == "emptied" else 0}))
        took = measure(_measured_inside(folder), folder / "log.txt")
        said = json.loads(took.output.splitlines()[-1])
        rows.append(
            _row(took, rows=asked.lock_rows, profile="8GB", variant=way, stage="rebuild") | {"lock_s": said["lock_s"]}
        )
        shutil.rmtree(folder)
    return rows


def _costs(asked: argparse.Namespace) -> list[dict[str, Any]]:
    n_rows = asked.sizes[0][0]
    job = _job(asked, n_rows, "8GB")
    scenarios.generate("full", job)
    rows = []
    folder = _workspace(asked, job, "parquet")
    for stage, day in (("full", events.DAY_ONE), ("delta", events.DAY_TWO)):
        _land(job, day, "parquet", folder)
        (folder / "inside.json").write_text(json.dumps({"hash_again": stage == "delta"}))
        took = measure(_measured_inside(folder), folder / "log.txt")
        said = json.loads(took.output.splitlines()[-1])
        rows.append(_row(took, rows=n_rows, profile="8GB", variant="parquet", stage=stage) | {"inside": said})
    shutil.rmtree(folder)
    return rows


_PLAY: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "limits": _limits,
    "chunks": _chunks,
    "lock": _lock,
    "costs": _costs,
}


# Workspaces and commands


def _job(asked: argparse.Namespace, n_rows: int, memory: str) -> Job:
    data = asked.work / "data" / f"{n_rows}-bigint-7"
    return Job(n_rows, "bigint", os.cpu_count() or 1, memory, data, events.columns("bigint"), 7)


def _workspace(asked: argparse.Namespace, job: Job, variant: str) -> Path:
    folder = _empty(asked, job)
    (folder / "landing" / "events").mkdir(parents=True)
    rat.Rat().start(folder, job)
    if variant == "csv":
        rules = {"materialize": "append", "sources": {"landing/events/*.csv": {"columns": job.columns}}}
        source = "select * from {{ source('landing/events/*.csv') }}"
        write(folder, {f"{BRONZE}.sql": source, f"{BRONZE}.yaml": json.dumps(rules)})
    if variant == "clustered":
        write(folder, {f"{SILVER}.yaml": CLUSTERED})
    return folder


def _empty(asked: argparse.Namespace, job: Job) -> Path:
    folder: Path = asked.work / "runs" / "large"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(folder, rat._workspace(job))
    return folder


def _land(job: Job, day: str, variant: str, folder: Path) -> None:
    if variant == "csv":
        for path in sorted(job.data.glob(f"events-{day}-*.parquet")):
            if not path.with_suffix(".csv").exists():
                scenarios.ask([f"copy (from '{path.name}') to '{path.stem}.csv' (header true)"], job.data)
    scenarios._land(job.data, f"events-{day}-*.{'csv' if variant == 'csv' else 'parquet'}", folder)


def _only(folder: Path, asset: str) -> Command:
    command = rat.Rat().command(folder, "full")
    return Command([*command.argv, asset], folder, command.env)


def _measured_inside(folder: Path) -> Command:
    return Command(
        [sys.executable, str(HERE / "large.py"), "--inside", str(folder)],
        folder,
        plain_env(PYTHONPATH=str(HERE.parent / "src")),
    )


def _row(took: Any, **what: Any) -> dict[str, Any]:
    peak = took.rss_bytes
    said = " ".join(str(value) for value in what.values())
    print(f"{said:44} wall {took.wall_s:7.2f} s  cpu {took.cpu_s:7.2f} s  peak {peak / 1e6:6.0f} MB", flush=True)
    profile = what["profile"]
    share = peak / (float(profile[:-2]) * SIZES[profile[-2:]])
    return {**what, "wall_s": took.wall_s, "cpu_s": took.cpu_s, "peak_bytes": peak, "share_of_profile": share}


# Inside one run: where its processor time goes


def _inside(folder: str) -> dict[str, Any]:
    """Everything stale in `folder`, with a clock around the functions in question. Steps run one after the other."""
    from ratatouille import handle
    from ratatouille.engine import Request, crew, run
    from ratatouille.lake import journal, ledger

    publishing = sys.modules["ratatouille.lake.publish"]
    asked = json.loads((Path(folder) / "inside.json").read_text())
    spent: dict[str, float] = {}
    nested: list[str] = []

    def clocked(what: str, function: Callable[..., Any], by_asset: bool = False) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            name = f"{what} {arguments[0].asset.name}" if by_asset else what
            if what in nested:
                return function(*arguments, **named)
            nested.append(what)
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                nested.remove(what)
                spent[name] = spent.get(name, 0.0) + time.process_time() - cpu
                spent[f"{name} (wall)"] = spent.get(f"{name} (wall)", 0.0) + time.perf_counter() - wall

        return wrapped

    crew.STAGES = tuple(s if s.__name__ == "render" else clocked(s.__name__, s, True) for s in crew.STAGES)
    engine_run = sys.modules["ratatouille.engine.run"]
    engine_run.damaged_tables = clocked("verification", engine_run.damaged_tables)
    journal.Journal.do = clocked("journal", journal.Journal.do)  # type: ignore[method-assign]
    # Transactions of the journal do not go through `do`.
    for name in ("take_lease", "end_run", "note_verified", "reap"):
        setattr(journal.Journal, name, clocked("journal", getattr(journal.Journal, name)))
    for name in ("write_entries", "remember_files", "heads", "holds", "landing_by_asset", "entries"):
        setattr(ledger, name, clocked("ledger", getattr(ledger, name)))
    ledger.create = clocked("creation", ledger.create)
    exclusive, held = publishing.exclusive, []

    class Held:
        def __init__(self, *arguments: Any) -> None:
            self.inner = exclusive(*arguments)

        def __enter__(self) -> Any:
            entered = self.inner.__enter__()
            self.since = time.perf_counter()
            return entered

        def __exit__(self, *error: Any) -> Any:
            held.append(time.perf_counter() - self.since)
            return self.inner.__exit__(*error)

    publishing.exclusive = Held
    if "remade_from" in asked:
        publishing.REMADE_FROM_ROWS = asked["remade_from"]
    if asked.get("hash_again"):  # as if the last verification were longer ago than verify_every
        engine_run.damaged_tables = clocked(
            "verification", functools.partial(_hashing, sys.modules["ratatouille.lake.verify"].damaged_tables)
        )
    result = handle.run_request(Path(folder), Request())
    if run is None or result.failed:
        raise SystemExit(str([step.error for step in result.steps]))
    return {"lock_s": max(held), "cpu_s": time.process_time(), "spent": {k: round(v, 4) for k, v in spent.items()}}


def _hashing(
    function: Callable[..., Any], session: Any, journal: Any, storage: Any, assets: Any, every_s: float
) -> Any:
    return function(session, journal, storage, assets, 0.0)


# Results


def _write(found: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "large.json").write_text(json.dumps(found, indent=2) + "\n")
    (folder / "large.md").write_text(_markdown(found))


def _markdown(found: dict[str, Any]) -> str:
    loads = [row["load"] for part in PARTS for row in found.get(part, [])]
    quiet = median(loads) <= (os.cpu_count() or 1) + 1
    lines = [
        "# Large data",
        "",
        f"{found['measured_at']} · {found['machine']}",
        "",
        f"Load average before the rounds: {min(loads)} to {max(loads)}.",
    ]
    if not quiet:
        lines += ["", "**The machine had other work: compare CPU seconds and peaks, and quote no wall time.**"]
    for part in PARTS:
        if found.get(part):
            lines += ["", f"## {part}", "", *_table(_medians(found[part]))]
    if found.get("limits"):
        lines += ["", *_ratios(_medians(found["limits"]))]
    if found.get("costs"):
        lines += ["", *_shares(found["costs"])]
    return "\n".join(lines) + "\n"


def _medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_what(row), []).append(row)
    middle = []
    for group in groups.values():
        numbers = {
            k: median(r[k] for r in group)
            for k in ("wall_s", "cpu_s", "peak_bytes", "share_of_profile", "lock_s")
            if k in group[0]
        }
        middle.append({**group[0], **numbers})
    return middle


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lock = "lock_s" in rows[0]
    head = "| rows | profile | variant | stage | wall s | CPU s | peak MB | of the profile |" + (
        " lock held s |" if lock else ""
    )
    lines = [head, "|---:|---:|---|---|---:|---:|---:|---:|" + ("---:|" if lock else "")]
    for row in rows:
        lines.append(
            f"| {row['rows']:,} | {row['profile']} | {row['variant']} | {row['stage']} | {row['wall_s']:.1f} | {row['cpu_s']:.1f}"
            f" | {row['peak_bytes'] / 1e6:.0f} | {row['share_of_profile']:.0%} |"
            + (f" {row['lock_s']:.2f} |" if lock else "")
        )
    return lines


def _ratios(rows: list[dict[str, Any]]) -> list[str]:
    """The delta on the largest table against that on the smallest."""
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = sorted((r for r in rows if r["variant"] == variant and r["stage"] == "delta"), key=lambda r: r["rows"])
        if len(mine) > 1:
            cpu, wall = (mine[-1][k] / mine[0][k] for k in ("cpu_s", "wall_s"))
            lines.append(
                f"- delta, {variant}: {mine[-1]['rows']:,} rows cost {cpu:.2f} of {mine[0]['rows']:,} (CPU; wall {wall:.2f}; goal 4)"
            )
    return lines


def _shares(rows: list[dict[str, Any]]) -> list[str]:
    """Gates as a part of the layer that they guard; verification, ledger and journal as parts of the run. CPU seconds."""
    lines = ["| stage | what | CPU s | of | share | goal |", "|---|---|---:|---|---:|---:|"]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        mine = [row["inside"] for row in rows if row["stage"] == stage]
        total = median(one["cpu_s"] for one in mine)
        spent = {k: median(one["spent"].get(k, 0.0) for one in mine) for k in mine[0]["spent"]}
        for asset in ("bronze.events", "silver.events", "gold.sales"):
            layer = sum(spent.get(f"{what} {asset}", 0.0) for what in ("build", "gate", "seal"))
            if layer and spent.get(f"gate {asset}"):
                gate = spent[f"gate {asset}"]
                lines.append(f"| {stage} | gates of {asset} | {gate:.2f} | the step | {gate / layer:.1%} | 15% |")
        seals = sum(value for name, value in spent.items() if name.startswith("seal ") and "wall" not in name)
        books = spent.get("ledger", 0.0) + spent.get("journal", 0.0)
        for what, value, goal in (
            ("verification of what is read", spent.get("verification", 0.0), ""),
            ("checksums and fsync of what is written", seals, ""),
            ("ledger and journal", books, "2%" if stage == "full" else ""),
            ("making the lake, once", spent.get("creation", 0.0), ""),
        ):
            lines.append(f"| {stage} | {what} | {value:.2f} | the run | {value / total:.1%} | {goal} |")
    return lines


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; several with commas")
    parser.add_argument("--sizes", default="10000000:1GB,50000000:8GB", help="rows:memory, smallest first")
    parser.add_argument("--variants", default="parquet,csv,clustered", help="of parquet, csv, clustered")
    parser.add_argument("--lock-rows", type=int, default=30_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, default=HERE / ".work", help="folder for data and projects, on a local disk"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    asked = parser.parse_args(arguments)
    asked.work = asked.work.resolve()
    asked.parts = asked.part.split(",")
    asked.sizes = [(int(rows), memory) for rows, memory in (one.split(":") for one in asked.sizes.split(","))]
    asked.variants = asked.variants.split(",")
    return asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
