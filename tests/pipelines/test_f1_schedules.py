"""An API that misbehaves by a seeded schedule: the extraction is as with a well-behaved one, or says in four lines why
not; asked again it is whole. No row is lost or there twice, and the number of requests has a bound.

An API that answers "no rows" (empty, not found) where it has some cannot be told from one that has none: those two
kinds are not in the schedules. OpenF1 has no pages, so none can be missing or come twice.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from f1_bench import Extract, data_in
from pipelines.f1.openf1 import OpenF1Error
from pipelines.f1.server import Server, Trouble

SEED = int(os.environ.get("RATATOUILLE_SEED", "15"))
KINDS = ("429", "422", "500", "slow", "truncated", "cut", "live", "garbage")
ENTITIES = ["sessions", "meetings", "drivers", "laps", "location", "pit"]
ATTEMPTS = 3
pytestmark = [pytest.mark.usefixtures("quiet_retries"), pytest.mark.timeout(3600)]


def schedule(random: Random) -> list[Trouble]:
    return [
        Trouble(
            random.choice(KINDS),
            random.choice([None, *ENTITIES]),
            times=random.choice([1, 1, 2, 3, 6, None] if random.random() < 0.2 else [1, 2]),
            after=random.randrange(8),
            wait_s=random.choice([0.0, 0.005]),
        )
        for _ in range(random.randrange(1, 6))
    ]


def test_a_misbehaving_api_costs_time_and_no_rows(
    server: Server, extract: Extract, tmp_path: Path, trials: Callable[[int], int], figure: Callable[..., None]
) -> None:
    count = trials(8)
    wish = {"mode": "manual", "session_keys": [9001], "entities": ENTITIES}
    extract(tmp_path / "undisturbed", **wish)
    whole, needed = data_in(tmp_path / "undisturbed"), sum(server.requests.values())
    assert any(name.endswith(".json") for name in whole)
    wrong: list[str] = []
    outcomes: Counter[str] = Counter()
    for seed in range(SEED, SEED + count):
        server.troubles[:] = schedule(Random(seed))
        said, folder = f"seed {seed}, {server.troubles}", tmp_path / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        server.requests.clear()
        try:
            extract(folder, **wish)
            outcomes["whole at once"] += 1
            if data_in(folder) != whole:
                wrong.append(f"{said}: a success with other rows")
        except OpenF1Error as error:
            outcomes[type(error).__name__] += 1
            if not (error.what and error.state and error.next):
                wrong.append(f"{said}: not four lines: {error}")
            if any(whole.get(name) != content for name, content in data_in(folder).items()):
                wrong.append(f"{said}: a file with other rows is visible")
        # A window that is too large is halved, again and again; everything else is asked ATTEMPTS times at most.
        halved = sum((t.times or 50) * 2 for t in server.troubles if t.kind == "422")
        if sum(server.requests.values()) > (needed + halved) * ATTEMPTS:
            wrong.append(f"{said}: {sum(server.requests.values())} requests, {needed} were needed")
        server.troubles.clear()
        extract(folder, **wish)
        if data_in(folder) != whole:
            wrong.append(f"{said}: the rerun has other rows")
    figure(
        "schedules of a misbehaving API, and a rerun",
        size=f"{count} schedules",
        seeds=f"{SEED}..{SEED + count - 1}",
        said=str(dict(outcomes)),
        wrong=len(wrong),
    )
    assert not wrong, "\n".join(wrong)
