"""Twenty secrets are planted where people keep them and where they slip out; none is in a file, a log or an answer.

What is searched: everything below .rat (journal, catalog, ledger, cache, data), Dagster's home (events, logs), and all
that the commands print.
"""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ratatouille.cli.entry import run_command

dg = pytest.importorskip("dagster")
VARIABLES = ["SHOP_PASSWORD", "CRM_PASSWORD", "API_TOKEN", "OPENF1_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_SECRET", "SERVICE_API_KEY", "DB_DSN", "PRIVATE_KEY", "HOOK_SECRETS"]  # fmt: skip
# Secrets that no variable names: in an address, in an assignment.
SPOKEN = {
    "spoken_dsn": "postgresql://me:{}@127.0.0.1:1/x", "spoken_mysql": "mysql://root:{}@127.0.0.1/x", "spoken_password": "password={}",
    "spoken_token": "token: {}", "spoken_key": "api_key='{}'", "spoken_access": "aws_secret_access_key = {}", "spoken_url": "https://u:{}@example.invalid/x",
    "spoken_passwd": "passwd={}", "spoken_client": "client_secret={}", "spoken_auth": "auth_token={}",
}  # fmt: skip


def canary(name: str) -> str:
    return f"canary-{base64.b32encode(name.encode()).decode().strip('=').lower()}-9"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.setenv(name, canary(name))
    root = tmp_path / "shop"
    every = " and ".join(f"{{os.environ[{name!r}]}}" for name in VARIABLES)
    said = "; ".join(pattern.format(canary(name)) for name, pattern in SPOKEN.items())
    planted = {
        "workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 1}\nenv: [SHOP_COLOUR]\ndatabases:\n"
        "  crm: {type: postgres, host: 127.0.0.1, port: 1, database: crm, user: me, password: '${CRM_PASSWORD}'}\n",
        "pipelines/bronze/good.sql": "select 1 as id",
        "pipelines/bronze/raises.py": f'import os\n\n\ndef build(context):\n    raise RuntimeError(f"{every}; " + {said!r})\n',
        "pipelines/bronze/cannot_connect.sql": "select * from {{ source('crm.customers') }}",
        "pipelines/bronze/cannot_connect.yaml": "retries: {max: 0}\n",
        "pipelines/bronze/says.sql": "select error('" + said.replace("'", "''") + "') as x",
        "pipelines/silver/gated.sql": "select * from {{ ref('bronze.good') }}",
        "pipelines/silver/gated.yaml": f"checks:\n  bad: {{sql: \"select error('{said.replace(chr(39), chr(39) * 2)}') from {{{{ this }}}}\"}}\n",
        "pipelines/silver/not_allowed.sql": "select '{{ env('MY_SECRET') }}' as x",
        "pipelines/silver/retried.py": f'import os\n\n\ndef build(context):\n    raise ConnectionError(f"{every}; " + {said!r})\n',
        "pipelines/silver/retried.yaml": "retries: {max: 1, delay: 0s}\n",
    }
    for name, content in planted.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


def found_in(place: str, content: bytes) -> list[str]:
    wanted = {name: canary(name).encode() for name in (*VARIABLES, *SPOKEN)}
    return [
        f"{name} in {place}"
        for name, secret in wanted.items()
        if secret in content or base64.b64encode(secret) in content
    ]


def test_no_planted_secret_is_kept_or_said(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], figure: Callable[..., None]
) -> None:
    outside = {path for path in root.rglob("*") if path.is_file()}
    commands = (
        ("check",),
        ("run",),
        ("run", "--json"),
        ("plan",),
        ("runs",),
        ("runs", "--json"),
        ("history", "--json"),
        ("doctor",),
        ("show",),
    )
    codes = [run_command(("-w", str(root), *words)) for words in commands]
    (root / "pipelines/silver/not_allowed.sql").unlink()
    codes += [run_command(("-w", str(root), *words)) for words in commands]
    assert 1 in codes, "runs that failed, so that there was something to say"
    home = tmp_path / "dagster-home"
    home.mkdir()
    from ratatouille.dagster.code_location import definitions

    with dg.DagsterInstance.local_temp(str(home)) as instance:
        job = definitions(root).resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(instance=instance, raise_on_error=False)
        assert not done.success
        events = "\n".join(str(record.event_log_entry) for record in instance.get_records_for_run(done.run_id).records)
    said = capfd.readouterr()
    wrong = found_in("what the commands print", said.out.encode()) + found_in(
        "what they say of errors", said.err.encode()
    )
    wrong += found_in("Dagster's events", events.encode())
    searched = [path for folder in (root, home) for path in folder.rglob("*") if path.is_file() and path not in outside]
    searched = [path for path in searched if path.suffix != ".pyc"]  # Python's own copy of the code, beside it
    for path in searched:
        found = found_in(str(path.relative_to(tmp_path)), path.read_bytes())
        # The cache of the project is a copy of the code, private as the code is: what stands there stands here.
        wrong += [one for one in found if "cache" not in path.parts or not one.startswith("spoken")]
        if path.suffix == ".sqlite" or path.name.endswith(".db"):
            with closing(sqlite3.connect(path)) as database:
                wrong += found_in(f"the rows of {path.name}", "\n".join(database.iterdump()).encode())
    assert "[hidden]" in said.out + said.err, "secrets were there to be said"
    figure(
        "planted secrets in files, logs, events, answers",
        size=f"{len(VARIABLES) + len(SPOKEN)} secrets, {len(searched)} files, {len(codes)} commands, 1 run of Dagster",
        wrong=len(wrong),
    )
    assert not wrong, "\n".join(sorted(set(wrong)))
    assert os.environ["MY_SECRET"]
