"""In a real browser: `rat dev` on the sales pipeline, materialized from the page of the asset graph.

Screenshots are kept in RATATOUILLE_ARTIFACTS, or in pytest's temporary folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

from served import Dev, wait_for

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = "RATATOUILLE_ARTIFACTS"
SOON_S = 60.0  # a page, on a busy machine
RUN_S = 420.0  # seven assets, each in a process of its own, on a busy machine
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
HEADER = "sale_id,store_id,sold_at,recorded_at,product,quantity,unit_price\n"
# Half of them sold a negative number of tomatoes: far more than the 5 % that may be set aside.
BAD_SALES = HEADER + "".join(
    f"S01-9-{n:05d},S01,2026-03-04 09:00:00,2026-03-04 09:00:00,tomato,{-3 if n % 2 else 2},0.45\n" for n in range(200)
)

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(1500)]


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """A workspace of its own with the sales pipeline, and the landing files of its first day."""
    root = tmp_path / "kitchen"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipelines" / "sales", root / "pipelines" / "sales", ignore=ignored)
    shutil.copy(ROOT / "workspace.yaml", root)
    subprocess.run([sys.executable, "pipelines/sales/generate.py", "--day", "1"], cwd=root, check=True)
    return root


@pytest.fixture
def page(need_tool: Callable[[str, str], str]) -> Iterator[Page]:
    chromium = need_tool("chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(SOON_S * 1000)
        expect.set_options(timeout=SOON_S * 1000)
        yield page
        browser.close()


@pytest.fixture
def keep(page: Page, tmp_path: Path) -> Callable[[str], None]:
    """`keep("graph")`: a screenshot of what is there now."""
    folder = Path(os.environ.get(ARTIFACTS) or tmp_path / "screenshots").resolve()
    assert not folder.is_relative_to(ROOT), f"{ARTIFACTS} must not be inside the repository"
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(name: str) -> None:
        page.screenshot(path=folder / f"sales-{name}.png")

    return shoot


def materialize_all(page: Page, dev: Dev, keep: Callable[[str], None], name: str) -> str:
    """Press the button of the asset graph and follow the link to the run; its id."""
    page.goto(f"{dev.address}/asset-groups")
    for asset in ("stores", "sales", "sales_summary"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    keep(f"{name}-graph")
    page.get_by_role("button", name="Materialize all").click()
    expect(page.get_by_text("Launched run")).to_be_visible()
    page.get_by_text("View", exact=True).click()
    page.wait_for_url("**/runs/*")
    return page.url.rpartition("/")[2].partition("?")[0]


def test_the_sales_pipeline_from_the_asset_graph(sales: Path, page: Page, keep: Callable[[str], None]) -> None:
    with Dev(sales) as dev:
        # Green: a run, its checks, its rows.
        run = materialize_all(page, dev, keep, "1")
        expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=RUN_S * 1000)
        keep("1-run")
        assert dev.status(run) == "SUCCESS"
        page.goto(f"{dev.address}/assets/silver/sales?view=overview")
        expect(page.get_by_text("4,494", exact=True)).to_be_visible()  # of 4,500 lines; six are in the quarantine
        expect(page.get_by_text("Cleaned sales, one row per sale.")).to_be_visible()
        keep("1-silver")
        page.goto(f"{dev.address}/assets/silver/sales?view=checks&checkDetail=quantity_positive")
        expect(page.get_by_text("This is a blocking asset check.")).to_be_visible()
        expect(page.get_by_text("Passed", exact=True)).to_be_visible()
        keep("1-checks")

        # A gate breaks: the step fails and says why, what is below does not run, readers keep what they had.
        (sales / "landing" / "sales" / "2026-03-04_S01.csv").write_text(BAD_SALES)
        run = materialize_all(page, dev, keep, "2")
        expect(page.get_by_text("Failure", exact=True).first).to_be_visible(timeout=RUN_S * 1000)
        reason = page.get_by_text("the gate quantity_positive failed for 100 of 200 rows").first
        reason.scroll_into_view_if_needed()
        expect(reason).to_be_visible()
        keep("2-run")
        assert dev.status(run) == "FAILURE"
        built = {step for step in ("silver__sales", "gold__sales_summary") if _materialized(dev, run, step)}
        assert built == set()
        page.goto(f"{dev.address}/assets/silver/sales?view=checks&checkDetail=quantity_positive")
        expect(page.get_by_text("100 of 200 rows fail")).to_be_visible()
        keep("2-checks")
        page.goto(f"{dev.address}/assets/silver/sales?view=overview")
        expect(page.get_by_text("Failed in")).to_be_visible()
        expect(page.get_by_text("4,494", exact=True)).to_be_visible()
        keep("2-silver")
        # It is not tried again by itself: the same rows would fail the same gate.
        wait_for(lambda: len(dev.runs()) == 2, 1)


def _materialized(dev: Dev, run: str, step: str) -> bool:
    found = dev.graphql(
        "query M($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {"
        " __typename ... on MessageEvent { stepKey } } } } }",
        run=run,
    )
    events = found["logsForRun"]["events"]
    return any(e["__typename"] == "MaterializationEvent" and e["stepKey"] == step for e in events)
