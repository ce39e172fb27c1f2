"""A backfill: the partitions that somebody asked for, built one after the other, each in a commit of its own.

What is built is in the ledger, with what it was built from. So a backfill that was killed goes on where it was,
and one that is asked for again builds what became stale.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from ratatouille.engine.build import described
from ratatouille.engine.partitions import Partition, asked_for, built_already
from ratatouille.engine.plan import fingerprint, input_versions, is_volatile
from ratatouille.engine.records import StepResult
from ratatouille.engine.work import Work
from ratatouille.errors import RequestError
from ratatouille.lake import ledger


@dataclass(slots=True)
class Backfill:
    """`left` are still to be built, the first of them now; `stood` were built before."""

    left: list[Partition]
    stood: int
    done: list[StepResult] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    @property
    def current(self) -> Partition | None:
        return self.left[0] if self.left else None

    @property
    def progress(self) -> str:
        total = len(self.left) + len(self.labels)
        stood = f"{self.stood} built before" if self.stood else ""
        built = f"{len(self.labels)} of {total} partitions built" if total else ""
        return ", ".join(part for part in (built, stood) if part)

    def goes_on_after(self, step: StepResult) -> bool:
        """Note what became of the current partition; whether there is another one."""
        self.labels.append(self.left.pop(0).label)
        self.done.append(step)
        return bool(self.left)

    def result(self) -> StepResult:
        """All of it as one step: rows, bytes and seconds are sums, the version and the checks are the last ones."""
        last = self.done[-1]
        sums: dict[str, Any] = {
            name: sum(getattr(step, name) for step in self.done)
            for name in ("rows_in", "rows_written", "rows_quarantined", "bytes_written", "seconds")
        }
        warnings = tuple(dict.fromkeys(warning for step in self.done for warning in step.warnings))
        return replace(last, reason=self.progress, partitions=tuple(self.labels), warnings=warnings, **sums)


def begin_backfill(work: Work, runs: Collection[str]) -> Backfill:
    """The partitions that the request means, without those that stand as they would be built now."""
    asset, project = work.asset, work.bench.project
    select, columns = described(work, work.select) if work.select else ("", _declared(work))
    found = asked_for(work.session, asset, work.request.partitions, select, columns, bool(work.existing))
    if not found:
        said = ", ".join(work.request.partitions)
        raise RequestError(
            f"{asset.name} has no partition in {said}: its query gives no such row, and its table holds none",
            where=f"{asset.path}, partition_by: {', '.join(asset.partition_by)}",
            next=f'rat query "select distinct {asset.partition_by[0]} from {asset.name}"',
        )
    mark = fingerprint(asset, input_versions(project, asset.name, work.state.inputs), work.version_token)
    entries = ledger.entries(work.session, asset.name, 1_000_000)
    any_run = not work.request.force and not is_volatile(asset)
    stands = built_already(entries, mark, runs, any_run=any_run)
    left = [one for one in found if not stands.get(one.label, stands.get("", False))]
    return Backfill(left, len(found) - len(left))


def _declared(work: Work) -> tuple[tuple[str, str], ...]:
    """The columns of a Python asset before it has run: those that are declared, else those that stand."""
    declared = {column.name: column.type.upper() for column in work.asset.columns if column.type}
    return tuple((work.existing | declared).items())
