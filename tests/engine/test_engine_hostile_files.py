"""Landing files that nobody would write on purpose: every record is in the table, or kept out with a reason, or its
file is set aside with one; no value is another one than was written; and memory stays bounded.

Each record carries a tag of its own, so that the table, the quarantine and the file can be compared record by record.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import pytest

SEED = int(os.environ.get("RATATOUILLE_SEED", "16"))
COLUMNS = "columns: {id: bigint, amount: 'decimal(10,2)', name: varchar}"
SHOP = {
    "workspace.yaml": "name: hostile\nresources: {memory: 500MB, threads: 1}\n",
    **{
        f"pipelines/bronze/{kind}.{ending}": text
        for kind in ("csv", "json")
        for ending, text in {
            "sql": f"select * from {{{{ source('landing/*.{kind}*') }}}}",
            "yaml": f"materialize: append\nmax_quarantine: 1\nsources:\n  'landing/*.{kind}*':\n    format: {kind}\n    {COLUMNS}\n",
        }.items()
    },
}
WHOLE = ["1", "-7", "0", "9223372036854775807"]
ODD_WHOLE = [
    "9223372036854775808",
    "1.5",
    "1e2",
    "x",
    "",
    " 5",
    "+5",
    "0x10",
    "١٢",
    "1_000",
    "007",
    "NaN",
    "null",
    "true",
]
AMOUNTS = ["1.00", "0.5", "-3.25", "99999999.99"]
ODD_AMOUNTS = [
    "1.555",
    "0.001",
    "1e-3",
    "100000000",
    "1,5",
    "inf",
    "",
    "--1",
    "1.5.5",
    "€5",
    "99999999.999",
    ".5",
    "2.",
]
TEXTS = [
    "",
    "a,b",
    'say "so"',
    "two\nlines",
    "naïve Ω",
    "\t",
    "'; drop table x; --",
    "=1+1",
    "null",
    "x" * 5_000,
    "\ufeff",
    "\u202eabc",
]


@dataclass
class Hostile:
    """One file: its bytes, and its records as (tag, id, amount) where they are known."""

    kind: str
    content: bytes
    records: list[tuple[str, str, str]] | None = field(default_factory=list)  # None: only counts can be compared


def hostile_csv(random: Random, tag: str) -> Hostile:
    odd = random.random() < 0.6
    records = []
    for number in range(random.randrange(1, 12)):
        name = f"{tag}r{number}|{random.choice(TEXTS) if odd else ''}"
        whole, amount = (
            random.choice(WHOLE + ODD_WHOLE * (odd and random.random() < 0.3)),
            random.choice(AMOUNTS + ODD_AMOUNTS * (odd and random.random() < 0.3)),
        )
        records.append((name, whole, amount))
    kind = random.choice(CSV_KINDS)
    buffer = io.StringIO(newline="")
    columns = ["id", "amount", "name"]
    if kind == "reordered":
        random.shuffle(columns)
    end = {"crlf": "\r\n"}.get(kind, "\n")
    writer = csv.DictWriter(buffer, columns, lineterminator=end)
    writer.writeheader()
    writer.writerows({"name": name, "id": whole, "amount": amount} for name, whole, amount in records)
    text = buffer.getvalue()
    known = [(name.partition("|")[0], whole, amount) for name, whole, amount in records]
    lines = text.split(end)
    at = random.randrange(1, len(lines))
    match kind:
        case "bom":
            return Hostile(kind, b"\xef\xbb\xbf" + text.encode(), known)
        case "short line":
            return Hostile(kind, (text + f"5,{tag}short{end}").encode(), [*known, (f"{tag}short", "", "")])
        case "long line":
            return Hostile(kind, (text + f"5,1.00,{tag}long,8,9{end}").encode(), [*known, (f"{tag}long", "", "")])
        case "no line end":
            return Hostile(kind, text.rstrip("\n").encode(), known)
        case "nul":
            return Hostile(kind, (text + f"5,1.00,{tag}nul|\x00x{end}").encode(), [*known, (f"{tag}nul", "5", "1.00")])
        case "latin-1":
            return Hostile(kind, text.encode() + f"5,1.00,{tag}lé{end}".encode("latin-1"), None)
        case "utf-16":
            return Hostile(kind, text.encode("utf-16"), known)
        case "open quote":
            return Hostile(kind, (text + f'5,1.00,"{tag}open{end}6,1.00,x{end}').encode(), None)
        case "twice in the header":
            return Hostile(kind, text.replace("amount", "id", 1).encode(), known)
        case "nameless column":
            return Hostile(kind, text.replace("amount", "", 1).encode(), known)
        case "lacks a column":
            return Hostile(kind, f"id,name{end}1,{tag}r0{end}".encode(), [(f"{tag}r0", "1", "")])
        case "header alone":
            return Hostile(kind, f"id,amount,name{end}".encode(), [])
        case "nothing":
            return Hostile(kind, b"", [])
        case "garbage":
            return Hostile(kind, random.randbytes(random.randrange(1, 3000)), None)
        case "garbage in the middle":
            return Hostile(kind, end.join([*lines[:at], "\x01\x02,,\x7f", *lines[at:]]).encode(), None)
        case "packed":
            return Hostile(kind, gzip.compress(text.encode()), known)
        case "packed and cut":
            return Hostile(kind, gzip.compress(text.encode())[:-9], known)
    return Hostile(kind, text.encode(), known)


CSV_KINDS = ["plain"] * 4 + ["crlf", "reordered", "bom", "short line", "long line", "no line end", "nul", "latin-1", "utf-16", "open quote", "twice in the header", "nameless column", "lacks a column", "header alone", "nothing", "garbage", "garbage in the middle", "packed", "packed and cut"]  # fmt: skip
# As JSON text: what stands for a whole number and for an amount.
JSON_WHOLE = ["1", "-7", "9223372036854775807", '"12"', "null"]
JSON_ODD = ["1.5", "1e30", "9223372036854775808", "true", '"x"', "[1]", '{"a": 1}', "2.0", '" 5"', "1.4999999"]
JSON_AMOUNTS = ["1", "0.5", "-3.25", '"2.50"', "null"]
JSON_ODD_AMOUNTS = ["1.555", "0.001", "1e10", '"1.005"', '"x"', "[]", "false", "99999999.999"]
JSON_KINDS = ["array"] * 2 + ["lines"] * 3 + ["cut", "open array", "nothing", "empty array", "scalar", "trailing comma", "bom", "utf-16", "garbage", "nested", "two arrays", "packed and cut"]  # fmt: skip


def hostile_json(random: Random, tag: str) -> Hostile:
    odd, known, objects = random.random() < 0.6, [], []
    for number in range(random.randrange(1, 12)):
        whole = random.choice(JSON_WHOLE + JSON_ODD * (odd and random.random() < 0.3))
        amount = random.choice(JSON_AMOUNTS + JSON_ODD_AMOUNTS * (odd and random.random() < 0.3))
        name = json.dumps(f"{tag}r{number}|{random.choice(TEXTS) if odd else ''}", ensure_ascii=random.random() < 0.5)
        objects.append(f'{{"id": {whole}, "amount": {amount}, "name": {name}}}')
        known.append((f"{tag}r{number}", json_text(whole), json_text(amount)))
    kind = random.choice(JSON_KINDS)
    array, lines = "[" + ",\n".join(objects) + "]", "\n".join(objects) + "\n"
    content: bytes = {
        "array": array.encode(),
        "cut": lines.encode()[: len(lines.encode()) * 2 // 3],
        "open array": array[:-1].encode(),
        "nothing": b"",
        "empty array": b"[]",
        "scalar": b"42",
        "trailing comma": array.replace("]", ",]").encode(),
        "bom": b"\xef\xbb\xbf" + array.encode(),
        "utf-16": array.encode("utf-16"),
        "garbage": random.randbytes(500),
        "nested": ('{"id": ' + "[" * 3000 + "]" * 3000 + "}").encode(),
        "two arrays": (array + "\n" + array).encode(),
        "packed and cut": gzip.compress(lines.encode())[:-9],
    }.get(kind, lines.encode())
    told = kind in ("array", "lines", "bom")
    return Hostile(kind, content, known if told else [] if kind in ("nothing", "empty array") else None)


def json_text(value: str) -> str:
    return "" if value == "null" else value.strip('"')


def same(found: object, written: str) -> bool:
    """Whether a stored number is exactly the one that was written; nothing may stand only for nothing."""
    if found is None:
        return written == ""
    try:
        return Decimal(str(found)) == (int(written, 16) if written.startswith("0x") else Decimal(written.strip()))
    except ArithmeticError:
        return False


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_every_record_is_there_or_kept_out_or_its_file_is_set_aside(shop, trials, figure, ending):
    random, count = Random(SEED), trials(20)
    shop.write({name: text for name, text in SHOP.items() if ending in name or name == "workspace.yaml"})
    made: dict[str, Hostile] = {}
    for number in range(count):
        one = (hostile_csv if ending == "csv" else hostile_json)(random, f"f{number}")
        made[f"landing/{number:04}.{ending}{'.gz' * one.kind.startswith('packed')}"] = one
    shop.write({name: one.content for name, one in made.items()})
    result = shop.run()
    rounded: list[str] = []
    wrong = [f"{s.asset}: {s.error}" for s in result.steps if s.status != "built"]
    aside = {row["file"]: row["reason"] for step in result.steps for row in step.set_aside}
    wrong += [f"{file}: set aside without a reason" for file, reason in aside.items() if not reason]
    for step in result.steps:
        if step.rows_in != step.rows_written + step.rows_rejected:
            wrong.append(f"{step.asset}: {step.rows_in} rows in, {step.rows_written} and {step.rows_rejected} out")
    stored: dict[str, list[tuple[str, object, object]]] = {name: [] for name in made}
    for file, name, whole, amount in shop.rows(f"select _file, name, id, amount from bronze.{ending}"):
        stored[file].append((str(name).partition("|")[0], whole, amount))
    kept_out: dict[str, list[str]] = {name: [] for name in made}
    for file, row in shop.rows('select file, "row" from rat.quarantine'):
        kept_out[file].append(row)
    for file, one in made.items():
        said = f"{file} ({one.kind}, seed {SEED})"
        if file in aside:
            wrong += [f"{said}: set aside, and yet {stored[file]}"] if stored[file] else []
            continue
        if one.records is None:
            continue
        written = {tag: (whole, amount) for tag, whole, amount in one.records}
        tags = Counter(tag for tag, _, _ in stored[file])
        for tag in written:
            out = sum(re.search(rf"{tag}\b", row) is not None for row in kept_out[file])
            if tags[tag] + out != 1:
                wrong.append(f"{said}: {tag} is {tags[tag]} times in the table, {out} times kept out: {kept_out[file]}")
        wrong += [f"{said}: {tag} was never written" for tag in tags if tag not in written]
        rounded += [
            f"{said}: {tag} is stored as {whole}, {amount}, and was written as {written[tag]}"
            for tag, whole, amount in stored[file]
            if tag in written and not (same(whole, written[tag][0]) and same(amount, written[tag][1]))
        ]
    figure(
        f"hostile {ending.upper()} files: rows in are rows out and rejects, no value is another one",
        size=f"{count} files, {sum(map(len, stored.values()))} rows, {sum(map(len, kept_out.values()))} rejects, {len(aside)} set aside",
        seeds=str(SEED),
        wrong=len(wrong) + len(rounded),
    )
    assert not wrong + rounded, "\n".join(wrong + rounded)


LARGE = """
import json, re, sys
from pathlib import Path
from ratatouille.engine import Request
from ratatouille.handle import run_request
result = run_request(Path(sys.argv[1]), Request(()))
steps = {s.asset: [s.status, s.rows_written, len(s.set_aside), (s.error or {}).get("what", "")] for s in result.steps}
# Not ru_maxrss, which begins with the peak of the process that started this one.
print(json.dumps([int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]), steps]))
"""


@pytest.mark.slow
def test_a_line_without_end_and_ten_thousand_columns_stay_within_memory(shop, trials, figure):
    megabytes = 100 if trials(1) > 1 else 40
    wide = ",".join(f"c{i}" for i in range(10_000))
    shop.write(
        {
            "workspace.yaml": SHOP["workspace.yaml"],
            "pipelines/bronze/long.sql": "select * from {{ source('landing/long/*.csv') }}",
            "pipelines/bronze/long.yaml": "materialize: append",
            "landing/long/a.csv": b"id\n1\n" + b"x" * (megabytes << 20) + b"\n2\n",
            "landing/long/b.csv": b"id\n3\n",
            "pipelines/bronze/deep.sql": "select * from {{ source('landing/deep/*.json') }}",
            "pipelines/bronze/deep.yaml": "materialize: append",
            "landing/deep/a.json": '{"id": ' + "[" * 50_000 + "]" * 50_000 + "}",
            "landing/deep/b.json": '{"id": 1}\n',
        }
        | (
            {
                "pipelines/bronze/wide.sql": "select * from {{ source('landing/wide/*.csv') }}",
                "pipelines/bronze/wide.yaml": "materialize: append",
                "landing/wide/a.csv": f"{wide}\n{','.join('1' * 10_000)}\n",
            }
            if trials(1) > 1
            else {}
        )
    )
    said = subprocess.run([sys.executable, "-c", LARGE, str(shop.root)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    kilobytes, steps = json.loads(said.stdout)
    wrong = [
        name
        for name, (status, rows, aside, error) in steps.items()
        if not error and (status, rows + aside) == ("built", 0)
    ]
    figure(
        f"a line of {megabytes} MB, 100,000 brackets{', 10,000 columns' * (trials(1) > 1)}: memory below 1 GB",
        size=f"{kilobytes >> 10} MB at most",
        wrong=len(wrong) + (kilobytes > 1 << 20),
    )
    assert not wrong and kilobytes < 1 << 20
    assert steps["bronze.long"][:3] == ["built", 1, 1], steps
    assert steps["bronze.deep"][:3] == ["built", 1, 1], steps
