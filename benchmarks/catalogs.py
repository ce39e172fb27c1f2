"""A catalog on PostgreSQL beside one in a SQLite file, and data in a bucket beside a folder: what a team pays.

    python benchmarks/catalogs.py [rounds]

publish    one trivial asset, forced, in one process that is warm: the whole run, and the commit alone
no-op      `rat run` of an asset that is fresh, as a process of its own

Kinds take turns within a round, so a slow moment of the machine hurts all of them. Medians; ratios to SQLite.
"""

from __future__ import annotations

import importlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/docs"), str(ROOT / "tests/teams")]

from postgres_server import a_postgres, with_debian_binaries  # noqa: E402
from s3_server import BUCKET, an_s3  # noqa: E402

from ratatouille.engine import Request  # noqa: E402
from ratatouille.handle import run_request  # noqa: E402


def need(program: str, install: str) -> str:
    found = shutil.which(program)
    if found is None:
        sys.exit(f"{program} is not installed. Get it with: {install}")
    return found


def main(rounds: int) -> None:
    os.environ["PATH"] = with_debian_binaries(os.environ["PATH"])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-catalogs-")))
        postgres, s3 = stack.enter_context(a_postgres(need)), stack.enter_context(an_s3(need))
        os.environ |= {"LAKE_PASSWORD": postgres.password, **s3.environment()}
        server = f"postgres://{postgres.user}:${{LAKE_PASSWORD}}@127.0.0.1:{postgres.port}/{postgres.database}"
        lakes = {
            "SQLite + folder": "",
            "PostgreSQL + folder": f"lake: {{catalog: '{server}?schema=one', data: data}}",
            "PostgreSQL + bucket": f"lake: {{catalog: '{server}?schema=two', data: 's3://{BUCKET}/two'}}",
        }
        roots = {kind: workspace(folder / str(i), lake) for i, (kind, lake) in enumerate(lakes.items())}
        commits = watch_commits()
        found: dict[str, dict[str, list[float]]] = {kind: {"publish": [], "commit": [], "no-op": []} for kind in lakes}
        for root in roots.values():
            run_request(root, Request(()))
        for _ in range(rounds):
            for kind, root in roots.items():
                commits.clear()
                found[kind]["publish"].append(
                    timed(lambda root=root: run_request(root, Request(("gold.x",), force=True)))
                )
                found[kind]["commit"] += commits
                command = [sys.executable, "-m", "ratatouille.cli", "run", "silver.x", "-w", str(root)]
                found[kind]["no-op"].append(timed(lambda c=command: subprocess.run(c, check=True, capture_output=True)))
        report(found)


def workspace(root: Path, lake: str) -> Path:
    for layer, sql in (("silver", "select 1 as n"), ("gold", "select n from {{ ref('silver.x') }}")):
        (root / "pipelines" / layer).mkdir(parents=True)
        (root / "pipelines" / layer / "x.sql").write_text(sql)
    (root / "pipelines/silver/x.yaml").write_text("refresh_every: 24h\n")
    (root / "workspace.yaml").write_text(f"name: bench\nresources: {{memory: 1GB, threads: 1}}\n{lake}\n")
    return root


def watch_commits() -> list[float]:
    """Seconds of each commit: lock, BEGIN to COMMIT, proof."""
    took: list[float] = []
    publishing = importlib.import_module("ratatouille.lake.publish")  # the package has a function of that name
    commit = publishing._commit

    def watched(*args: object) -> object:
        started = time.perf_counter()
        made = commit(*args)  # type: ignore[arg-type]
        took.append(time.perf_counter() - started)
        return made

    publishing._commit = watched  # type: ignore[assignment]
    return took


def timed(work: object) -> float:
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


def report(found: dict[str, dict[str, list[float]]]) -> None:
    base = {what: statistics.median(values) for what, values in found["SQLite + folder"].items()}
    print(f"{'':22}" + "".join(f"{what:>24}" for what in base))
    for kind, each in found.items():
        cells = (
            f"{statistics.median(v) * 1000:,.0f} ms ({statistics.median(v) / base[w]:.2f}x)" for w, v in each.items()
        )
        print(f"{kind:22}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
