"""What a plan, a run, a step and a gate report. Plain values: JSON-safe through `as_json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ratatouille.lake import Entry


@dataclass(frozen=True, slots=True)
class Answer:
    """The first rows of a query, every value as text (None: null). `more`: there are rows beyond these."""

    columns: tuple[tuple[str, str], ...]  # (name, type)
    rows: tuple[tuple[str | None, ...], ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What the plan says about one asset."""

    asset: str
    action: str  # build | skip | hold | blocked
    rule: str  # new | code changed | inputs changed | new files | always | refresh due | forced | asked again | fresh | on hold | upstream
    reason: str  # one sentence for a person
    mode: str = "full"  # full | incremental | partition
    version: int | None = None  # the version that stands
    rows: int | None = None  # rows that the step will read, as far as the ledger knows
    files: tuple[str, ...] = ()  # landing files that it will read


@dataclass(frozen=True, slots=True)
class Plan:
    steps: tuple[PlannedStep, ...]
    warnings: tuple[str, ...] = ()  # stale inputs of a bare request, files that were set aside, ...

    @property
    def to_build(self) -> tuple[PlannedStep, ...]:
        return tuple(step for step in self.steps if step.action == "build")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One gate's verdict. `bad` counts rows that fail, `rows` those that were looked at."""

    name: str
    kind: str
    severity: str  # error | warn
    passed: bool
    bad: int
    rows: int
    columns: tuple[str, ...] = ()
    threshold: str = ""  # "at least 0.95", "between 1 and 10"
    value: float | None = None  # what was measured, for gates with a threshold
    sample: tuple[Mapping[str, Any], ...] = ()  # at most three rows, sensitive columns masked


@dataclass(frozen=True, slots=True)
class StepResult:
    asset: str
    status: str  # built | skipped | failed | blocked (an upstream step failed) | held
    reason: str = ""
    mode: str = "full"
    version: int | None = None  # published by this step, or the one that stands
    rows_in: int = 0  # rows read from landing files and inputs
    rows_written: int = 0
    rows_total: int = 0  # rows of the asset after the step
    rows_quarantined: int = 0
    rows_rejected: int = 0  # rows of landing files that could not be read
    bytes_written: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    attempts: int = 1
    inputs: Mapping[str, int] = field(default_factory=dict)  # asset -> version read
    files: tuple[str, ...] = ()  # landing files read
    set_aside: tuple[Mapping[str, str], ...] = ()  # {file, reason}
    chunks: Mapping[str, int] = field(default_factory=dict)  # done, taken_over (finished by an earlier attempt)
    partitions: tuple[str, ...] = ()  # those that the step built one by one, where some were asked for
    checks: tuple[CheckResult, ...] = ()
    warnings: tuple[str, ...] = ()
    error: Mapping[str, str] | None = None  # the four lines of a RatError
    measured: Mapping[str, Any] = field(default_factory=dict)  # engine/measured.py
    # For whoever asked, in this process: neither written down nor part of a step's JSON.
    preview: Answer | None = None  # the first rows, where they were asked for
    entry: Entry | None = None  # the ledger's, of the version that stands

    @property
    def rows_per_second(self) -> float:
        return self.rows_written / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class RunResult:
    run_id: str
    status: str  # done | failed | fresh (nothing was stale)
    steps: tuple[StepResult, ...]
    seconds: float = 0.0
    resumed: str = ""  # the killed run that this one continued
    warnings: tuple[str, ...] = ()
    set_aside: tuple[
        Mapping[str, Any], ...
    ] = ()  # landing files of these assets that cannot be read: asset, file, reason

    @property
    def failed(self) -> bool:
        return self.status == "failed"

    def step(self, asset: str) -> StepResult:
        return next(step for step in self.steps if step.asset == asset)


@dataclass(frozen=True, slots=True)
class Progress:
    """One event of a run in progress."""

    asset: str
    stage: str  # plan | render | build | chunk | gate | publish | done
    done: int = 0  # assets finished
    total: int = 0  # assets to build
    text: str = ""
    result: StepResult | None = None  # with stage done


Listener = Callable[[Progress], None]


def step_from_json(record: Mapping[str, Any]) -> StepResult:
    """A step as `as_json` wrote it."""
    checks = tuple(
        CheckResult(**{**check, "columns": tuple(check["columns"]), "sample": tuple(check["sample"])})
        for check in record.get("checks", ())
    )
    lists = {name: tuple(record.get(name, ())) for name in ("files", "set_aside", "warnings", "partitions")}
    return StepResult(**{**record, **lists, "checks": checks})


def as_json(record: Any) -> dict[str, Any]:
    """A record as a JSON-safe mapping."""
    if isinstance(record, StepResult):
        plain = asdict(replace(record, preview=None, entry=None))
        return {name: value for name, value in plain.items() if name not in ("preview", "entry")}
    if isinstance(record, RunResult):
        steps = [as_json(step) for step in record.steps]
        return asdict(replace(record, steps=())) | {"steps": steps}
    return dict(asdict(record))
