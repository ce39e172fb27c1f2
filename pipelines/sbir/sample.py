"""A made-up world of firms and awards, and the files in which its sources would tell of it.

sample(awards, seed)   the world, as frames; the same numbers give the same world
write(sample, folder)  landing/sbir/... as the sources spell it, and truth/ beside it, which no asset reads

firm     one true company. It may be renamed, be bought by another one, have no UEI, be unknown to SAM
project  an idea of a firm: a Phase I award, often a Phase II after it, which mostly keeps the tracking number
line     what a file says of an award: with typos, lost numbers, other spellings, and some lines that are wrong

Everything is a column of numbers or a gather from a list of words, so half a million awards take seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from . import sample_words as words

FIRST_YEAR, LAST_YEAR = 1985, 2025
NO_DATE = np.datetime64("NaT", "D")


@dataclass(frozen=True)
class Sample:
    """`firms`, `awards` (the truth), `lines` (what the files say, all text, with `format` and what is wrong with
    them), and the tables of the other sources."""

    firms: pl.DataFrame
    awards: pl.DataFrame
    lines: pl.DataFrame
    entities: pl.DataFrame  # of SAM
    uspto: dict[str, pl.DataFrame]  # assignment, documentid, assignee, assignor, assignment_conveyance
    patents: pl.DataFrame  # granted, with abstracts
    publications: pl.DataFrame  # of applications, as the USPTO nests them
    spending: pl.DataFrame  # of USAspending
    citations: pl.DataFrame  # award number, grant_doc_num: the abstract names the patent


def sample(awards: int = 600, seed: int = 7, *, companies: int | None = None, entities: int | None = None) -> Sample:
    """About `awards` awards of `companies` firms (default: 3.4 awards each), and `entities` registered with SAM
    (default: three for each firm)."""
    chance = np.random.default_rng(seed)
    firms = _firms(chance, companies or max(12, awards * 10 // 34))
    truth = _awards(chance, firms, awards)
    patents, uspto, cited = _patents(chance, firms, truth)
    truth = _with_texts(chance, truth, cited)
    return Sample(
        firms=firms,
        awards=truth,
        lines=_lines(chance, firms, truth),
        entities=_entities(chance, firms, entities or 3 * firms.height),
        uspto=uspto,
        patents=patents,
        publications=_publications(patents),
        spending=_spending(chance, firms, truth),
        citations=cited,
    )


# Small tools: a column of `n` choices


def _pick(
    chance: np.random.Generator, values: list[str] | tuple[str, ...], n: int, p: list[float] | None = None
) -> pl.Series:
    return pl.Series(values, dtype=pl.String).gather(chance.choice(len(values), n, p=p))


def _digits(chance: np.random.Generator, n: int, length: int) -> pl.Series:
    return pl.Series(chance.integers(10 ** (length - 1), 10**length, n)).cast(pl.String)


def _codes(
    chance: np.random.Generator, n: int, length: int, signs: str = "ABCDEFGHJKLMNPQRSTUVWXYZ123456789"
) -> pl.Series:
    drawn = np.array(list(signs)).view("U1")[chance.integers(0, len(signs), (n, length))]
    return pl.Series(np.ascontiguousarray(drawn).view(f"U{length}").ravel()).cast(pl.String)


def _unique(draw: Callable[[int], pl.Series], n: int) -> pl.Series:
    """`n` different values of what `draw(m)` gives; ValueError when there are not so many."""
    found = draw(n + n // 8 + 16).unique(maintain_order=True)
    while len(found) < n:
        more = pl.concat([found, draw(n)]).unique(maintain_order=True)
        if len(more) - len(found) < n // 1000:
            raise ValueError(f"there are no {n:,} different ones, but about {len(more):,}")
        found = more
    return found.head(n)


def _joined(*parts: pl.Series | str) -> pl.Series:
    series = [pl.lit(part) if isinstance(part, str) else part for part in parts]
    return pl.select(pl.concat_str(series)).to_series()


def _where(mask: np.ndarray, yes: pl.Series | str | None, no: pl.Series | str | None) -> pl.Series:
    sides = [pl.lit(side, dtype=pl.String) if side is None or isinstance(side, str) else side for side in (yes, no)]
    return pl.select(pl.when(pl.Series(mask)).then(sides[0]).otherwise(sides[1])).to_series()


def _named(chance: np.random.Generator, n: int, *, long: bool = False) -> pl.Series:
    """Names of firms: 153,600 different ones, and 3 million with a second trade."""
    first, middle, end = (_pick(chance, list(part), n) for part in (words.STARTS, words.MIDDLES, words.ENDS))
    name = _joined(first, middle, end, " ", _pick(chance, words.TRADES, n))
    return _joined(name, " ", _pick(chance, words.TRADES, n)) if long else name


# The truth


def _firms(chance: np.random.Generator, n: int) -> pl.DataFrame:
    """One row a firm: `firm` 0..n-1, name, former_name (renamed in renamed_in), bought_by (a firm, in bought_in)."""
    names = _unique(lambda m: _named(chance, m, long=n > 20_000), 2 * n)
    place = chance.integers(0, len(words.PLACES), n)
    city, state, zip3 = (pl.Series([p[i] for p in words.PLACES]).gather(place) for i in range(3))
    renamed, bought = chance.random(n) < 0.05, chance.random(n) < 0.03
    known = chance.random(n) < 0.97  # to SAM
    return pl.DataFrame(
        {
            "firm": pl.Series(range(n), dtype=pl.Int64),
            "name": _joined(names.head(n), _pick(chance, words.SUFFIXES, n)),
            "former_name": _where(renamed, _joined(names.tail(n), _pick(chance, words.SUFFIXES, n)), None),
            "renamed_in": pl.Series(np.where(renamed, chance.integers(2005, 2020, n), 0)),
            "bought_by": pl.Series(np.where(bought, chance.integers(0, n, n), -1)),
            "bought_in": pl.Series(np.where(bought, chance.integers(2008, 2022, n), 9999)),
            "known_to_sam": pl.Series(known),
            "uei": _where(known & (chance.random(n) < 0.9), _unique(lambda m: _codes(chance, m, 12), n), None),
            "duns": _unique(lambda m: _joined(_pick(chance, ["0", "1", "8"], m), _digits(chance, m, 8)), n),
            "cage": _where(known, _unique(lambda m: _codes(chance, m, 5), n), None),
            "address1": _joined(_digits(chance, n, 4), " ", _pick(chance, words.STREETS, n)),
            "address2": _where(chance.random(n) < 0.2, _joined("Suite ", _digits(chance, n, 3)), ""),
            "city": city,
            "state": state,
            "zip": _joined(zip3, _digits(chance, n, 2)),
            "website": _where(
                chance.random(n) < 0.7, _joined("http://www.firm", _digits(chance, n, 6), ".example"), ""
            ),
            "employees": pl.Series(chance.integers(2, 250, n)),
            "hubzone": _pick(chance, ["N", "Y"], n, [0.95, 0.05]),
            "disadvantaged": _pick(chance, ["N", "Y"], n, [0.93, 0.07]),
            "woman_owned": _pick(chance, ["N", "Y", "U"], n, [0.86, 0.13, 0.01]),
            "naics": _pick(chance, ["541715", "541330", "334511", "541714", "336414", "541512"], n),
            "phone": _joined("(", _digits(chance, n, 3), ") ", _digits(chance, n, 3), "-", _digits(chance, n, 4)),
            "area": _pick(chance, list(words.AREAS), n),
        }
    )


def _awards(chance: np.random.Generator, firms: pl.DataFrame, n: int) -> pl.DataFrame:
    """One row a true award, by projects: Phase I, and after it often Phase II, seldom Phase III."""
    n_projects = max(1, round(n / 1.45))
    follows = chance.random(n_projects) < 0.43
    third = follows & (chance.random(n_projects) < 0.05)
    skewed = (firms.height * chance.random(n_projects) ** 2.2).astype(np.int64)
    project = pl.DataFrame({"project": pl.Series(range(n_projects), dtype=pl.Int64), "firm": skewed})
    agency = chance.choice(len(words.AGENCIES), n_projects, p=[a[2] for a in words.AGENCIES])
    branches = [list(a[1]) for a in words.AGENCIES]
    branch = [
        branches[a][d % len(branches[a])] for a, d in zip(agency, chance.integers(0, 60, n_projects), strict=True)
    ]
    spread = 1 - chance.random(n_projects) ** 2  # most awards are recent
    year = (FIRST_YEAR + (LAST_YEAR - 3 - FIRST_YEAR) * np.clip(spread, 0, 1)).astype(np.int64)
    own_area = chance.random(n_projects) < 0.7
    project = project.with_columns(
        agency=pl.Series([a[0] for a in words.AGENCIES]).gather(agency),
        branch=pl.Series(branch),
        program=_pick(chance, ["SBIR", "STTR"], n_projects, [0.87, 0.13]),
        tracking=_joined(_codes(chance, n_projects, 1, "AFNDS"), _digits(chance, n_projects, 3), "-", pl.Series(np.arange(n_projects)).cast(pl.String).str.zfill(7)),
        topic=_joined(_codes(chance, n_projects, 2, "ABNS"), pl.Series(year % 100).cast(pl.String).str.zfill(2), "-", _digits(chance, n_projects, 3)),
        year=pl.Series(year),
        area=_where(own_area, firms["area"].gather(skewed), _pick(chance, list(words.AREAS), n_projects)),
        same_tracking=pl.Series(chance.random(n_projects) < 0.6),
        pi=_joined(_pick(chance, words.FIRST_NAMES, n_projects), " ", _pick(chance, words.LAST_NAMES, n_projects)),
    )  # fmt: skip
    phases = [project.with_columns(phase=pl.lit(1))]
    for phase, mask, later in ((2, follows, 2), (3, third, 4)):
        phases.append(project.filter(pl.Series(mask)).with_columns(pl.col("year") + later, phase=pl.lit(phase)))
    rows = pl.concat(phases).sort("project", "phase").head(n)
    n = rows.height
    number = pl.Series(range(n), dtype=pl.Int64)
    kept = (rows["phase"] == 1) | rows["same_tracking"]
    day = chance.integers(0, 365, n)
    months = np.select([rows["phase"].to_numpy() == 1], [chance.integers(6, 13, n)], chance.integers(18, 37, n))
    started = (rows["year"].to_numpy() - 1970).astype("datetime64[Y]").astype("datetime64[D]") + day
    amounts = np.select(
        [rows["phase"].to_numpy() == 1, rows["phase"].to_numpy() == 2],
        [chance.integers(50_000_00, 250_000_00, n), chance.integers(400_000_00, 1_800_000_00, n)],
        chance.integers(1_000_000_00, 4_900_000_00, n),
    )
    return rows.drop("same_tracking").with_columns(
        award=number,
        tracking=_where(kept.to_numpy(), rows["tracking"], _joined(rows["tracking"], "-", rows["phase"].cast(pl.String))),
        contract=_joined(_codes(chance, n, 2, "FNW"), _digits(chance, n, 4), "-", pl.Series(rows["year"] % 100).cast(pl.String).str.zfill(2), "-", number.cast(pl.String).str.zfill(6)),
        amount_cents=pl.Series(amounts),
        award_date=pl.Series(started),
        end_date=pl.Series(started + 30 * months),
        same_year=pl.Series(chance.random(n) < 0.85),
    )  # fmt: skip


def _with_texts(chance: np.random.Generator, awards: pl.DataFrame, cited: pl.DataFrame) -> pl.DataFrame:
    """With `title`, `abstract`, `keywords`: two phrases of the award's area, and the patents that it cites."""
    n = awards.height
    areas = list(words.AREAS)
    per_area = min(len(phrases) for phrases in words.AREAS.values())
    phrases = pl.Series([phrase for area in areas for phrase in words.AREAS[area][:per_area]])
    at = awards["area"].replace_strict(areas, list(range(len(areas))), return_dtype=pl.Int64).to_numpy() * per_area
    first, second = (phrases.gather(at + chance.integers(0, per_area, n)) for _ in range(2))
    problem, plan, gain = (_pick(chance, part, n) for part in (words.PROBLEMS, words.PLANS, words.GAINS))
    breaks = _pick(chance, [" ", "\n\n", "\r\n", " _x000D_\n", " &amp; "], n, [0.86, 0.08, 0.03, 0.01, 0.02])
    named = awards.select("award").join(
        cited.group_by("award").agg(pl.col("said").first()), on="award", how="left", maintain_order="left"
    )["said"]
    cites = _where(
        named.is_not_null().to_numpy(), _joined(" The work builds on U.S. Patent No. ", named.fill_null(""), "."), ""
    )
    text = _joined(
        problem, ". This project develops ", first, " together with ", second, ".", breaks, plan, ". ", gain, ". ",
        _pick(chance, words.PROBLEMS, n), ", which is why ", first, " is chosen.", cites,
    )  # fmt: skip
    return awards.with_columns(
        title=_joined(_pick(chance, ["Novel ", "Low-cost ", "Compact ", "Robust ", "A \"smart\" approach to "], n), first, " for ", _pick(chance, ["harsh environments", "field use", "rapid deployment", "small platforms"], n), pl.Series(np.where(awards["phase"].to_numpy() > 1, " (continued)", ""))),
        abstract=_where((chance.random(n) < 0.02) & named.is_null().to_numpy(), "N/A", text),
        keywords=_joined(first, ",", second),
    )  # fmt: skip


