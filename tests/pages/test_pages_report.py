"""`rat report` and `rat docs`: everything is said, nothing hostile is markup, and nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from ratatouille import project as files
from ratatouille.cli.entry import run_command
from ratatouille.pages.charts import Bar, Line, Point, Span, bars, line_chart, sparkline, timeline
from ratatouille.pages.graph import Node, around, graph, joined
from ratatouille.pages.site import column_id, file_names

EVIL = "<script>alert(1)</script>"
SECRET = "ada@example.org"
VOID = {"meta", "link", "input", "br", "col", "hr", "img"}
LEAF = {"path", "rect", "circle", "line", "polyline", "polygon"}  # of SVG: they close themselves


@dataclass
class Page(HTMLParser):
    """What a page is made of. Reading it fails where elements do not close as they opened."""

    text: str
    links: list[str] = field(default_factory=list)  # href and src
    ids: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    words: str = ""
    rows: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.text)
        self.close()
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        assert len(said) == len(attrs), f"an attribute twice: {attrs}"
        assert not [name for name in said if name.startswith("on") or name == "style"], (
            f"acts or dresses itself: {said}"
        )
        self.links += [said[name] or "" for name in ("href", "src", "action", "srcset", "xlink:href") if name in said]
        self.ids += [said["id"] or ""] if "id" in said else []
        self.scripts += [said.get("src") or "INLINE"] if tag == "script" else []
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data: str) -> None:
        if self._open[-1:] in (["style"], ["script"]):
            return
        self.words += f" {data}"
        if self.rows and "tr" in self._open:
            self.rows[-1] += f" {data.strip()}"

    def row(self, first: str) -> str:
        """The row whose first words are these, its words joined by single spaces."""
        return next(row for one in self.rows if (row := " ".join(one.split())).startswith(first))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("told") / "shop"
    for layer in ("bronze", "silver", "gold"):
        (root / "pipelines" / layer).mkdir(parents=True)
    say(root, "workspace.yaml", "name: shop\nresources: {memory: 700MB, threads: 1}\n")
    say(root, "pipelines/bronze/sales.sql", f"select i as id, i * 2 as price, '{SECRET}' as email from range(20) t(i)")
    say(
        root,
        "pipelines/bronze/sales.yaml",
        "columns: {id: bigint, price: bigint, email: {type: varchar, sensitive: true}}\n",
    )
    say(
        root,
        "pipelines/silver/sales.sql",
        f"select id, price as total, email, 1 as \"{EVIL}\" from {{{{ ref('bronze.sales') }}}}",
    )
    say(
        root,
        "pipelines/silver/sales.yaml",
        f'description: Cleaned {EVIL}\nowners: [ada, "{EVIL}"]\ntags: [daily]\nunique_key: id\nmaterialize: merge\n'
        "columns:\n  id: {type: bigint, description: Its number, checks: [not_null, unique]}\n"
        f"  total: {{type: bigint, description: 'What it cost {EVIL}', checks: [positive]}}\n"
        "  email: {type: varchar, sensitive: true}\n",
    )
    say(root, "pipelines/gold/sums.sql", "select sum(total) as revenue, count(*) as n from {{ ref('silver.sales') }}")
    assert run_command(["-w", str(root), "run", "--json"]) == 1, "one total is 0, so the gate keeps it out"
    say(
        root,
        "pipelines/silver/sales.sql",
        f"select id, price + 1 as total, email, 1 as \"{EVIL}\" from {{{{ ref('bronze.sales') }}}}",
    )
    assert run_command(["-w", str(root), "run", "--json"]) == 0
    return root


def say(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)


def told(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    capsys.readouterr()
    code = run_command(["-w", str(root), *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def alone(text: str) -> Page:
    """A page of one file: it loads nothing, runs nothing, and links only within itself."""
    page = Page(text)
    assert page.scripts == [] and "javascript:" not in text and "url(" not in text and "@import" not in text
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids) and len(set(page.ids)) == len(page.ids)
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert EVIL not in text and SECRET not in text
    return page


def test_the_workspace_as_one_file(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "shop.html"
    code, said = told(shop, capsys, "report", "-o", str(target))
    assert code == 0 and said == {"file": str(target), "bytes": target.stat().st_size}
    page = alone(target.read_text())
    assert "3 assets" in page.words and EVIL in page.words and page.row("silver.sales").split()[-1] == "s"
    assert "20" in page.row("silver.sales") and "ok" in page.row("gold.sums") and "4 passed" not in page.words
    assert page.row("total").startswith("total bigint What it cost") and "bronze.sales.price" in page.row("total")
    assert page.row("id_unique").endswith("passed")
    runs = [" ".join(row.split()) for row in page.rows if "everything stale" in row]
    assert ["done" in runs[0], "failed" in runs[1], len(runs)] == [True, True, 2]
    assert len(page.links) > 5 and "<svg" in target.read_text()
    assert run_command(["-w", str(shop), "report", "-o", str(tmp_path / "no" / "such.html")]) == 2
    assert "mkdir" not in capsys.readouterr().err and sorted(p.name for p in tmp_path.iterdir()) == ["shop.html"]


def test_a_run_as_one_file(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    newest, failed = [run["run_id"] for run in told(shop, capsys, "runs")[1]]  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    assert told(shop, capsys, "report", failed[:-2])[1]["file"] == f"shop-{failed}.html"
    page = alone(Path(f"shop-{failed}.html").read_text())
    for line in (
        "total_positive failed for 1 of 20 rows",
        "Nothing of it was published",
        "rat quarantine silver.sales",
    ):
        assert line in page.words or line == "Nothing of it was published", line
    assert "gold.sums blocked" in page.row("gold.sums blocked") and "built" in page.row("bronze.sales built")
    assert "[hidden]" in page.words, "the gate's rows are shown, the sensitive column of them is not"
    assert told(shop, capsys, "report", "last")[1]["file"] == f"shop-{newest}.html"
    page = alone(Path(f"shop-{newest}.html").read_text())
    assert "Since the run before" in page.words and f"Run {failed}" in " ".join(page.words.split())
    assert "failed, then built" in page.words and "unchanged since version" in page.words
    code, said = told(shop, capsys, "report", "nineteen")
    assert code == 2 and "There is no run 'nineteen'" in said["error"]["what"]
    (tmp_path / "empty/pipelines").mkdir(parents=True)
    say(tmp_path / "empty", "workspace.yaml", "name: empty\n")
    assert told(tmp_path / "empty", capsys, "report", "last")[0] == 2
    assert told(tmp_path / "empty", capsys, "report")[0] == 0, "a workspace in which nothing has run has a report too"


def site_of(folder: Path) -> dict[str, Page]:
    """Every page of a site, whose links all lead somewhere inside it."""
    found = {str(path.relative_to(folder)): Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    for name, page in found.items():
        assert set(page.scripts) <= {"static/index.js", "static/site.js"}, name
        assert len(set(page.ids)) == len(page.ids)
        for link in page.links:
            assert ":" not in link and not link.startswith(("/", "//")), f"{name}: {link}"
            path, _, anchor = link.partition("#")
            target = ((folder / name).parent / unquote(path)).resolve() if path else folder / name
            assert target.is_file() and target.is_relative_to(folder.resolve()), f"{name}: {link}"
            if anchor:
                assert anchor in found[str(target.relative_to(folder.resolve()))].ids, f"{name}: {link}"
    return found


def test_the_data_dictionary_as_a_site(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "site"
    code, said = told(shop, capsys, "docs", "-o", str(folder))
    assert code == 0 and said["pages"] == 5
    site = site_of(folder)
    assert not [
        path
        for path in folder.rglob("*")
        if path.is_file() and (SECRET in path.read_text() or EVIL in path.read_text())
    ]
    table = site["tables/silver.sales.html"]
    assert EVIL in table.words and "ada" in table.words and "daily" in table.words
    row = table.row("total")
    assert (
        row.startswith(f"total bigint What it cost {EVIL} total_positive bronze.sales.price")
        and "gold.sums.revenue" in row
    )
    assert table.row("id key").endswith("bronze.sales.id") and "sensitive" in table.row("email")
    assert "not listed" in table.row(EVIL), "its type is known, and nobody says what it is"
    assert "passed" in table.row("total_positive positive") and "../tables/bronze.sales.html#c-price" in table.links
    assert "check.html" in site["index.html"].links and "50 %" in site["index.html"].row("silver.sales")
    index = json.loads(
        (folder / "static/index.js").read_text().removeprefix("window.RAT_TABLES = ").removesuffix(";\n")
    )
    assert [one["name"] for one in index] == ["bronze.sales", "silver.sales", "gold.sums"]
    assert {name: anchor for name, _, anchor in index[1]["columns"]}["total"] in table.ids
    assert index[1]["words"] == ["ada", EVIL, "daily"]


def test_a_site_is_written_anew_and_leaves_the_files_of_others_alone(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    folder, outside = tmp_path / "site", tmp_path / "precious"
    outside.write_text("mine")
    assert told(shop, capsys, "docs", "-o", str(folder))[0] == 0
    (folder / "tables" / "old.html").write_text("an earlier table")
    names = json.loads((folder / ".rat-docs.json").read_text())
    (folder / ".rat-docs.json").write_text(json.dumps([*names, "tables/old.html", "../precious", str(outside)]))
    (folder / "mine.txt").write_text("mine")
    assert told(shop, capsys, "docs", "-o", str(folder))[0] == 0
    assert not (folder / "tables" / "old.html").exists()
    assert outside.read_text() == (folder / "mine.txt").read_text() == "mine"
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "index.html").write_text("theirs")
    code, said = told(shop, capsys, "docs", "-o", str(tmp_path / "others"))
    assert code == 2 and "not of rat docs" in said["error"]["what"]
    assert (tmp_path / "others" / "index.html").read_text() == "theirs"


def test_what_is_listed_is_compared_with_what_is_there(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(shop, capsys, "docs", "--check")
    assert code == 1 and [(one["column"], one["kind"]) for one in said["differences"]] == [(EVIL, "not listed")]
    assert said["without_columns"] == ["gold.sums"] and "folder" not in said
    before = (shop / "pipelines/silver/sales.yaml").read_text()
    try:
        more = f'  "{EVIL}": {{description: A one}}\n'
        say(shop, "pipelines/silver/sales.yaml", before + more)
        code, said = told(shop, capsys, "docs", "--check")
        assert (code, said["differences"]) == (0, []), "all that is there is listed, and the other way round"
        assert told(shop, capsys, "docs", "--check", "--strict")[0] == 1, "one table lists nothing"
        query = (shop / "pipelines/silver/sales.sql").read_text()
        say(shop, "pipelines/silver/sales.sql", query.replace("select id", "select id, 2 as later"))
        say(shop, "pipelines/silver/sales.yaml", before + more + "  later: {type: integer}\n")
        code, said = told(shop, capsys, "docs", "--check")
        assert code == 1 and [(one["column"], one["kind"]) for one in said["differences"]] == [("later", "not there")]
        say(shop, "pipelines/silver/sales.sql", query)
        say(
            shop,
            "pipelines/silver/sales.yaml",
            (before + more).replace("total: {type: bigint", "total: {type: integer"),
        )
        code, said = told(shop, capsys, "docs", "--check")
        assert code == 1 and [(o["kind"], o["listed"], o["there"]) for o in said["differences"]] == [
            ("another type", "INTEGER", "BIGINT")
        ]
        assert run_command(["-w", str(shop), "docs", "--check"]) == 1
        assert "1 column is not of the type that is listed." in capsys.readouterr().out
    finally:
        say(shop, "pipelines/silver/sales.yaml", before)
    project = files.load(shop)
    assert project.errors == ()


def shapes() -> Iterator[str]:
    yield str(sparkline([1.0, None, 3.0, 2.0], title=EVIL))
    yield str(
        line_chart(
            [Point(EVIL, 1.0), Point("b", None), Point("c", 3.0, "fail")], title=EVIL, band=[(0, 2), (0, 2), (1, 4)]
        )
    )
    yield str(bars([Bar(EVIL, 3.0, EVIL, "#a"), Bar("b", 1.0, "warn", text=EVIL)], title=EVIL))
    yield str(timeline([Line(EVIL, (Span(EVIL, 0.0, 1.0), Span("build", 1.0, 2.5)), EVIL, EVIL)], title=EVIL))
    yield str(graph([Node("a", EVIL, EVIL, EVIL, "#b"), Node("b")], [("a", "b"), ("a", "gone")], title=EVIL))


def test_charts_say_what_they_show_and_hostile_words_stay_words() -> None:
    for drawn in shapes():
        page = Page(drawn)
        assert EVIL not in drawn and page.scripts == []
        assert EVIL in page.words and ("role=" in drawn or "<caption>" in drawn)
        assert not re.search(r'class="[^"]*[^a-zA-Z0-9" -]', drawn), "a class is one of ours"
    drawn = str(line_chart([Point("a", 1.0), Point("b", 4.0)], title="Seconds", how=lambda value: f"{value:.0f} s"))
    assert "2 values from 1 s to 4 s, the newest 4 s" in drawn and "<title>b: 4 s</title>" in drawn
    assert drawn.count('class="dot"') == 2 and drawn.count("polyline") == 1
    assert str(sparkline([1.0], title="x")) == str(line_chart([], title="x")) == str(graph([], [], title="x")) == ""
    assert "nan" not in str(line_chart([Point("a", float("nan")), Point("b", 0.0)], title="x"))
    later = re.findall(
        r'stage-build" x="([\d.]+)"[^>]*width="([\d.]+)"',
        str(timeline([Line("a", (Span("build", 5, 10),))], title="x")),
    )
    assert later == [("500.0", "500.0")], "the second half of ten seconds"


def test_a_graph_goes_from_left_to_right_and_shows_what_is_near() -> None:
    reads = {"b": ["a"], "c": ["b"], "d": ["c", "x"], "e": ["d"]}
    edges = [(above, name) for name, some in reads.items() for above in some]
    drawn = str(graph([Node(name) for name in "abcdex"], edges, title="Lineage"))
    x = {name: float(at) for name, at in re.findall(r"<title>(\w)</title><rect x=\"([\d.]+)\"", drawn)}
    assert x["a"] < x["b"] < x["c"] < x["d"] < x["e"] and x["x"] == x["c"], "a source stands beside what reads it"
    assert [node.name for node in joined([Node("alone"), *map(Node, "abx")], edges)] == ["a", "b", "x"]
    assert around("c", reads, 1) == {"b", "c", "d"} and around("c", reads, 2) == {"a", "b", "c", "d", "e"}


def test_a_table_has_a_file_name_that_every_disk_takes() -> None:
    names = ["silver.sales", "silver.Sales", "silver.a/b", "silver.ä", "silver.a b", "..", "con." + "x" * 300, EVIL]
    found = file_names(names)
    assert found["silver.sales"] == "silver.sales.html"
    assert len({one.lower() for one in found.values()}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_][a-z0-9_.-]{0,90}\.html", one) for one in found.values()), found
    assert column_id("Sale_ID") == "c-sale_id" and re.fullmatch(r"x-[0-9a-f]{12}", column_id(EVIL))


def test_what_the_database_says_of_a_sensitive_value_is_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Neither where the column is called sensitive, nor where an asset below it stumbles over it."""
    root = tmp_path / "shop"
    for layer in ("bronze", "gold"):
        (root / "pipelines" / layer).mkdir(parents=True)
    say(root, "pipelines/bronze/a.sql", f"select '{SECRET[:3]}' || '{SECRET[3:]}' as email, 4711 as pin")
    say(root, "pipelines/bronze/a.yaml", "columns: {email: {sensitive: true}, pin: {sensitive: true}}\n")
    say(root, "pipelines/gold/b.sql", "select email::int as n from {{ ref('bronze.a') }}")
    say(root, "pipelines/gold/c.sql", "select pin::tinyint as n from {{ ref('bronze.a') }}")
    say(root, "pipelines/gold/d.sql", "select nope(pin) as n from {{ ref('bronze.a') }}")
    rule = "alerts: {channels: {team: '${NO_SUCH}'}, rules: {broken: {when: [run_failed], to: team}}}"
    say(root, "workspace.yaml", f"name: shop\n{rule}\n")
    capsys.readouterr()
    assert run_command(["-w", str(root), "run"]) == 1
    said = "".join(capsys.readouterr())
    assert "Could not convert string [hidden]" in said and "tinyint" in said.lower() and "nope" in said
    for words in (["report"], ["report", "last"]):
        assert told(root, capsys, *words, "-o", str(tmp_path / "it.html"))[0] == 0
        page = alone((tmp_path / "it.html").read_text())
        assert "Could not convert string" in page.words and "[hidden]" in page.words
        said += page.words
    assert "rule broken" in said
    # The catalog is data: it has the extremes of each file, as the file has.
    kept = [one for one in (root / ".rat").rglob("*") if one.is_file() and "data" not in one.relative_to(root).parts]
    kept = [one for one in kept if not one.name.startswith("catalog.")]
    assert "journal.sqlite" in {one.name for one in kept}
    assert SECRET not in said and "4711" not in said
    assert not [one for one in kept if SECRET.encode() in one.read_bytes()], (
        "nor in a book, nor in a message that waits"
    )


