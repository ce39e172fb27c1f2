"""The only part that imports duckdb: runs SQL in a process of its own.

worker.py script FILE   run the statements of a file (`;` at a line's end between them), print the last result
worker.py ask FILE      run the statements of a file, print the last result's first row as JSON

DuckLake needs its extensions from the wheels; they are loaded when the script attaches a lake.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import duckdb


def main(arguments: list[str]) -> int:
    verb, file = arguments
    rows, names = run_script(Path(file).read_text())
    if verb == "ask":
        print(json.dumps(dict(zip(names, rows[0], strict=True)), default=str))
    else:
        print(rows)
    return 0


def run_script(text: str) -> tuple[list[Any], list[str]]:
    con = duckdb.connect()
    if "ducklake:" in text:
        load_lake_extensions(con)
    rows: list[Any] = []
    names: list[str] = []
    for statement in text.split(";\n"):
        if statement.strip():
            cursor = con.execute(statement)
            names = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchall() if names else []
    con.close()
    return rows, names


def load_lake_extensions(con: duckdb.DuckDBPyConnection) -> None:
    # The SQLite extension answers only to the file name `sqlite_scanner`; the wheel of that name has it.
    for package, name in (("ducklake", "ducklake"), ("sqlite_scanner", "sqlite_scanner")):
        found = next(
            path
            for entry in sys.path
            for path in Path(entry or ".").glob(f"duckdb_extension_{package}/extensions/*/{name}.duckdb_extension")
        )
        con.execute(f"load '{found}'")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
