"""Entity resolution measured: precision, recall, seconds and memory on companies whose true entity is known.

    python benchmarks/sbir_match.py [--entities 500000] [--companies 20000] [--sample 400] [--seed 7] [--out FILE]

The truth is made here, by a seed: entities as SAM.gov has them (many share their words, some their whole name), and
companies as awards name them: typing errors, dropped and added words, joined words, trade names, moves, renames, and
some that are in no register. Only names and addresses are given, so identifiers help nobody. The same decision is made
once on the candidates of rare grams and, for a sample of the companies, on a comparison with every entity; the time of
that is extrapolated to all companies, and said so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from rapidfuzz import fuzz, process

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.sbir import matching


def words(text: str) -> list[str]:
    return text.split()


TRADES = words(
    """
    technologies systems research engineering solutions group services industries associates labs consulting
    scientific international dynamics innovations aerospace software medical sciences materials sensors networks
    analytics energy devices instruments robotics electronics photonics therapeutics diagnostics defense
    enterprises construction supply communications environmental manufacturing design digital global advanced
    applied logistics security management products partners development biotech computing optics power water
    marine transport food health farms holdings
    """
)
GENERAL = words(
    """
    american national united first pacific atlantic northern southern eastern western mountain river summit valley
    lake blue red green silver golden bright clear true alpha beta delta omega sigma nova star sun moon sky north
    south east west central premier precision quality superior integrated strategic tactical rapid smart quantum
    micro nano macro mega bio eco geo hydro thermo electro opto cyber data info tele auto aero astro physical
    creative modern future next new old great grand royal liberty freedom patriot eagle hawk falcon lion tiger
    bear wolf fox phoenix dragon titan atlas apollo orion vector matrix vertex apex zenith pinnacle keystone
    cornerstone gateway bridge harbor island coastal prairie desert forest cedar oak maple pine stone iron steel
    copper carbon crystal diamond pearl ruby
    """
)
SYLLABLES = words(
    """
    ba be bi bo bra ca ce co cra da de di do dra fa fe fi flo ga ge go gra ha he hi ja ka ke ki ko la le li lo lu
    ma me mi mo na ne ni no pa pe pi pra qua ra re ri ro sa se si so sta ta te ti to tra va ve vi vo xa xe za ze
    zi zo
    """
)
ENDINGS = ["n", "r", "s", "x", "l", "m", "tech", "dyne", "gen", "sys", "tron", "nix", "vex", "lon", "ris", "tas"]
LEGAL = ["Inc", "Inc.", "LLC", "L.L.C.", "Corp", "Corporation", "Co", "Ltd", "Company", "Incorporated", ""]
STATES = words(
    """
    CA VA MA MD TX CO NY FL OH PA NJ AZ WA IL GA NC MI CT NM UT AL MN OR NH IN WI TN MO SC NV
    """
)
NOISE = {
    "same": 0.30,
    "another legal form": 0.17,
    "one slip": 0.17,
    "two slips": 0.06,
    "a word less": 0.08,
    "a word more": 0.06,
    "words swapped": 0.03,
    "words joined": 0.04,
    "trade name": 0.05,
    "renamed": 0.04,
}


def make(n_entities: int, n_companies: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(entities, companies); companies know their `truth` (the entity's UEI, or null) and the `noise` they carry."""
    dice = np.random.default_rng(seed)
    names, trade_names = _names(dice, n_entities), _names(dice, n_entities)
    cities = [f"{dice.choice(GENERAL)} {x}".title() for x in dice.choice(["Springs", "City", "Falls", "Park", ""], 600)]
    size = dice.lognormal(0, 1.2, 600)  # of cities: the largest has 3 % of all
    place = dice.choice(600, n_entities, p=size / size.sum())
    state = np.array(STATES)[place % len(STATES)]
    entities = pl.DataFrame(
        {
            "unique_entity_id": pl.Series(_ueis(n_entities)),
            "legal_business_name": _with_legal_form(dice, names).tolist(),
            "dba_name": pl.Series(
                np.where(dice.random(n_entities) < 0.15, trade_names, None).tolist(), dtype=pl.String
            ),
            "registration_status": np.where(dice.random(n_entities) < 0.8, "A", "E"),
            "city": np.array(cities)[place],
            "state": state,
            "zip_postal_code": np.char.zfill(
                (place * 137 + (dice.random(n_entities) ** 2 * 40).astype(int)).astype(str), 5
            ),
            "primary_naics": "541715",
        }
    )
    known = int(n_companies * 0.85)
    kinds = dice.choice(list(NOISE), known, p=list(NOISE.values()))
    true = dice.choice(n_entities, known, replace=False)
    with_trade_name = np.flatnonzero(entities["dba_name"].is_not_null().to_numpy())
    swap = kinds == "trade name"
    true[swap] = dice.choice(np.setdiff1d(with_trade_name, true), int(swap.sum()), replace=False)
    given = _noisy(dice, names[true], trade_names[true], kinds)
    unknown = _names(dice, n_companies - known)
    moved = np.where(dice.random(known) < 0.15, dice.integers(0, n_entities, known), true)
    anywhere = dice.integers(0, n_entities, n_companies - known)
    where = entities.select("city", "state", "zip_postal_code")[np.concatenate([moved, anywhere])]
    companies = pl.DataFrame(
        {
            "company_id": [f"NAME:{i}" for i in range(n_companies)],
            "company_name": _with_legal_form(dice, np.concatenate([given, unknown])).tolist(),
            "truth": [*entities["unique_entity_id"].gather(true), *[None] * (n_companies - known)],
            "noise": [*kinds, *["not registered"] * (n_companies - known)],
            "city": where["city"],
            "state": where["state"],
            "zip": where["zip_postal_code"],
        }
    )
    entities = entities.with_columns(
        normalized_name=_normal("legal_business_name"),
        normalized_dba=_normal("dba_name"),
        cage_code=pl.lit(None, pl.String),
        duns_number=pl.lit(None, pl.String),
    )
    blank = {name: pl.lit(None, pl.String) for name in matching.ENTITY_COLUMNS if name not in entities.columns}
    return entities.with_columns(**blank).with_row_index("entity_id"), companies.with_columns(
        normalized_name=_normal("company_name")
    )


