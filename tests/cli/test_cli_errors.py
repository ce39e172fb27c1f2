"""What goes wrong reaches a person as four lines: what, where, the state of the data, the next command."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ratatouille.errors import UNCHANGED


def _four_lines(text: str) -> list[str]:
    """The lines of the first error; nothing of Python may be among them."""
    assert "Traceback" not in text and 'File "' not in text
    return text.rstrip().splitlines()


def test_outside_of_any_workspace(new_kitchen: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kitchen = new_kitchen({})
    monkeypatch.chdir(tmp_path)
    said = kitchen.rat("run")
    assert said.code == 2
    assert _four_lines(said.err)[0] == "This folder is not in a workspace."
    assert "cd small" in said.err


def test_a_workspace_that_is_named_wrongly(kitchen: Any) -> None:
    for words in (("run", "-w", "nowhere"), ("-w", "nowhere", "run"), ("show", "-w", "nowhere")):
        said = kitchen.rat(*words)
        assert said.code == 2 and "There is no folder nowhere" in said.err


def test_an_empty_workspace(new_kitchen: Any) -> None:
    kitchen = new_kitchen({})
    for command in ("run", "plan"):
        said = kitchen.rat(command)
        assert said.code == 2
        assert _four_lines(said.err)[0] == "The workspace small has no assets yet"
        assert "pipelines/bronze/my_table.sql" in said.err
    assert kitchen.rat("check").code == 0
    assert not list(kitchen.root.glob(".rat/*.sqlite"))


def test_a_typo_in_a_ref_is_found_before_a_lake_is_made(new_kitchen: Any) -> None:
    kitchen = new_kitchen(
        {"pipelines/silver/a.sql": "select 1 as x", "pipelines/gold/b.sql": "select x from {{ ref('silver.aa') }}"}
    )
    said = kitchen.rat("run")
    assert said.code == 2
    lines = _four_lines(said.err)
    assert "'silver.aa'" in lines[0]
    assert lines[1].strip() == "pipelines/gold/b.sql:1:23"
    assert lines[3].index("^") == lines[2].index("silver.aa") and lines[3].count("^") == len("silver.aa")
    assert UNCHANGED in said.err and "Did you mean 'silver.a'?" in said.err
    assert not list(kitchen.root.glob(".rat/*.sqlite"))


def test_a_missing_column(kitchen: Any) -> None:
    kitchen.change("pipelines/gold/revenue.sql", "sum(total)", "sum(totl)")
    said = kitchen.rat("run")
    assert said.code == 2
    assert "'totl'" in _four_lines(said.err)[0] and "pipelines/gold/revenue.sql:5:9" in said.err
    assert "Did you mean 'total'?" in said.err


def test_a_gate_that_fails(kitchen: Any) -> None:
    before = kitchen.version("gold.revenue")
    kitchen.change("pipelines/gold/revenue.yaml", "checks: [positive]", "checks: [{range: {max: 100}}]")
    said = kitchen.rat("run")
    assert said.code == 1
    text = said.out
    _four_lines(text)
    assert "gold.revenue: the gate revenue_range failed for 1 of 2 rows" in text
    assert f"Readers still see version {before}" in text and "$ rat quarantine gold.revenue" in text
    assert "1 failed" in text
    assert kitchen.rat("run", "--json").json["steps"][-1]["error"]["error"] == "GateFailed"
    assert kitchen.rat("query", "select count(*) as n from gold.revenue", "--json").json == [{"n": 2}]


def test_a_locked_lake(kitchen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATATOUILLE_LOCK_WAIT", "0.2")
    assert kitchen.rat("run", "gold.revenue", "-f").code == 0  # a lake that was copied is set right under the lock
    with open(kitchen.root / ".rat" / "catalog.sqlite.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = kitchen.rat("run", "gold.revenue", "-f")
        assert said.code == 1
        _four_lines(said.out)
        assert "another process holds the lake's write lock" in said.out
        back = kitchen.rat("rollback", "gold.revenue", "--to", str(kitchen.version("gold.revenue")))
        assert back.code == 1 and "write lock" in _four_lines(back.err)[0]
        assert kitchen.rat("query", "select 1 as one", "--json").code == 0  # readers do not wait
    assert kitchen.rat("run", "gold.revenue", "-f").code == 0


def test_a_folder_that_cannot_be_made(new_kitchen: Any) -> None:
    kitchen = new_kitchen({"pipelines/gold/one.sql": "select 1 as one", ".rat": "a file where a folder should be"})
    said = kitchen.rat("run")
    assert said.code == 1
    assert "opening the lake" in _four_lines(said.err)[0] and ".rat" in said.err
    assert kitchen.rat("check").code == 0


def test_a_target_that_cannot_be_written(kitchen: Any) -> None:
    kitchen.write("file", "")
    for target in ("file/out.csv", "nowhere/out.csv", "out.txt", "out", "landing", ".rat/data/out.csv"):
        said = kitchen.rat("query", "select 1 as one", "-o", target)
        assert said.code == 2, target
        _four_lines(said.err)
    assert not (kitchen.root / ".rat/data/out.csv").exists()


def test_a_tab_in_yaml(kitchen: Any) -> None:
    kitchen.write("pipelines/gold/revenue.yaml", "description: x\ncolumns:\n\tdate: {type: date}\n")
    said = kitchen.rat("run")
    assert said.code == 2
    assert _four_lines(said.err)[0] == "A tab in YAML: use spaces" and "revenue.yaml:3:1" in said.err
    kitchen.write("workspace.yaml", "name: a\n\tlayers: [x]\n")
    for words in (("run",), ("check",), ("query", "select 1"), ("show",)):
        said = kitchen.rat(*words)
        assert said.code == 2 and "workspace.yaml:2:1" in said.err, words


@pytest.mark.parametrize("name", ["../../etc/passwd", "x'; drop table y; --", 'a"b %s é', "\x1b[31mred"])
def test_hostile_names_are_only_unknown_names(kitchen: Any, name: str) -> None:
    for words in (
        ("run", name), ("plan", name), ("show", name), ("render", name), ("history", name), ("quarantine", name),
        ("rollback", name, "--to", "1"), ("release", name), ("runs", name),
    ):  # fmt: skip
        said = kitchen.rat(*words)
        assert said.code == 2, words
        _four_lines(said.err)
        assert "\x1b" not in said.err and "defect" not in said.err, words


@pytest.mark.parametrize("name", ["../out", "a/b", "it's", "", ".", "..", "-x", "a\nb", "x" * 65])
def test_init_refuses_names_that_are_paths(new_kitchen: Any, name: str) -> None:
    kitchen = new_kitchen({})
    before = sorted(p.name for p in kitchen.root.parent.iterdir())
    assert kitchen.rat("init", name).code == 2
    assert sorted(p.name for p in kitchen.root.parent.iterdir()) == before


def test_init_leaves_what_is_there_alone(new_kitchen: Any) -> None:
    kitchen = new_kitchen({"x/mine.txt": "mine"})
    said = kitchen.rat("init", "x")
    assert said.code == 2 and "x is there already" in said.err
    assert [p.name for p in (kitchen.root / "x").iterdir()] == ["mine.txt"]


def test_a_secret_in_an_error_stays_secret(kitchen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "verysecretvalue")
    said = kitchen.rat("query", "select error('verysecretvalue at postgres://me:pa55@host/db, token=abc123')")
    assert said.code == 2
    for secret in ("verysecretvalue", "pa55", "abc123"):
        assert secret not in said.err
    assert "[hidden]" in said.err


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("drop table silver.orders", "DROP"),
        ("select 1; select 2", "second statement"),
        ("selct 1", "Did you mean 'select'?"),
        ("from silver.order", "query:1:6"),
        ("select nope\nfrom silver.orders", "query:1:8"),
        ("copy silver.orders to 'x.csv'", "COPY"),
        ("select 'a", "never closed"),
        ("", "no select"),
        ("attach 'x' as y", "ATTACH"),
    ],
)
def test_a_query_that_cannot_run(kitchen: Any, sql: str, said: str) -> None:
    for more in ((), ("--json",), ("-o", "x.csv")):
        found = kitchen.rat("query", sql, *more)
        assert found.code == 2 and said in found.err + found.out, more
    assert not (kitchen.root / "x.csv").exists()


@pytest.mark.parametrize("at", ["999", "yesterday", "2026-13-45"])
def test_a_moment_that_never_was(kitchen: Any, at: str) -> None:
    said = kitchen.rat("query", "select 1", "--at", at)
    assert said.code == 2
    _four_lines(said.err)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("runn",), "No such command 'runn'"),
        (("run", "--ful"), "No such option: --ful"),
        (("query",), "Missing argument 'SQL'"),
        (("rollback", "gold.revenue"), "Missing option '--to'"),
        (("rollback", "gold.revenue", "--to", "x"), "'--to'"),
        (("history", "-n", "0"), "'--limit'"),
        (("run", "-w"), "requires an argument"),
    ],
)
def test_a_command_line_that_cannot_be_read(kitchen: Any, words: tuple[str, ...], what: str) -> None:
    said = kitchen.rat(*words)
    assert (said.code, said.out) == (2, "")
    assert what in _four_lines(said.err)[0] and "--help" in said.err


def test_errors_as_json_are_a_record_on_standard_output(kitchen: Any) -> None:
    for words in (("run", "nope.x"), ("query", "selct"), ("history", "nope.x"), ("run", "--ful")):
        said = kitchen.rat(*words, "--json")
        assert (said.code, said.err) == (2, "")
        assert set(said.json["error"]) == {"error", "what", "where", "state", "next"}


def test_a_defect_is_said_in_four_lines_and_traced_only_on_request(
    kitchen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ratatouille.engine import look

    def broken(project: Any) -> None:
        raise ZeroDivisionError("password=hunter22")

    monkeypatch.setattr(look, "overview", broken)
    said = kitchen.rat("show")
    assert said.code == 1
    lines = _four_lines(said.err)
    assert lines[0].startswith("This is a defect in rat: ZeroDivisionError") and "in broken" in lines[1]
    assert "hunter22" not in said.err
    monkeypatch.setenv("RATATOUILLE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        kitchen.rat("show")


def test_nothing_is_coloured_where_nobody_looks(kitchen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" not in kitchen.rat("show").out + kitchen.rat("run", "nope.x").err
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31m" in kitchen.rat("run", "nope.x").err


def test_a_reader_that_goes_away_is_not_an_error(kitchen: Any) -> None:
    source = Path(__file__).resolve().parents[2] / "src"
    rat = f"{sys.executable} -m ratatouille.cli query 'select range, repeat(chr(97), 500) from range(20000)' --json"
    ran = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {rat} | head -1"],
        env={**os.environ, "PYTHONPATH": str(source)}, cwd=kitchen.root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stderr == "" and ran.returncode == 141 and ran.stdout.startswith("[{")


def test_an_interrupt_is_one_line(new_kitchen: Any) -> None:
    kitchen = new_kitchen(
        {
            "pipelines/gold/slow.py": "import time, pathlib\n\ndef build(context):\n    pathlib.Path('started').touch()\n    time.sleep(2)\n    return [{'x': 1}]\n"
        }
    )
    source = Path(__file__).resolve().parents[2] / "src"
    running = subprocess.Popen(
        [sys.executable, "-m", "ratatouille.cli", "run"],
        cwd=kitchen.root, env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (kitchen.root / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert (out, len(err.splitlines())) == ("", 1) and "Interrupted" in err
    assert kitchen.rat("runs", "--json").json[0]["status"] == "interrupted"
