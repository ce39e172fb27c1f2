"""`make demo`: sales over two days, a Formula 1 race, recipes to a language model, awards to a graph, forklifts to a model.
Every command is shown as you would type it.

It works in the workspace of the repository root (its lake is `.rat/`), deletes nothing, and may be run again.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LANDING = ROOT / "landing" / "sales"

REVENUE = "select date, store, sum(total) as revenue from gold.sales_summary group by all order by date, store"

F1 = (
    "api_extracted_data",
    "bronze_tables_loaded",
    "silver_tables_built",
    "gold_core_tables_built",
    "gold_mart_tables_built",
)
RECIPES = ("raw_dataset", "cleaned_dataset", "removed_texts", "tokenized_dataset", "train_val_splits")
FORKLIFT = ("raw_forklift_snapshot", "header_assigned_dataset", "cleaned_height_dataset", "carrying_dataset")
FORKLIFT_MODEL = ("training_dataset", "forklift.trained_model", "model_performance_report", "production_model")
LEADERBOARD = """select position, full_name, team_name, fastest_lap_time, delta_to_fastest, finishing_position
from default_gold_analytics.session_leaderboard where session_key = (select max(session_key)
from default_gold_analytics.session_leaderboard) order by position limit 5"""
LINES = """select (select count(*) from raw.sbir_awards) as lines,
(select count(*) from validated.sbir_awards_pass) as awards,
(select sum(n_lines)::bigint from validated.sbir_awards_fail) as failures,
(select count(*) from validated.sbir_awards_duplicate) as duplicates"""
TECHNOLOGIES = """MATCH (c:Company)-[s:SPECIALIZES_IN]->(a:CETArea)
RETURN a.name AS technology, count(c) AS companies, sum(s.award_count) AS awards ORDER BY awards DESC LIMIT 5"""
CARRYING = """select machine, count(distinct pulse_id) as carries, round(avg(carrying::int), 2) as share,
any_value(verdict) as load_sensor, bool_or(sensor_broken) as height_sensor_broken
from silver.forklift_carrying join gold.forklift_load_sensor using (machine) group by machine order by machine"""

TRY_NEXT = """
Try next. `source .venv/bin/activate` gives you `rat`.

  rat plan                    what the next run would do, and why: nothing, all is fresh
  rat check                   write ref('silver.sale') somewhere below pipelines/ and let it find the slip
  rat run                     change a query below pipelines/sales/ and build what it affects, no more
  rat show silver.sales       columns, checks, where each column comes from
  rat rollback ASSET --to N   an earlier version, published as a new one (`rat history ASSET` gives N)
  rat dev                     all of it in the browser: assets, checks, runs, schedules
  rat init my_lake            a workspace of your own: cd my_lake && rat run

