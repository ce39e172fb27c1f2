"""What the crash tests run in a process of its own, and the fork server that starts such processes quickly.

call        one function of this module, run in a forked child; its result goes to a file as JSON
serve       read commands on stdin: spawn a child that waits, let it go, wait for its end
label       the number in every row of one version, so that a mixture of two versions shows

A child waits for `go`, so that strace is attached before the first system call that matters. Numbers of calls
then do not depend on Python's start.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import kitchen

from ratatouille import project as files
from ratatouille.engine import Request, open_workbench, run
from ratatouille.errors import RatError
from ratatouille.lake import (
    Entry,
    Journal,
    Lake,
    LandingFile,
    Publication,
    Session,
    Storage,
    UnknownOutcome,
    attempt_folder,
    ledger,
    open_journal,
    open_lake,
    publish,
    seal,
    stage,
)
from ratatouille.lake.care import upkeep
from ratatouille.upkeep.clean import clean

PAIR = ("silver.x", "silver.y")
_ANY_PROCESS_MAY_TRACE = (0x59616D61, -1)  # prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY)


def storage(root: Path) -> Storage:
    # One thread, so that system calls come in the same order every time.
    return Storage(root / ".rat/catalog.sqlite", root / ".rat/data", root / ".rat/spill", 1_000_000_000, 1)


@contextmanager
def opened(root: Path, *, create: bool = True) -> Iterator[tuple[Lake, Journal]]:
    with open_lake(storage(root), write=True, create=create) as lake, open_journal(root / ".rat/journal.sqlite") as j:
        yield lake, j


def rehearse(root: str) -> list[str]:
    """The modules that a whole run loads. A child that loads them itself opens files of Python's own before and
    between the calls that matter, not the same ones each time, and a fault would hit another call than was chosen."""
    kitchen.land(kitchen.build(Path(root)), "0.csv", kitchen.own_rows(0, 0, 10))
    run_once(root)
    return sorted(sys.modules)


# Publishing below the engine: two tables in one commit, with their landing memory and their quarantine


def rows_of(how: str, label: int) -> str:
    low, high = (0, 50) if how == "replace" else (25 * (label - 1), 25 * (label - 1) + 50)
    return f"select i::bigint as id, {label} as label, repeat('x', 100) as pad from range({low}, {high}) t(i)"


def publish_pair(root: str, run_id: str, how: str, label: int) -> list[int]:
    """Publish both tables of PAIR in one commit; returns their versions."""
    with opened(Path(root)) as (lake, journal):
        return [
            _version(outcome) for outcome in publish(lake, journal, run_id, _pair(lake, journal, run_id, how, label))
        ]


def publish_when_told(root: str, run_id: str, label: int, staged: str, told: str) -> list[int]:
    """Stage, create the file `staged`, wait for the file `told`, publish."""
    with opened(Path(root)) as (lake, journal):
        pair = _pair(lake, journal, run_id, "replace", label)
        Path(staged).touch()
        while not Path(told).exists():
            time.sleep(0.01)
        return [_version(outcome) for outcome in publish(lake, journal, run_id, pair)]


def publish_and_drop(root: str, run_id: str, how: str, label: int, count: int = 2) -> list[int]:
    """As the engine does it: what was staged for a publication that failed is removed; then the process is killed."""
    with opened(Path(root)) as (lake, journal):
        pair = _pair(lake, journal, run_id, how, label)[:count]
        try:
            for p, outcome in zip(pair, publish(lake, journal, run_id, pair), strict=True):
                if outcome.error is not None and not isinstance(outcome.error, UnknownOutcome) and p.staged is not None:
                    shutil.rmtree(p.staged.folder, ignore_errors=True)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    return []


def _pair(lake: Lake, journal: Journal, run_id: str, how: str, label: int) -> list[Publication]:
    return [_publication(lake, journal, name, run_id, how, label) for name in PAIR]


def _publication(lake: Lake, journal: Journal, name: str, run_id: str, how: str, label: int) -> Publication:
    token = journal.take_lease(name, run_id)
    assert token is not None
    data = lake.storage.data
    with lake.pinned(f"building {name}") as session:
        head = ledger.heads(session, [name]).get(name) if ledger.exists(session) else None
        folder = attempt_folder(lake.storage, name, run_id, str(token))
        staged = seal(stage(session, rows_of(how, label), name, folder), data)
        kept_out = None
        if name == PAIR[0]:
            kept_out = attempt_folder(lake.storage, "rat.quarantine", run_id, f"{name}-{token}")
            kept_out = seal(stage(session, _quarantine(name, run_id, label), name, kept_out), data)
    memory = LandingFile(name, f"landing/{label}.csv", label, label, str(label), 51, 1, run_id)
    return Publication(
        entry=Entry(asset=name, run_id=run_id, materialize="merge", base_version=head.version if head else 0),
        how=how if head else "replace",
        token=token,
        columns=staged.columns,
        staged=staged,
        unique_key=("id",),
        landing=(memory,),
        quarantine=kept_out,
        forget_quarantine="" if head else "true",
        was="table" if head else "",
    )


def _quarantine(name: str, run_id: str, label: int) -> str:
    values = {"asset": name, "run_id": run_id, "origin": "gate", "checks": "c", "reason": "r", "file": "f"}
    texts = ", ".join(f"'{value}' as {column}" for column, value in values.items())
    return f"select {texts}, {label}::bigint as line, '{{}}' as row, now()::timestamp as quarantined_at"


def _version(outcome: Any) -> int:
    if outcome.error is not None:
        raise outcome.error
    return int(outcome.entry.version)


def settle(root: Path) -> None:
    """Open the lake once, so that a copy knows where it lies now."""
    if (root / ".rat/catalog.sqlite").exists():
        with open_lake(storage(root)):
            pass


def look(root: Path) -> dict[str, Any]:
    """What a reader sees of PAIR, and every disagreement between the rows, the ledger and the files."""
    wrong: list[str] = []
    with sqlite3.connect(root / ".rat/catalog.sqlite") as catalog:
        if (said := catalog.execute("pragma integrity_check").fetchone()[0]) != "ok":
            wrong.append(f"integrity_check: {said}")
    catalog.close()
    with open_lake(storage(root)) as lake, lake.pinned() as session:
        if not ledger.exists(session):
            return {"tables": [], "wrong": wrong, "entries": []}
        heads = ledger.heads(session)
        seen = [_seen(session, name, heads, storage(root).data, wrong) for name in PAIR]
        entries = [(e.asset, e.run_id) for e in ledger.entries(session)]
    if len(set(entries)) != len(entries):
        wrong.append(f"published twice: {entries}")
    return {"tables": seen, "wrong": wrong, "entries": entries}


def _seen(session: Session, name: str, heads: dict[str, Entry], data: Path, wrong: list[str]) -> list[Any]:
    head = heads.get(name)
    if head is None:
        return []
    counts = session.rows(f"select label, count(*), count(distinct id), sum(id) from lake.{name} group by 1 order by 1")
    if sum(row[1] for row in counts) != head.rows_total:
        wrong.append(f"{name}: the ledger says {head.rows_total} rows, there are {counts}")
    memory = [(f.file, f.bytes) for f in ledger.landing_files(session, name)]
    for file in head.manifest:
        path = data / file["path"]
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
            wrong.append(f"{name}: {file['path']} is not what the manifest says")
    kept = session.rows(f"select line from lake.rat.quarantine where asset = '{name}' order by all")
    return [[list(map(int, row)) for row in counts], head.version, memory, kept]


# Whole runs through the engine


def run_once(root: str, *selectors: str) -> dict[str, Any]:
    """`engine.run` as a person's process does it; the result as JSON."""
    with open_workbench(Path(root), write=True) as bench:
        result = run(bench, Request(selectors=selectors))
    steps = {
        s.asset: {"status": s.status, "version": s.version, "reason": s.reason, "error": s.error} for s in result.steps
    }
    return {"run_id": result.run_id, "status": result.status, "resumed": result.resumed, "steps": steps}


