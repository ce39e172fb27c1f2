"""The process that runs the console's queries: one line of JSON in, one line of JSON out, until nobody asks any more.

It is a process of its own because a time limit that only asks DuckDB to stop is none: one call of a function may take
hours and is not interrupted. Here the kernel's alarm ends the process, whatever it is at, and its memory is limited by
the kernel too. It has no secrets in its environment but those of the lake, and what it reads is checked twice: by name,
as both parsers see the query, and by DuckDB, which may open no file outside the lake.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratatouille.engine import ask, storage_of
from ratatouille.errors import LakeError, RatError, RequestError
from ratatouille.lake import Session
from ratatouille.pages.console_rules import check, layers_of, refuse_schemas
from ratatouille.project.records import Resources, Workspace


def answered(request: Mapping[str, Any]) -> dict[str, Any]:
    """What one request comes to: columns, rows and whether there are more; or the file that was written."""
    began, limits, sql = time.monotonic(), request["limits"], str(request["sql"]).strip().rstrip(";").rstrip()
    hidden = {table: frozenset(columns) for table, columns in request["hidden"].items()}
    names = check(sql, {table.lower() for table in hidden})
    said = dict(request["workspace"])
    workspace = Workspace(**said | {"layers": tuple(said["layers"]), "resources": Resources(**said["resources"])})
    used = {f"{schema}.{table}".lower() for _, schema, table in names.tables}
    hidden = {table: columns for table, columns in hidden.items() if table.lower() in used}
    target = Path(request["target"]) if request.get("target") else None
    with ask.reading(workspace, writes=target, hidden=hidden, spill_bytes=limits["spill_bytes"]) as session:
        refuse_schemas(names, layers_of(session))
        if target is not None:
            return {"rows": _write(session, sql, target, workspace, limits)}
        found = ask.answer(session, sql, limits["rows"], longest=limits["cell"], characters=limits["characters"])
    return {"columns": found.columns, "rows": found.rows, "more": found.more, "seconds": time.monotonic() - began}


def _write(session: Session, sql: str, target: Path, workspace: Workspace, limits: Mapping[str, Any]) -> int:
    most = limits["file_rows"]
    written = ask.write_answer(session, f"select * from (\n{sql}\n) limit {most + 1}", target, storage_of(workspace))
    if written > most:
        target.unlink()
        raise RequestError(
            f"This query gives more than {most:,} rows, which is more than a download holds.",
            where="query",
            next=f"rat query SQL -o {target.name} writes them all",
        )
    return written


def _plainly(error: Exception) -> RatError:
    """What a person is told: with less memory than a run has, it is no matter of workspace.yaml."""
    if not isinstance(error, RatError | MemoryError):
        what = f"This is a defect in rat: {type(error).__name__}: {error}"
        return LakeError(what, where="the console", next="The same in a terminal: rat query SQL; please report it")
    known = ("memory limit was reached", "File too large", "max_temp_directory_size")
    if isinstance(error, RatError) and not any(one in str(error) for one in known):
        return error
    if any(one in str(error) for one in known[1:]):
        return LakeError(
            "This query was stopped: it writes more than the console lets it.",
            where="query",
            next="Ask for less (where, limit, fewer columns), or in a terminal: rat query SQL -o FILE",
        )
    return LakeError(
        "This query was stopped: it needs more memory than the console gives.",
        where="query",
        next="Ask for less (where, limit, fewer columns), or in a terminal: rat query SQL",
    )


def limit_this_process(memory_bytes: int) -> None:
    """Let the kernel hold this process to so much more memory than it has now, and to no dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    held = next(
        int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line
    )
    resource.setrlimit(resource.RLIMIT_DATA, (held + memory_bytes, held + memory_bytes))


def serve(memory_bytes: int) -> None:
    """Answer request after request. The alarm that ends a query that takes too long ends the process with it."""
    check("select 1")  # what every query needs is loaded before anybody waits for it
    limit_this_process(memory_bytes)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever else may write there
    for line in sys.stdin:
        request = json.loads(line)
        limits = request["limits"]
        most = limits["file_bytes"] if request.get("target") else limits["spill_bytes"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
        try:
            reply = answered(request)
        except Exception as error:
            reply = {"error": _plainly(error).as_record()}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
