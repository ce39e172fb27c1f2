"""dbt in a process of its own: one thread, no telemetry, no network, an environment that holds no secrets.

It gets a copy of the project and a generated profile (target `rat`), and works in a folder of the run that is thrown
away. The variables that it sees are those that a process needs, and those that `env:` in workspace.yaml lists.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratatouille.errors import StepFailed, redact
from ratatouille.project.records import Workspace

SECRETS = "RATATOUILLE_DBT_SECRETS"  # the number of the pipe from which lake/dbt_plugin.py reads them
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV",
           "PYTHONUSERBASE", "SSL_CERT_FILE")  # fmt: skip
_START = "import sys; from dbt.cli.main import cli; sys.argv[0] = 'dbt'; cli()"
# Parses once and lists several selections: starting dbt and parsing are what takes long.
_LIST = """
import json, sys
from dbt.cli.main import dbtRunner
words, selections, options, into = json.loads(sys.argv[1])
parsed = dbtRunner().invoke([*words, "parse", *options])
if not parsed.success:
    sys.exit(2)
found = []
for selection in selections:
    listed = dbtRunner(manifest=parsed.result).invoke([*words, "ls", *selection, *options])
    if not listed.success:
        sys.exit(2)
    found.append([json.loads(line)["unique_id"] for line in listed.result])
open(into, "w").write(json.dumps(found))
"""
_KEPT_LINES = 400


@dataclass(frozen=True, slots=True)
class Said:
    """How a dbt command ended. code: 0 all is well, 1 a model or a test failed, 2 dbt could not start its work."""

    code: int
    log: str  # its last lines, secrets hidden


def profile(schema: str) -> str:
    """profiles.yml: the same for every run, so that dbt need not parse the project again."""
    return json.dumps(
        {
            "rat": {
                "target": "rat",
                "outputs": {
                    "rat": {
                        "type": "duckdb",
                        "path": ":memory:",
                        "schema": schema,
                        "threads": 1,
                        "disable_transactions": True,
                        "plugins": [{"module": "ratatouille.lake.dbt_plugin", "alias": "rat"}],
                    }
                },
            }
        }
    )


def list_nodes(
    workspace: Workspace, project: Path, into: Path, which: Sequence[tuple[str, str]], variables: Mapping[str, Any]
) -> list[list[str]]:
    """The unique ids of what each selection (`--select`, `--exclude`) holds.

    Leaves manifest.json and partial_parse.msgpack in `into`.
    """
    kinds = [word for kind in ("model", "seed", "snapshot", "test", "unit_test") for word in ("--resource-type", kind)]
    asked = [
        [*_which(select, exclude), *kinds, "--output", "json", "--output-keys", "unique_id"]
        for select, exclude in which
    ]
    with _own_folder(into) as folder:
        into_file = folder / "listed.json"
        told = [["--quiet", *_first(folder)], asked, _options(project, into, folder, variables), str(into_file)]
        said = _run([_LIST, json.dumps(told)], workspace, folder, {}, None)
        if said.code or not into_file.exists():
            raise could_not_read(project, said)
        found = json.loads(into_file.read_text())
        for name in ("manifest.json", "partial_parse.msgpack"):
            if (folder / "target" / name).exists():
                os.replace(folder / "target" / name, into / name)
    return [list(ids) for ids in found]


def could_not_read(project: Path, said: Said) -> StepFailed:
    lines = [line for line in said.log.splitlines() if line.strip()]
    first = next((n for n, line in enumerate(lines) if "Error" in line), 0)
    about = [line.strip() for line in lines[first : first + 6]]
    return StepFailed(
        f"dbt cannot read the project: {' '.join(about)[:600] or 'it said nothing'}",
        where=str(project),
        state="Nothing was built; readers see what they saw before.",
        next="mend the project, then run it again",
    )


def _which(select: str, exclude: str) -> list[str]:
    words = ["--indirect-selection", "eager"]
    words += ["--select", *select.split()] if select.split() else []
    return words + (["--exclude", *exclude.split()] if exclude.split() else [])


def build_words(select: str, exclude: str, left_out: Sequence[str], *, full_refresh: bool) -> list[str]:
    words = ["build", *_which(select, " ".join([exclude, *left_out]))]
    return [*words, "--full-refresh"] if full_refresh else words


def run_dbt(
    workspace: Workspace,
    project: Path,
    copy: Path,
    folder: Path,
    words: Sequence[str],
    variables: Mapping[str, Any],
    *,
    more_environment: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    listener: Callable[[str], None] | None = None,
) -> Said:
    """Run one dbt command to its end; its files go below `folder`.

    `secrets` are what our plugin needs to open a lake on servers. They come to it through a pipe: what stands in the
    environment any template of the project may read.
    """
    command = [_START, *_first(folder), *words, *_options(project, copy, folder, variables)]
    if not secrets:
        return _run(command, workspace, folder, more_environment or {}, listener)
    read_end, write_end = os.pipe()
    try:
        with os.fdopen(write_end, "w") as pipe:
            json.dump(dict(secrets), pipe)
        environment = {**(more_environment or {}), SECRETS: str(read_end)}
        return _run(command, workspace, folder, environment, listener, (read_end,))
    finally:
        os.close(read_end)


def _first(folder: Path) -> list[str]:
    return ["--no-use-colors", "--no-version-check", "--log-path", str(folder / "logs"), "--log-level-file", "none"]


def _options(project: Path, copy: Path, folder: Path, variables: Mapping[str, Any]) -> list[str]:
    words = ["--project-dir", str(project), "--profiles-dir", str(copy), "--profile", "rat", "--target", "rat"]
    words += ["--target-path", str(folder / "target"), "--vars", json.dumps(dict(variables))]
    if (copy / "partial_parse.msgpack").exists():
        words += ["--partial-parse-file-path", str(copy / "partial_parse.msgpack")]
    return words


def _run(
    code: Sequence[str],
    workspace: Workspace,
    folder: Path,
    more_environment: Mapping[str, str],
    listener: Callable[[str], None] | None,
    pass_fds: Sequence[int] = (),
) -> Said:
    """A process of this Python, to its end. Whoever is interrupted takes it along."""
    environment = {name: os.environ[name] for name in (*_PASSED, *workspace.env) if name in os.environ}
    environment |= {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "PYTHONSAFEPATH": "1", "TZ": "UTC"}
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    process = subprocess.Popen(
        [sys.executable, "-c", *code],
        cwd=folder,
        env={**environment, **more_environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=pass_fds,
    )
    try:
        for line in process.stdout or ():
            said = redact(line.rstrip("\n"))
            lines.append(said)
            if listener is not None:
                listener(said)
        code_of_exit = process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return Said(code_of_exit, "\n".join(lines))


@contextmanager
def run_folder(beside: Path) -> Iterator[Path]:
    """A folder for one run, thrown away after it; those of killed processes go too."""
    beside.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in beside.iterdir():
        pid = old.name.partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old, ignore_errors=True)
    with _own_folder(beside) as folder:
        yield folder


@contextmanager
def _own_folder(beside: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
