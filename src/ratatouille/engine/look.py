"""Looking: what stands, what a run would do, what was published, what is going on. Only queries; nothing changes.

Everything here works on a workspace without a lake too: then nothing has been built yet, and that is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from ratatouille import project as files
from ratatouille.engine.ask import answer, masked_select, session_on
from ratatouille.engine.build import render
from ratatouille.engine.crew import current
from ratatouille.engine.landing import Landing
from ratatouille.engine.plan import Request, State, make_plan, read_state, utc_now, version_tokens
from ratatouille.engine.records import Answer, Plan, PlannedStep
from ratatouille.engine.run import plan
from ratatouille.engine.work import UnreadableFiles, Work
from ratatouille.engine.workbench import Workbench, journal_path, storage_of
from ratatouille.engine.workbench import has_lake as has_lake
from ratatouille.errors import RequestError, near_miss
from ratatouille.lake import (
    Entry,
    Hold,
    Journal,
    Lake,
    Session,
    Storage,
    artifacts,
    catalogs,
    ledger,
    open_journal,
    open_lake,
)
from ratatouille.lake.quoting import table
from ratatouille.project.find import PIPELINES
from ratatouille.project.records import Asset, Native, Project, Workspace


@dataclass(frozen=True, slots=True)
class Shown:
    """One asset of the overview. `status`: fresh, on hold, failed, or the rule by which a run would build it."""

    name: str
    layer: str
    kind: str
    materialize: str
    path: str
    status: str
    reason: str
    version: int | None = None
    rows: int | None = None
    published_at: datetime | None = None
    hold: int | None = None  # the version it is held at
    set_aside: int = 0  # landing files


@dataclass(frozen=True, slots=True)
class ShownColumn:
    name: str
    type: str
    description: str = ""
    sensitive: bool = False
    comes_from: tuple[str, ...] = ()  # `bronze.sales.total`


@dataclass(frozen=True, slots=True)
class Page:
    """Everything about one asset. `preview` has its sensitive columns masked."""

    asset: Asset | None  # None: its file is gone
    shown: Shown
    columns: tuple[ShownColumn, ...]
    upstream: tuple[str, ...]
    downstream: tuple[str, ...]
    head: Entry | None
    preview: Answer | None


# The project


def usable_project(root: Path, request: Request = Request()) -> Project:  # noqa: B008  frozen
    """The project, when a run could start: no file has an error, there are assets, the selectors mean some."""
    project = files.load(root)
    files.ensure_valid(project, request.selectors if request.alone else ())
    if not project.assets:
        layers = "/, ".join(project.workspace.layers)
        raise RequestError(
            f"The workspace {project.workspace.name} has no assets yet",
            where=f"{root / PIPELINES} has no .sql, .py or data file in a folder called {layers}/",
            state="Nothing has been built.",
            next=f"Write one, e.g. {PIPELINES}/{project.workspace.layers[0]}/my_table.sql, then: rat run",
        )
    files.select(project, request.selectors)
    return project


def bench_in_progress(root: Path) -> Workbench | None:
    """The workbench of the run that the calling code is part of, if that run is on this workspace."""
    outer = current.get()
    return outer.bench if outer is not None and outer.bench.root == root else None


@contextmanager
def reading_lake(workspace: Workspace) -> Iterator[Lake | None]:
    """The lake for reading; None where there is none yet."""
    with ExitStack() as stack:
        yield stack.enter_context(open_lake(storage_of(workspace))) if has_lake(workspace) else None


@contextmanager
def reading_journal(workspace: Workspace) -> Iterator[Journal | None]:
    """The journal; None where nothing has run yet."""
    path = journal_path(workspace)
    with ExitStack() as stack:
        yield stack.enter_context(open_journal(path, create=False)) if path.exists() else None


def files_set_aside(workspace: Workspace, asset: str | None = None) -> list[dict[str, Any]]:
    """Landing files that could not be read: asset, file, bytes, reason, run_id, at."""
    with reading_journal(workspace) as journal:
        return journal.files_set_aside(asset) if journal else []


# The plan, and the SQL


def plan_of(project: Project, request: Request) -> Plan:
    """What a run would do now."""
    workspace = project.workspace
    if not has_lake(workspace):
        return make_plan(project, request, State(), tokens=version_tokens(project, list(project.assets), None))
    with open_lake(storage_of(workspace)) as lake, open_journal(journal_path(workspace)) as journal:
        return plan(Workbench(project, lake, journal), request)


def sql_of(project: Project, name: str, *, incremental: bool = False) -> str:
    """The SELECT that a run would build `name` from, in full or incrementally, on the landing files of now."""
    asset = _sql_asset(project, name)
    with _some_lake(project.workspace) as lake, lake.pinned("rendering") as session:
        return sql_on(lake, session, project, asset, incremental=incremental)


def sql_on(
    lake: Lake,
    session: Session,
    project: Project,
    asset: Asset,
    state: State | None = None,
    *,
    incremental: bool = False,
) -> str:
    """The same, on a lake that is open. `state`, where it is known."""
    state = state or read_state(session, project, [asset.name])
    if incremental and asset.name not in state.standing:
        raise RequestError(
            f"{asset.name} was never built, so no run would build it incrementally",
            where=asset.path,
            next=f"rat render {asset.name}",
        )
    # Assets above that were never built are named as they will be called.
    standing = dict.fromkeys(set(project.assets) - {asset.name}, "table") | dict(state.standing)
    work = Work(
        bench=Workbench(project, lake, cast(Journal, None)),  # rendering writes nothing down
        asset=asset,
        planned=PlannedStep(asset.name, "build", "", "", "incremental" if incremental else "full"),
        request=Request(accept_loss=True),
        run_id="run-id",
        started_at=utc_now(),
        session=session,
        state=replace(state, standing=standing if asset.kind == "sql" else state.standing),
        token=0,
    )
    return _rendered(work)


def _sql_asset(project: Project, name: str) -> Asset:
    chosen = files.select(project, [name])
    if len(chosen) != 1:
        raise RequestError(f"'{name}' means {len(chosen)} assets", where="ASSET", next="Name one of them")
    asset = project.assets[chosen[0]]
    if asset.kind == "python":
        raise RequestError(
            f"{asset.name} is a Python asset: its code asks for rows when it runs",
            where=asset.path,
            next=f"rat show {asset.name}",
        )
    return asset


def _rendered(work: Work) -> str:
    while True:
        try:
            render(work)
            return work.select
        except UnreadableFiles as unreadable:
            new = {file: why for file, why in unreadable.reasons.items() if file not in work.aside}
            if not new:
                file, why = next(iter(unreadable.reasons.items()))
                raise RequestError(
                    f"{file} cannot be read: {why}", where=work.asset.path, next="rat plan"
                ) from unreadable
            # Anew, as a run does it: what was taken of these files must not stay.
            work = replace(work, aside=work.aside | new, landing=Landing())


@contextmanager
def _some_lake(workspace: Workspace) -> Iterator[Lake]:
    """The workspace's lake, or an empty one that is gone afterwards: rendering only binds names."""
    if has_lake(workspace):
        with open_lake(storage_of(workspace)) as lake:
            yield lake
        return
    with TemporaryDirectory(prefix="rat-render-") as folder:
        empty = Storage(Path(folder, "catalog.sqlite"), Path(folder, "data"), Path(folder, "spill"))
        with open_lake(empty, create=True) as lake:
            yield lake


