"""The F1 pipeline against raw DuckDB and against dbt alone, and what one more session costs in a long history.

    python benchmarks/f1.py                       # three runs, some minutes; writes results/f1.md and .json

session   one race of 20 drivers with about 520,000 positions, from landing files to the marts:
          raw       one DuckDB process: the files read into tables, then the models' SQL as dbt compiles it, no tests
          raw+tests the same and every test's SQL
          dbt       the same reads, then `dbt build` of the project into a DuckDB file
          dbt start `dbt build` of the three layers on empty tables: what dbt costs by itself
          rat       the document's flow: bronze, silver, core and marts as Dagster assets in one `rat run`
          commands  the same as commands: run_batch_load, then run_dbt build for each layer
one more  a session is added to 1 and to 50 that are loaded, and `commands` runs again
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

from measure import Command, measure
from report import machine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LAYERS = ("silver", "core", "marts")
CHAIN = ("bronze_tables_loaded", "silver_tables_built", "gold_core_tables_built", "gold_mart_tables_built")
FILES = {
    "sessions": "sessions",
    "drivers": "drivers",
    "laps": "laps",
    "locations": "location",
    "session_results": "session_result",
    "starting_grid": "starting_grid",
    "pit": "pit",
    "race_control": "race_control",
}

LAND = """
import json, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from pipelines.f1.season import generate
season = generate(2024, sessions={sessions}, drivers=20, laps={laps}, hertz={hertz})
held = [one for one in season.rows("sessions") if not one.get("is_cancelled")][: {sessions}]
names = {names!r}
by_session = {{}}
for name in names:
    for row in season.rows(name) if name != "location" else ():
        by_session.setdefault((row["session_key"], name), []).append(row)
rows = 0
for one in held:
    key = one["session_key"]
    home = Path({out!r}, f"year={{one['year']}}", f"meeting={{one['meeting_key']}}", f"session={{key}}")
    home.mkdir(parents=True)
    for name in names:
        if name == "location":
            frame = season.telemetry("location", key)
            frame.write_json(home / "location.json")
            rows += frame.height
        else:
            (home / f"{{name}}.json").write_text(json.dumps(by_session.get((key, name), [])))