def _patents(
    chance: np.random.Generator, firms: pl.DataFrame, awards: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame], pl.DataFrame]:
    """(granted patents, the tables of the assignment data set, which award cites which)."""
    n = max(8, awards.height // 6)
    award = chance.integers(0, awards.height, n)
    firm = awards["firm"].to_numpy()[award]
    named = firms["name"].gather(firm)
    numbers = pl.Series(10_000_000 + np.arange(n) * 7 + chance.integers(0, 7, n)).cast(pl.String)
    applied = awards["award_date"].to_numpy()[award] + chance.integers(200, 900, n)
    granted = applied + chance.integers(500, 1100, n)
    areas = awards["area"].gather(award)
    phrase = pl.Series([words.AREAS[area][k % 4] for area, k in zip(areas, range(n), strict=True)])
    patents = pl.DataFrame(
        {
            "grant_doc_num": numbers,
            "title": _joined("Method and apparatus for ", phrase),
            "abstract": _joined("A method comprising ", phrase, ". ", _pick(chance, words.PLANS, n), "."),
            "grant_date": pl.Series(granted.astype("datetime64[D]")),
            "appno_doc_num": _joined("1", _digits(chance, n, 7)),
            "appno_date": pl.Series(applied.astype("datetime64[D]")),
            "lang": "en",
            "assignee": named,
            "area": areas,
            "firm": firm,
        }
    )
    cites = chance.random(n) < 0.4
    said = _pick(chance, ["plain", "commas", "kind"], n)
    with_commas = _joined(numbers.str.slice(0, 2), ",", numbers.str.slice(2, 3), ",", numbers.str.slice(5, 3))
    spelled = pl.select(
        pl.when(said == "plain")
        .then(numbers)
        .when(said == "commas")
        .then(with_commas)
        .otherwise(_joined("US ", numbers, " B2"))
    ).to_series()
    cited = pl.DataFrame({"award": award, "grant_doc_num": numbers, "said": spelled}).filter(pl.Series(cites))
    cited = cited.unique("award", keep="first", maintain_order=True)
    return patents, _assignments(chance, patents), cited


def _publications(patents: pl.DataFrame) -> pl.DataFrame:
    """Every third application 18 months after it came in; every seventh of them is not granted yet, one has a number that is none."""
    told = patents.gather_every(3).with_row_index("row")
    published = pl.col("appno_date").dt.offset_by("18mo")
    number = published.dt.year().cast(pl.String) + (10_000 + pl.col("row") * 37).cast(pl.String).str.zfill(7)
    pending = pl.col("row") % 7 == 3
    applied = pl.when(pending).then("99" + pl.col("appno_doc_num").str.slice(2)).otherwise(pl.col("appno_doc_num"))
    return told.select(
        pl.when(pl.col("row") == 5).then(pl.lit("2019/12")).otherwise(number).alias("doc-number"),
        published.dt.to_string("%Y%m%d").alias("date"),
        pl.struct(
            pl.lit("US").alias("country"),
            applied.alias("doc-number"),
            pl.col("appno_date").dt.to_string("%Y%m%d").alias("date"),
        ).alias("application-reference"),
        "title",
        "abstract",
        pl.struct(orgname=pl.col("assignee"), country=pl.lit("US")).alias("assignee"),
    )


def _assignments(chance: np.random.Generator, patents: pl.DataFrame) -> dict[str, pl.DataFrame]:
    n = patents.height
    reel, frame = (
        pl.Series(20_000 + np.arange(n) // 40).cast(pl.String),
        pl.Series(100 + np.arange(n) % 40 * 7).cast(pl.String),
    )
    rf_id = _joined(reel, frame.str.zfill(4))
    recorded = patents["grant_date"].to_numpy() + chance.integers(1, 300, n)
    inventors = _joined(
        _pick(chance, words.LAST_NAMES, n).str.to_uppercase(),
        ", ",
        _pick(chance, words.FIRST_NAMES, n).str.to_uppercase(),
    )
    kinds = ["assignment", "license", "security", "merger", "other"]
    kind = _pick(chance, kinds, n, [0.82, 0.04, 0.06, 0.04, 0.04])
    texts = dict(
        zip(
            kinds,
            ("ASSIGNMENT OF ASSIGNORS INTEREST", "LICENSE", "SECURITY INTEREST", "MERGER", "NUNC PRO TUNC"),
            strict=True,
        )
    )
    place = chance.integers(0, len(words.PLACES), n)
    city, state = (pl.Series([p[i] for p in words.PLACES]).gather(place) for i in range(2))
    blank = chance.random(n)
    iso = lambda column: pl.Series(column.astype("datetime64[D]")).dt.to_string("%Y-%m-%d")  # noqa: E731
    return {
        "assignment": pl.DataFrame(
            {
                "rf_id": rf_id, "file_id": "1", "cname": "SMITH & PARTNERS", "caddress_1": "1 MAIN STREET", "caddress_2": "",
                "caddress_3": "", "caddress_4": "", "reel_no": reel, "frame_no": frame,
                "convey_text": kind.replace_strict(texts), "record_dt": iso(recorded),
            }
        ),
        "documentid": pl.DataFrame(
            {
                "rf_id": rf_id, "title": patents["title"].str.to_uppercase(), "lang": "ENGLISH",
                "appno_doc_num": patents["appno_doc_num"], "appno_date": iso(patents["appno_date"].to_numpy()), "appno_country": "US",
                "pgpub_doc_num": "", "pgpub_date": "", "pgpub_country": "",
                "grant_doc_num": _where(blank < 0.2, "", _where(blank < 0.3, _joined("US", patents["grant_doc_num"], "B1"), patents["grant_doc_num"])),
                "grant_date": _where(blank < 0.2, "", iso(patents["grant_date"].to_numpy())), "grant_country": "US",
            }
        ),
        "assignee": pl.DataFrame(
            {
                "rf_id": rf_id, "ee_name": patents["assignee"].str.to_uppercase(), "ee_address_1": "2 MAIN STREET", "ee_address_2": "",
                "ee_city": city.str.to_uppercase(), "ee_state": state, "ee_postcode": _digits(chance, n, 5), "ee_country": "",
            }
        ),
        "assignor": pl.DataFrame(
            {
                "rf_id": rf_id, "or_name": inventors, "ack_dt": "",
                "exec_dt": _where(chance.random(n) < 0.04, "", iso(recorded - chance.integers(5, 90, n))),
            }
        ),
        "assignment_conveyance": pl.DataFrame(
            {"rf_id": rf_id, "convey_ty": kind, "employer_assign": _pick(chance, ["0", "1"], n, [0.3, 0.7])}
        ),
    }  # fmt: skip


def _entities(chance: np.random.Generator, firms: pl.DataFrame, n: int) -> pl.DataFrame:
    """What SAM has registered: the known firms, under the name of now, and others that got no award."""
    known = firms.filter(pl.col("known_to_sam")).select(
        "firm", "uei", "cage", "duns", "name", "address1", "address2", "city", "state", "zip", "naics", "website"
    )
    m = known.height
    known = known.with_columns(
        uei=_where(known["uei"].is_null().to_numpy(), _codes(chance, m, 12), known["uei"]),
        name=known["name"].str.to_uppercase(),
        dba=_where(chance.random(m) < 0.1, known["name"].str.replace(r"\W.*$", ""), ""),
        status=_pick(chance, ["A", "E"], m, [0.92, 0.08]),
    )
    more = max(0, n - m)
    place = chance.integers(0, len(words.PLACES), more)
    city, state, zip3 = (pl.Series([p[i] for p in words.PLACES], dtype=pl.String).gather(place) for i in range(3))
    others = pl.DataFrame(
        {
            "firm": pl.Series([-1] * more, dtype=pl.Int64), "uei": _codes(chance, more, 12), "cage": _codes(chance, more, 5),
            "duns": _joined("4", _digits(chance, more, 8)), "address1": _joined(_digits(chance, more, 4), " ", _pick(chance, words.STREETS, more)),
            "name": _joined(_named(chance, more), _pick(chance, words.SUFFIXES, more)).str.to_uppercase(), "address2": "",
            "city": city, "state": state, "zip": _joined(zip3, _digits(chance, more, 2)), "website": "", "dba": "",
            "naics": _pick(chance, ["541715", "238220", "722511", "541512"], more), "status": "A",
        }
    )  # fmt: skip
    every = pl.concat([known, others.select(known.columns)])
    return every.unique("uei", maintain_order=True).with_columns(pl.col("city").str.to_uppercase()).sort("uei")


def _spending(chance: np.random.Generator, firms: pl.DataFrame, awards: pl.DataFrame) -> pl.DataFrame:
    """Contract actions for two thirds of the awards."""
    some = awards.filter(pl.Series(chance.random(awards.height) < 0.66))
    firm = firms.select("firm", "uei", "duns", "name", "naics")
    return some.join(firm, on="firm", maintain_order="left").select(
        pl.col("uei").fill_null(""),
        "duns",
        award_id_piid=pl.col("contract"),
        recipient_name=pl.col("name").str.to_uppercase(),
        naics_code=pl.col("naics"),
        amount=(pl.col("amount_cents") / 100).round(2).cast(pl.String),
        action_date=pl.col("award_date").dt.to_string("%Y-%m-%d"),
    )


def _lines(chance: np.random.Generator, firms: pl.DataFrame, awards: pl.DataFrame) -> pl.DataFrame:
    from .sample_lines import lines

    return lines(chance, firms, awards)


def write(made: Sample, folder: Path) -> dict[str, int]:
    """Write the files below `folder`; gives the rows of each."""
    from .sample_files import write as write_files

    return write_files(made, folder)


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awards", type=int, default=600)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--to", type=Path, default=Path())
    asked = parser.parse_args()
    for file, rows in write(sample(asked.awards, asked.seed), asked.to).items():
        print(f"{rows:>9,} {file}")
