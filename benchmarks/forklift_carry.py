"""Telemetry through header, heights and carrying: the lake against raw DuckDB and pandas a file at a time.

    python benchmarks/forklift_carry.py                              # 5 million rows, 100 machines, some minutes
    python benchmarks/forklift_carry.py --rows 50000000 --work DIR   # 50 million, 1,000 machines; DIR needs 15 GB

rat       `rat run` of the five tables from landing files on, in a workspace with `memory: 1GB`: gates, checksums, fsync,
          one commit a table
raw       one DuckDB process under the memory limit that the workspace gives DuckDB: for each file in turn the rows as
          Parquet, then the same SQL for header, heights and carrying, each as Parquet; no gates, no fsync, no catalog
raw group the same, a hundred files at a time
pandas    for each file in turn: read_csv, the same steps by hand, to_parquet (on some machines, scaled to all)
one more  a file of a new machine joins those that are there, and `rat run` again; beside it a run with nothing new

Seconds of the processor count: the machine may be busy. What `rat` starts with (imports, catalog) is in its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measure import Command, Measured, measure
from report import machine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TABLES = ("forklift_objects", "forklift_telemetry", "forklift_header", "forklift_heights", "forklift_carrying")
DUCKDB_MB = 560  # what a workspace with memory: 1GB leaves to DuckDB

SIMULATE = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from pipelines.forklift import simulate
fleet = simulate.fleet_of({rows}, machines_={machines})
simulate.write(fleet, Path({out!r}))
"""

RAW = """
import sys
from pathlib import Path
import duckdb
sys.path.insert(0, {root!r})
from pipelines.forklift.processing import Rules, carrying_sql, header_sql, heights_sql
files, out, group = sorted(Path({files!r}).glob("*.csv")), Path({out!r}), {group}
names = {{"fffid": "varchar", "height": "double", "load": "double", "on_duty": "integer", "timestamp": "timestamp",
         "latitude": "double", "longitude": "double", "speed": "double"}}
shape = ", ".join(f"'{{name}}': '{{kind}}'" for name, kind in names.items())
sql = duckdb.connect()
sql.execute("set memory_limit='{memory}MB'; set threads=2; set temp_directory='{out}/spill'")
for number in range(0, len(files), group):
    some = files[number:number + group]
    read = f"read_csv([{{', '.join(repr(str(f)) for f in some)}}], header=false, delim=';', auto_detect=false, filename=true, columns={{{{{{shape}}}}}})"
    above = f"(select parse_filename(filename, true) as machine, * exclude (filename), 'c' as commit_id from {{read}})"
    for name, made in (("telemetry", None), ("header", header_sql), ("heights", heights_sql), ("carrying", carrying_sql)):
        path = out / f"{{name}}-{{number:05}}.parquet"
        query = f"from {{above}}" if made is None else "from (" + made(f"'{{last}}'", "true", Rules()) + ") order by machine, ts"
        sql.execute(f"copy ({{query}}) to '{{path}}' (format parquet, parquet_version v2)")
        last = path
"""

PANDAS = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
names = ["fffid", "height", "load", "on_duty", "ts", "latitude", "longitude", "speed"]
out = Path({out!r})
for path in sorted(Path({files!r}).glob("*.csv"))[:{some}]:
    rows = pd.read_csv(path, sep=";", header=None, names=names, parse_dates=["ts"])
    rows["machine"] = path.stem
    rows.to_parquet(out / f"telemetry-{{path.stem}}.parquet")
    forklift = bool((rows["height"] != 0).any())
    rows = rows.sort_values(["ts", "on_duty", "load", "height", "speed"]).drop_duplicates("ts", keep="last")
    on = rows["on_duty"] == 1
    rows = rows[on | on.shift(1, fill_value=True) | on.shift(-1, fill_value=True)].reset_index(drop=True)
    rows.to_parquet(out / f"header-{{path.stem}}.parquet")
    if not forklift:
        continue
    low, high = rows["height"].quantile([0.005, 0.995])
    rows["height_raw"], broken = rows["height"], (rows["height"] > 6.7).mean() > 0.1
    rows["sensor_broken"] = broken
    if low < 0 or high > 6.7:
        rows["height"] = (rows["height"].clip(low, high) - low) / (high - low) * 6.7
    rows["height"] = rows["height"].clip(0, 6.7)
    rows.to_parquet(out / f"heights-{{path.stem}}.parquet")
    at = rows["ts"].astype("int64") // 1000
    up = (rows["load"] >= 0.5) & (rows["height"] > 0.35) & (rows["speed"] <= 7.2) & (rows["on_duty"] == 1)
    silent = at.diff() > 10_000_000
    begins = (up != up.shift()) | silent
    stretch = begins.cumsum()
    found = pd.DataFrame({{"up": up, "at": at, "stretch": stretch}}).groupby("stretch").agg(up=("up", "first"), first=("at", "first"), last=("at", "last"))
    after = found["first"].shift(-1)
    found["ends"] = np.where((after - found["last"]) <= 10_000_000, after, found["last"])
    raised = found[found["up"]]
    pulse = ((raised["first"] - raised["ends"].shift()) > 1_000_000).cumsum()
    spans = raised.groupby(pulse).agg(first=("first", "min"), ends=("ends", "max"))
    spans = spans[spans["ends"] - spans["first"] >= 45_000_000]
    where = np.searchsorted(spans["first"].to_numpy(), at.to_numpy(), side="right") - 1
    inside = (where >= 0) & (at.to_numpy() < np.append(spans["ends"].to_numpy(), 0)[where])
    rows["carrying"] = inside & (rows["on_duty"] == 1).to_numpy()
    rows.to_parquet(out / f"carrying-{{path.stem}}.parquet")
