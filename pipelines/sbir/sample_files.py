"""The files of a sample, each as its source spells it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import polars as pl

from .sample_lines import COLUMNS_42

if TYPE_CHECKING:
    from .sample import Sample

COLUMNS_39 = [
    "Company",
    "Award Title",
    "Agency",
    "Branch",
    "Phase",
    "Program",
    "Agency Tracking Number",
    "Contract",
    "Proposal Award Date",
    "Contract End Date",
    "Solicitation Number",
    "Solicitation Year",
    "Topic Code",
    "Award Year",
    "Award Amount",
    "DUNS",
    "Hubzone Owned",
    "Socially and Economically Disadvantaged",
    "Women Owned",
    "Number Employees",
    "Company Website",
    "Address1",
    "Address2",
    "City",
    "State",
    "Zip",
    "Contact Name",
    "Contact Title",
    "Contact Phone",
    "Contact Email",
    "PI Name",
    "PI Title",
    "PI Phone",
    "PI Email",
    "RI Name",
    "RI POC Name",
    "RI POC Phone",
    "Research Keywords",
    "Abstract",
]
COMPANY_COLUMNS = [
    "Company Name",
    "UEI",
    "DUNs",
    "Number Awards",
    "Address 1",
    "Address 2",
    "City",
    "State",
    "ZIP",
    "Country",
    "Hubzone Owned",
    "Women Owned",
    "Socially Economically Disadvantaged",
    "Company URL",
]
MONTH = "20261101"


def write(made: Sample, folder: Path) -> dict[str, int]:
    """All files below `folder`: landing/sbir/... and truth/. Gives file -> rows."""
    written: dict[str, int] = {}
    landing = folder / "landing" / "sbir"
    for name, rows in award_files(made.lines).items():
        path = landing / "awards" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            rows.write_json(path)
        else:
            rows.write_csv(path, include_bom=name.startswith("web/"), line_terminator="\n")
        written[f"awards/{name}"] = rows.height
    tables = {"companies/companies.csv": _companies(made), "usaspending/awards.csv": made.spending}
    tables |= {f"uspto/{name}.csv": rows for name, rows in made.uspto.items()}
    tables |= {"patents/grants.csv": made.patents.drop("area", "firm")}
    for name, rows in tables.items():
        (landing / name).parent.mkdir(parents=True, exist_ok=True)
        rows.write_csv(landing / name)
        written[name] = rows.height
    (landing / "publications").mkdir(parents=True, exist_ok=True)
    made.publications.write_ndjson(landing / "publications" / "publications.jsonl")
    written["publications"] = made.publications.height
    (landing / "sam").mkdir(parents=True, exist_ok=True)
    write_sam_v2(made.entities, landing / "sam" / f"SAM_PUBLIC_MONTHLY_V2_{MONTH}.ZIP", MONTH)
    written["sam"] = made.entities.height
    truth = folder / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    for name in ("firms", "awards", "lines", "entities", "patents", "citations"):
        getattr(made, name).write_parquet(truth / f"{name}.parquet")
    return written


def award_files(lines: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Name below landing/sbir/awards -> its rows, with the header of that variant."""
    by_format = {kind: lines.filter(pl.col("_format") == kind) for kind in ("bulk", "bulk43", "old", "web", "api")}
    web = by_format["web"].rename({"Duns": "DUNS", "HUBZone Owned": "Hubzone Owned", "Woman Owned": "Women Owned"})
    found = {
        "bulk/award_data_1983_1994.csv": by_format["old"].select(COLUMNS_42),
        "bulk/award_data.csv": by_format["bulk"].select(COLUMNS_42),
        "bulk/award_data_keywords.csv": by_format["bulk43"].select(*COLUMNS_42, "Research Keywords"),
        "web/sbir_gov_export.csv": web.select(COLUMNS_39),
        "api/awards.json": _as_api(by_format["api"]),
    }
    return {name: rows for name, rows in found.items() if rows.height}


def _as_api(rows: pl.DataFrame) -> pl.DataFrame:
    names = {"Proposal Award Date": "award_start_date", "Contract End Date": "award_close_date"}
    without = ("UEI", "Solicitation Close Date", "Proposal Receipt Date", "Date of Notification")
    columns = [name for name in (*COLUMNS_42, "Research Keywords") if name not in without]
    return rows.select(pl.col(name).alias(names.get(name, name.lower().replace(" ", "_"))) for name in columns)


def _companies(made: Sample) -> pl.DataFrame:
    counted = made.awards.group_by("firm").len("Number Awards")
    return (
        made.firms.join(counted, on="firm", maintain_order="left")
        .with_columns(Country=pl.lit("US"))
        .rename(
            {
                "name": "Company Name", "uei": "UEI", "duns": "DUNs", "address1": "Address 1", "address2": "Address 2",
                "city": "City", "state": "State", "zip": "ZIP", "hubzone": "Hubzone Owned", "woman_owned": "Women Owned",
                "disadvantaged": "Socially Economically Disadvantaged", "website": "Company URL",
            }
        )
        .select(COMPANY_COLUMNS)
    )  # fmt: skip


def write_sam_v2(entities: pl.DataFrame, path: Path, month: str, *, member: str = "") -> None:
    """A monthly public file, layout V2: 142 fields, the first record BOF, the last EOF, both with the count."""
    columns = [pl.lit("")] * 142
    text = {
        0: "uei", 3: "cage", 5: "status", 11: "name", 12: "dba", 15: "address1", 16: "address2", 17: "city", 18: "state",
        19: "zip", 26: "website", 32: "naics",
    }  # fmt: skip
    for index, name in text.items():
        columns[index] = pl.col(name).fill_null("")
    columns[6], columns[21] = pl.lit("Z2"), pl.lit("USA")
    columns[34], columns[141] = pl.col("naics") + "Y~541990N", pl.lit("!end")
    rows = entities.select(pl.concat_str(columns, separator="|").alias("line"))
    mark = f"PUBLIC V2 00000000 {month} {entities.height:07} 0000001"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open(member or path.stem + ".dat", "w") as out,
    ):
        _write_lines(out, rows, mark)


def _write_lines(out: IO[bytes], rows: pl.DataFrame, mark: str) -> None:
    out.write(f"BOF {mark}\n".encode("latin-1"))
    for part in rows.iter_slices(50_000):
        out.write("".join(f"{line}\n" for line in part["line"]).encode("latin-1", errors="replace"))
    out.write(f"EOF {mark}\n".encode("latin-1"))
