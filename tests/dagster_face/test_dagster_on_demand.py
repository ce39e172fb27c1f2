"""Native assets by their names on the command line: planned, run, held and released as files are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

# Dagster's SQLite storage closes its connections when it is collected.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

FEEDS = """
import dagster as dg
import polars as pl


@dg.asset(key_prefix="raw", group_name="feeds")
def weather() -> pl.DataFrame:
    print("a body that prints")
    return pl.DataFrame({"day": [1, 2], "rain": [0.0, RAIN]})


@dg.asset_check(asset=weather, blocking=True)
def it_rained(weather: pl.DataFrame) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=bool(weather["rain"].sum() > 0))


@dg.asset(group_name="feeds", ins={"weather": dg.AssetIn(key=["raw", "weather"])})
def report(weather: pl.DataFrame) -> dict:
    return {"days": len(weather), "edition": 1}
"""


@pytest.fixture
def feeds(kitchen: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return kitchen.write(
        {
            "pipelines/feeds.py": FEEDS.replace("RAIN", "3.5"),
            "pipelines/silver/wet.sql": "select day, rain from {{ ref('raw.weather') }} where rain > 0",
        }
    )


def planned(kitchen: Any, *names: str) -> dict[str, tuple[str, str]]:
    code, out, err = kitchen.rat("plan", *names, "--json")
    assert code == 0, err
    return {step["asset"]: (step["action"], step["rule"]) for step in json.loads(out)["steps"]}


def ran(kitchen: Any, *words: str) -> dict[str, tuple[str, int | None]]:
    _, out, err = kitchen.rat("run", *words, "--json")
    assert out, err
    return {step["asset"]: (step["status"], step["version"]) for step in json.loads(out)["steps"]}


def test_a_run_of_native_assets_and_files_together(feeds: Any) -> None:
    assert planned(feeds, "raw.weather", "feeds.report", "silver.wet") == {
        "raw.weather": ("build", "new"),
        "feeds.report": ("build", "new"),
        "silver.wet": ("build", "new"),
    }
    found = ran(feeds, "raw/weather", "report", "silver.wet")
    assert {name: status for name, (status, _) in found.items()} == {
        "raw.weather": "built",
        "feeds.report": "built",
        "silver.wet": "built",
    }
    assert feeds.rows("select day from silver.wet") == [(2,)]
    _, out, _ = feeds.rat("runs", "--json")
    [run] = json.loads(out)
    assert run["status"] == "done" and run["steps"] == {"built": 3}
    with dg.DagsterInstance.from_config(str(feeds.root / ".rat" / "dagster")) as instance:
        assert [one.run_id for one in instance.get_runs()] == [run["run_id"]]


def test_a_name_that_looks_like_a_file_is_found_too(feeds: Any) -> None:
    feeds.write(
        {
            "pipelines/more.py": "import dagster as dg\nNAME = ['silver', 'we' + 't_days']\n@dg.asset(key=NAME)\ndef f() -> dict:\n    return {}\n"
        }
    )
    assert ran(feeds, "silver/wet_days") == {"silver.wet_days": ("built", 1)}


def test_what_stands_is_skipped_unless_it_is_asked_for(feeds: Any) -> None:
    first = ran(feeds, "raw.weather", "feeds.report")
    assert planned(feeds, "feeds.report") == {"feeds.report": ("skip", "fresh")}
    assert ran(feeds, "feeds.report") == {"feeds.report": ("skipped", first["feeds.report"][1])}
    again = ran(feeds, "feeds.report", "-f")
    assert again["feeds.report"] == ("built", 2)
    feeds.write({"pipelines/feeds.py": FEEDS.replace("RAIN", "3.5").replace('"edition": 1', '"edition": 2')})
    _forget_modules()
    assert planned(feeds, "feeds.report") == {"feeds.report": ("build", "code changed")}


def test_a_new_version_of_a_native_asset_makes_the_files_below_it_stale(feeds: Any) -> None:
    ran(feeds, "raw.weather")
    ran(feeds, "silver.wet")
    assert planned(feeds, "silver.wet") == {"silver.wet": ("skip", "fresh")}
    ran(feeds, "raw.weather", "-f")
    assert planned(feeds, "silver.wet") == {"silver.wet": ("build", "inputs changed")}
    _, out, _ = feeds.rat("runs", "--json")
    asked = [run["request"].get("label", "by rat") for run in json.loads(out)]
    assert asked == ["Dagster raw/weather", "by rat", "Dagster raw/weather"]


def test_a_file_above_which_nothing_was_built_says_what_to_run(feeds: Any) -> None:
    code, out, _ = feeds.rat("run", "silver.wet")
    assert code == 1
    assert "silver.wet reads raw.weather, which was never built" in out and "rat run raw.weather" in out


def test_a_gate_that_refuses_is_told_and_nothing_below_is_built(feeds: Any) -> None:
    ran(feeds, "raw.weather")
    feeds.write({"pipelines/feeds.py": FEEDS.replace("RAIN", "0.0")})
    _forget_modules()
    code, out, _ = feeds.rat("run", "raw.weather", "silver.wet")
    assert code == 1
    assert "the check it_rained failed" in out and "Readers still see version" in out
    assert "silver.wet" in out and "blocked" in out
    assert feeds.rows("select count(*) from raw.weather where rain > 0") == [(1,)]


def test_a_body_that_raises_is_told_without_a_traceback(feeds: Any) -> None:
    feeds.write({"pipelines/feeds.py": FEEDS.replace("RAIN", "1 / 0")})
    code, out, err = feeds.rat("run", "raw.weather")
    assert code == 1
    assert "ZeroDivisionError" in out and "Traceback" not in out + err


def test_a_rollback_holds_a_table_and_an_artifact(feeds: Any) -> None:
    first = ran(feeds, "raw.weather", "feeds.report")
    second = ran(feeds, "raw.weather", "feeds.report", "-f")
    for name, word in (("raw.weather", "raw/weather"), ("feeds.report", "report")):
        code, out, err = feeds.rat("rollback", word, "--to", str(first[name][1]))
        assert code == 0, err
        assert f"{name} is version {first[name][1]} again" in out
        _, out, _ = feeds.rat("history", word, "--json")
        newest = json.loads(out)[0]
        assert (newest["action"], newest["restored_version"]) == ("rollback", first[name][1])
        assert newest["base_version"] == second[name][1]
        assert planned(feeds, word)[name] == ("hold", "on hold")
        assert ran(feeds, word)[name][0] == "held"
        assert feeds.rat("release", word)[0] == 0
        assert planned(feeds, word)[name] == ("build", "released")


def test_history_lists_tables_and_artifacts_by_time(feeds: Any) -> None:
    ran(feeds, "raw.weather", "feeds.report")
    ran(feeds, "silver.wet")
    _, out, _ = feeds.rat("history", "--json")
    assert [entry["asset"] for entry in json.loads(out)] == ["silver.wet", "feeds.report", "raw.weather"]


def test_an_unknown_name_is_unknown_with_and_without_dagster(feeds: Any) -> None:
    code, _, err = feeds.rat("run", "raw.nothing")
    assert code == 2 and "There is no asset called 'raw.nothing'" in err
    code, _, err = feeds.rat("run", "silver.wett")
    assert code == 2 and "Did you mean 'silver.wet'?" in err
    code, _, err = feeds.rat("history", "raw.nothing")
    assert code == 2 and "There is no asset called 'raw.nothing'" in err


def test_show_lists_what_no_file_builds(feeds: Any) -> None:
    _, out, _ = feeds.rat("show", "--json")
    found = {one["name"]: one for one in json.loads(out)["assets"]}
    assert found["raw.weather"]["path"] == "pipelines/feeds.py:6" and found["raw.weather"]["version"] is None


def test_without_dagster_the_command_that_brings_it_is_named(feeds: Any) -> None:
    code = (
        "import sys\n"
        "class NotHere:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'dagster':\n"
        "            raise ModuleNotFoundError(name)\n"
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'dagster' else found(name, *more)\n"
        "sys.meta_path.insert(0, NotHere())\n"
        "from ratatouille.cli.entry import run_command\n"
        "sys.exit(run_command(sys.argv[1:]))\n"
    )
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "raw.weather"],
        cwd=feeds.root, env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "raw.weather is made by Dagster, which is not installed." in done.stderr
    assert "pipelines/feeds.py:6" in done.stderr and "pip install 'ratatouille-lakehouse[dagster]'" in done.stderr


def test_a_file_is_run_without_dagster(feeds: Any) -> None:
    feeds.write({"pipelines/bronze/days.sql": "select 1 as day"})
    source = Path(__file__).resolve().parents[2] / "src"
    code = "import sys\nfrom ratatouille.cli.entry import run_command\nassert run_command(sys.argv[1:]) == 0\nassert 'dagster' not in sys.modules"
    for words in (("run", "bronze.days"), ("plan",), ("history",), ("show",)):
        subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=feeds.root, env={**os.environ, "PYTHONPATH": str(source)}, check=True, capture_output=True,
        )  # fmt: skip


def _forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("_workspace_")]:
        del sys.modules[name]


def test_a_name_that_a_broken_file_may_have_says_so(feeds: Any) -> None:
    feeds.write(
        {"pipelines/feeds.py": FEEDS.replace("RAIN", "3.5").replace("import polars as pl", "import no_such_module")}
    )
    code, _, err = feeds.rat("run", "report")
    assert code == 2 and "No module named 'no_such_module'" in err and "pipelines/feeds.py:" in err