def _names(dice: np.random.Generator, n: int) -> np.ndarray:
    """Names of firms without a legal form; common words by a Zipf law, coined ones that hardly come twice."""

    def common(words: list[str]) -> np.ndarray:
        return np.array(words, dtype=object)[np.minimum(dice.zipf(1.15, n) % (2 * len(words)), len(words) - 1)]

    def even(words: list[str]) -> np.ndarray:
        return dice.choice(np.array(words, dtype=object), n)

    coined = (
        even(SYLLABLES)
        + even(SYLLABLES)
        + even(SYLLABLES)
        + np.where(dice.random(n) < 0.2, even(SYLLABLES), "")
        + even(ENDINGS)
    )
    other = (
        even(SYLLABLES)
        + even(SYLLABLES)
        + even(SYLLABLES)
        + even(SYLLABLES)
        + np.where(dice.random(n) < 0.4, even(ENDINGS), "")
    )
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"), dtype=object)
    short = (
        dice.choice(letters, n) + dice.choice(letters, n) + np.where(dice.random(n) < 0.7, dice.choice(letters, n), "")
    )
    trade, second, word, further = common(TRADES), even(TRADES), even(GENERAL), even(GENERAL)
    shapes = [
        coined + " " + trade,
        coined + " " + trade + " " + second,
        coined,
        other + " and " + coined + " " + trade,
        word + " " + further + " " + trade,
        word + " " + second + " " + trade,
        short + " " + second + " " + trade,
        other + " " + word + " " + trade,
    ]
    kind = dice.choice(len(shapes), n, p=[0.18, 0.17, 0.04, 0.1, 0.17, 0.1, 0.1, 0.14])
    return np.array(shapes, dtype=object)[kind, np.arange(n)]


def _with_legal_form(dice: np.random.Generator, names: np.ndarray) -> np.ndarray:
    form = dice.choice(LEGAL, len(names), p=[0.2, 0.1, 0.3, 0.03, 0.07, 0.05, 0.05, 0.03, 0.03, 0.02, 0.12])
    return np.array([f"{name} {end}".strip().upper() for name, end in zip(names, form, strict=True)], dtype=object)


