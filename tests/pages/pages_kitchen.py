"""A kitchen with everything that a page may have to show: built once for each process, and only looked at.

Its third run is stopped by a gate of gold.dishes. What people may write anywhere (descriptions, values, names of columns,
files, checks, runs and tables) is hostile in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from ratatouille import project as files
from ratatouille.engine import Request, storage_of
from ratatouille.handle import run_request
from ratatouille.lake import Entry, ledger, open_journal, open_lake
from ratatouille.pages.guard import Access, access
from ratatouille.pages.server import make_app

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>"
SECRET = "Ada Lovelace"
TABLE = f"other.{HOSTILE}?a=b&c#d%/e"  # Starlette's test client reads %41 twice
RUN = f"run-{HOSTILE}"
HEADER = "order_id,ordered_at,customer,dish,portions,price\n"
FIRST = HEADER + "".join(
    f"{100 + i},2026-01-05 1{i % 10}:00:00,{SECRET if i % 2 else 'Grace'},{'quiche' if i % 3 else HOSTILE},{-1 if i == 7 else 1 + i % 3},{9 + i}.50\n"
    for i in range(20)
).replace(HOSTILE, '"' + HOSTILE.replace('"', '""') + '"')
MORE = HEADER + f"150,2026-01-05 20:00:00,{SECRET},soup,2,7.50\n"
SECOND = HEADER + "".join(
    f"{201 + i},2026-01-06 12:00:00,{SECRET},gratin,1,{900 if i < 5 else 12}.00\n" for i in range(25)
)
SECOND += f"x,y,{SECRET},,,\n"
FILES = {
    "workspace.yaml": "name: kitchen\nresources: {memory: 1GB, threads: 2}\n",
    "pipelines/bronze/orders.sql": "select * from {{ source('landing/orders/*.csv') }}\n",
    "pipelines/bronze/orders.yaml": """description: Orders as they arrived.
materialize: append
sources:
  landing/orders/*.csv:
    columns: {order_id: integer, ordered_at: timestamp, customer: varchar, dish: varchar, portions: integer, price: "decimal(10,2)"}
columns: {customer: {type: varchar, sensitive: true}}
""",
    "pipelines/silver/orders.sql": """select order_id, ordered_at, customer, dish, portions, cast(portions * price as decimal(12, 2)) as total, _loaded_at
from {{ ref('bronze.orders') }}
{% if is_incremental() %}where _loaded_at > {{ watermark('_loaded_at') }}{% endif %}
""",
    "pipelines/silver/orders.yaml": """description: Cleaned orders, one row per order.
materialize: merge
unique_key: order_id
columns:
  order_id: {description: Number of the order, checks: [not_null]}
  customer: {type: varchar, sensitive: true}
  portions: {checks: [positive]}
on_fail: quarantine
max_quarantine: 0.5
""",
    "pipelines/gold/dishes.sql": """select dish, count(*) as n_orders, sum(portions) as portions, sum(total) as revenue
from {{ ref('silver.orders') }} group by dish
""",
    "pipelines/gold/dishes.yaml": f"""description: '{HOSTILE.replace("'", "''")}'
owners: ada
columns:
  dish: {{description: As on the menu, checks: [not_null, unique]}}
checks:
  not_too_dear: {{check: sql, sql: "select * from {{{{ this }}}} where revenue / portions > 100"}}
""",
    "pipelines/gold/menu.sql": "select dish, revenue / portions as price from {{ ref('gold.dishes') }}\n",
    "pipelines/gold/odd.sql": """select 1 as id, '"""
    + HOSTILE.replace("'", "''")
    + """' as "a <marquee> "" name", null as nothing\n""",
    "pipelines/gold/in_python.py": f"""def build(context):
    context.log.info("so many rows: %d, and {HOSTILE.replace('"', "'").replace("'x'", "1")}", 1)
    return context.query("select 1 as id")
""",
}


# Fails with a value of a sensitive column in the words of the database.
LEAKS = {
    "pipelines/gold/leaks.sql": "select cast(customer as integer) as customer from {{ ref('silver.orders') }}\n",
    "pipelines/gold/leaks.yaml": "columns: {customer: {sensitive: true}}\n",
}


def write(root: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@dataclass
class Served:
    """The pages of a workspace, asked in this process by somebody who has the session."""

    root: Path
    access: Access
    client: TestClient

    def get(self, path: str, status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text


def served(root: Path) -> Served:
    allowed = access("127.0.0.1", 3040)
    client = TestClient(
        make_app(root, allowed),
        base_url="http://127.0.0.1:3040",
        cookies={allowed.cookie: allowed.token},
        follow_redirects=False,
    )
    return Served(root, allowed, client)


def build(root: Path) -> None:
    write(root, FILES | {"landing/orders/one.csv": FIRST})
    assert run_request(root, Request(())).status == "done"
    write(root, {"landing/orders/more.csv": MORE})
    assert run_request(root, Request(())).status == "done"
    broken = {"landing/orders/broken.csv": f"order_id,customer\nx,{SECRET}\n"}
    write(root, {"landing/orders/two <marquee>.csv": SECOND} | broken | LEAKS)
    result = run_request(root, Request(()))
    assert {step.asset: step.status for step in result.steps if step.status in ("failed", "blocked")} == {
        "gold.dishes": "failed",
        "gold.leaks": "failed",
        "gold.menu": "blocked",
    }
    workspace = files.load(root).workspace
    # Names that no file may have, but tables of an orchestrator, and its runs.
    with open_lake(storage_of(workspace), write=True) as lake, lake.session() as session:
        entry = Entry(
            TABLE,
            RUN,
            materialize="native",
            columns=((HOSTILE, "VARCHAR"),),
            published_at=datetime(2026, 1, 6, tzinfo=UTC),
        )
        session.execute("begin transaction")
        ledger.write_entries(session, [entry])
        session.execute("commit")
    with open_journal(root / ".rat" / "journal.sqlite") as journal:
        journal.start_run(RUN, {"label": HOSTILE})
        error = {"error": "StepFailed", "what": HOSTILE, "where": HOSTILE, "state": HOSTILE, "next": HOSTILE}
        check = {
            "name": HOSTILE,
            "kind": "sql",
            "severity": "error",
            "passed": False,
            "bad": 3,
            "rows": 9,
            "value": None,
        }
        record: dict[str, Any] = {
            "reason": HOSTILE,
            "error": error,
            "checks": [check],
            "warnings": [HOSTILE],
            "mode": HOSTILE,
        }
        journal.record_step(RUN, TABLE, 1, "failed", {**record, "measured": {"stages": {HOSTILE: 1.0}}})
        journal.end_run(RUN, "failed", error)
