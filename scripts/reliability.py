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


ROWS = (
    Row("publish-killed", ("tests/crash/test_crash_syscalls.py", "-k", "kill_at_any"), 50),
    Row("publish-disk-fails", ("tests/crash/test_crash_syscalls.py", "-k", "failing_disk or log_was or come_back"), 80),
    Row("lake-made", ("tests/crash/test_crash_syscalls.py", "-k", "lake_is_made"), 20),
    Row("power-loss", ("tests/crash/test_crash_durability.py",), 1),
    Row("runs-killed", ("tests/crash/test_crash_runs.py", "-k", "random_moment"), 50),
    Row("runs-disk-fails", ("tests/crash/test_crash_runs.py", "-k", "failing_disk"), 20),
    Row("clean-killed", ("tests/crash/test_crash_clean.py", "-k", "a_kill"), 30),
    Row("clean-beside", ("tests/crash/test_crash_clean.py", "-k", "beside"), 75),
    Row("writers", ("tests/crash/test_crash_writers.py",), 40, variables=(("RATATOUILLE_WRITERS", "8"),)),
    Row("damaged-files", ("tests/engine/test_engine_doctor.py", "-k", "whatever_happens"), 200),
    Row("f1-killed", ("tests/pipelines/test_f1_crash.py",), 10),
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
