"""Half a million awards through extract, validate and transform, against two things that do less.

    python benchmarks/sbir_validate.py [--awards 500000] [--memory 1GB] [--threads 2] [--work DIR] [--runs 3]

pipeline   `rat run` from CSV files to transformed.*: every rule, duplicates, gates, companies, progressions
duckdb     DuckDB alone reads the same CSV files and writes one CSV again: no rule, no type, no check
pandas     the validation alone, by hand in vectorised pandas: reads the raw table as one Parquet file, judges, types,
           finds the duplicates and writes pass, fail and duplicate. It must count the same rows
again      `rat run` after one file of 5,000 awards came in which a fiftieth of them is corrected
Each in a process of its own, with the memory and threads of the profile; medians of `--runs`. Results go into
benchmarks/results/sbir_validate.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from measure import Command, Measured, measure  # noqa: E402

TABLES = ("transformed.awards", "transformed.companies", "transformed.contracts", "transformed.award_progressions")
DUCKDB = """
import duckdb
c = duckdb.connect(config={"memory_limit": "MEMORY", "threads": THREADS, "temp_directory": "spill"})
files = [FILES]
read = f"select * from read_csv({files}, all_varchar = true, union_by_name = true, quote = '\\"', escape = '\\"', max_line_size = 10000000, buffer_size = 32000000)"
c.execute(f"copy ({read}) to 'again.csv' (header)")
"""
PANDAS = """
import hashlib, json, pandas as pd, re
d = pd.read_parquet("raw.parquet")
nothing = {"", "-", "n/a", "na", "nan", "none", "null", "\\\\n"}
for name in d.columns.difference(["_file", "source_format", "line_id"]):
    s = d[name].str.strip()
    d[name] = s.mask(s.str.lower().isin(nothing))
phase = d.phase.str.upper().str.replace(r"^PHASE\\s*", "", regex=True)
d["phase"] = phase.map({"I": "Phase I", "1": "Phase I", "II": "Phase II", "2": "Phase II", "III": "Phase III", "3": "Phase III"})
d["program"] = d.program.str.upper().map({"SBIR": "SBIR", "STTR": "STTR", "SBIR/STTR": "SBIR"})
for name in ("company_name", "award_title", "agency", "branch"):
    d[name] = d[name].str.replace(r"\\s+", " ", regex=True)
amount = pd.to_numeric(d.award_amount.str.replace("$", "").str.replace(",", ""), errors="coerce")
year = pd.to_numeric(d.award_year, errors="coerce")
dates = {}
for name in ("award_date", "contract_end_date", "solicitation_close_date", "proposal_receipt_date", "date_of_notification"):
    web = d.source_format.eq("web")
    iso = pd.to_datetime(d[name].where(~web), format="%Y-%m-%d", errors="coerce")
    us = pd.to_datetime(d[name].where(~web), format="%m/%d/%Y", errors="coerce")
    dash = pd.to_datetime(d[name].where(web), format="%m-%d-%Y", errors="coerce")
    dates[name] = iso.fillna(us).fillna(dash)
