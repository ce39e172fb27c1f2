"""Python assets: what `build(context)` may ask for, and what it may return."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ratatouille.engine import fitting
from ratatouille.errors import RatError, RequestError, StepFailed
from ratatouille.lake import Session
from ratatouille.lake.quoting import ident, table
from ratatouille.lake.types import Columns
from ratatouille.project.records import Asset
from ratatouille.project.thresholds import value_of

_import_guard = threading.Lock()


class Context:
    """Handed to `build`. Everything read through it is of one version of the lake."""

    def __init__(
        self,
        asset: Asset,
        session: Session,
        run_id: str,
        *,
        incremental: bool,
        partition: str | None = None,
        read_source: Callable[[str], str],
        watermark: Callable[[str], Any],
        changes: Callable[[str], str],
        named: Callable[[str], str] = table,
        variables: Mapping[str, Any],
        environment: Mapping[str, str],
        chunks: Callable[..., Iterator[Any]] | None = None,
        empty: Callable[[Sequence[str]], None] | None = None,
        continues: bool = False,
        stands: bool = True,
        stands_for: Callable[[str], None] = lambda version: None,
    ) -> None:
        self.asset = asset.name
        self.run_id = run_id
        self.partition = partition  # the one that is asked for, like 2026-11-21; None: all rows
        self.log = logging.getLogger(f"ratatouille.{asset.name}")
        self._session = session
        self._incremental = incremental
        self._read_source = read_source
        self._watermark = watermark
        self._changes = changes
        self._named = named
        self._variables = variables
        self._environment = environment
        self._chunks = chunks
        self._empty = empty
        self._continues = continues
        self._stands = stands
        self._stands_for = stands_for
        self._asked: tuple[Any, str] | None = None

    def ref(self, name: str) -> Any:
        """The rows of another asset, as a DuckDB relation (`.pl()`, `.df()`, `.arrow()`, or SQL on it)."""
        return self.query(f"select * from {self._named(name)}")

    def changes(self, name: str) -> Any:
        """What changed in another asset since this one read it last, as a DuckDB relation with a column `_change`."""
        return self.query(f"select * from {self._changes(name)}")

    def source(self, name: str) -> Any:
        """The landing files that were not read yet, as a DuckDB relation."""
        return self.query(f"select * from {self._read_source(name)}")

    def query(self, sql: str, **frames: Any) -> Any:
        """Any SELECT, as a DuckDB relation; `frames` are tables for it: `query("from prices", prices=frame)`."""
        for name, frame in frames.items():
            self._session.cursor.register(name, frame)
        asked = self._session.cursor.sql(sql)
        self._asked = (asked, sql) if not frames else None
        return asked

    def as_asked(self, value: Any) -> tuple[Session, str] | None:
        """Where `query` ran, and its SELECT, if `value` is what it gave last and holds no frame: that can be written
        where it is, on all threads. Whatever else is handed over from connection to connection comes as one stream."""
        if self._asked is None or value is not self._asked[0]:
            return None
        return self._session, self._asked[1]

    def chunks(
        self,
        rows: Any,
        size: int | None = None,
        *,
        by: str | Sequence[str] = (),
        form: str = "polars",
        resume: bool = True,
    ) -> Iterator[Any]:
        """More rows than fit into memory, one frame after the other: `for chunk in context.chunks(context.ref("x.y"))`.

        `rows` is a relation, a SELECT or a frame. `size` is the number of rows of a chunk (default: `chunks: {rows: ...}`
        of the YAML file, else what fits the memory of the resource profile); it is halved when memory gets scarce. Rows
        with the same `by` stay together, in its order. `form` is polars, arrow or relation. What `build` yields for a
        chunk must depend on that chunk alone: a step that was killed goes on with the next one (`resume=False`: with
        the first). Raises RequestError for wrong arguments, StepFailed when memory is full.
        """
        if self._chunks is None:
            raise RequestError("chunks are for build()", where=self.asset, next="call context.chunks in build(context)")
        if isinstance(rows, str):
            rows = self.query(rows)
        return self._chunks(rows, size, (by,) if isinstance(by, str) else tuple(by), form, resume)

    def empty(self, *partitions: str) -> None:
        """These partitions have no rows any more: `context.empty("2026-11-21")`. Those that `build` gives rows of are
        replaced in any case. Raises RequestError where nothing is built by partition."""
        if self._empty is None:
            raise RequestError(
                "only an asset with materialize: partition has partitions to empty",
                where=self.asset,
                next="materialize: partition in its YAML file",
            )
        self._empty(partitions)

    @property
    def this(self) -> Any:
        """The rows of this asset's current version, as a DuckDB relation; None before the first build."""
        return self.ref(self.asset) if self._stands else None

    def stands_for(self, version: str) -> None:
        """For an asset that writes outside the lake: what `version: {python: ...}` answers once this is published.

        Without it that is what the function answered before `build`, and the next run finds it changed.
        """
        self._stands_for(version)

    @property
    def previous(self) -> Any:
        """The rows of this asset's current version when the same code made them, to take over what still holds.

        None before the first build, after the code, a module that it imports or a variable that it names has changed,
        after a rollback, and with -f: then everything is made anew.
        """
        return self.this if self._continues else None

    def is_incremental(self) -> bool:
        """Whether this step adds to the current version instead of replacing it."""
        return self._incremental

    def watermark(self, column: str) -> Any:
        """The largest value of a column in the current version; None before the first build."""
        return self._watermark(column) if self._incremental else None

    def var(self, name: str, default: Any = None) -> Any:
        """A variable of workspace.yaml, or a key inside it (`quality.completeness`); `default` where there is none."""
        try:
            return value_of(name, self._variables)
        except ValueError:
            return default

    def env(self, name: str, default: str | None = None) -> str | None:
        return self._environment.get(name, default)


