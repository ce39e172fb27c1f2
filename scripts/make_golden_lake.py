"""Keep a lake as this release writes it, for the tests of later ones: tests/engine/golden/<name>.tar.gz.

    python scripts/make_golden_lake.py 0.1.0

The small workspace of three layers is built over three days, with a row kept out by a gate and a rewritten landing
file. Beside it lies what its tables held at each version. Made once for each release, never made again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

FILES = {
    "workspace.yaml": "name: golden\nresources: {memory: 1GB, threads: 1}\n",
    "pipelines/shop/bronze/sales.sql": "select * from {{ source('landing/*.csv') }}\n",
    "pipelines/shop/bronze/sales.yaml": "materialize: append\nsources:\n  landing/*.csv:\n"
    "    columns: {id: bigint, amount: 'decimal(10,2)', city: varchar}\n",
    "pipelines/shop/silver/sales.sql": "select id, amount, city, _loaded_at from {{ ref('bronze.sales') }}\n"
    "{% if is_incremental() %} where _loaded_at > {{ watermark('_loaded_at') }} {% endif %}\n",
    "pipelines/shop/silver/sales.yaml": "materialize: merge\nunique_key: id\non_fail: quarantine\nmax_quarantine: 0.5\n"
    "columns: {amount: {checks: [positive]}}\n",
    "pipelines/shop/gold/cities.sql": "select city, sum(amount) as amount from {{ ref('silver.sales') }} group by city\n",
}
DAYS = (
    {"1.csv": "id,amount,city\n1,10.00,Lyon\n2,20.50,Nice\n3,-1.00,Lyon\n"},
    {"2.csv": "id,amount,city\n2,22.00,Nice\n4,40.00,São Paulo\n"},
    {"3.csv": "id,amount,city\n5,50.00,Lyon\n", "1.csv": "id,amount,city\n1,11.00,Lyon\n2,20.50,Nice\n"},
)
TABLES = {
    "bronze.sales": "select id, amount::varchar, city, _file from lake.bronze.sales{at} order by all",
    "silver.sales": "select id, amount::varchar, city from lake.silver.sales{at} order by all",
    "gold.cities": "select city, amount::varchar from lake.gold.cities{at} order by all",
}


def build(root: Path) -> dict[str, Any]:
    """Make the workspace; what its tables hold: {table: {version: rows}}, the newest under "now"."""
    from ratatouille.engine import Request, open_workbench, run
    from ratatouille.lake import ledger

    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for day in DAYS:
        for name, text in day.items():
            (root / "landing").mkdir(exist_ok=True)
            (root / "landing" / name).write_text(text, encoding="utf-8")
        with open_workbench(root, write=True) as bench:
            result = run(bench, Request())
        if result.status != "done":
            raise SystemExit(f"the golden lake cannot be built: {result}")
    with open_workbench(root) as bench, bench.lake.session() as session:
        held: dict[str, Any] = {name: {"now": session.rows(sql.format(at=""))} for name, sql in TABLES.items()}
        for name, sql in TABLES.items():
            for entry in ledger.entries(session, name):
                held[name][str(entry.version)] = session.rows(sql.format(at=f" at (version => {entry.version})"))
    return held


def main(name: str) -> int:
    target = Path.cwd() / "tests" / "engine" / "golden" / f"{name}.tar.gz"
    if target.exists():
        print(f"{target} is there already, and a golden lake is never made again.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "golden"
        root.mkdir()
        held = build(root)
        (root / "held.json").write_text(json.dumps(held, ensure_ascii=False, indent=1), encoding="utf-8")
        shutil.rmtree(root / ".rat/cache", ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        with tarfile.open(target, "w:gz") as packed:
            packed.add(root, "golden")
    print(f"{target.relative_to(Path.cwd())}: {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else __doc__)
