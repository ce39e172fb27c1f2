"""A run as the journal has it: started, alive, ended with a status, whatever happens in between."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ratatouille.errors import LakeError, RatError
from ratatouille.lake import Journal, heartbeat


@dataclass(slots=True)
class Recorded:
    """One run in progress. Whoever does the work sets `status`; an exception makes it failed or interrupted."""

    run_id: str
    journal: Journal
    status: str = "failed"
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def journal_may_fail(self) -> Iterator[None]:
        """What was published stays published when the journal cannot be told; the person is."""
        try:
            yield
        except LakeError as error:
            self.warnings.append(f"{error.what} ({error.where}); the ledger is whole")


@contextmanager
def recorded(
    journal: Journal,
    request: Mapping[str, Any],
    resumes: Sequence[str] = (),
    run_id: str = "",
    sample: Callable[[], Mapping[str, float]] | None = None,
) -> Iterator[Recorded]:
    """Write down that a run starts, keep its heart beating, and write down how it ended.

    `run_id` is that of an orchestrator's run, which may have started already, in another process too.
    """
    run = Recorded(run_id or new_run_id(), journal)
    journal.start_run(run.run_id, request, resumes=resumes)
    error = None
    try:
        with heartbeat(journal, run.run_id, sample):
            yield run
    except KeyboardInterrupt:
        run.status = "interrupted"
        raise
    except BaseException as failed:
        run.status = "failed"
        error = failed.as_record() if isinstance(failed, RatError) else None
        raise
    finally:
        with run.journal_may_fail():
            journal.end_run(run.run_id, run.status, error)


def new_run_id() -> str:
    """Sortable by time, unique enough for a folder name: 20261121T061530-9f3a2c."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{random.SystemRandom().getrandbits(24):06x}"
