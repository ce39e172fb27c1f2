"""Pages are executed: their commands run in order, their files are written, their output is what comes out.

In the pages that PAGES names

    ```console          each line `$ command` is run by bash; what follows it is the expected output
    ```sql some/path    the block is written to that path of the current folder (any language)

In expected output `...` stands for anything: within a line, or as a line of its own for any number of lines. How
wide the columns of a table are does not count.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("tutorial.md", "large-data.md", "native-assets.md", "incremental.md", "gates.md", "testing.md", "upkeep.md"),
    "observe.md",
    "data-dictionary.md",
    "pages.md",
)
# Pages of one pipeline go on in one workspace, in this order.
SBIR = ("quick-reference.md", "configuration-patterns.md", "data-quality.md", "enrichment-patterns.md", "structure.md")
BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<path>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A command with the output it should give, or a file with its text; `line` is where it stands."""

    line: int
    command: str = ""
    expected: str = ""
    path: str = ""
    text: str = ""


def steps_of(page: str) -> list[Step]:
    steps = []
    for block in BLOCK.finditer(page):
        line = page.count("\n", 0, block.start()) + 2
        if block["path"]:
            steps.append(Step(line, path=block["path"], text=block["text"]))
        elif block["language"] == "console":
            steps += commands_of(block["text"], line)
    return steps


def commands_of(text: str, line: int) -> list[Step]:
    found: list[tuple[int, str, list[str]]] = []
    for number, content in enumerate(text.splitlines(), start=line):
        if content.startswith("$ "):
            found.append((number, content[2:], []))
        elif found:
            found[-1][2].append(content)
    return [Step(number, command=command, expected="\n".join(output)) for number, command, output in found]


def matches(expected: str, actual: str) -> bool:
    pattern = ""
    for line in narrow(expected):
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r"[^\n]*".join(re.escape(part) for part in line.split("...")) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in narrow(actual))) is not None


def narrow(text: str) -> list[str]:
    """The lines of `text` with each run of blanks, or of the line below a table's head, as one."""
    return [re.sub(r" +", " ", re.sub("─+", "─", line)).rstrip() for line in text.strip().splitlines()]


def shell(command: str, cwd: Path, env: dict[str, str]) -> tuple[str, Path]:
    """Output of `command` (both streams) and the folder that it ends in."""
    script = f"{command}\nstatus=$?\npwd >&3\nexit $status"
    reader, writer = os.pipe()
    with os.fdopen(reader) as where:
        ran = subprocess.run(
            ["bash", "-c", f"exec 3>&{writer}\n{script}"],
            cwd=cwd,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[writer],
            timeout=240,
            check=False,
        )
        os.close(writer)
        return ran.stdout, Path(where.read().strip() or cwd)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A bare one, in which `rat` is the code of this checkout and `python` the interpreter of these tests."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (("rat", "-m ratatouille.cli "), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n', encoding="utf-8")
        program.chmod(0o755)
    return {
        "PATH": f"{programs}:{os.defpath}",
        "PYTHONPATH": str(ROOT / "src"),
        "HOME": str(tmp_path),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
    }


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_true(page: str, tmp_path: Path, environment: dict[str, str]) -> None:
    here = tmp_path / "home"
    here.mkdir()
    assert len([s for s in follow(f"docs/{page}", here, environment) if s.command]) >= 6, (
        "the page has lost its commands"
    )


def test_the_pages_of_sbir_are_true(tmp_path: Path, environment: dict[str, str]) -> None:
    here = tmp_path / "home"
    (here / "pipelines").mkdir(parents=True)
    shutil.copy(ROOT / "workspace.yaml", here)
    shutil.copytree(ROOT / "macros", here / "macros")
    shutil.copytree(ROOT / "pipelines" / "sbir", here / "pipelines" / "sbir")
    (here / "pipelines" / "__init__.py").write_text("")
    commands = [step for page in SBIR for step in follow(f"docs/sbir/{page}", here, environment) if step.command]
    assert len(commands) >= 12, "the pages have lost their commands"


def follow(page: str, here: Path, environment: dict[str, str]) -> list[Step]:
    """Do what the page says, from the folder `here` on; every output is compared."""
    steps = steps_of((ROOT / page).read_text(encoding="utf-8"))
    for step in steps:
        if step.path:
            target = here / step.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(step.text, encoding="utf-8")
            continue
        output, here = shell(step.command, here, environment)
        assert matches(step.expected, output), (
            f"{page}:{step.line}: $ {step.command}\n--- it says\n{step.expected}\n--- it is\n{output}"
        )
    return steps


def test_the_reader_of_the_tutorial_reads() -> None:
    page = "Text.\n```console\n$ cd x\n$ rat run\nbuilt 1\n```\n```sql pipelines/a.sql\nselect 1\n```\n```sql\nselect 2\n```\n"
    assert steps_of(page) == [
        Step(3, command="cd x"),
        Step(4, command="rat run", expected="built 1"),
        Step(8, path="pipelines/a.sql", text="select 1\n"),
    ]


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("a", "a\n", True),
        ("a", "b\n", False),
        ("a", "a\nb\n", False),
        ("took ... s", "took 0.12 s\n", True),
        ("took ... s", "took 0.12\n", False),
        ("a\n...\nz", "a\nb\nc\nz\n", True),
        ("a\n...\nz", "a\nz\n", True),
        ("a\n...", "b\n", False),
        ("", "", True),
        ("", "something\n", False),
        ("a.c", "abc\n", False),
        ("name   rows\n───────────\na       1.", "name rows\n─────────\na    1.\n", True),
        ("ab", "a b\n", False),
    ],
)
def test_expected_output_is_compared_strictly_but_for_dots(expected: str, actual: str, same: bool) -> None:
    assert matches(expected, actual) is same


def test_a_command_may_change_the_folder(tmp_path: Path, environment: dict[str, str]) -> None:
    output, here = shell("mkdir -p a/b && cd a/b && echo hello; false", tmp_path, environment)
    assert (output, here) == ("hello\n", tmp_path / "a" / "b")
