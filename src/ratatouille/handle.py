"""A workspace in your hands: what `rat` does, as Python calls.

A call that names no workspace finds it from the file that calls (the nearest workspace.yaml above it), then
from RATATOUILLE_WORKSPACE, then from the current folder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratatouille import errors
from ratatouille.errors import RatError, RequestError, StepFailed

if TYPE_CHECKING:
    from types import FrameType

    from polars import DataFrame

    from ratatouille.engine import Listener, Outer, Request, RunResult, Workbench
    from ratatouille.lake import Session

VARIABLE = "RATATOUILLE_WORKSPACE"
_STATUS = {"built": "completed", "skipped": "skipped", "held": "held"}


class Workspace:
    """One workspace. It holds a path and nothing else: no connection stays open between calls."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def run(
        self,
        *selectors: str,
        full: bool = False,
        accept_schema: bool = False,
        accept_loss: bool = False,
        resume: bool = True,
        partitions: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Build what the selectors mean (nothing: everything stale); JSON-safe. `partitions`: only those, like A..B.

        One asset: its `status` (completed, skipped, held), `version`, row counts, `seconds`, ... Several: an
        overall `status` and the same for each under `steps`. Raises the error of the first asset that failed
        (`GateFailed`, `StepFailed`, `LakeError`); RequestError when the request or the files are wrong.
        """
        from ratatouille.engine import Request

        request = Request(
            selectors,
            force=full,
            accept_schema=accept_schema,
            accept_loss=accept_loss,
            resume=resume,
            partitions=tuple(partitions),
        )
        return as_mapping(run_request(self.root, request), alone=len(selectors) == 1)

    def query(self, sql: str, at: str | int | datetime | None = None) -> DataFrame:
        """The rows of one SELECT as a polars frame with plain Python scalars; `at` is a version or a time (UTC).

        Whole numbers of any width become Int64 (Int128 when they need it), decimals Float64.
        """
        from ratatouille.engine import ask, look

        bench = look.bench_in_progress(self.root) if at is None else None
        if bench is not None:
            with ask.session_on(bench.lake) as session:
                return _frame(session, sql)
        workspace = _files(self.root).workspace
        with ask.reading(workspace, at=None if at is None else ask.moment(at)) as session:
            return _frame(session, sql)

    def artifact(self, name: str) -> Path:
        """The folder of an artifact's current version, each file compared with its checksum.

        Raises RequestError where it has none, LakeError where a file is damaged.
        """
        from ratatouille.engine.artifacts import read_artifact

        return read_artifact(self.root, name)[0]

    def history(self, asset: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """The published versions of a table or an artifact (none: of all), newest first, with every field of the ledger; JSON-safe.

        RequestError for a name that is no asset and was never published.
        """
        from ratatouille.engine import as_json, look

        return [_json_safe(as_json(entry)) for entry in look.history(_files(self.root), asset, limit)]

    def plan(self, *selectors: str, full: bool = False, partitions: Sequence[str] = ()) -> dict[str, Any]:
        """What a run would do: `steps` (asset, action, rule, reason, mode, rows, files) and `warnings`; JSON-safe."""
        from ratatouille.engine import Request, as_json, look

        request = Request(selectors, force=full, partitions=tuple(partitions))
        return _json_safe(as_json(look.plan_of(look.usable_project(self.root, request), request)))

    @property
    def vars(self) -> dict[str, Any]:
        """What `vars:` in workspace.yaml says: thresholds, names, whatever checks and templates share."""
        return dict(_files(self.root).workspace.vars)

    def replay(self, asset: str, *, run: str = "", check: str = "") -> dict[str, Any]:
        """Let rows of the quarantine that pass their gates now into the table; `joined`, `stayed`, `version`; JSON-safe.

        All that gates kept out, or those of one run or check. Raises GateFailed when the table as a whole would fail.
        """
        from ratatouille.engine import as_json, holds, replay

        with holds.bench_on(_files(self.root)) as bench:
            return _json_safe(as_json(replay.replay(bench, asset, run=run, check=check)))

    def discard(self, asset: str, reason: str, *, run: str = "", check: str = "") -> dict[str, Any]:
        """Let rows leave the quarantine; the ledger keeps the reason. A rebuild judges all rows anew. `rows`, `version`; JSON-safe."""
        from ratatouille.engine import as_json, holds, replay

        with holds.bench_on(_files(self.root)) as bench:
            return _json_safe(as_json(replay.discard(bench, asset, reason, run=run, check=check)))

    def test(self, *selectors: str, like: str = "") -> dict[str, Any]:
        """Run the tests of assets: `passed`, `failed` and `cases` (name, status, differences, error); JSON-safe."""
        from ratatouille.engine import as_json
        from ratatouille.testing import run_cases

        done = run_cases(_files(self.root), selectors, like=like)
        return _json_safe(as_json(done) | {"passed": len(done.cases) - done.failed, "failed": done.failed})

    def diff(self, asset: str, before: int | None = None, after: int | None = None, **options: Any) -> dict[str, Any]:
        """What changed between two versions (the current one and the one before it); JSON-safe.

        Options: `key` (columns), `examples` (rows of each kind), `sample_rows`.
        """
        from ratatouille.engine import as_json
        from ratatouille.upkeep.diff import diff

        found = diff(_files(self.root), asset, before, after, **options)
        return _json_safe(as_json(found) | {"same": found.same})

    def runs(self, limit: int = 20) -> list[dict[str, Any]]:
        """Runs, newest first: `run_id`, `status`, `request`, `steps` by status, times in seconds since 1970; JSON-safe."""
        from ratatouille.engine import look

        return [_json_safe(run) for run in look.runs(_files(self.root).workspace, limit)]

    def tell(self) -> dict[str, Any]:
        """Look at what happened and tell the channels of workspace.yaml, as `rat alerts tick` does; JSON-safe.

        `told` (by rule), `delivered` (sent, failed, waiting), `dead_runs`, `problems`.
        """
        from ratatouille.engine import as_json
        from ratatouille.observe.alerts import tick

        return _json_safe(as_json(tick(_files(self.root))))

    def compare(self, *what: str | int) -> dict[str, Any]:
        """Two runs, side by side: `compare(run, run)`; two versions: `compare("silver.sales", 12, 15)`; JSON-safe.

        What is left out is the newest, and the one before it: of runs, that was asked for the same.
        """
        from ratatouille.engine import as_json
        from ratatouille.observe.compare import compare

        return _json_safe(as_json(compare(_files(self.root), *what)))

    def verify(self, *assets: str, every_version: bool = False) -> dict[str, Any]:
        """Compare files with their checksums: `whole`, `files`, `bytes`, `damaged`; JSON-safe."""
        from ratatouille.engine import as_json
        from ratatouille.upkeep.verify import verify

        found = verify(_files(self.root), assets, every_version=every_version)
        return _json_safe(as_json(found) | {"whole": found.whole})

    def clean(self, *, dry_run: bool = False, removed: bool = False) -> dict[str, Any]:
        """Let go what need not be kept: `removed`, `compacted`, `bytes`, `later_bytes`, ...; JSON-safe."""
        from ratatouille.engine import as_json
        from ratatouille.upkeep.clean import clean

        return _json_safe(as_json(clean(_files(self.root), dry_run=dry_run, removed=removed)))

    def export(self, *selectors: str, to: str | Path, format: str = "parquet", **options: Any) -> list[dict[str, Any]]:
        """Write tables as parquet, csv, delta or iceberg below `to`: asset, version, path, rows, bytes of each.

        Options: `version` (of one asset), `overwrite`.
        """
        from ratatouille.engine import as_json
        from ratatouille.upkeep.export import export

        return [as_json(one) for one in export(_files(self.root), selectors, Path(to), format, **options)]

    def check(self) -> list[dict[str, Any]]:
        """Every problem of the files: message, path, line, column, hint, severity; JSON-safe. Empty: all is well."""
        from ratatouille.engine import as_json

        return [_json_safe(as_json(problem)) for problem in _files(self.root).problems]


# Orchestrators say here which of their runs the calling code is part of.
outer_runs: list[Callable[[], Outer | None]] = []


def run_request(
    root: Path, request: Request, listener: Listener | None = None, within: Outer | None = None
) -> RunResult:
    """Build what `request` asks for; inside a run on the same workspace, join that run.

    `within` is the orchestrator's run that this is a part of; without it the orchestrators are asked.
    """
    from ratatouille import engine
    from ratatouille.engine import last_known, look
    from ratatouille.engine.fresh import nothing_to_do

    outer = look.bench_in_progress(root)
    if outer is not None:
        return engine.run(outer, request, listener)
    within = within or next((run for run in (ask() for ask in outer_runs) if run is not None), None)
    project = look.usable_project(root, request)
    known = last_known.recall(project)
    fresh = nothing_to_do(project, request, known) if known else None
    if fresh is not None:
        return fresh
    with engine.open_workbench(root, write=True, project=project) as bench:
        with _watched(bench):
            result = engine.run(bench, request, listener, known, within)
        if result.status == "fresh":
            return result
        from ratatouille.observe.after import after

        return after(bench, result)


def _watched(bench: Workbench) -> AbstractContextManager[None]:
    """While it lasts, somebody looks for what is to be told before the run ends, if a rule asks for that."""
    if not bench.project.workspace.alerts.rules:
        return nullcontext()
    from ratatouille.observe.watch import watching

    return watching(bench)


def as_mapping(result: RunResult, *, alone: bool) -> dict[str, Any]:
    """A run as a JSON-safe mapping with a `status`. Raises the error of the first asset that failed."""
    from ratatouille.engine import as_json

    for step in result.steps:
        if step.error is not None:
            raise _rebuilt(step.error)
    steps: dict[str, dict[str, Any]] = {}
    for step in result.steps:
        said = as_json(step) | {"status": status_word(step.status), "run_id": result.run_id}
        steps[step.asset] = {name: value for name, value in said.items() if name != "error"}
    if alone and len(steps) == 1:
        only = next(iter(steps.values()))
        return _json_safe(only | {"warnings": [*result.warnings, *only["warnings"]]})
    found = {step["status"] for step in steps.values()}
    status = next((one for one in ("completed", "held") if one in found), "skipped")
    return _json_safe(
        {
            "status": status,
            "run_id": result.run_id,
            "seconds": result.seconds,
            "warnings": result.warnings,
            "steps": steps,
        }
    )


def status_word(status: str) -> str:
    """A step's status as a person reads it."""
    return _STATUS.get(status, status)


