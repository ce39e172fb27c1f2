"""The work that every system does: bronze -> silver -> gold, and the questions that its result must pass.

bronze.events   the landing files, every row with its file, load time and run
silver.events   valid events, tidied, one row per event_id (the latest), with a total
                gates: event_id not null and unique, total positive
gold.sales      per day, country and type of event

`{...}` in the texts is filled with each system's own way to name the table above.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TIDY_COLUMNS = """event_id,
    user_id,
    lower(trim(event_type)) as event_type,
    upper(country) as country,
    quantity,
    unit_price,
    cast(quantity * unit_price as decimal(12, 2)) as total,
    occurred_at,
    updated_at,
    _loaded_at"""
VALID = "event_id is not null and quantity > 0"
LATEST = "row_number() over (partition by event_id order by updated_at desc) = 1"
TIDY = f"select\n    {TIDY_COLUMNS}\nfrom {{bronze}}\nwhere {VALID}"

GOLD = """select
    cast(occurred_at as date) as sold_on,
    country,
    event_type,
    count(*) as event_count,
    sum(quantity) as quantity,
    sum(total) as revenue,
    max(updated_at) as last_updated_at
from {silver}
group by 1, 2, 3"""

# Systems are compared by value. The digest adds up one number per row, so the order of rows does not matter.
ANSWER = """select
    (select count(*) from {bronze}) as bronze_rows,
    count(*) as silver_rows,
    cast(sum(total) as varchar) as silver_total,
    cast(sum(hash(event_id, user_id, event_type, country, quantity, total, occurred_at, updated_at) >> 32)
        as varchar) as silver_digest,
    (select count(*) from {gold}) as gold_rows,
    (select cast(sum(event_count) as bigint) from {gold}) as gold_events,
    (select cast(sum(revenue) as varchar) from {gold}) as gold_revenue,
    (select cast(sum(hash(sold_on, country, event_type, cast(revenue as decimal(18, 2))) >> 32) as varchar)
        from {gold}) as gold_digest
from {silver}"""


@dataclass(frozen=True, slots=True)
class Tables:
    """Where a system keeps its result, for a DuckDB connection that runs `attach` first."""

    attach: tuple[str, ...]
    bronze: str
    silver: str
    gold: str

    @property
    def answer_sql(self) -> str:
        return ANSWER.format(bronze=self.bronze, silver=self.silver, gold=self.gold)


@dataclass(frozen=True, slots=True)
class Job:
    """One scenario's parameters, the same for every system."""

    rows: int
    key: str  # type of event_id
    threads: int
    memory: str  # DuckDB spelling
    data: Path  # generated landing files
    columns: dict[str, str]  # of an event, name -> DuckDB type
    seed: int


def expected_sql(files: str) -> str:
    """The answer straight from the landing files, by the plainest SQL there is."""
    bronze = f"(select *, null as _loaded_at from read_parquet({files}))"
    silver = f"({TIDY.format(bronze=bronze)} qualify {LATEST})"
    return (
        f"with silver as materialized {silver}, gold as materialized ({GOLD.format(silver='silver')}) "
        + ANSWER.format(bronze=bronze, silver="silver", gold="gold")
    )
