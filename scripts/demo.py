"""`make demo`: the sales pipeline over two days, with every command shown as you would type it.

It works in the workspace of the repository root (its lake is `.rat/`), deletes nothing, and may be run again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LANDING = ROOT / "landing" / "sales"

REVENUE = "select date, store, sum(total) as revenue from gold.sales_summary group by all order by date, store"

TRY_NEXT = """
Try next (`source .venv/bin/activate` gives you `rat`; or write .venv/bin/rat):

  rat run                                    nothing is stale, so nothing is built
  rat plan                                   what the next run would do, and why
  touch the query in pipelines/sales/gold/sales_summary.sql, then: rat plan && rat run
  write ref('silver.sale') in it, then:      rat check
  rat rollback gold.sales_summary --to N     an earlier version, as a new one (N from rat history)
  rat init my_lake && cd my_lake && rat run  a workspace of your own

  docs/tutorial.md goes through all of this. `make demo-reset` forgets the demo."""


def main() -> int:
    again = any(LANDING.glob("*_corrections.csv"))
    if again:
        say("This demo has run here before. What stands is not built twice: watch what is skipped.")

    say("Day 1. Three stores send their sales, and some lines are wrong.")
    generate(1)
    rat("run", "pipeline:sales")

    say("Day 2. New sales, late corrections, and one file of day 1 that was sent anew. Only these are read.")
    generate(2)
    rat("run", "pipeline:sales")

    say("The rows that a check kept out, and why. Nobody downstream has seen them.")
    rat("quarantine", "silver.sales")

    say("What was published, and when. Every version can be read again, and brought back.")
    rat("history", "silver.sales")

    say("Any question, in SQL.")
    rat("query", REVENUE)

    print(TRY_NEXT)
    return 0


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