def _rebuilt(record: Mapping[str, str]) -> RatError:
    """The error that a step recorded, as an exception of its class."""
    kind = getattr(errors, record.get("error", ""), StepFailed)
    if not (isinstance(kind, type) and issubclass(kind, RatError)):
        kind = StepFailed
    return kind(record["what"], where=record["where"], state=record["state"], next=record["next"])


def as_json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON as programs expect it: times in UTC with a Z, whatever else has no JSON form as text."""
    return json.dumps(value, default=_json_value, indent=indent, ensure_ascii=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is None:
        return f"{value.isoformat()}Z"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _json_safe(value: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(as_json_text(value)))


# Finding the workspace


def find_workspace(path: str | Path | None = None) -> Path:
    """The root of the workspace at or above `path`, else RATATOUILLE_WORKSPACE, else the current folder."""
    from ratatouille.project import find_root

    said = path or os.environ.get(VARIABLE)
    if not said:
        return find_root(Path.cwd())
    start = Path(said).expanduser()
    if not start.exists():
        source = "" if path else f"{VARIABLE}="
        raise RequestError(
            f"There is no folder {said}", where=f"{source}{said}", next="rat init NAME makes a workspace"
        )
    return find_root(start if start.is_dir() else start.parent)


def workspace_of_caller() -> Workspace:
    """The workspace of the file whose code called into ratatouille."""
    from ratatouille.project.find import WORKSPACE_FILE

    file = _calling_file()
    if file is not None:
        for folder in file.parents:
            if (folder / WORKSPACE_FILE).is_file():
                return Workspace(folder)
    return Workspace(find_workspace())


def _calling_file() -> Path | None:
    """The file of the nearest frame that is not ours; None in a notebook or a shell."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != "ratatouille" and not name.startswith("ratatouille."):
            file = frame.f_globals.get("__file__")
            return Path(file).absolute() if file else None
        frame = frame.f_back
    return None


