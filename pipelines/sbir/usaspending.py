"""Ask USAspending about contracts: the fallback for awards that no file of contract actions covers.

The service needs no key. A question is up to 50 contract numbers, each in quotes, which means exactly that number; the
answer comes in pages of 100. Rows have the columns of raw.usaspending_awards, all text, so they can lie beside its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pipelines.sbir.asking import Asker, Clock, Costs, Manners

PUBLIC_API = "https://api.usaspending.gov"
PATH = "/api/v2/search/spending_by_award/"
BATCH, PAGE, MOST_PAGES = 50, 100, 100
COLUMNS = ("uei", "duns", "award_id_piid", "recipient_name", "naics_code", "amount", "action_date")
_FIELDS = {
    "Recipient UEI": "uei",
    "Recipient DUNS Number": "duns",
    "Award ID": "award_id_piid",
    "Recipient Name": "recipient_name",
    "NAICS": "naics_code",
    "Award Amount": "amount",
    "Start Date": "action_date",
}
_NUMBER = re.compile(r"[A-Za-z0-9 _./-]{4,40}")


class UsaSpending:
    """The service. Close it, or use it in a `with`."""

    def __init__(self, base_url: str = PUBLIC_API, manners: Manners | None = None, clock: Clock | None = None) -> None:
        more = {"clock": clock} if clock else {}
        self._asker = Asker("USAspending", base_url, manners or Manners(), **more)  # type: ignore[arg-type]

    def __enter__(self) -> UsaSpending:
        return self

    def __exit__(self, *_: object) -> None:
        self._asker.close()

    @property
    def costs(self) -> Costs:
        """What the answers cost so far."""
        return self._asker.costs

    def contracts(self, numbers: Iterable[str]) -> list[dict[str, str | None]]:
        """The contracts with these numbers, each once; numbers that cannot be one are left out.

        Raises Refused and Unavailable.
        """
        asked = [n for n in dict.fromkeys(number.strip() for number in numbers) if _NUMBER.fullmatch(n)]
        found: dict[tuple[str | None, ...], dict[str, str | None]] = {}
        for at in range(0, len(asked), BATCH):
            wanted = set(asked[at : at + BATCH])
            for page in range(1, MOST_PAGES + 1):
                said = self._asker.post(PATH, _question(sorted(wanted), page))
                for row in map(_row, said.get("results") or []):
                    if row["award_id_piid"] in wanted:
                        found[tuple(row.values())] = row
                if not (said.get("page_metadata") or {}).get("hasNext"):
                    break
        return list(found.values())


def _question(numbers: list[str], page: int) -> dict[str, Any]:
    return {
        "filters": {"award_type_codes": ["A", "B", "C", "D"], "award_ids": [f'"{number}"' for number in numbers]},
        "fields": list(_FIELDS),
        "limit": PAGE,
        "page": page,
        "sort": "Award ID",
        "order": "asc",
        "subawards": False,
    }


def _row(said: Any) -> dict[str, str | None]:
    """One contract; the industry comes as a code or as an object that holds it."""
    values = said if isinstance(said, dict) else {}
    row = dict.fromkeys(COLUMNS)
    for name, column in _FIELDS.items():
        value = values.get(name)
        value = value.get("code") if isinstance(value, dict) else value
        row[column] = None if value is None or isinstance(value, (dict, list)) else str(value).strip() or None
    return row