def run_without_rights(root: str) -> dict[str, Any]:
    """`run_once` by somebody who may not write where the mode of a file or folder says so, as root always may."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")
    return run_once(root)


def clean_up(root: str, days: float) -> dict[str, Any]:
    """`rat clean` as it would be `days` from now."""
    done = clean(files.load(Path(root)), now=time.time() + days * 86_400)
    return {"removed": len(done.removed), "compacted": len(done.compacted), "warnings": list(done.warnings)}


def clean_for(root: str, stop: str) -> dict[str, Any]:
    """Clean again and again until the file `stop` exists, and compact what has two small files already."""
    upkeep.MANY_FILES = 2
    said: dict[str, Any] = {"cleaned": 0, "refused": 0, "compacted": 0, "warnings": [], "errors": []}
    while not Path(stop).exists():
        try:
            done = clean(files.load(Path(root)))
        except RatError as error:
            said["errors"].append(str(error))
            continue
        said["refused" if done.waits_for else "cleaned"] += 1
        said["compacted"] += len(done.compacted)
        said["warnings"] += done.warnings
    return said


def land_and_run(root: str, folder: str, who: int, commits: int, rows: int, *selectors: str) -> dict[str, Any]:
    """Land a file and run, again and again, as a person would: a new opening each time."""
    wrong: list[Any] = []
    seconds = []
    for number in range(commits):
        name = f"{folder}{who}-{number}.csv"
        kitchen.land(Path(root), name, kitchen.own_rows(who, number, rows))
        started = time.monotonic()
        try:
            result = run_once(root, *selectors)
            wrong += [] if result["status"] in ("done", "fresh") else [result]
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
        seconds.append(time.monotonic() - started)
        asset = selectors[0] if selectors else "bronze.sales"
        with open_lake(storage(Path(root))) as lake, lake.session() as session:
            if not session.value(f"select count(*) from lake.{asset} where _file = 'landing/{name}'"):
                wrong.append(f"run {number} of writer {who} ended without its file")
    return {"wrong": wrong, "seconds": seconds}


def land_until(root: str, who: int, stop: str, told: str) -> dict[str, Any]:
    """Land a file and run, again and again, until the file `stop` exists; every landing file whose run came back
    with its rows published is written down in `told`, durably, before the next begins."""
    wrong: list[Any] = []
    number = 0
    while not Path(stop).exists():
        name = f"{who}-{number}.csv"
        kitchen.land(Path(root), name, kitchen.own_rows(who, number, 10))
        try:
            result = run_once(root)
            wrong += [] if result["status"] in ("done", "fresh") else [result]
            with open(told, "a", encoding="utf-8") as acknowledged:
                acknowledged.write(f"landing/{name}\n")
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
        number += 1
    return {"wrong": wrong}


def read_for(root: str, stop: str, select: str) -> dict[str, Any]:
    """Read again and again until the file `stop` exists; what was seen, and the errors."""
    seen: list[Any] = []
    errors: list[str] = []
    while not Path(stop).exists():
        try:
            with open_workbench(Path(root)) as bench, bench.lake.session() as session:
                for _ in range(5):
                    row = session.row(select)
                    if row is not None and (not seen or seen[-1] != list(row)):
                        seen.append(list(row))
                    time.sleep(0.02)
        except RatError as error:
            errors.append(str(error))
    return {"seen": seen, "errors": errors}


# The fork server


def serve() -> None:
    """spawn -> pid; go -> the child starts; wait -> its status; load -> modules. One JSON object a line."""
    gates: dict[int, int] = {}
    for line in sys.stdin:
        said = json.loads(line)
        answer: dict[str, Any] = {}
        if said["do"] == "spawn":
            answer["pid"] = _spawn(said, gates)
        elif said["do"] == "go":
            gate = gates.pop(said["pid"])
            os.write(gate, b"g")
            os.close(gate)
        elif said["do"] == "load":
            for module in said["modules"]:
                with suppress(ImportError):
                    importlib.import_module(module)
        else:
            answer["status"] = os.waitpid(said["pid"], 0)[1]
        print(json.dumps(answer), flush=True)


def _spawn(said: dict[str, Any], gates: dict[int, int]) -> int:
    gate, opener = os.pipe()
    ready, is_ready = os.pipe()
    pid = os.fork()
    if pid:
        os.close(gate)
        os.close(is_ready)
        os.read(ready, 1)  # whoever attaches now sees no call of the child's own preparation
        os.close(ready)
        gates[pid] = opener
        return pid
    os.close(opener)
    os.close(ready)
    for other in gates.values():
        os.close(other)
    _be_the_child(said, gate, is_ready)
    return 0  # not reached


def _be_the_child(said: dict[str, Any], gate: int, is_ready: int) -> None:
    ctypes.CDLL(None).prctl(*_ANY_PROCESS_MAY_TRACE, 0, 0, 0)
    with open(said["log"], "w", encoding="utf-8") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.write(is_ready, b"r")
    os.close(is_ready)
    os.read(gate, 1)
    answer: dict[str, Any]
    try:
        answer = {"ok": globals()[said["call"]](*said["args"])}
    except RatError as error:
        answer = {"error": error.as_record()}
    except BaseException:
        answer = {"crash": traceback.format_exc()}
    with open(said["result"], "w", encoding="utf-8") as handle:
        json.dump(answer, handle, default=str)
    os._exit(0)


if __name__ == "__main__":
    serve()
