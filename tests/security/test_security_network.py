"""Nothing calls home: commands, a materialization of Dagster, dbt and tokenizers open no connection but to this machine.

Every system call by which a process could reach out is looked at with strace. RATATOUILLE_TRIALS=2 looks at all of
them; every day it is a run and a query, and the settings that are shipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ALL = int(os.environ.get("RATATOUILLE_TRIALS", "1")) > 1
RAT = "import sys; from ratatouille.cli.entry import run_command as rat; "
PROGRAMS = {
    "rat run, query, history, verify, doctor, clean": RAT
    + "sys.exit(rat(['run', 'pipeline:shop']) or rat(['query', 'select * from gold.n']) or rat(['history'])"
    " or rat(['verify']) or rat(['doctor']) * 0 or rat(['clean']))",
    "a materialization of Dagster": "import dagster as dg; from ratatouille.dagster.code_location import definitions\n"
    "with dg.DagsterInstance.get() as instance:\n"
    "    job = definitions('.').resolve_implicit_global_asset_job_def()\n"
    "    assert job.execute_in_process(instance=instance).success",
    "a build of dbt": "from pathlib import Path; from ratatouille.dbt_project.build import build\n"
    "from ratatouille.dbt_project.copy import Asked\n"
    "build(Path.cwd(), Asked(Path.cwd() / 'pipelines/shop/dbt', ''))",
    "a tokenizer": "from tokenizers import Tokenizer, models, trainers\nimport tiktoken\nt = Tokenizer(models.BPE())\n"
    "t.train_from_iterator(['a b c'] * 10, trainers.BpeTrainer(vocab_size=50, show_progress=False)); t.encode('a b')\n"
    "tiktoken.Encoding('x', pat_str='.', mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}).encode('a')",
}
EVERY_DAY = list(PROGRAMS)[:1]
DBT = {
    "pipelines/shop/dbt/dbt_project.yml": "name: shop\nprofile: not_ours\n"
    "models: {shop: {+schema: silver, +materialized: table}}\n",
    "pipelines/shop/dbt/models/m.sql": "select 1 as id",
}


def settings_that_send() -> list[str]:
    """Shipped files whose settings leave telemetry on."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wrong = []
    for name in tracked:
        path = ROOT / name
        if path.name == "dagster.yaml" or name == "deploy/helm/values.yaml":
            if yaml.safe_load(path.read_text()).get("telemetry", {}).get("enabled") is not False:
                wrong.append(name)
        elif path.name == "dbt_project.yml" and "template" not in name:
            if (yaml.safe_load(path.read_text()).get("flags") or {}).get("send_anonymous_usage_stats") is not False:
                wrong.append(name)
        elif path.name == "Dockerfile":
            text = path.read_text()
            wanted = (
                "DAGSTER_DISABLE_TELEMETRY=1",
                "DBT_SEND_ANONYMOUS_USAGE_STATS=false",
                "HF_HUB_DISABLE_TELEMETRY=1",
                "DO_NOT_TRACK=1",
            )
            wrong += [f"{name}: {variable}" for variable in wanted if variable not in text]
    return wrong


def test_shipped_settings_send_nothing() -> None:
    from ratatouille.dagster.instance import SETTINGS_TEXT

    assert settings_that_send() == []
    assert yaml.safe_load(SETTINGS_TEXT)["telemetry"] == {"enabled": False}


@pytest.mark.parametrize("what", PROGRAMS if ALL else EVERY_DAY)
def test_no_connection_leaves_this_machine(
    what: str, tmp_path: Path, need_tool: Callable[[str, str], str], figure: Callable[..., None]
) -> None:
    strace, log = need_tool("strace", "apt-get install strace"), tmp_path / "calls"
    root, home = tmp_path / "shop", tmp_path / "home"
    files = {
        "workspace.yaml": "name: shop\nresources: {memory: 1GB, threads: 1}\n",
        "pipelines/shop/gold/n.sql": "select 1 as n",
    }
    for name, text in (files | (DBT if "dbt" in what else {})).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    home.mkdir()
    from ratatouille.dagster.instance import SETTINGS_TEXT

    (home / "dagster.yaml").write_text(SETTINGS_TEXT)
    # No variable of this machine may be what keeps it quiet.
    quiet = re.compile("TELEMETRY|TRACK|USAGE_STATS|PROXY|OFFLINE", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not quiet.search(name)}
    kept |= {"DAGSTER_HOME": str(home), "HOME": str(home), "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    traced = [
        strace,
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "trace=connect,sendto,sendmsg",
        "-e",
        "signal=none",
        "-o",
        str(log),
    ]
    done = subprocess.run(
        [*traced, sys.executable, "-c", PROGRAMS[what]], cwd=root, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = leaving(log.read_text(errors="replace"))
    figure(f"connections that leave this machine, {what}", size="1 process and its children", wrong=len(out))
    assert not out, "\n".join(out)
    shutil.rmtree(root)


def leaving(calls: str) -> list[str]:
    """The lines of strace that name an address of the internet, other than this machine's own."""
    asked = [line for line in calls.splitlines() if "AF_INET" in line]
    return [
        line for line in asked if not re.search(r'inet_addr\("127\.|inet_pton\(AF_INET6, "(::1|::ffff:127\.)', line)
    ]


def test_a_connection_that_leaves_is_seen(tmp_path: Path, need_tool: Callable[[str, str], str]) -> None:
    strace, log = need_tool("strace", "apt-get install strace"), tmp_path / "calls"
    code = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ntry:\n    s.connect(('192.0.2.1', 53))\nexcept OSError:\n    pass\ns.connect(('127.0.0.1', 9))"
    subprocess.run(
        [strace, "-f", "-qq", "-e", "trace=connect", "-o", str(log), sys.executable, "-S", "-c", code], check=False
    )
    assert len(leaving(log.read_text())) == 1
