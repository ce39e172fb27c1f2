"""The document's `run_batch_load.py`: extracted files become bronze tables.

python -m pipelines.f1.run_batch_load
"""

import sys

from ratatouille import RatError, run


def main() -> int:
    """Run the command; its exit code: 0 done, 1 a table failed, 2 the request is wrong."""
    try:
        done = run("layer:bronze_raw")
    except RatError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    for name, step in done["steps"].items():
        sys.stdout.write(f"{name}: {step['status']}, {step['rows_written']:,} rows written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
