"""In a real browser: `rat ui` as a person uses it. Screenshots are kept in RATATOUILLE_ARTIFACTS, if that is set."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

from pages_kitchen import HOSTILE, TABLE

ARTIFACTS = "RATATOUILLE_ARTIFACTS"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
SOON_MS = 30_000  # on a busy machine

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def address(kitchen_root: Path) -> Iterator[str]:
    """What `rat ui` prints, while it runs."""
    words = [sys.executable, "-m", "ratatouille.cli", "-w", str(kitchen_root), "ui", "--port", "0", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "it ended by itself"
            said += line
        yield json.loads(said)["address"]
    finally:
        process.terminate()
        assert process.wait(20) is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def page(address: str, need_tool: Callable[[str, str], str]) -> Iterator[Page]:
    """A browser that has opened the address. It fails on anything that a page tries and the policy refuses."""
    chromium = need_tool("chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(SOON_MS)
        expect.set_options(timeout=SOON_MS)
        wrong: list[str] = []
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        # A refused query is answered with 400, which the browser writes down as well.
        told = lambda said: said.type == "error" and "status of 400" not in said.text  # noqa: E731
        page.on("console", lambda said: wrong.append(f"console: {said.text}") if told(said) else None)
        page.on("request", lambda asked: None if asked.url.startswith("http://127.0.0.1:") else wrong.append(asked.url))
        page.goto(address)
        yield page
        browser.close()
        assert wrong == []


@pytest.fixture
def keep(page: Page) -> Callable[[str], None]:
    folder = os.environ.get(ARTIFACTS)

    def shoot(name: str) -> None:
        if folder:
            page.screenshot(path=Path(folder).resolve() / f"pages-{name}.png", full_page=True)

    return shoot


def start(page: Page, address: str) -> None:
    page.goto(address.partition("?")[0])


def test_from_the_overview_to_the_broken_asset_its_failing_rows_and_the_version_before(
    page: Page, address: str, keep: Callable[[str], None]
) -> None:
    assert "token" not in page.url, "the address bar keeps no secret"
    expect(page.get_by_role("link", name="failed 3")).to_be_visible()
    keep("overview")
    page.get_by_role("link", name="gold.dishes", exact=True).click()
    expect(page.get_by_role("heading", name="gold.dishes failed")).to_be_visible()
    page.get_by_role("link", name="the rows", exact=True).click()
    expect(page.get_by_text("gratin")).to_be_visible()
    keep("rows")
    page.get_by_role("main").get_by_role("link", name="version ", exact=False).first.click()
    page.get_by_role("link", name="rows", exact=True).first.click()
    expect(page.get_by_text("1 added")).to_be_visible()
    expect(page.get_by_text("rat rollback gold.dishes --to")).to_be_visible()
    keep("difference")
    page.go_back()
    page.get_by_role("link", name="build, full").first.click()
    expect(page.get_by_text("What ran, and why")).to_be_visible()
    keep("run")


def test_from_a_gold_column_to_the_files_it_came_in(page: Page, address: str, keep: Callable[[str], None]) -> None:
    start(page, address)
    page.get_by_role("link", name="gold.menu", exact=True).click()
    page.get_by_role("link", name="price", exact=True).click()
    expect(page.get_by_text("landing/orders/*.csv").first).to_be_visible()
    keep("lineage")
    # Through the picture: its boxes are links.
    page.locator(".graph a", has_text="total").click()
    expect(page.get_by_role("heading", name="silver.orders")).to_be_visible()
    page.locator(".graph a", has_text="portions").first.click()
    expect(page.get_by_role("heading", name="bronze.orders")).to_be_visible()


def test_a_query_from_the_keyboard(page: Page, address: str, keep: Callable[[str], None]) -> None:
    start(page, address)
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.get_by_role("link", name="Console").click()
    page.wait_for_load_state()  # Ctrl+Enter is of a script
    page.get_by_label("Query", exact=True).fill("select customer, sum(total) as spent from silver.orders group by all")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("columnheader", name="spent")).to_be_visible()
    expect(page.get_by_text("Ada Lovelace")).to_have_count(0)
    keep("console")
    page.get_by_label("Query", exact=True).fill("drop table silver.orders")
    page.wait_for_load_state()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".error")).to_be_visible()


def test_hostile_names_and_values_are_words(page: Page, address: str, keep: Callable[[str], None]) -> None:
    start(page, address)
    page.get_by_role("link", name="other.", exact=False).first.click()
    expect(page.get_by_role("heading", name=TABLE)).to_be_visible()
    expect(page.locator("img, marquee")).to_have_count(0)
    keep("hostile")
    for tab in ("Lineage", "Checks", "Versions", "Kept out", "Trends", "Code"):
        page.get_by_role("link", name=tab).click()
        expect(page.locator("main .tabs [aria-current]")).to_contain_text(tab)
    start(page, address)
    page.get_by_role("link", name="gold.odd", exact=True).click()
    expect(page.get_by_role("cell", name=HOSTILE)).to_be_visible()
    expect(page.get_by_role("columnheader", name='a <marquee> " name')).to_be_visible()
    page.goto(f"{address.partition('?')[0]}runs")
    page.get_by_role("link", name=f"run-{HOSTILE}").click()
    expect(page.get_by_role("heading", name=f"run-{HOSTILE} failed")).to_be_visible()


def test_on_a_phone_nothing_is_cut_off_and_in_the_dark_it_is_dark(
    page: Page, address: str, keep: Callable[[str], None]
) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme="dark")
    base = address.partition("?")[0]
    for path in (
        "",
        "asset/silver.orders",
        "asset/gold.dishes?tab=kept",
        "asset/silver.orders?tab=versions",
        "runs",
        "compare",
    ):
        page.goto(base + path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, (path, wide)
    keep("phone")
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
    assert max(int(red), int(green), int(blue)) < 60
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 800})


def test_by_plain_http_a_forged_host_and_a_form_from_elsewhere_are_refused(address: str) -> None:
    parts = urlsplit(address)
    token = parts.query.removeprefix("token=")

    def ask(method: str, path: str, headers: dict[str, str], body: str = "") -> tuple[int, str]:
        link = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=30)
        try:
            link.putrequest(method, path, skip_host=True)
            for name, value in {"Cookie": f"rat_ui_{parts.port}={token}", **headers}.items():
                link.putheader(name, value)
            if body:
                link.putheader("Content-Type", "application/x-www-form-urlencoded")
                link.putheader("Content-Length", str(len(body)))
            link.endheaders(body.encode() or None)
            answer = link.getresponse()
            return answer.status, answer.read().decode()
        finally:
            link.close()

    here = f"127.0.0.1:{parts.port}"
    assert ask("GET", "/", {"Host": here})[0] == 200
    status, said = ask("GET", "/", {"Host": "evil.example"})
    assert status == 421 and "gold" not in said
    assert ask("GET", "/", {"Host": f"evil.example:{parts.port}"})[0] == 421
    console = ask("GET", "/console", {"Host": here})[1]
    secret = console.partition('name="token" value="')[2].partition('"')[0]
    form = urlencode({"sql": "select 6 * 7 as answer", "token": secret})
    assert "42" in ask("POST", "/console", {"Host": here, "Origin": f"http://{here}"}, form)[1]
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        status, said = ask("POST", "/console", {"Host": here, "Origin": origin}, form)
        assert status == 403 and "42" not in said