uei = d.uei.str.upper().where(d.uei.str.upper().str.fullmatch(r"[A-Z0-9]{12}").fillna(False))
bare = d.duns.str.strip("'")
duns = bare.where(bare.str.fullmatch(r"\\d{7,9}").fillna(False)).str.zfill(9)
duns = duns.mask(duns.eq("000000000"))
errors = {
    "company_missing": d.company_name.isna(), "title_missing": d.award_title.isna(), "agency_missing": d.agency.isna(),
    "phase_unknown": d.phase.isna(), "program_unknown": d.program.isna(), "award_year_missing": year.isna(),
    "award_year_out_of_range": (year < 1983) | (year > YEAR + 1), "award_amount_missing": d.award_amount.isna(),
    "award_amount_not_a_number": d.award_amount.notna() & amount.isna(), "award_amount_not_positive": amount <= 0,
    "award_key_missing": d.agency_tracking_number.isna() & d.contract.isna(),
}
mail, phone = r"^[^@\\s]+@[^@\\s]+\\.[^@\\s.]+$", r"^(\\+?1[ .-]?)?(\\(\\d{3}\\) ?|\\d{3}[ .-]?)\\d{3}[ .-]?\\d{4}( ?(x|ext\\.?) ?\\d+)?$"
states = set(json.loads('STATES'))
warnings = {
    "amount_above_limit": amount > 5_000_000, "uei_shape": d.uei.notna() & uei.isna(),
    "duns_shape": d.duns.notna() & ~bare.str.fullmatch(r"\\d{9}").fillna(False), "duns_filler": bare.eq("000000000"),
    "contact_email_shape": d.contact_email.notna() & ~d.contact_email.str.contains(mail, regex=True).fillna(False),
    "pi_email_shape": d.pi_email.notna() & ~d.pi_email.str.contains(mail, regex=True).fillna(False),
    "state_unknown": d.state.notna() & ~d.state.str.upper().isin(states),
    "zip_shape": d.zip.notna() & ~d.zip.str.fullmatch(r"\\d{5}(-?\\d{4})?").fillna(False),
    "contact_phone_shape": d.contact_phone.notna() & ~d.contact_phone.str.match(phone).fillna(False),
    "pi_phone_shape": d.pi_phone.notna() & ~d.pi_phone.str.match(phone).fillna(False),
    "award_date_unreadable": d.award_date.notna() & dates["award_date"].isna(),
    "contract_end_date_unreadable": d.contract_end_date.notna() & dates["contract_end_date"].isna(),
    "end_before_award": dates["contract_end_date"] < dates["award_date"], "year_differs": year != dates["award_date"].dt.year,
    "phase_program_mismatch": d.program.eq("STTR") & d.ri_name.isna(),
}
def names(rules):
    said = pd.Series("", index=d.index)
    for name, broken in rules.items():
        said = said.mask(broken.fillna(False).astype(bool), said + "," + name)
    return said.str[1:]
d["reasons"], d["warnings"] = names(errors), names(warnings)
d["award_amount"], d["award_year"], d["uei"], d["duns"] = amount, year, uei, duns
for name, value in dates.items():
    d[name] = value
key = ["agency", "branch", "agency_tracking_number", "contract", "phase", "program"]
joined = d[key[0]].fillna("").str.upper()
for name in key[1:]:
    joined = joined + "|" + d[name].fillna("").str.upper()