# What stands


def overview(project: Project) -> list[Shown]:
    """Every asset, in the order of layers, then by name; and published tables whose file is gone."""
    workspace = project.workspace
    with reading_lake(workspace) as lake, reading_journal(workspace) as journal:
        aside = journal.files_set_aside() if journal else []
        state = State(aside_rows=aside)
        tokens = version_tokens(project, list(project.assets), None) if lake is None else {}
        orphans: list[Entry] = []
        if lake is not None:
            with lake.pinned("looking at the lake") as session:
                state = read_state(session, project, aside=aside)
                tokens = version_tokens(project, list(project.assets), session)
                orphans = [
                    e for n, e in ledger.heads(session).items() if n not in project.assets and n in state.standing
                ]
        steps = {step.asset: step for step in make_plan(project, Request(), state, tokens=tokens).steps}
        failed = {name: _last_failure(journal, name) for name in steps}
    order = {layer: number for number, layer in enumerate(workspace.layers)}
    found = [_shown(project.assets[name], step, state, failed[name]) for name, step in steps.items()]
    found += [_orphan(entry) for entry in orphans]
    found += [_unbuilt(native) for name, native in project.natives.items() if name not in {one.name for one in found}]
    return sorted(found, key=lambda one: (order.get(one.layer, len(order)), one.name))


def _last_failure(journal: Journal | None, asset: str) -> str:
    """What the newest attempt at `asset` failed with; '' if it did not."""
    last = journal.last_steps(asset, 1) if journal else []
    return str(last[0]["record"].get("reason", "")) if last and last[0]["status"] == "failed" else ""


def _shown(asset: Asset, step: PlannedStep, state: State, failure: str) -> Shown:
    head, hold = state.heads.get(asset.name), state.holds.get(asset.name)
    stale = step.action == "build"
    return Shown(
        name=asset.name,
        layer=asset.layer,
        kind=asset.kind,
        materialize=asset.materialize,
        path=asset.path,
        status="failed" if failure and stale else "on hold" if step.action == "hold" else step.rule,
        reason=failure if failure and stale else step.reason,
        version=head.version if head else None,
        rows=head.rows_total if head and asset.materialize != "view" else None,
        published_at=head.published_at if head else None,
        hold=hold.version if hold else None,
        set_aside=sum(1 for row in state.aside_rows if row["asset"] == asset.name),
    )


_NO_FILE = ("", "", "no file", "its file is gone; the table stays until it is dropped")
# kind, file, status, reason of what no file of ours builds
_ELSEWHERE = {
    "native": ("dagster", "", "native", "a Dagster asset in Python"),
    "dbt": ("dbt", "of a dbt project", "dbt", "a model of a dbt project"),
}