docs/tutorial.md goes through all of this. `make demo-reset` forgets the demo."""


def main() -> int:
    again = any(LANDING.glob("*_corrections.csv"))
    if again:
        say("This demo has run here before. What stands is not built twice: watch how little happens.")

    say("Day 1. Three stores send their sales, and some lines are wrong.")
    generate(1)
    rat("run", "pipeline:sales")

    say("Day 2. New sales, late corrections, and one file of day 1 sent anew. Nothing else is read again.")
    generate(2)
    rat("run", "pipeline:sales")

    say("The rows that a check kept out, and why. Nobody who reads silver.sales has seen them.")
    rat("quarantine", "silver.sales")

    say("What was published, and when. Every version can be read again, and brought back.")
    rat("history", "silver.sales")

    say("Any question, in SQL.")
    rat("query", REVENUE)

    if (ROOT / "pipelines" / "f1").is_dir():
        formula_1()

    if (ROOT / "pipelines" / "recipes").is_dir():
        recipes()

    if (ROOT / "pipelines" / "sbir").is_dir():
        sbir()

    if (ROOT / "pipelines" / "forklift").is_dir():
        forklift()

    print(TRY_NEXT)
    return 0


def recipes() -> None:
    say("Recipes: from raw text to token ids, each step guarded, on recipes out of a grammar.")
    shown("python", "-m", "pipelines.recipes.corpus", "--recipes", "200", program=[sys.executable])
    os.environ["RECIPES_SETTINGS"] = "pipelines/recipes/smoke.yaml"
    print(f"\n$ export RECIPES_SETTINGS={os.environ['RECIPES_SETTINGS']}", flush=True)
    torch = find_spec("torch") is not None and find_spec("transformers") is not None
    rat("run", *RECIPES, *(["trained_model"] if torch else []))

    say("What cleaning took away, and why.")
    rat("query", "select reason, count(*) as texts from recipes.removed group by all order by all")

    if torch:
        say("The model has read for some seconds only. This is what it makes of it.")
        sampling = ["-m", "pipelines.recipes.generate", "--prompt", "Smoky tofu and rice curry", "--tokens", "60"]
        shown("python", *sampling, program=[sys.executable])
    else:
        say("The last step trains a language model. It needs torch: make setup EXTRAS=recipes, then make demo.")


def sbir() -> None:
    say("SBIR: awards in five kinds of files, what other sources know of them, and a graph without a server.")
    shown("python", "-m", "pipelines.sbir.sample", "--awards", "400", "--to", ".", program=[sys.executable])
    rat("run", "pipeline:sbir")

    say("Each line of the award files is an award, a failure with its reasons, or a duplicate.")
    rat("query", LINES)

    say("The same awards in the graph: which technologies companies work on, asked in Cypher.")
    shown("python", "-m", "pipelines.sbir.ask", TECHNOLOGIES, program=[sys.executable])


def forklift() -> None:
    say("Forklift: telemetry of a simulated fleet, from a folder in place of a lakeFS server, to a carrying flag.")
    fleet, truth = ".rat/forklift_fleet", ".rat/forklift_truth"
    into = ["--into", f"{fleet}/real_data", "--truth", truth, "--forklifts", "5", "--trucks", "1", "--days", "1"]
    shown("python", "-m", "pipelines.forklift.simulate", *into, program=[sys.executable])
    os.environ["LAKEFS_FALLBACK"] = fleet
    print(f"\n$ export LAKEFS_FALLBACK={fleet}", flush=True)
    learns = find_spec("sklearn") is not None and find_spec("skops") is not None
    rat("run", *FORKLIFT, *(FORKLIFT_MODEL if learns else ()))
    rat("run", "gold.forklift_load_sensor")

    say("How often each machine carries. Where the load sensor is dead, the rule finds nothing.")
    rat("query", CARRYING)

    if learns:
        say(
            "The model never sees the load sensor. Against what truly happened, on machines that it was not trained on."
        )
        shown("python", "-m", "pipelines.forklift.scores", "--truth", truth, program=[sys.executable])

        say("Which commit and which rows made it.")
        shown("python", "-m", "pipelines.forklift.lineage", program=[sys.executable])
    else:
        say("The last steps train a model. They need scikit-learn: make setup EXTRAS=forklift, then make demo.")


def formula_1() -> None:
    say(
        "Formula 1: Dagster assets and a dbt project on the same lake, from an API on this machine that looks like OpenF1."
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "pipelines.f1.server", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        os.environ["F1_API_URL"] = server.stdout.readline().strip() if server.stdout else ""
        print(f"\n$ export F1_API_URL={os.environ['F1_API_URL']}", flush=True)
        rat("run", *F1)
    finally:
        server.terminate()
        server.wait()

    say("Who was how fast. Every table of a layer became visible together, after all of its dbt tests had passed.")
    rat("query", LEADERBOARD)


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def generate(day: int) -> None:
    shown("python", "pipelines/sales/generate.py", "--day", str(day), program=[sys.executable])


def rat(*arguments: str) -> None:
    shown("rat", *arguments, program=[sys.executable, "-m", "ratatouille.cli"])


def shown(name: str, *arguments: str, program: list[str]) -> None:
    """Print the command, run it, and stop the demo when it fails."""
    print(f"\n$ {shlex.join([name, *arguments])}", flush=True)
    ran = subprocess.run([*program, *arguments], cwd=ROOT, check=False)
    if ran.returncode:
        print(f"\nThe demo stops here: the command above ended with exit code {ran.returncode}.", flush=True)
        sys.exit(ran.returncode)


if __name__ == "__main__":
    sys.exit(main())
