"""What the tills of three stores send: landing files for two days, the same ones every time.

    python pipelines/sales/generate.py --day 1
    python pipelines/sales/generate.py --day 2

day 1   one file per store, with a few lines that a careful pipeline must not swallow: negative quantities, a store
        that nobody knows, a missing sale number, a line that was cut off
day 2   one file per store again; late corrections to sales of day 1; and store S03 sends its file of day 1 anew,
        because one price was wrong

Day 1 leaves a file alone that is there already, so asking for it again does not undo what day 2 sent anew.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
from datetime import date, datetime, time, timedelta
from pathlib import Path

STORES = ("S01", "S02", "S03")
SALES_PER_STORE = 1_500
FIRST_DAY = date(2026, 3, 2)
HEADER = ("sale_id", "store_id", "sold_at", "recorded_at", "product", "quantity", "unit_price")
PRICES = {
    "aubergine": "1.80",
    "courgette": "1.20",
    "tomato": "0.45",
    "red pepper": "1.10",
    "onion": "0.30",
    "garlic": "0.75",
    "olive oil": "8.90",
    "thyme": "1.95",
}

Row = tuple[str, ...]


def sales_of(store: str, day: int) -> list[Row]:
    """The sales of one store on one day, in the order of the till."""
    chance = random.Random(f"{store} day {day}")
    opened = datetime.combine(FIRST_DAY + timedelta(days=day - 1), time(8))
    seconds = sorted(chance.randrange(12 * 3600) for _ in range(SALES_PER_STORE))
    rows = []
    for number, second in enumerate(seconds, start=1):
        product = chance.choice(list(PRICES))
        # Most people buy a few; now and then a restaurant buys a crate.
        quantity = chance.randint(20, 60) if chance.random() < 0.01 else chance.randint(1, 6)
        sold_at = f"{opened + timedelta(seconds=second):%Y-%m-%d %H:%M:%S}"
        rows.append((f"{store}-{day}-{number:05d}", store, sold_at, sold_at, product, str(quantity), PRICES[product]))
    return rows


def with_field(row: Row, **changes: str) -> Row:
    return tuple(changes.get(name, value) for name, value in zip(HEADER, row, strict=True))


def first_day() -> dict[str, str]:
    """File name -> text. Seven lines of it are dirty."""
    files = {store: sales_of(store, 1) for store in STORES}
    for at in (100, 700, 1_200):
        files["S01"][at] = with_field(files["S01"][at], quantity="-2")
    for at in (50, 900):
        files["S02"][at] = with_field(files["S02"][at], store_id="S99")
    files["S03"][400] = with_field(files["S03"][400], sale_id="")
    text = {name_of(store, 1): as_csv(rows) for store, rows in files.items()}
    text[name_of("S02", 1)] += "S02-1-01501,S02,2026-03-02 19:59\n"  # the line broke off while it was written
    return text


def second_day() -> dict[str, str]:
    """New sales, corrections of old ones, and a file of day 1 sent anew. One line is dirty."""
    files = {store: sales_of(store, 2) for store in STORES}
    files["S02"][10] = with_field(files["S02"][10], quantity="0")
    corrected = [
        with_field(row, quantity="1", recorded_at="2026-03-03 09:30:00") for row in sales_of("S01", 1)[200:212]
    ]
    anew = sales_of("S03", 1)
    anew = [with_field(row, unit_price="9.40") if row[4] == "olive oil" else row for row in anew]
    return {
        **{name_of(store, 2): as_csv(rows) for store, rows in files.items()},
        "2026-03-03_S01_corrections.csv": as_csv(corrected),
        name_of("S03", 1): as_csv(anew),
    }


def name_of(store: str, day: int) -> str:
    return f"{FIRST_DAY + timedelta(days=day - 1)}_{store}.csv"


def as_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    return text.getvalue()


def write(folder: Path, files: dict[str, str], *, anew: bool) -> list[str]:
    """Write what is not there yet (`anew`: or differs), each file whole or not at all; returns the names written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in files.items():
        path = folder / name
        if path.exists() and (not anew or path.read_text(encoding="utf-8") == text):
            continue
        # Renamed into place: whoever looks for *.csv never meets half a file.
        aside = path.with_suffix(".part")
        aside.write_text(text, encoding="utf-8", newline="")
        os.replace(aside, path)
        written.append(name)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the landing files of the sales pipeline.")
    parser.add_argument("--day", type=int, choices=(1, 2), required=True)
    parser.add_argument("--into", type=Path, default=Path(__file__).resolve().parents[2] / "landing" / "sales")
    asked = parser.parse_args()
    files = first_day() if asked.day == 1 else second_day()
    written = write(asked.into, files, anew=asked.day == 2)
    for name in sorted(files):
        print(f"{'written' if name in written else 'there already':14} {os.path.relpath(asked.into / name)}")


if __name__ == "__main__":
    main()
