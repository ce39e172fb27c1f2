"""Native artifacts: what a function returned that is no table, as files of a versioned folder.

kind    json (dicts, lists, plain values) | parquet (frames) | figure (a chart as JSON) | folder (files as they are)

Values are written as data and read as data: nothing that is loaded brings code with it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratatouille.engine.context import tabular
from ratatouille.engine.native import (
    ARTIFACT,
    Given,
    candidate_of,
    heads_of,
    held_back,
    is_frame,
    step_result,
    written_down,
)
from ratatouille.engine.plan import fingerprint
from ratatouille.engine.records import StepResult
from ratatouille.engine.workbench import Workbench, open_workbench
from ratatouille.errors import RequestError, StepFailed
from ratatouille.lake import Entry, Superseded, artifacts, candidates
from ratatouille.lake.candidates import Candidate
from ratatouille.lake.stage import Staged

VALUE = "value.json"
FRAME = "data.parquet"
FIGURE = "figure.json"


def store_artifact(root: Path, given: Given, value: Any) -> StepResult:
    """Write a value as a version, and publish it; with gates it waits for their verdicts instead."""
    started = given.began if given.began is not None else time.monotonic()

    def attempt(bench: Workbench, token: int) -> StepResult:
        return _stored(bench, given, value, token, started)

    return written_down(root, given.asset.name, given.outer, attempt)


def _stored(bench: Workbench, given: Given, value: Any, token: int, started: float) -> StepResult:
    storage, asset, outer = bench.lake.storage, given.asset, given.outer
    attempt = f"{token}.{outer.attempt}"
    newest, held = artifacts.current(storage, asset.name), artifacts.hold(storage, asset.name)
    if newest is not None and held is not None and held.code_hash == asset.code_hash:
        return held_back(newest[1], held)
    aside = artifacts.begin(storage, asset.name, outer.run_id, attempt)
    try:
        staged = artifacts.finish(storage, asset.name, outer.run_id, attempt, aside, write_value(value, aside))
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    with bench.lake.pinned("reading the ledger") as session:
        unseen = {n: e.data_version for n, e in heads_of(session, storage, asset.depends_on).items()}
    inputs = {**unseen, **given.inputs}
    entry = Entry(
        asset=asset.name,
        run_id=outer.run_id,
        materialize=ARTIFACT,
        mode=ARTIFACT,
        fingerprint=fingerprint(asset, inputs),
        code_hash=asset.code_hash,
        base_version=newest[1].version if newest else 0,
        inputs=inputs,
        bytes_written=staged.bytes,
        seconds=time.monotonic() - started,
    )
    if given.gates:
        candidates.put(bench.journal, Candidate(entry, staged, token, given.gates))
        waits = f"waits for {', '.join(given.gates)}"
        return step_result(entry, "waiting", waits, entry.base_version, None, outer.attempt)
    made = publish_artifact(bench, entry, staged)
    return step_result(made, "built", "", made.version, None, outer.attempt)


def publish_artifact(bench: Workbench, entry: Entry, staged: Staged) -> Entry:
    """Move the artifact's pointer to a finished version. Raises Superseded if somebody else moved it since."""
    moved = artifacts.publish(bench.lake.storage, entry, staged.folder)
    if moved is None:
        raise Superseded(
            f"{entry.asset} was published by somebody else while this run made it",
            where=entry.asset,
            state="Readers see that version.",
            next="materialize it again",
        )
    return moved


def read_artifact(
    root: Path, name: str, *, runs: Sequence[str] = (), as_check: bool = False
) -> tuple[Path, dict[str, Any], int]:
    """The folder of the version that may be read, verified; its manifest; its number (0: a candidate)."""
    with open_workbench(root) as bench:
        if as_check:
            found = candidate_of(bench.journal, name, runs)
            if found is not None:
                return (*artifacts.fetch(bench.lake.storage, name, found.staged.folder.name), found.version)
        newest = artifacts.current(bench.lake.storage, name)
    if newest is None:
        raise RequestError(
            f"{name} has no version that can be read",
            where=name,
            state="It was never published.",
            next=f"materialize the asset that makes {name}, with its checks",
        )
    folder, entry = newest
    return (*artifacts.fetch(bench.lake.storage, name, folder.name), entry.version)


def is_artifact(root: Path, name: str, *, runs: Sequence[str] = (), as_check: bool = False) -> bool:
    """Whether the version that `read_artifact` would read is newer than the table of that name, if there is one."""
    with open_workbench(root) as bench:
        found = candidate_of(bench.journal, name, runs) if as_check else None
        if found is not None:
            return found.entry.materialize == ARTIFACT
        with bench.lake.pinned("reading the ledger") as session:
            head = heads_of(session, bench.lake.storage, [name]).get(name)
    return head is not None and head.materialize == ARTIFACT


# Values as files


def write_value(value: Any, folder: Path) -> dict[str, Any]:
    """Write a value into an empty folder; what the manifest says of it. RequestError for what has no plain form."""
    if isinstance(value, Path):
        return _copy(value, folder)
    if is_frame(value):
        return _write_frame(tabular(value), folder)
    figure = _figure(value)
    if figure is not None:
        (folder / FIGURE).write_text(figure, encoding="utf-8")
        return {"kind": "figure", "library": type(value).__module__.partition(".")[0]}
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1, default=_scalar)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"a {type(value).__name__} cannot be stored as an artifact: {error}",
            where="what the asset returned",
            next="return a dict or a list of plain values, a frame, a chart, or the Path of a folder with the files",
        ) from error
    (folder / VALUE).write_text(text, encoding="utf-8")
    return {"kind": "json"}


def _copy(source: Path, folder: Path) -> dict[str, Any]:
    if source.is_dir():
        shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True)
        return {"kind": "folder"}
    if source.is_file():
        shutil.copyfile(source, folder / source.name)
        return {"kind": "folder"}
    raise StepFailed(f"there is no folder {source}", where=str(source), next="return the Path of what was written")


def _write_frame(frame: Any, folder: Path) -> dict[str, Any]:
    import pyarrow
    import pyarrow.parquet

    if hasattr(frame, "collect"):
        frame = frame.collect()
    rows = pyarrow.Table.from_pandas(frame, preserve_index=False) if hasattr(frame, "iloc") else pyarrow.table(frame)
    pyarrow.parquet.write_table(rows, folder / FRAME)
    return {"kind": "parquet", "rows": rows.num_rows}


def _figure(value: Any) -> str | None:
    """A chart of altair or plotly as its own JSON."""
    if type(value).__module__.partition(".")[0] in ("altair", "plotly") and hasattr(value, "to_json"):
        return str(value.to_json())
    return None


def _scalar(value: Any) -> Any:
    """numpy's scalars and arrays, times and paths, as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"it holds a {type(value).__name__}")


def read_value(folder: Path, manifest: Mapping[str, Any]) -> Any:
    """What was written: plain values, a pyarrow.Table, a chart's dict, or the folder."""
    match manifest.get("kind"):
        case "json":
            return json.loads((folder / VALUE).read_text(encoding="utf-8"))
        case "figure":
            return json.loads((folder / FIGURE).read_text(encoding="utf-8"))
        case "parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(folder / FRAME)
    return folder