def _orphan(entry: Entry) -> Shown:
    kind, path, status, reason = _ELSEWHERE.get(entry.materialize) or _ELSEWHERE.get(entry.token, _NO_FILE)
    return Shown(
        name=entry.asset,
        layer=entry.asset.partition(".")[0],
        kind=kind,
        materialize=entry.materialize,
        path=path,
        status=status,
        reason=reason,
        version=entry.version,
        rows=entry.rows_total,
        published_at=entry.published_at,
    )


def _unbuilt(native: Native) -> Shown:
    layer = native.name.partition(".")[0]
    reason = "a Dagster asset in Python; the lake has no table of it"
    return Shown(native.name, layer, "dagster", "native", f"{native.path}:{native.line}", "native", reason)


def page(project: Project, name: str, *, rows: int = 5) -> Page:
    """All about one asset, with its first `rows` rows. RequestError with the near miss for an unknown name."""
    shown = {one.name: one for one in overview(project)}
    name = name.strip().replace("/", ".")
    if name not in shown:
        if name in {p.asset for p in project.errors}:
            files.ensure_valid(project)
        raise RequestError(
            f"There is no asset called '{name}'.{near_miss(name, shown)}",
            where=f"asset {name}",
            next="List them: rat show",
        )
    asset = project.assets.get(name)
    head, preview = None, None
    with reading_lake(project.workspace) as lake:
        if lake is not None:
            with session_on(lake) as session:
                head = ledger.heads(session, [name]).get(name)
                preview = first_rows(session, name, asset, rows) if head and rows else None
    return Page(
        asset=asset,
        shown=shown[name],
        columns=tuple(_columns(asset, head)),
        upstream=asset.depends_on if asset else (),
        downstream=tuple(a.name for a in project.assets.values() if name in a.depends_on),
        head=head,
        preview=preview,
    )


def _columns(asset: Asset | None, head: Entry | None) -> Iterator[ShownColumn]:
    known = [(n, k) for n, k in head.columns] if head else []
    if not known and asset:
        types = {column.name: column.type for column in asset.columns}
        known = [(n, types.get(n, "")) for n in asset.outputs or types]
    for name, kind in known:
        said = asset.column(name) if asset else None
        lineage = asset.lineage.get(name, ()) if asset else ()
        yield ShownColumn(
            name,
            kind,
            said.description if said else "",
            said.sensitive if said else False,
            tuple(f"{above}.{column}" for above, column in lineage),
        )


def first_rows(session: Session, name: str, asset: Asset | None, count: int) -> Answer:
    """The first rows of a table as text, sensitive columns masked."""
    return answer(session, masked_select(session, table(name), asset), count, ours=True)


def attach_sql(workspace: Workspace) -> str:
    """What any DuckDB of the same version runs to read this lake."""
    return catalogs.catalog_of(storage_of(workspace).catalog).example_sql()


# What was published, and what went on


def history(project: Project, asset: str | None = None, limit: int = 20) -> list[Entry]:
    """Published versions, newest first. RequestError for a name that is no asset and was never published."""
    name = asset.strip().replace("/", ".") if asset else None
    known: set[str] = {*project.assets, *project.natives}
    found: list[Entry] = []
    with reading_lake(project.workspace) as lake:
        if lake is not None:
            with lake.session("reading the history") as session:
                made = artifacts.names(lake.storage)
                found = ledger.entries(session, name, limit)
                found += [v.entry for n in made if name in (None, n) for v in artifacts.published(lake.storage, n)]
                if name and not found:
                    known |= {*made, *ledger.heads(session)}
    if name and not found and name not in known:
        raise RequestError(
            f"There is no asset called '{name}'.{near_miss(name, known)}",
            where=f"asset {name}",
            next="List them: rat show",
        )
    return sorted(found, key=lambda entry: str(entry.published_at), reverse=True)[:limit]


def holds(project: Project) -> Mapping[str, Hold]:
    with reading_lake(project.workspace) as lake:
        if lake is None:
            return {}
        with lake.session("reading holds") as session:
            return ledger.holds(session)


def runs(workspace: Workspace, limit: int = 20) -> list[dict[str, Any]]:
    """Runs from the journal, newest first, dead ones marked; times in seconds since 1970."""
    with reading_journal(workspace) as journal:
        if journal is None:
            return []
        journal.reap()
        return journal.runs(limit)


def one_run(workspace: Workspace, prefix: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A run and its steps, by its id or the beginning of it. RequestError when that means none or several."""
    with reading_journal(workspace) as journal:
        known = []
        if journal is not None:
            journal.reap()
            known = journal.runs(100, prefix=prefix)
        matching = [run for run in known if run["run_id"].startswith(prefix)]
        exact = [run for run in matching if run["run_id"] == prefix] or matching
        if journal is None or len(exact) != 1:
            some = ", ".join(run["run_id"] for run in exact[:3])
            what = f"'{prefix}' begins {len(exact)} runs" if exact else f"There is no run that begins with '{prefix}'"
            raise RequestError(what, where=some, next="rat runs")
        return exact[0], journal.steps(exact[0]["run_id"])
