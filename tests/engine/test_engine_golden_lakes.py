"""Lakes as earlier releases wrote them (scripts/make_golden_lake.py): they open, read equal at every version, are
whole, go on with what lands next, go back to their first version, and are cleaned."""

from __future__ import annotations

import importlib.util
import json
import tarfile
from pathlib import Path

import pytest

from ratatouille import project as files
from ratatouille.engine import Request, open_workbench
from ratatouille.engine.holds import roll_back
from ratatouille.handle import run_request
from ratatouille.lake import ledger
from ratatouille.upkeep.clean import clean
from ratatouille.upkeep.doctor import examine
from ratatouille.upkeep.verify import verify

GOLDEN = sorted(Path(__file__).with_name("golden").glob("*.tar.gz"))
# Before the first release the hash of code was another one: what those built is stale for us, and is built anew.
REBUILDS_ONCE = ("0.1.0-61cc0fd", "0.1.0-79a4de5")
MAKER = Path(__file__).resolve().parents[2] / "scripts" / "make_golden_lake.py"


def maker():
    spec = importlib.util.spec_from_file_location("golden_maker", MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def held(root: Path, version: str = "now") -> dict[str, list[list[object]]]:
    at = "" if version == "now" else f" at (version => {version})"
    with open_workbench(root) as bench, bench.lake.session() as session:
        found = {}
        for name, sql in maker().TABLES.items():
            if version == "now" or int(version) in [entry.version for entry in ledger.entries(session, name)]:
                found[name] = [list(row) for row in session.rows(sql.format(at=at))]
        return found


@pytest.mark.parametrize("packed", GOLDEN, ids=lambda path: path.name.removesuffix(".tar.gz"))
def test_a_lake_of_an_earlier_release_reads_equal_goes_on_and_goes_back(packed: Path, tmp_path: Path, figure) -> None:
    with tarfile.open(packed) as lake:
        lake.extractall(tmp_path, filter="data")
    root = tmp_path / "golden"
    told = json.loads((root / "held.json").read_text(encoding="utf-8"))
    versions = sorted({version for one in told.values() for version in one})
    wrong = []
    for version in versions:
        wanted = {name: one[version] for name, one in told.items() if version in one}
        wrong += [f"{name} at {version}" for name, rows in held(root, version).items() if rows != wanted[name]]
    assert not wrong, wrong
    project = files.load(root)
    assert verify(project, every_version=True).whole
    assert not [one for one in examine(root) if one.status == "error"]
    (root / "landing/4.csv").write_text("id,amount,city\n6,60.00,Nice\n")
    result = run_request(root, Request(()))
    assert result.status == "done", result
    before, now = told["silver.sales"]["now"], held(root)["silver.sales"]
    if packed.name.removesuffix(".tar.gz") in REBUILDS_ONCE:
        assert [row[0] for row in now] == [*(row[0] for row in before), 6]
    else:
        assert result.step("bronze.sales").rows_in == 1, "what was read is not read again"
        assert now == [*before, [6, "60.00", "Nice"]]
    first = min(int(version) for version in told["silver.sales"] if version != "now")
    with open_workbench(root, write=True) as bench:
        roll_back(bench, "silver.sales", first)
    assert held(root)["silver.sales"] == told["silver.sales"][str(first)]
    assert not clean(project).warnings
    figure("a lake of an earlier release", size=f"{packed.name}, {len(versions) - 1} versions", wrong=len(wrong))


def test_there_are_lakes_of_three_earlier_states() -> None:
    assert len(GOLDEN) >= 3
