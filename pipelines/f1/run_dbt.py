"""The document's `./run_dbt.sh build --select silver`: a part of the dbt project, built on the lake.

`build` and `run` do the same here: models without their tests would be visible before anybody has looked at them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ratatouille import RatError, dbt

PROJECT = Path(__file__).parent / "dbt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 0 done, 1 a model or a test failed, 2 the request is wrong."""
    parser = argparse.ArgumentParser(prog="run_dbt.sh", description="Build a part of the F1 dbt project on the lake.")
    parser.add_argument("command", choices=("build", "run"))
    parser.add_argument("--select", default="", help="silver, core, marts, or anything that dbt selects")
    parser.add_argument("--full-refresh", action="store_true", help="build all rows anew")
    asked = parser.parse_args(arguments)
    try:
        done = dbt.build(PROJECT, select=asked.select, full_refresh=asked.full_refresh)
    except RatError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    for name, model in done["models"].items():
        sys.stdout.write(f"{name}: version {model['version']}, {model['rows_total']:,} rows\n")
    sys.stdout.write(f"{done['status']}: {len(done['models'])} models, {done['tests_passed']} tests passed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
