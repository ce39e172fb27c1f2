"""Landing files: read each one exactly once, and account for every row in it.

stock       the files that match a source, compared with what the asset's current version came from
inspection  one pass over a file's bytes: checksum, header, number of records
reading     the SELECT over files that an asset's SQL reads; a value that does not fit its type keeps its row out
rejects     rows that cannot be read (wrong number of columns, a value that does not fit its type), and why
set aside   a file that cannot be trusted as a whole; it is reported, left where it is, and tried again
            when it changes

CSV is never sniffed: a sniffer that guesses wrong loses rows without a word. Names come from the header,
types from the source's `columns:` (text where there are none), and rows in = rows read + rejects is checked
against a count that does not come from the same reader.
"""

from __future__ import annotations

from ratatouille.engine.landing.inspection import Inspection, careful_count, inspect
from ratatouille.engine.landing.objects import fetched, is_object, is_there, status
from ratatouille.engine.landing.reading import Landing, columns_of, fields_of, relation
from ratatouille.engine.landing.rejects import (
    collect_misfits,
    collect_rejects,
    count_from_footers,
    forget_rejects,
    has_misfits,
    unaccounted,
)
from ratatouille.engine.landing.stock import UNFINISHED, Stock, matching_files, take_stock

__all__ = [
    "UNFINISHED",
    "Inspection",
    "Landing",
    "Stock",
    "careful_count",
    "collect_misfits",
    "collect_rejects",
    "columns_of",
    "count_from_footers",
    "fetched",
    "fields_of",
    "forget_rejects",
    "has_misfits",
    "inspect",
    "is_object",
    "is_there",
    "matching_files",
    "relation",
    "status",
    "take_stock",
    "unaccounted",
]