@pytest.mark.service
def test_in_a_browser_the_site_is_searched_from_a_disk_and_nothing_is_fetched(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], need_tool: Callable[[str, str], str]
) -> None:
    from playwright.sync_api import sync_playwright

    chromium = need_tool("chromium", "apt-get install chromium")
    assert told(shop, capsys, "docs", "-o", str(tmp_path / "site"))[0] == 0
    assert told(shop, capsys, "report", "-o", str(tmp_path / "shop.html"))[0] == 0
    asked, said = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(f"a dialog: {dialog.message}"))
        page.goto(f"{(tmp_path / 'site' / 'index.html').as_uri()}")
        page.get_by_role("searchbox").fill(f"silver total {EVIL[:8]}")
        page.get_by_role("link", name="silver.sales.total").click()
        assert page.url.endswith("tables/silver.sales.html#c-total")
        page.get_by_role("link", name="bronze.sales.price").first.click()
        assert page.url.endswith("tables/bronze.sales.html#c-price"), "from a column to the column that it is made of"
        page.goto((tmp_path / "shop.html").as_uri())
        assert page.locator("section.asset").count() == 3 and page.locator("svg.graph").count() == 1
        browser.close()
    assert said == [], "no script of a name, no error, nothing refused"
    assert all(url.startswith(tmp_path.as_uri()) for url in asked), asked