d["award_id"] = [hashlib.md5(text.encode()).hexdigest() for text in joined]
failed = d.reasons.ne("")
good = d[~failed].copy()
good["filled"] = good.notna().sum(axis=1)
good["rank"] = good.source_format.map({"bulk": 1, "api": 2, "web": 3})
good = good.sort_values(["rank", "_file", "filled"], ascending=[True, False, False])
again = good.duplicated("award_id")
kept = good[~again]
name = kept.company_name.str.lower().str.replace(r"[^a-z0-9]+", " ", regex=True)
name = name.str.replace(r"\\b(inc|incorporated|llc|ltd|limited|corp|corporation|co|company|lp|llp|plc|pllc)\\b", "", regex=True).str.strip()
same = pd.DataFrame({"a": kept.agency, "t": kept.agency_tracking_number, "p": kept.phase, "c": kept.duns.fillna(name)}, index=kept.index)
poorer = same.duplicated() & kept.agency_tracking_number.notna()
kept[~poorer].to_parquet("pass.parquet")
d[failed].to_parquet("fail.parquet")
pd.concat([good[again], kept[poorer]]).to_parquet("duplicate.parquet")
print(json.dumps({"pass": int((~poorer).sum()), "fail": int(failed.sum()), "duplicate": int(again.sum() + poorer.sum())}))
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awards", type=int, default=500_000)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "sbir_validate")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    asked = parser.parse_args(arguments)
    folder, files = prepare(asked)
    found: dict[str, Any] = {
        "awards": asked.awards, "memory": asked.memory, "threads": asked.threads, "runs": asked.runs,
        "csv_mb": round(sum(path.stat().st_size for path in files) / 1e6), "cores": os.cpu_count(), "load": os.getloadavg()[0],
    }  # fmt: skip
    rows = [one_round(asked, folder, files) for _ in range(asked.runs)]
    found["measured"] = rows
    found["median"] = {
        name: {what: median(row[name][what] for row in rows) for what in rows[0][name]} for name in rows[0]
    }
    asked.out.mkdir(exist_ok=True)
    (asked.out / "sbir_validate.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.out / "sbir_validate.md").write_text(markdown(found))
    print(markdown(found))
    return 0


def prepare(asked: argparse.Namespace) -> tuple[Path, list[Path]]:
    """The sample's award files, once for each size."""
    folder = asked.work / str(asked.awards)
    if not (folder / "landing").exists():
        code = f"from pathlib import Path; from pipelines.sbir.sample import *; write(sample({asked.awards}), Path({str(folder)!r}))"
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "sample.log"
        measure(Command([sys.executable, "-c", code], ROOT, dict(os.environ)), log)
        shutil.rmtree(folder / "landing/sbir/awards/api")  # DuckDB's turn reads CSV alone
        shutil.rmtree(folder / "truth")
    return folder, sorted((folder / "landing/sbir/awards").rglob("*.csv"))


def one_round(asked: argparse.Namespace, folder: Path, files: list[Path]) -> dict[str, dict[str, float]]:
    lake = folder / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    (lake / "pipelines/sbir").mkdir(parents=True)
    text = (ROOT / "workspace.yaml").read_text()
    (lake / "workspace.yaml").write_text(f"{text}\nresources: {{memory: {asked.memory}, threads: {asked.threads}}}\n")
    shutil.copytree(ROOT / "macros", lake / "macros")
    for name in ("raw", "validated", "transformed", "config"):
        shutil.copytree(
            ROOT / "pipelines/sbir" / name, lake / "pipelines/sbir" / name, ignore=shutil.ignore_patterns("cet_*")
        )
    for name in ("settings.py", "sam_files.py"):
        shutil.copy(ROOT / "pipelines/sbir" / name, lake / "pipelines/sbir" / name)
    (lake / "pipelines/sbir/__init__.py").write_text("")
    (lake / "landing/sbir").mkdir(parents=True)
    shutil.copytree(folder / "landing/sbir/awards", lake / "landing/sbir/awards", copy_function=os.link)
    wanted = [f"+{table}" for table in TABLES]
    pipeline, steps = _rat(lake, wanted)
    validated = sum(s["seconds"] for name, s in steps.items() if name.startswith("validated."))
    found = {"pipeline": _row(pipeline, n_rows=steps["raw.sbir_awards"]["rows_written"], validated_s=validated)}
    found["steps"] = {name: round(step["seconds"], 2) for name, step in steps.items()}
    found["duckdb"] = _row(_python(asked, folder, DUCKDB, files))
    raw = "select * from raw.sbir_awards"
    measure(Command([*RAT, "query", raw, "-o", str(folder / "raw.parquet")], lake, dict(os.environ)), folder / "log")
    pandas = _python(asked, folder, PANDAS, files)
    counted = json.loads(pandas.output.strip().splitlines()[-1])
    found["pandas"] = _row(pandas) | {f"n_{name}": n for name, n in counted.items()}
    for name in counted:
        found["pipeline"][f"n_{name}"] = steps[f"validated.sbir_awards_{name}"]["rows_total"]
    _correct(lake)
    again, steps = _rat(lake, wanted)
    found["again"] = _row(again) | {
        name: steps[name]["rows_written"] for name in ("validated.sbir_awards_pass", "transformed.awards")
    }
    return found


RAT = (sys.executable, "-m", "ratatouille.cli")


def _rat(lake: Path, wanted: list[str]) -> tuple[Measured, dict[str, Any]]:
    took = measure(Command([*RAT, "run", *wanted, "--json"], lake, dict(os.environ)), lake / "log")
    said = json.loads(took.output[took.output.index("{") : took.output.rindex("}") + 1])
    return took, {step["asset"]: step for step in said["steps"] if step["status"] == "built"}


def _python(asked: argparse.Namespace, folder: Path, code: str, files: list[Path]) -> Measured:
    states = "AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY PR GU VI AS MP CALIFORNIA"
    listed = ", ".join(repr(str(path)) for path in files)
    for name, value in {
        "MEMORY": asked.memory, "THREADS": str(asked.threads), "FILES": listed, "YEAR": str(time.gmtime().tm_year), "STATES": json.dumps(states.split()),
    }.items():  # fmt: skip
        code = code.replace(name, value)
    return measure(Command([sys.executable, "-c", code], folder, dict(os.environ)), folder / "log")


def _row(took: Measured, **more: float) -> dict[str, float]:
    return {
        "wall_s": round(took.wall_s, 2),
        "cpu_s": round(took.cpu_s, 2),
        "rss_mb": round(took.rss_bytes / 1e6),
    } | more


def _correct(lake: Path) -> None:
    """A delivery of 5,000 awards that were there: the amount of every fiftieth is another one."""
    import polars as pl

    first = next(lake.glob("landing/sbir/awards/bulk/award_data.csv"))
    rows = pl.read_csv(first, infer_schema=False, n_rows=5000)
    amount = pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("77777.00")).otherwise(pl.col("Award Amount"))
    rows.with_columns(amount.alias("Award Amount")).write_csv(first.with_name("corrections.csv"))