"""


def kitchen(work: Path, files: Path) -> Path:
    """A workspace with the five tables and all files but the last one."""
    root = work / "kitchen"
    shutil.rmtree(root, ignore_errors=True)
    home = root / "pipelines" / "forklift"
    for layer in ("bronze", "silver"):
        (home / layer).mkdir(parents=True)
        for path in (ROOT / "pipelines" / "forklift" / layer).glob("forklift_*"):
            if path.stem in TABLES:
                shutil.copy(path, home / layer)
    for name in ("__init__", "landing", "processing", "stepwise"):
        shutil.copy(ROOT / "pipelines" / "forklift" / f"{name}.py", home)
    (root / "pipelines" / "__init__.py").touch()
    (root / "workspace.yaml").write_text("name: kitchen\nresources: {memory: 1GB, threads: 2}\n")
    landing = root / "landing" / "forklift" / "real_data"
    landing.mkdir(parents=True)
    for path in sorted(files.glob("*.csv"))[:-1]:
        os.link(path, landing / path.name)
    return root


def python(code: str, work: Path, log: str, **holes: Any) -> Measured:
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    said = code.format(root=str(ROOT), out=str(out), memory=DUCKDB_MB, **holes)
    return measure(Command([sys.executable, "-c", said], work, os.environ), work / log)


def rat(root: Path, work: Path) -> Measured:
    return measure(Command([sys.executable, "-m", "ratatouille.cli", "run"], root, os.environ), work / "rat.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("/tmp/forklift-carry"))  # noqa: S108
    parser.add_argument("--out", type=Path, default=HERE / "results" / "forklift_carry.json")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    files = asked.work / "files"
    machines = min(1000, max(10, asked.rows // 50_000))
    if not files.exists():
        measure(
            Command([sys.executable, "-c", SIMULATE.format(root=str(ROOT), rows=asked.rows, machines=machines, out=str(files))],
                    asked.work, os.environ),
            asked.work / "simulate.log",
        )  # fmt: skip
    held = sorted(files.glob("*.csv"))
    rows = sum(path.read_bytes().count(b"\n") for path in held)
    some = max(1, len(held) // 10)
    taken: dict[str, list[Measured]] = {}
    for _ in range(asked.runs):
        root = kitchen(asked.work, files)
        taken.setdefault("rat", []).append(rat(root, asked.work))
        taken.setdefault("nothing new", []).append(rat(root, asked.work))
        os.link(held[-1], root / "landing" / "forklift" / "real_data" / held[-1].name)
        taken.setdefault("one more", []).append(rat(root, asked.work))
        taken.setdefault("raw", []).append(python(RAW, asked.work, "raw.log", files=str(files), group=1))
        taken.setdefault("raw group", []).append(python(RAW, asked.work, "raw.log", files=str(files), group=100))
        taken.setdefault(f"pandas, {some} files", []).append(
            python(PANDAS, asked.work, "pandas.log", files=str(files), some=some)
        )
    cpu = {name: statistics.median(one.cpu_s for one in runs) for name, runs in taken.items()}
    wall = {name: statistics.median(one.wall_s for one in runs) for name, runs in taken.items()}
    peak = {name: max(one.rss_bytes for one in runs) for name, runs in taken.items()}
    pandas = f"pandas, {some} files"
    said = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "load": os.getloadavg(),
        "rows": rows,
        "files": len(held),
        "runs": asked.runs,
        "cpu_s": cpu,
        "wall_s": wall,
        "rss_bytes": peak,
        "rat_to_raw_cpu": cpu["rat"] / cpu["raw"],
        "rat_to_raw_wall": wall["rat"] / wall["raw"],
        "rat_to_raw_group_cpu": cpu["rat"] / cpu["raw group"],
        "pandas_to_rat_cpu": cpu[pandas] * len(held) / some / cpu["rat"],
        "one_more_share_cpu": (cpu["one more"] - cpu["nothing new"]) / cpu["rat"],
        "one_more_share_of_files": 1 / len(held),
    }
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.write_text(json.dumps(said, indent=1, default=str) + "\n")
    print(json.dumps(said, indent=1, default=str))


if __name__ == "__main__":
    main()
