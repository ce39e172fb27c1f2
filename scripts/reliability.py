"""Take the figures of docs/reliability.md: every row's tests with large counts, and one table at the end.

    make test-reliability                                  # every row; hours
    make test-reliability ROWS="publish-killed names"      # some of them
    make test-reliability SCALE=0.05                       # a twentieth of the trials

row     a name, what to run, and by how much RATATOUILLE_TRIALS multiplies the everyday sample at SCALE=1

Rows are kept in .reliability/ as they end, with the commit that they belong to. A row of this commit and this scale
is not run again, so what was interrupted goes on; --again runs it all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".reliability"
LONGEST_S = 3 * 3600  # of one row


@dataclass(frozen=True)
class Row:
    name: str
    tests: tuple[str, ...]  # arguments of pytest
    trials: int
    variables: tuple[tuple[str, str], ...] = ()


_WORKSPACES, _SYSCALLS = "tests/crash/test_crash_workspaces.py", "tests/crash/test_crash_syscalls.py"
_TEAMS = "tests/teams/test_teams_faults.py"
_EIGHT = (("RATATOUILLE_WRITERS", "8"),)
ROWS = (
    Row("publish-killed", (_SYSCALLS, "-k", "kill_at_any"), 50),
    Row("publish-disk-fails", (_SYSCALLS, "-k", "failing_disk or log_was or come_back"), 80),
    Row("lake-made", (_SYSCALLS, "-k", "lake_is_made"), 90),
    Row("power-loss", ("tests/crash/test_crash_durability.py",), 1),
    Row("runs-killed", ("tests/crash/test_crash_runs.py", "-k", "random_moment"), 50),
    Row("runs-disk-fails", ("tests/crash/test_crash_runs.py", "-k", "failing_disk"), 110),
    Row("workspaces-killed", (_WORKSPACES, "-k", "killed_run"), 200),
    Row("every-mode", (_WORKSPACES, "-k", "every_mode"), 1_200),
    Row("no-room", (_WORKSPACES, "tests/crash/test_crash_full_disk.py", "-k", "room or full or read_only or inode"), 2),
    Row("clean-killed", ("tests/crash/test_crash_clean.py", "-k", "a_kill"), 600),
    Row("clean-beside", ("tests/crash/test_crash_clean.py", "-k", "beside"), 75),
    Row("writers", ("tests/crash/test_crash_writers.py", "-k", "not killed"), 40, _EIGHT),
    Row("writers-killed", ("tests/crash/test_crash_writers.py", "-k", "killed"), 167),
    Row("servers-killed", (_TEAMS, "-k", "killed_at_random"), 50),
    Row("team-writers", (_TEAMS, "-k", "two_machines_publish"), 100, _EIGHT),
    Row("bucket-fails", (_TEAMS, "-k", "bucket_that_fails"), 50),
    Row("histories", ("tests/engine/test_engine_properties.py",), 50),
    Row("damaged-files", ("tests/engine/test_engine_doctor.py", "-k", "whatever_happens"), 200),
    Row("hostile-files", ("tests/engine/test_engine_hostile_files.py",), 5),
    Row("drift", ("tests/engine/test_engine_drift.py",), 1),
    Row("rejected", ("tests/dagster_face/test_dagster_gates.py",), 10),
    Row("misbehaving-api", ("tests/pipelines/test_f1_schedules.py",), 38),
    Row("earlier-releases", ("tests/engine/test_engine_golden_lakes.py",), 1),
    Row("forklift-killed", ("tests/pipelines/test_forklift_kills.py",), 200),
    Row("f1-killed", ("tests/pipelines/test_f1_crash.py",), 10),
    Row("names", ("tests/security/test_security_names.py",), 10),
    Row("queries", ("tests/security/test_security_queries.py",), 2),
    Row("console", ("tests/pages/test_pages_console.py",), 1),
    Row("secrets", ("tests/security/test_security_secrets.py",), 1),
    Row("connections", ("tests/security/test_security_network.py",), 2),
)


def taken(row: Row, scale: float, commit: str) -> list[dict[str, object]] | None:
    """The figures of a row, when they were taken at this commit and scale."""
    try:
        kept = json.loads((KEPT / f"{row.name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    same = (kept["commit"], kept["scale"]) == (commit, scale) and not commit.endswith("-dirty")
    return list(kept["figures"]) if same else None


def take(row: Row, scale: float, commit: str) -> list[dict[str, object]]:
    """Run a row's tests. A test that fails without a figure is a figure of its own: nothing fails unseen."""
    KEPT.mkdir(exist_ok=True)
    figures, log = KEPT / f"{row.name}.lines", KEPT / f"{row.name}.log"
    figures.unlink(missing_ok=True)
    trials = max(1, round(row.trials * scale))
    environment = os.environ | {"RATATOUILLE_TRIALS": str(trials), "RATATOUILLE_FIGURES": str(figures)}
    environment |= {} if scale < 1 else dict(row.variables)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-o", f"timeout={LONGEST_S}"]
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as said:
        done = subprocess.run([*command, *row.tests], cwd=ROOT, env=environment, stdout=said, stderr=said, check=False)
    found = [json.loads(line) for line in figures.read_text("utf-8").splitlines()] if figures.exists() else []
    figures.unlink(missing_ok=True)
    last = log.read_text("utf-8", errors="replace").rstrip().rpartition("\n")[2].strip("= ")
    if not found or (done.returncode and not any(one["wrong"] for one in found)):
        found.append({"what": f"the tests of {row.name}", "size": last, "wrong": 1 if done.returncode else 0})
    seconds = time.monotonic() - started
    kept = {"commit": commit, "scale": scale, "seconds": round(seconds), "figures": found}
    (KEPT / f"{row.name}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    print(f"{row.name}: {seconds:,.0f} s, {last} ({log.relative_to(ROOT)})", flush=True)
    return found


def table(rows: dict[str, list[dict[str, object]]]) -> str:
    lines = ["| row | what | size | seeds | wrong |", "|---|---|---|---|---|"]
    for name, figures in rows.items():
        lines += [f"| {name} | {f['what']} | {f['size']} | {f.get('seeds', '')} | {f['wrong']} |" for f in figures]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the trials: 1 takes hours, 0.05 minutes")
    parser.add_argument("--again", action="store_true", help="also what was taken at this commit already")
    wish = parser.parse_args()
    if unknown := set(wish.rows) - {row.name for row in ROWS}:
        parser.error(f"no row is called {', '.join(sorted(unknown))}")
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    commit = git.stdout.strip()
    chosen = [row for row in ROWS if not wish.rows or row.name in wish.rows]
    found = {}
    for row in chosen:
        known = None if wish.again else taken(row, wish.scale, commit)
        found[row.name] = take(row, wish.scale, commit) if known is None else known
    print(f"\nCommit {commit}, scale {wish.scale:g}.\n\n{table(found)}")
    return 1 if any(figure["wrong"] for figures in found.values() for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