def markdown(found: dict[str, Any]) -> str:
    m = found["median"]
    rows = m["pipeline"]["n_rows"]
    machine = f"{found['cores']} cores, load {found['load']:.1f} when it began; profile {found['memory']}, {found['threads']} threads"
    machine += f"; medians of {found['runs']}"
    lines = [
        "# SBIR: extract, validate, transform",
        "",
        f"{rows:,.0f} lines of awards in {found['csv_mb']} MB of CSV, {machine}. `python benchmarks/sbir_validate.py`",
        "",
        "| | seconds | processor seconds | peak memory, MB |",
        "|---|---:|---:|---:|",
    ]
    said = {
        "pipeline": "the pipeline, from CSV to transformed",
        "duckdb": "DuckDB alone: read the CSV, write it again",
        "pandas": "pandas: the validation alone, from Parquet",
        "again": "the pipeline, 5,000 lines more",
    }
    for name, what in said.items():
        lines.append(f"| {what} | {m[name]['wall_s']:.1f} | {m[name]['cpu_s']:.1f} | {m[name]['rss_mb']:,.0f} |")
    took, alone, by_hand, more = m["pipeline"], m["duckdb"], m["pandas"], m["again"]
    speed = f"{rows / took['wall_s']:,.0f} lines a second; {took['wall_s'] / alone['wall_s']:.2f} times the seconds"
    cost = f"and {took['cpu_s'] / alone['cpu_s']:.2f} times the processor seconds of DuckDB alone (goal: 3)"
    share = f"{took['validated_s'] / by_hand['wall_s']:.2f} of pandas' seconds (goal: 0.6)"
    ours, theirs = (
        ", ".join(f"{one[f'n_{n}']:,.0f}" for n in ("pass", "fail", "duplicate")) for one in (took, by_hand)
    )
    wrote = f"{more['validated.sbir_awards_pass']:,.0f} awards are written to validated, {more['transformed.awards']:,.0f} to transformed"
    tables = ", ".join(f"{name} {s:.1f}" for name, s in m["steps"].items())
    lines += [
        "",
        f"- {speed} {cost}.",
        f"- The validated tables take {took['validated_s']:.1f} s of it: {share}.",
        f"- pass, fail, duplicate: {ours}; pandas: {theirs}.",
        f"- Of the 5,000 lines more, {wrote} (the sums of their companies change, too).",
        "",
        f"Seconds by table: {tables}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