def _files(root: Path) -> Any:
    from ratatouille import project

    return project.load(root)


# Frames


def _frame(session: Session, sql: str, *, ours: bool = False) -> DataFrame:
    import polars

    from ratatouille.engine import ask

    frame = polars.from_arrow(ask.arrow(session, sql, ours=ours))
    assert isinstance(frame, polars.DataFrame)  # noqa: S101  a table is never a series
    return frame.with_columns(*(_native(frame[name]) for name in frame.columns))


def _native(column: Any) -> Any:
    """The column in types whose scalars are plain Python: no Decimal where an int or a float is meant."""
    import polars

    for whole in (polars.Int64, polars.Int128):
        wanted = _native_type(column.dtype, whole)
        if wanted == column.dtype:
            return column
        try:
            return column.cast(wanted, strict=True)
        except polars.exceptions.PolarsError:
            continue
    return column


def _native_type(kind: Any, whole: Any) -> Any:
    import polars

    if isinstance(kind, polars.Decimal):
        return polars.Float64() if kind.scale else whole()
    if isinstance(kind, polars.List):
        return polars.List(_native_type(kind.inner, whole))
    if isinstance(kind, polars.Struct):
        return polars.Struct({field.name: _native_type(field.dtype, whole) for field in kind.fields})
    if isinstance(kind, polars.Categorical | polars.Enum):
        return polars.String()
    return kind
