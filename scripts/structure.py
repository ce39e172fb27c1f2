"""The house in figures: how large each part is, and who imports whom, today or at any commit.

    python scripts/structure.py                  # today
    python scripts/structure.py v0.1 HEAD        # side by side

Prints Markdown: a table of sizes (lines of code, without docstrings, comments and blank lines), a Mermaid picture of
the parts, and the circles of modules that import each other, of which there should be none.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from check_architecture import circles, imported, modules_below, part_of

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path("src/ratatouille")
KERNEL = ("project", "lake", "engine")
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


@dataclass
class House:
    """One state of src/ratatouille. Rooms are folders, `engine/upkeep`; the top folder is the face."""

    name: str
    files: Counter[str] = field(default_factory=Counter)
    code: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    arrows: Counter[tuple[str, str]] = field(default_factory=Counter)  # (part, part) -> imports
    modules: dict[str, set[str]] = field(default_factory=dict)

    def kernel(self, what: Counter[str]) -> int:
        return sum(n for room, n in what.items() if room.split("/")[0] in KERNEL)


def measure(name: str, source: Path) -> House:
    """Read every module below `source`; what `rat init` copies is not our code."""
    house = House(name)
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        if inside.parts[:2] == ("cli", "template"):
            continue
        text = path.read_text(encoding="utf-8")
        room = inside.parent.as_posix() if len(inside.parts) > 1 else "face"
        house.files[room] += 1
        house.lines[room] += text.count("\n")
        house.code[room] += code_lines(text)
        for node in ast.walk(ast.parse(text)):
            for target in imported(node, inside):
                there = part_of(Path(*target.split(".")[1:])) if target.startswith("ratatouille.") else part_of(inside)
                if there != part_of(inside) and not inside.name.startswith("__init__"):
                    house.arrows[part_of(inside), there] += 1
    house.modules = modules_below(source)
    return house


def code_lines(text: str) -> int:
    """Lines that hold code: no docstring, no comment, no blank."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            found -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(found)


def at(revision: str, folder: Path) -> Path:
    """The sources as they were at a commit, unpacked into `folder`."""
    packed = subprocess.run(["git", "archive", revision, str(SOURCE)], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder / SOURCE


def page(houses: list[House]) -> str:
    rooms = sorted({room for house in houses for room in house.code})
    rows = ["| | " + " | ".join(f"{house.name}: files | code | lines" for house in houses) + " |"]
    rows.append("|---|" + "---:|---:|---:|" * len(houses))
    for room in rooms:
        rows.append(
            f"| {room} | " + " | ".join(_cells(h.files[room], h.code[room], h.lines[room]) for h in houses) + " |"
        )
    kernel = " | ".join(_cells(h.kernel(h.files), h.kernel(h.code), h.kernel(h.lines)) for h in houses)
    rows.append(f"| **kernel: {', '.join(KERNEL)}** | {kernel} |")
    drawn = [picture(house) for house in houses]
    told = [f"Circles, {house.name}: {'; '.join(circles(house.modules)) or 'none'}." for house in houses]
    return "\n".join(["\n".join(rows), *drawn, *told])


def _cells(*numbers: int) -> str:
    return " | ".join(f"{number:,}" for number in numbers)


def picture(house: House) -> str:
    """The parts and their arrows, each with the number of imports."""
    size: Counter[str] = Counter()
    for room, code in house.code.items():
        size[room.split("/")[0]] += code
    parts = sorted({part for arrow in house.arrows for part in arrow})
    nodes = [f'    {part}["{part}<br>{size[part]:,} lines"]' if size[part] else f"    {part}" for part in parts]
    arrows = [f"    {a} -- {n} --> {b}" for (a, b), n in sorted(house.arrows.items())]
    return "\n".join(["", "```mermaid", "flowchart TD", *nodes, *arrows, "```", ""])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        states = [measure(name, at(name, Path(folder) / str(n))) for n, name in enumerate(sys.argv[1:])]
        print(page(states or [measure("today", ROOT / SOURCE)]))
