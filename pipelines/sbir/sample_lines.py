"""What files say of the awards of a sample: one row a line, its columns by the names of the bulk file, all text.

_format   bulk | bulk43 | old | web | api: the file it goes into
_award    the true award, _firm its true firm
_verdict  pass | fail | duplicate, as a careful reader must find
_wrong    which rule was broken on purpose ('' for none); also a warning of a line that passes
"""

from __future__ import annotations

import numpy as np
import polars as pl

from . import sample_words as words
from .sample import _digits, _joined, _pick, _where

# Rule -> the values that break it, by column. These rows must fail.
ERRORS: dict[str, dict[str, list[str]]] = {
    "company_missing": {"Company": ["", "N/A", "-"]},
    "title_missing": {"Award Title": ["", "nan"]},
    "agency_missing": {"Agency": ["", "None"]},
    "phase_unknown": {"Phase": ["Phase IV", "", "Phase 0"]},
    "program_unknown": {"Program": ["SBIX", ""]},
    "award_year_missing": {"Award Year": ["", "N/A", "soon"]},
    "award_year_out_of_range": {"Award Year": ["1899", "1982", "2099"]},
    "award_amount_missing": {"Award Amount": ["", "-", "\\N"]},
    "award_amount_not_a_number": {"Award Amount": ["about 100000", "12O000", "1.2.3"]},
    "award_amount_not_positive": {"Award Amount": ["0", "-5000.00", "0.0000"]},
    "award_key_missing": {"Agency Tracking Number": ["", "-"], "Contract": ["", "N/A"]},
}
# These pass, with a warning.
WARNINGS: dict[str, dict[str, list[str]]] = {
    "amount_above_limit": {"Award Amount": ["5000000.01", "$11,983,017.00"]},
    "uei_shape": {"UEI": ["ABC123", "abcdefghijk!"]},
    "duns_shape": {"Duns": ["12345678", "5", "1234567890"]},
    "contact_email_shape": {"Contact Email": ["jane.at.firm", "jane@firm"]},
    "pi_email_shape": {"PI Email": ["someone", "a b@c.example"]},
    "state_unknown": {"State": ["ZZ", "Bavaria"]},
    "zip_shape": {"Zip": ["99999-Array", "1234"]},
    "contact_phone_shape": {"Contact Phone": ["555-12", "(202) 274"]},
    "pi_phone_shape": {"PI Phone": ["12", "call me"]},
    "end_before_award": {"Proposal Award Date": ["2011-03-04"], "Contract End Date": ["2011-03-03"]},
    "award_date_unreadable": {"Proposal Award Date": ["31-12-2012", "sometime"]},
    "phase_program_mismatch": {"Program": ["STTR"], "RI Name": [""]},
}
# Spellings of the same value: nothing is wrong with them.
SPELLINGS: dict[str, dict[str, list[str]]] = {
    "phase": {"Phase": ["Phase 1", "I", "PHASE I", "1"]},
    "state": {"State": ["California"]},
    "program": {"Program": ["sbir", "SBIR/STTR"]},
}

COLUMNS_42 = [
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
    "Solicitation Close Date",
    "Proposal Receipt Date",
    "Date of Notification",
    "Topic Code",
    "Award Year",
    "Award Amount",
    "UEI",
    "Duns",
    "HUBZone Owned",
    "Socially and Economically Disadvantaged",
    "Woman Owned",
    "Number Employees",
    "Company Website",
    "Address1",
    "Address2",
    "City",
    "State",
    "Zip",
    "Abstract",
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
]
DATES = (
    "Proposal Award Date",
    "Contract End Date",
    "Solicitation Close Date",
    "Proposal Receipt Date",
    "Date of Notification",
)
WRITTEN = {"bulk": "%Y-%m-%d", "bulk43": "%Y-%m-%d", "old": "%m/%d/%Y", "web": "%m-%d-%Y", "api": "%B %d, %Y"}


def lines(chance: np.random.Generator, firms: pl.DataFrame, awards: pl.DataFrame) -> pl.DataFrame:
    """Every line of every award file, in the order in which the files have them."""
    clean = _clean(chance, firms, awards)
    formats = _pick(chance, ["bulk", "bulk43", "web", "api"], clean.height, [0.84, 0.04, 0.09, 0.03]).to_numpy()
    formats = np.where(awards["year"].to_numpy() < 1995, "old", formats)
    clean = _lost_numbers(chance, clean.with_columns(_format=pl.Series(formats).cast(pl.String)))
    dirty = _broken(chance, clean)
    sound = dirty.filter(pl.col("_wrong") == "")
    copies = [dirty, *_duplicates(chance, sound)]
    return _dates_as_written(pl.concat(copies).sort("_format", "_order", maintain_order=True).drop("_order"))


