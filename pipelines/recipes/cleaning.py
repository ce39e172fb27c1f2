"""Cleaning: what is cut from a text, which texts are dropped, and why.

cut       trailing commentary: everything from the first line after the title that opens an attribution, a source, a
          photo credit, notes, tips, a personal remark, thanks, a call to social media, a rating or a disclosure
removed   what went and why, a row each: `row`, `reason` (cut: notes, empty, exact duplicate, near duplicate), `of`
          (the row that stands for a duplicate), `text` (what was cut or dropped)
"""

from __future__ import annotations

import polars as pl

from .sources import ROW

# Each is matched at the start of a line, without regard to case. List items ("- ...", "1. ...") are never commentary.
OPENERS: dict[str, str] = {
    "attribution": r"(?:recipe\s+(?:by|from|courtesy)|(?:slightly\s+)?adapted\s+from|courtesy\s+of|from\s+the\s+kitchen\s+of|(?:submitted|posted|contributed|created)\s+by|author\s*:)",
    "source": r"(?:sources?\s*[:\-–]|original(?:ly)?\s+(?:from|published|appeared)|read\s+more\s*:|https?://|www\.)",
    "photo credit": r"(?:photo(?:graph)?s?|pictures?|images?)\s*(?:credits?|by|courtesy|:)",
    "notes": r"(?:(?:cook|chef|baker|author|recipe|editor|kitchen)['’]?s?\s+)?notes?\s*[:\-–]|n\.b\.",
    "tips": r"(?:(?:cook(?:ing)?|chef|baking|serving|storage|make[- ]ahead)['’]?s?\s+)?(?:tips?|hints?)\s*[:\-–]",
    "remark": r"(?:(?:i|we)\s+(?:love|like|made|make|use|used|got|found|hope|have|always|usually|serve)\b|my\s+(?:family|husband|wife|mom|mother|grandmother|kids|children)\b|this\s+is\s+(?:my|our)\b|(?:hope\s+you\s+)?enjoy!)",
    "thanks": r"(?:many\s+)?thank(?:s|\s+you)\b",
    "social media": r"(?:(?:follow|subscribe|find|join|tag)\s+(?:us|me)\b|(?:pin|share)\s+(?:this|it)\b|[#@][a-z]\w+)",
    "rating": r"(?:(?:rating|rated|reviews?)\s*[:\-–]|★|\d(?:\.\d)?\s*(?:/\s*5|out\s+of\s+5|stars?)\b)",
    "disclosure": r"(?:disclosure|disclaimer|sponsored|this\s+post\s+(?:contains|is))\b",
}
_ANY = "|".join(f"(?:{opener})" for opener in OPENERS.values())
_TAIL = rf"(?i)\n[ \t]*(?:{_ANY})[\s\S]*"

REMOVED = {ROW: pl.Int64, "reason": pl.String, "of": pl.Int64, "text": pl.String}


def clean(texts: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(row, text) stripped and cut, without empty ones; and the rows of `removed` that this made. Nulls are empty."""
    stripped = texts.with_columns(pl.col("text").fill_null("").str.strip_chars())
    # Trailing blanks of lines go too; so do blank lines at the end of what a cut leaves.
    tidy = stripped.with_columns(short=pl.col("text").str.replace(_TAIL, "").str.strip_chars_end())
    cut = tidy.filter(pl.col("short") != pl.col("text").str.strip_chars_end())
    cuts = cut.select(
        ROW,
        reason=pl.lit("cut: ") + _opener(),
        of=pl.lit(None, pl.Int64),
        text=pl.col("text").str.slice(pl.col("short").str.len_chars()).str.strip_chars(),
    )
    empty = pl.col("short") == ""
    empties = tidy.filter(empty).select(
        ROW, reason=pl.lit("empty"), of=pl.lit(None, pl.Int64), text=pl.lit("", pl.String)
    )
    kept = tidy.filter(~empty).select(ROW, text=pl.col("short"))
    return kept, pl.concat([cuts, empties]).cast(REMOVED)  # type: ignore[arg-type]


def _opener() -> pl.Expr:
    """The name of the opener that a cut text's tail starts with."""
    tail = pl.col("text").str.extract(rf"(?i)\n[ \t]*({_ANY})", 1)
    found: pl.Expr = pl.lit("commentary")
    for name, opener in reversed(OPENERS.items()):
        found = pl.when(tail.str.contains(rf"(?i)^{opener}")).then(pl.lit(name)).otherwise(found)
    return found


def fingerprints(texts: pl.Series) -> pl.DataFrame:
    """128 bits of each text, in two columns: equal texts have equal ones, and others never in practice."""
    return pl.DataFrame({"one": texts.hash(seed=1), "two": texts.hash(seed=2)})


def copies(prints: pl.DataFrame) -> pl.Series:
    """For each text of a corpus the position of the first one that is equal: its own, unless it is a copy."""
    return prints.with_row_index("at").select(pl.col("at").min().over("one", "two").cast(pl.Int64)).to_series()
