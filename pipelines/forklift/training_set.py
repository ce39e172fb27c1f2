"""Which windows are trained on, and on which a model is judged: by machine and by time, the same for the same seed.

test         machines held back, later than everything that is trained on
train        the other machines, earlier
validation   those other machines, later: kinds of models, calibration and thresholds are chosen by these
embargo      windows that begin less than five minutes after the cut still see what training has seen: left out

A machine is held back by the hash of its name and the seed, so one that was held back stays so when others come. A
machine whose load signal never changes has no labels that mean anything (it says "not carrying" for ever, or height and
speed alone decide), nor has one with a broken height sensor: neither is trained on nor judged by, and both are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from .features import LONG_S


@dataclass(frozen=True)
class Split:
    random_state: int = 42
    test_share: float = 0.25  # of the machines; one at least
    train_share: float = 0.7  # of the windows, in the order of time
    max_rows: int = 200_000


def machines_sql(source: str, split: Split) -> str:
    """A SELECT with a row for each machine: windows, carrying, labelled (its sensors can be trusted), held_back."""
    return f"""
with machines as (
    select
        machine,
        count(*) as windows,
        count(*) filter (carrying) as carrying,
        max(with_load_300) > 0 and min(with_load_300) < 1 and not bool_or(sensor_broken) as labelled,
        md5_number_lower(concat(machine, ':', {int(split.random_state)})) as draw
    from {source}
    group by machine
)
select
    machine,
    windows,
    carrying,
    labelled,
    labelled and (
        draw < {float(split.test_share)} * 18446744073709551616.0
        or row_number() over (partition by labelled order by draw, machine) = 1
    ) as held_back
from machines
order by machine"""  # noqa: S608 - numbers, and a table named in the code


def rows_sql(source: str, split: Split) -> str:
    """A SELECT with the windows of the three splits: the columns of `source` and `split`; at most `max_rows`."""
    return f"""
with machines as ({machines_sql(source, split)}),
usable as (
    select windows.*, held_back
    from {source} as windows join machines using (machine)
    where labelled
),
moments as (select quantile_disc(window_end, {float(split.train_share)}) as cut from usable),
placed as (
    select
        usable.* exclude (held_back),
        case
            when not held_back and target_at < cut then 'train'
            when window_end < cut + interval {int(LONG_S)} second then null
            when held_back then 'test'
            else 'validation'
        end as split
    from usable cross join moments
)
select *
from placed
where split is not null
order by md5_number_lower(concat(machine, ' ', window_start, ' ', {int(split.random_state)})), machine, window_start
limit {int(split.max_rows)}"""  # noqa: S608 - numbers, and a table named in the code