print(json.dumps({{"sessions": len(held), "location": rows}}))
"""

RAW = """
import json, sys
import duckdb
spec = json.load(open(sys.argv[1]))
connection = duckdb.connect("f1.duckdb")
connection.execute("set threads = 2; create schema if not exists bronze_raw")
for statement in spec["statements"]:
    connection.execute(statement).fetchall()
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--hertz", type=float, default=4.6, help="positions per driver and second (4.6: about 520,000)")
    parser.add_argument("--loaded", default="1,50", help="sessions that are loaded when one more comes")
    parser.add_argument("--work", type=Path, default=HERE / ".work" / "f1")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    asked = parser.parse_args(arguments)
    work = asked.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    found: dict[str, Any] = {"machine": machine(), "day": datetime.now(UTC).date().isoformat(), "loads": []}
    found["session"] = session(work, asked)
    found["one_more"] = {count: one_more(work, int(count), asked) for count in asked.loaded.split(",")}
    (asked.results / "f1.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.results / "f1.md").write_text(markdown(found))
    print(markdown(found))
    shutil.rmtree(work)
    return 0


def session(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    landing = work / "landing"
    size = land(landing, sessions=2, laps=64, hertz=asked.hertz, last_only=True)
    reads = bronze_statements(work)
    statements = compiled(work, landing, reads)
    plays = {
        "raw": lambda home: raw(home, landing, reads + statements["models"]),
        "raw+tests": lambda home: raw(home, landing, reads + statements["models"] + statements["tests"]),
        "dbt": lambda home: raw(home, landing, reads) + dbt_alone(home, "silver core marts"),
        "dbt start": lambda home: started(home, landing, reads),
        "rat": lambda home: rat(home, landing),
        "commands": lambda home: sum(commands(home, landing).values()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in plays}
    steps: list[dict[str, float]] = []
    loads = []
    for number in range(asked.runs):
        loads.append(round(os.getloadavg()[0], 1))
        for name, play in list(plays.items())[:: 1 if number % 2 == 0 else -1]:
            home = fresh(work, name)
            took = play(home)
            seconds[name].append(took)
            print(f"{name:10} run {number + 1}  {took:6.2f} s", flush=True)
            if name == "rat":
                steps.append(json.loads((home / "steps.json").read_text()))
    return {
        "size": size,
        "loads": loads,
        "seconds": seconds,
        "steps": {name: [one[name] for one in steps] for name in steps[0]},
    }


def one_more(work: Path, count: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the commands for one session more, on top of `count` loaded ones."""
    season = work / f"season-{count}"
    size = land(season, sessions=count + asked.runs, laps=55, hertz=0.2)
    homes = sorted(season.glob("year=*/meeting=*/session=*"), key=lambda home: home.name)
    kitchen = fresh(work, f"more-{count}")
    landing = work / f"landing-{count}"
    took = []
    for number, home in enumerate(homes):
        target = landing / home.relative_to(season)
        target.parent.mkdir(parents=True, exist_ok=True)
        home.rename(target)
        if number + 1 >= count:
            parts = commands(kitchen, landing)
            if number + 1 > count:
                took.append(parts)
                print(f"one more on {number}: {sum(parts.values()):.2f} s", flush=True)
    return {"size": size, "parts": {name: [one[name] for one in took] for name in took[0]}}


def land(out: Path, *, sessions: int, laps: int, hertz: float, last_only: bool = False) -> dict[str, int]:
    """Write landing files of a generated season; `last_only` keeps the race."""
    out.mkdir(parents=True)
    code = LAND.format(root=str(ROOT), sessions=sessions, laps=laps, hertz=hertz, out=str(out), names=[*FILES.values()])
    said = json.loads(run([sys.executable, "-c", code], out.parent).splitlines()[-1])
    if last_only:
        for other in sorted(out.glob("year=*/meeting=*/session=*"), key=lambda home: home.name)[:-1]:
            shutil.rmtree(other)
        [home] = out.glob("year=*/meeting=*/session=*")
        said = {"sessions": 1, "location": sum(1 for _ in (home / "location.json").read_text().split('"x"')) - 1}
    return said


def fresh(work: Path, name: str) -> Path:
    """A workspace with the F1 pipeline, for one run; dbt alone and raw DuckDB use its folder."""
    home = work / "runs" / name.replace(" ", "-")
    shutil.rmtree(home, ignore_errors=True)
    (home / "pipelines").mkdir(parents=True)
    shutil.copy(ROOT / "workspace.yaml", home)
    shutil.copytree(
        ROOT / "pipelines" / "f1", home / "pipelines" / "f1", ignore=shutil.ignore_patterns("target", "logs")
    )
    (home / "pipelines" / "__init__.py").write_text("")
    return home


def bronze_statements(work: Path) -> list[str]:
    """One statement for each bronze table: its declared columns, and where a row came from."""
    import yaml

    statements = []
    for table, file in FILES.items():
        said = yaml.safe_load((ROOT / f"pipelines/f1/bronze_raw/bronze_{table}.yaml").read_text())
        [source] = said["sources"].values()
        shape = ", ".join(f"'{name}': '{kind}'" for name, kind in source["columns"].items())
        statements.append(
            f"create table bronze_raw.bronze_{table} as select * exclude (filename), filename as _file,"
            f" current_timestamp::timestamp as _loaded_at from read_json('landing/f1/**/{file}.json',"
            f" columns = {{{shape}}}, filename = true, hive_partitioning = false, maximum_object_size = 1000000000)"
        )
    return statements


def compiled(work: Path, landing: Path, reads: list[str]) -> dict[str, list[str]]:
    """The SQL of every model and test, as dbt makes it for a first build."""
    home = fresh(work, "compiled")
    raw(home, landing, reads)
    dbt_alone(home, "silver core marts")
    made = json.loads((home / "target" / "manifest.json").read_text())
    nodes = {key: node for key, node in made["nodes"].items() if node["package_name"] == "f1"}
    done: list[str] = []
    models = []
    while len(done) < sum(node["resource_type"] == "model" for node in nodes.values()):
        for key, node in nodes.items():
            above = [one for one in node["depends_on"]["nodes"] if one.startswith("model.")]
            if node["resource_type"] == "model" and key not in done and set(above) <= set(done):
                done.append(key)
                models.append(f"create schema if not exists {node['schema']}")
                models.append(f"create table {node['schema']}.{node['name']} as {node['compiled_code']}")
    tests = [f"select count(*) from ({node['compiled_code']})" for node in nodes.values() if node["resource_type"] == "test"]  # fmt: skip
    # Timestamps that dbt compares with its own start are in the SQL; nothing else in it depends on the run.
    return {"models": models, "tests": tests}


def empty(statement: str) -> str:
    return f"{statement} limit 0"


def raw(home: Path, landing: Path, statements: list[str]) -> float:
    link(home, landing)
    (home / "raw.json").write_text(json.dumps({"statements": statements}))
    return timed([sys.executable, "-c", RAW, "raw.json"], home)


def dbt_alone(home: Path, select: str) -> float:
    project = str(home / "pipelines" / "f1" / "dbt")
    words = ["build", "--project-dir", project, "--profiles-dir", project, "--select", *select.split(), "--indirect-selection", "buildable", "--target-path", str(home / "target")]  # fmt: skip
    return timed(
        [str(Path(sys.executable).with_name("dbt")), "--quiet", *words], home, F1_DBT_FILE=str(home / "f1.duckdb")
    )


def started(home: Path, landing: Path, reads: list[str]) -> float:
    """Seconds of dbt alone on empty tables, one start for each layer."""
    raw(home, landing, [empty(one) for one in reads])
    return sum(dbt_alone(home, layer) for layer in LAYERS)


def rat(home: Path, landing: Path) -> float:
    link(home, landing)
    took = measure(
        Command([sys.executable, "-m", "ratatouille.cli", "run", *CHAIN, "--json"], home, env()), home / "log"
    )
    said = json.loads(took.output[took.output.index("{\n") :])
    (home / "steps.json").write_text(json.dumps({step["asset"]: step["seconds"] for step in said["steps"]}))
    return took.wall_s


def commands(home: Path, landing: Path) -> dict[str, float]:
    link(home, landing)
    parts = {"bronze": timed([sys.executable, "-m", "pipelines.f1.run_batch_load"], home)}
    for layer in LAYERS:
        parts[layer] = timed([sys.executable, "-m", "pipelines.f1.run_dbt", "build", "--select", layer], home)
    return parts


def link(home: Path, landing: Path) -> None:
    (home / "landing").mkdir(exist_ok=True)
    if not (home / "landing" / "f1").exists():
        shutil.copytree(landing, home / "landing" / "f1", copy_function=os.link)
    else:
        for path in landing.rglob("*.json"):
            target = home / "landing" / "f1" / path.relative_to(landing)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.link(path, target)


def env(**more: str) -> dict[str, str]:
    return {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "PYTHONPATH": str(Path.cwd()), **more}


def timed(argv: list[str], home: Path, **more: str) -> float:
    return measure(Command(argv, home, env(PYTHONPATH=str(home), **more)), home / "log").wall_s


def run(argv: list[str], cwd: Path) -> str:
    return measure(Command(argv, cwd, env()), cwd / "log").output


def markdown(found: dict[str, Any]) -> str:
    one = found["session"]
    middle = {name: statistics.median(took) for name, took in one["seconds"].items()}
    loads = ", ".join(str(load) for load in one["loads"])
    lines = [
        "# F1: one session, and one more",
        "",
        f"{found['day']} · {found['machine']} · {one['size']['location']:,} positions · load before each round: {loads}",
        "",
        "| from landing files to the marts | seconds | / raw | / dbt |",
        "|---|---:|---:|---:|",
    ]
    lines += [f"| {name} | {took:.2f} | {took / middle['raw']:.2f} | {took / middle['dbt']:.2f} |" for name, took in middle.items()]  # fmt: skip
    steps = sum(statistics.median(took) for took in one["steps"].values()) - middle["dbt start"]
    lines += [
        "",
        (
            f"The steps of `rat` without `dbt start`: {steps:.2f} s, {steps / middle['raw']:.2f} of raw (goal: at most 2)."
            " Before them `rat` and `commands` ask dbt once what each layer holds, which a second run of the same files"
            " does not; `rat` also loads Dagster."
        ),
        "",
        "| step of `rat` | seconds |",
        "|---|---:|",
        *(f"| {name} | {statistics.median(took):.2f} |" for name, took in one["steps"].items()),
        "",
        "| one more session on | bronze | silver | core | marts | all | rows of positions |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for count, more in found["one_more"].items():
        parts = {name: statistics.median(took) for name, took in more["parts"].items()}
        shown = " | ".join(f"{took:.2f}" for took in parts.values())
        lines.append(f"| {count} | {shown} | {sum(parts.values()):.2f} | {more['size']['location']:,} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