def _noisy(dice: np.random.Generator, names: np.ndarray, trade_names: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    def slip(name: str) -> str:
        at, sign = int(dice.integers(0, len(name))), "abcdefghijklmnopqrstuvwxyz"[int(dice.integers(0, 26))]
        ways = [name[:at] + name[at + 1 :], name[:at] + sign + name[at:], name[:at] + sign + name[at + 1 :]]
        if at + 1 < len(name):
            ways.append(name[:at] + name[at + 1] + name[at] + name[at + 2 :])
        return ways[int(dice.integers(0, len(ways)))]

    def noisy(name: str, trade_name: str, kind: str) -> str:
        words = name.split()
        if kind == "one slip":
            return slip(name)
        if kind == "two slips":
            return slip(slip(name))
        if kind == "a word less" and len(words) > 1:
            return " ".join(words[:-1])
        if kind == "a word more":
            return f"{name} {dice.choice(TRADES)}"
        if kind == "words swapped":
            return " ".join([*words[1:], words[0]])
        if kind == "words joined" and len(words) > 1:
            return "".join(words[:2]) + " " + " ".join(words[2:])
        return {"trade name": trade_name, "renamed": _names(dice, 1)[0]}.get(kind, name)

    return np.array([noisy(*row) for row in zip(names, trade_names, kinds, strict=True)], dtype=object)


def _ueis(n: int) -> list[str]:
    return [f"{i:012X}" for i in np.random.default_rng(1).permutation(n) + 0x9A0000000000]


def _normal(column: str) -> pl.Expr:
    """As macros/sbir_names.sql does it, near enough for figures: no signs, no legal form, usual words shortened."""
    text = pl.col(column).str.to_lowercase().str.replace_all(r"[^a-z0-9]+", " ")
    text = text.str.replace_all(r"\b(inc|incorporated|l l c|llc|ltd|limited|corp|corporation|co|company)\b", " ")
    for long, short in {"technologies": "tech", "systems": "sys", "international": "intl", "services": "svc"}.items():
        text = text.str.replace_all(rf"\b{long}\b", short)
    return text.str.replace_all(r" +", " ").str.strip_chars()


def with_candidates(
    way: Callable[..., Iterator[tuple[np.ndarray, np.ndarray]]],
    companies: pl.DataFrame,
    entities: pl.DataFrame,
    rules: matching.Rules,
) -> matching.Matches:
    """The same decision on candidates that are found in another way."""
    kept, others = matching.likely_pairs, matching._neighbours
    matching.likely_pairs, matching._neighbours = way, lambda *_: iter(())  # type: ignore[assignment]
    try:
        return matching.match(companies, entities, rules)
    finally:
        matching.likely_pairs, matching._neighbours = kept, others


def everything(left: pl.Series, right: pl.Series, _: object) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every entity is compared, by rapidfuzz's own matrix; those that are alike enough are candidates."""
    texts = right.fill_null("").to_list()
    for at in range(0, len(left), 40):
        some = left[at : at + 40].to_list()
        scores = process.cdist(some, texts, scorer=fuzz.token_set_ratio, score_cutoff=75, workers=-1, dtype=np.float32)
        here, there = np.nonzero(scores >= 75)
        yield here + at, there


def same_first_letters(left: pl.Series, right: pl.Series, _: object) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocking by the first three signs of the name."""
    block = right.fill_null("").str.slice(0, 3)
    places = block.to_frame("block").with_row_index("there").group_by("block").agg("there")
    known = dict(zip(places["block"].to_list(), places["there"].to_list(), strict=True))
    for at, name in enumerate(left.to_list()):
        found = np.array(known.get(name[:3], []), dtype=np.int64)
        yield np.full(len(found), at), found


def quality(companies: pl.DataFrame, matches: matching.Matches) -> dict[str, float]:
    """Shares. recall: of companies that are registered. offered: their true entity is taken or among the candidates."""
    made = companies.join(matches.companies, on="company_id").with_columns(
        taken=pl.col("status") == "matched", right=(pl.col("uei") == pl.col("truth")).fill_null(False)
    )
    seen = companies.join(matches.candidates.select("company_id", candidate="uei"), on="company_id").filter(
        pl.col("candidate") == pl.col("truth")
    )
    registered = made["truth"].is_not_null().sum()
    n_right = made.filter("taken", "right").height
    review = made.filter(pl.col("status") == "review").height
    return {
        "precision": n_right / max(1, made["taken"].sum()),
        "recall": n_right / registered,
        "offered": (
            n_right
            + seen.filter(~pl.col("company_id").is_in(made.filter("taken")["company_id"].implode()))[
                "company_id"
            ].n_unique()
        )
        / registered,
        "review": review / made.height,
    }


def confusion(companies: pl.DataFrame, matches: matching.Matches) -> list[dict[str, object]]:
    """By kind of noise: companies, share taken rightly, taken wrongly, for review with the truth among them, without, none."""
    truth = pl.col("truth").eq_missing(pl.col("uei"))
    seen = matches.candidates.join(companies.select("company_id", "truth"), on="company_id").filter(
        pl.col("uei") == pl.col("truth")
    )
    made = companies.join(matches.companies, on="company_id").with_columns(
        offered=pl.col("company_id").is_in(seen["company_id"].implode()), taken=pl.col("status") == "matched"
    )
    review = pl.col("status") == "review"
    return (
        made.group_by("noise")
        .agg(
            companies=pl.len(),
            right=(pl.col("taken") & truth).mean(),
            wrong=(pl.col("taken") & ~truth).mean(),
            review_with_truth=(review & pl.col("offered")).mean(),
            review_without=(review & ~pl.col("offered")).mean(),
            none=(pl.col("status") == "none").mean(),
        )
        .sort("companies", descending=True)
        .to_dicts()
    )


def peak_mb() -> float:
    """The most that this process had in memory. ru_maxrss would tell of the process that started it."""
    said = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in said.splitlines() if line.startswith("VmHWM"))) / 1024


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--entities", type=int, default=500_000)
    ask.add_argument("--companies", type=int, default=20_000)
    ask.add_argument("--sample", type=int, default=400)
    ask.add_argument("--seed", type=int, default=7)
    ask.add_argument("--out", type=Path)
    ask.add_argument("--work", help=argparse.SUPPRESS)
    ask.add_argument("--way", default="rare_grams", help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.work:
        print(json.dumps(measured(Path(asked.work), asked.way, asked.sample, asked.seed)))
        return
    with tempfile.TemporaryDirectory(prefix="sbir-match-") as folder:
        entities, companies = make(asked.entities, asked.companies, asked.seed)
        entities.write_parquet(Path(folder, "entities.parquet"))
        companies.write_parquet(Path(folder, "companies.parquet"))
        said: dict[str, object] = {"entities": entities.height, "companies": companies.height, "seed": asked.seed}
        del entities, companies
        others = (("everything", asked.sample), ("same_first_letters", asked.sample)) if asked.sample else ()
        for way, sample in (("rare_grams", 0), *others):
            command = [
                sys.executable,
                __file__,
                "--work",
                folder,
                "--way",
                way,
                "--sample",
                str(sample),
                "--seed",
                str(asked.seed),
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            said[way] = json.loads(done.stdout)
            print(way, json.dumps(said[way], indent=1), flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def measured(folder: Path, way: str, sample: int, seed: int) -> dict[str, object]:
    """One way, in a process of its own: seconds, peak memory, quality. Of a sample, also what the rare grams say of it."""
    entities, companies = (pl.read_parquet(folder / f"{name}.parquet") for name in ("entities", "companies"))
    some = companies.sample(sample, seed=seed) if sample else companies
    before = peak_mb()
    rules, ways = matching.Rules(), {"everything": everything, "same_first_letters": same_first_letters}
    started, cpu = time.perf_counter(), time.process_time()
    if way in ways:
        found = with_candidates(ways[way], some, entities, rules)
    else:
        found = matching.match(some, entities, rules)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = peak_mb()
    times = companies.height / some.height
    said: dict[str, object] = {
        "companies": some.height,
        "seconds": round(took * times, 1),
        "cpu_seconds": round(cpu * times, 1),
        "extrapolated": bool(sample),
        "peak_mb": round(peak),
        "before_mb": round(before),
        **quality(some, found),
    }
    if sample:
        said["rare_grams_on_the_same"] = quality(some, matching.match(some, entities, rules))
    else:
        said["by_noise"] = confusion(companies, found)
    return said


if __name__ == "__main__":
    main()