def _clean(chance: np.random.Generator, firms: pl.DataFrame, awards: pl.DataFrame) -> pl.DataFrame:
    n = awards.height
    at = awards["firm"].to_numpy()
    year = awards["year"].to_numpy()
    of = lambda column: firms[column].gather(at)  # noqa: E731
    former = (of("renamed_in").to_numpy() > year) & of("former_name").is_not_null().to_numpy()
    bought = of("bought_in").to_numpy() <= year
    buyer = firms["name"].gather(np.where(bought, of("bought_by").to_numpy(), at))
    name = _respelled(chance, _where(former, of("former_name"), buyer))
    person = _joined(_pick(chance, words.FIRST_NAMES, n), " ", _pick(chance, words.LAST_NAMES, n))
    phone = _joined("(", _digits(chance, n, 3), ") ", _digits(chance, n, 3), "-", _digits(chance, n, 4))
    sttr = awards["program"].to_numpy() == "STTR"
    award_year = np.where(awards["same_year"].to_numpy(), year, year + 1)
    iso = lambda values: pl.Series(values.astype("datetime64[D]")).dt.to_string("%Y-%m-%d")  # noqa: E731
    started = awards["award_date"].to_numpy().astype("datetime64[D]")
    no_date = (chance.random(n) < 0.3) & (year < 2000)
    amount = awards["amount_cents"]
    plain = (amount // 100).cast(pl.String)
    cents = (amount % 100).cast(pl.String).str.zfill(2)
    style = chance.random(n)
    with_commas = pl.select(
        pl.Series(plain).str.reverse().str.replace_all(r"(\d{3})", "$1,").str.reverse().str.strip_chars(",")
    ).to_series()
    spelled = _where(
        style < 0.9,
        _joined(plain, ".", cents, "00"),
        _where(style < 0.95, _joined("$", with_commas, ".", cents), _joined(with_commas, ".", cents)),
    )
    zips = of("zip")
    found = {
        "Company": name,
        "Award Title": awards["title"],
        "Agency": awards["agency"],
        "Branch": awards["branch"],
        "Phase": _joined("Phase ", awards["phase"].replace_strict({1: "I", 2: "II", 3: "III"})),
        "Program": awards["program"],
        "Agency Tracking Number": awards["tracking"],
        "Contract": awards["contract"],
        "Proposal Award Date": _where(no_date, "", iso(started)),
        "Contract End Date": _where(no_date, "", iso(awards["end_date"].to_numpy())),
        "Solicitation Number": _joined(pl.Series(year).cast(pl.String), ".", _digits(chance, n, 1)),
        "Solicitation Year": pl.Series(year - 1).cast(pl.String),
        "Solicitation Close Date": iso(started - 300),
        "Proposal Receipt Date": _where(chance.random(n) < 0.5, "", iso(started - 310)),
        "Date of Notification": _where(chance.random(n) < 0.5, "", iso(started - 60)),
        "Topic Code": awards["topic"],
        "Award Year": pl.Series(award_year).cast(pl.String),
        "Award Amount": spelled,
        "UEI": of("uei").fill_null(""),
        "Duns": of("duns"),
        "HUBZone Owned": of("hubzone"),
        "Socially and Economically Disadvantaged": of("disadvantaged"),
        "Woman Owned": of("woman_owned"),
        "Number Employees": _pick(chance, ["", "0.0", "#"], n, [0.1, 0.1, 0.8]).replace("#", None).fill_null(of("employees").cast(pl.String)),
        "Company Website": of("website"),
        "Address1": of("address1"),
        "Address2": of("address2"),
        "City": _where(chance.random(n) < 0.1, _joined(of("city"), " "), of("city")),
        "State": of("state"),
        "Zip": _where(chance.random(n) < 0.3, _joined(zips, "-", _digits(chance, n, 4)), zips),
        "Abstract": awards["abstract"],
        "Contact Name": _joined(person, " "),
        "Contact Title": _pick(chance, ["President", "CEO", "", "Contracts Manager"], n),
        "Contact Phone": _where(chance.random(n) < 0.05, "() -", of("phone")),
        "Contact Email": _joined(person.str.to_lowercase().str.replace(" ", "."), "@firm.example"),
        "PI Name": _joined(" ", awards["pi"], " "),
        "PI Title": _pick(chance, ["", "Dr.", "Principal Scientist"], n),
        "PI Phone": phone,
        "PI Email": _joined(awards["pi"].str.to_lowercase().str.replace(" ", "."), "@firm.example"),
        "RI Name": _where(sttr, "State University", ""),
        "RI POC Name": _where(sttr, person, ""),
        "RI POC Phone": _where(sttr, phone, ""),
        "Research Keywords": awards["keywords"],
        "_award": awards["award"],
        "_firm": awards["firm"],
        "_verdict": "pass",
        "_wrong": "",
        "_order": pl.Series(np.arange(n, dtype=np.float64)),
    }  # fmt: skip
    return pl.DataFrame(found)


def _respelled(chance: np.random.Generator, names: pl.Series) -> pl.Series:
    """A name as people type it: other cases, other suffixes, blanks around it, now and then a wrong letter."""
    n = len(names)
    style = chance.random(n)
    base = names.str.replace(r"(?i),?\s+(inc|llc|corp|ltd|co|corporation|incorporated)\.?$", "")
    at = chance.integers(2, 7, n)
    frame = pl.DataFrame({"name": names, "base": base, "at": at, "style": style})
    typo = pl.col("name").str.slice(0, pl.col("at")) + pl.col("name").str.slice(pl.col("at") + 1)
    return frame.select(
        pl.when(pl.col("style") < 0.10).then(pl.col("name").str.to_uppercase())
        .when(pl.col("style") < 0.18).then(pl.col("base"))
        .when(pl.col("style") < 0.24).then(pl.col("base") + " Inc.")
        .when(pl.col("style") < 0.40).then(pl.lit(" ") + pl.col("name") + " ")
        .when(pl.col("style") < 0.43).then(pl.col("name").str.replace(" ", "  "))
        .when(pl.col("style") < 0.455).then(typo)
        .otherwise(pl.col("name"))
        .alias("name")
    ).to_series()  # fmt: skip


def _lost_numbers(chance: np.random.Generator, rows: pl.DataFrame) -> pl.DataFrame:
    """UEI and DUNS as they are in files: missing, a filler, without leading zeros, after an apostrophe."""
    n = rows.height
    style, uei = chance.random(n), chance.random(n)
    duns = rows["Duns"]
    return rows.with_columns(
        Duns=_where(style < 0.2, "", _where(style < 0.21, "000000000", _where(style < 0.22, _joined("'", duns), _where(style < 0.24, duns.str.strip_chars_start("0"), duns)))),
        UEI=_where(uei < 0.45, "", rows["UEI"]),
    )  # fmt: skip


def _broken(chance: np.random.Generator, rows: pl.DataFrame) -> pl.DataFrame:
    """With a thousandth of the rows breaking each rule, and one at least; no row breaks two."""
    each = max(1, rows.height // 1000)
    plans = [(rule, values, "fail") for rule, values in ERRORS.items()]
    plans += [(rule, values, "pass") for rule, values in WARNINGS.items()]
    plans += [("", values, "pass") for values in SPELLINGS.values()]
    reserved = min(rows.height, each * len(plans))
    places = chance.permutation(rows.height)[:reserved]
    columns = {
        name: rows[name].to_numpy(allow_copy=True).copy()
        for name in {c for _, v, _ in plans for c in v} | {"_verdict", "_wrong"}
    }
    for number, (rule, values, verdict) in enumerate(plans):
        mine = places[number * each : (number + 1) * each]
        for column, bad in values.items():
            if rule == "" and column == "Phase":  # only another spelling of what it is
                mine = mine[columns["Phase"][mine] == "Phase I"]
            if rule == "" and column == "Program":
                mine = mine[columns["Program"][mine] == "SBIR"]
            if rule == "" and column == "State":
                mine = mine[columns["State"][mine] == "CA"]
            columns[column][mine] = np.array(bad, dtype=object)[np.arange(len(mine)) % len(bad)]
        columns["_verdict"][mine] = verdict
        columns["_wrong"][mine] = rule
    return rows.with_columns(**{name: pl.Series(values.tolist(), dtype=pl.String) for name, values in columns.items()})


def _duplicates(chance: np.random.Generator, sound: pl.DataFrame) -> list[pl.DataFrame]:
    """Lines that say again what another one says: word for word, in the web export, or with less in them."""
    n = sound.height
    places = chance.permutation(n)
    few, web = max(2, n // 200), max(2, n // 33)
    bulk = sound[places].filter(pl.col("_format") == "bulk")
    exact, exported, poorer = bulk[:few], bulk[few : few + web], bulk[few + web : 2 * few + web]
    again = {"_verdict": pl.lit("duplicate")}
    return [
        exact.with_columns(pl.col("_order") + 0.5, **again),
        exported.with_columns(_format=pl.lit("web"), **again),
        poorer.filter(pl.col("Contract") != "").with_columns(
            pl.lit("").alias("Contract"), pl.lit("").alias("Abstract"), pl.lit("").alias("Company Website"),
            pl.col("_order") + 0.25, **again,
        ),
    ]  # fmt: skip


def _dates_as_written(rows: pl.DataFrame) -> pl.DataFrame:
    """Each format has its own spelling of dates; what is no ISO date stays as it is."""
    said = pl.col("_format")
    changed = []
    for name in DATES:
        day = pl.col(name).str.to_date("%Y-%m-%d", strict=False)
        spelled = pl.col(name)
        for kind in ("old", "web", "api"):
            spelled = (
                pl.when((said == kind) & day.is_not_null()).then(day.dt.to_string(WRITTEN[kind])).otherwise(spelled)
            )
        changed.append(spelled.alias(name))
    return rows.with_columns(changed)