def load_module(root: Path, asset: Asset) -> ModuleType:
    """Import an asset's file. Its workspace and its own folder are importable from it."""
    path = root / asset.path
    name = f"_asset_{asset.name.replace('.', '__')}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RequestError(f"{asset.name}: the file cannot be imported", where=asset.path, next="rat check")
    module = importlib.util.module_from_spec(spec)
    with _import_guard:
        for folder in (str(path.parent), str(root)):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise python_error(error, root, asset, "importing it failed") from error
    return module


def call_build(root: Path, asset: Asset, context: Context) -> Any:
    """What the asset's `build` returns."""
    module = load_module(root, asset)
    try:
        return module.build(context)
    except RatError:
        raise
    except (Exception, SystemExit) as error:
        raise python_error(error, root, asset, "build() failed") from error


def call_version(root: Path, asset: Asset, function: str) -> Any:
    """What a function of the asset's file says its version is."""
    module = load_module(root, asset)
    try:
        return getattr(module, function)()
    except Exception as error:
        raise python_error(error, root, asset, f"{function}() failed") from error


def python_error(error: BaseException, root: Path, asset: Asset, doing: str) -> StepFailed:
    """An exception of somebody's Python file, with the line of that file that it came from."""
    from traceback import extract_tb

    ours = [frame for frame in extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    where = asset.path
    if ours:
        where = f"{Path(ours[-1].filename).relative_to(root)}:{ours[-1].lineno}\n    {ours[-1].line}"
    said = " ".join(str(error).split())[:500]
    if isinstance(error, SystemExit):
        said += " (sys.exit() ends programs; return the rows, or raise an error)"
    return StepFailed(
        f"{asset.name}: {doing}: {type(error).__name__}: {said}",
        where=where,
        next=f"mend the file, then: rat run {asset.name}",
    )


def batches(
    session: Session,
    returned: Any,
    asset: Asset,
    wanted: Callable[[Columns], Mapping[str, str]] = dict,
    as_asked: Callable[[Any], tuple[Session, str] | None] = lambda value: None,
) -> Iterator[tuple[Session, str]]:
    """A SELECT for each frame that a generator yields, and where it runs: in `session`, but for what was `as_asked` of
    another one. The frame is let go before the next one is asked for.

    All have the columns of the first one, in the types that `wanted` gives for those; a value that does not fit fails.
    """
    types: Mapping[str, str] = {}
    for number, frame in enumerate(returned):
        with_name = f"batch_{number}"
        where, select = as_asked(frame) or (session, select_over(session, tabular(frame), with_name))
        columns = where.describe(select)
        types = types or {name.lower(): kind for name, kind in wanted(columns).items()}
        _refuse_other_columns(asset, [name for name, _ in columns], types)
        yield where, fitting.strictly(select, columns, {name: types[name.lower()] for name, _ in columns}, asset.hidden)
        session.cursor.unregister(with_name)
        del frame


def _refuse_other_columns(asset: Asset, names: Sequence[str], types: Mapping[str, str]) -> None:
    have = {name.lower() for name in names}
    more = [name for name in names if name.lower() not in types]
    less = [name for name in types if name not in have]
    said = [f"has {', '.join(more)}, which the first one has not"] if more else []
    said += [f"lacks {', '.join(less)}, which the first one has"] if less else []
    if said:
        raise StepFailed(
            f"{asset.name}: a batch {' and '.join(said)}",
            where=asset.path,
            next=f"yield the same columns each time, then: rat run {asset.name}",
        )


def tabular(value: Any) -> Any:
    """A value in a form that any connection reads: relations of other connections and lone record batches too."""
    if type(value).__name__ == "DuckDBPyRelation":
        return value.to_arrow_reader() if hasattr(value, "to_arrow_reader") else value.fetch_arrow_reader()
    if type(value).__name__ == "RecordBatch":
        import pyarrow

        return pyarrow.Table.from_batches([value])
    return value


def is_batches(returned: Any) -> bool:
    return hasattr(returned, "__next__")


def select_over(session: Session, returned: Any, name: str) -> str:
    """A SELECT over what `build` returned: a DuckDB relation, or a polars, pandas or Arrow frame."""
    if type(returned).__name__ == "DuckDBPyRelation":
        # A view keeps the frames that the relation reads alive; it goes with the session's transaction.
        returned.create_view(name)
        return f"select * from {ident(name)}"
    if hasattr(returned, "collect") and type(returned).__module__.startswith("polars"):
        returned = returned.collect()
    if isinstance(returned, list) and returned and all(isinstance(row, Mapping) for row in returned):
        import pyarrow

        returned = pyarrow.Table.from_pylist(returned)
    known = hasattr(returned, "__arrow_c_stream__") or hasattr(returned, "__dataframe__") or hasattr(returned, "iloc")
    if returned is None or not known:
        raise StepFailed(
            f"build() returned {type(returned).__name__}, which is no table",
            where=f"asset {session.doing}",
            next="return a DuckDB relation, a polars, pandas or Arrow frame, or yield such frames",
        )
    session.cursor.register(name, returned)
    return f"select * from {ident(name)}"
