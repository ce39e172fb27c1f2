"""The plan: which asset is stale, by which rule, and how it will be built.

An asset is fresh when its fingerprint (canonical code, config, the versions of everything read) is the one
that its current version was published with, no landing file is new, and nothing it reads changes unseen.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratatouille import project as files
from ratatouille.engine.landing import Stock, fetched, matching_files, take_stock
from ratatouille.engine.records import Plan, PlannedStep
from ratatouille.errors import RequestError
from ratatouille.lake import Entry, Hold, LandingFile, Session, borrowed, ledger, standing
from ratatouille.project.modes import grows, stores_rows
from ratatouille.project.records import Asset, Project


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for. No selectors: everything stale."""

    selectors: tuple[str, ...] = ()
    _: KW_ONLY
    force: bool = False  # rebuild in full, even what is fresh
    again: bool = False  # run what is fresh too, as it would run if it were stale
    accept_schema: bool = False  # removed or retyped columns may go
    accept_loss: bool = False  # rows that no input gives any more may go
    partitions: tuple[str, ...] = ()  # ranges: only these of assets that are built by partition
    resume: bool = True  # continue a killed run that answered the same request
    alone: bool = False  # other files of the workspace may have errors
    preview_rows: int = 0  # of each built asset, sensitive columns masked
    retry: bool = True  # try again what may pass; no: whoever asks does it


@dataclass(frozen=True, slots=True)
class Outer:
    """The run of an orchestrator that a request belongs to: several requests and processes, one run."""

    run_id: str
    label: str  # what a person calls it: `Dagster job sales_pipeline`
    attempt: int = 1  # of this step in that run
    resumes: tuple[str, ...] = ()  # the runs that it goes on from


@dataclass(frozen=True, slots=True)
class State:
    """What the ledger says at one version of the lake."""

    version: int = 0
    heads: Mapping[str, Entry] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    standing: Mapping[str, str] = field(default_factory=dict)  # asset -> table | view
    landing: Mapping[str, Sequence[LandingFile]] = field(default_factory=dict)
    aside_rows: Sequence[Mapping[str, Any]] = ()  # files that were set aside, as the journal has them
    borrowed: Mapping[str, Entry] = field(default_factory=dict)  # in an environment: heads of the default lake

    @property
    def inputs(self) -> Mapping[str, Entry]:
        """The heads of whatever may be read."""
        return {**self.borrowed, **self.heads} if self.borrowed else self.heads

    def with_files_set_aside(self, rows: Sequence[Mapping[str, Any]]) -> State:
        return replace(self, aside_rows=rows)


def read_state(
    session: Session,
    project: Project,
    assets: Sequence[str] | None = None,
    *,
    aside: Sequence[Mapping[str, Any]] = (),
) -> State:
    """The state as this session sees it; of `assets` and what they read, if given."""
    names = list(project.assets) if assets is None else list(assets)
    wanted = {name for asset in names for name in (asset, *reads(project, asset))}
    return State(
        borrowed=borrowed(session, sorted(wanted)) if project.workspace.environment else {},
        version=session.snapshot,
        heads=ledger.heads(session, sorted(wanted) if len(wanted) < 200 else None),
        holds=ledger.holds(session),
        standing=standing(session),
        landing=ledger.landing_by_asset(session, [n for n in names if project.assets[n].sources]),
        aside_rows=aside,
    )


def reads(project: Project, asset: str) -> tuple[str, ...]:
    """The assets whose rows reach `asset`: a view holds no rows, so what it reads counts too."""
    found: dict[str, None] = {}
    waiting = list(project.assets[asset].depends_on)
    while waiting:
        name = waiting.pop(0)
        if name in found or (name not in project.assets and name not in project.natives):
            continue
        found[name] = None
        if name in project.assets and not stores_rows(project.assets[name]):
            waiting += project.assets[name].depends_on
    return tuple(found)


def input_versions(project: Project, asset: str, heads: Mapping[str, Entry]) -> dict[str, int]:
    return {name: heads[name].data_version for name in reads(project, asset) if name in heads}


def fingerprint(asset: Asset, inputs: Mapping[str, int], token: str = "") -> str:
    """Hash of the code, the config and the versions of everything read."""
    said = json.dumps([asset.code_hash, sorted(inputs.items()), token])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def make_plan(project: Project, request: Request, state: State, *, tokens: Mapping[str, str] | None = None) -> Plan:
    """What would be built now, in dependency order; with warnings about what was not asked for."""
    chosen = files.select(project, request.selectors) if request.selectors else tuple(project.assets)
    if request.partitions and not request.selectors:
        chosen = tuple(name for name in chosen if by_partition(project.assets[name]))
    if request.partitions and not any(by_partition(project.assets[name]) for name in chosen):
        raise RequestError(
            "--partition means assets with materialize: partition, and none was named",
            where=", ".join(chosen[:5]),
            next="name one: rat run silver.daily --partition A..B",
        )
    above = {name for asset in chosen for name in files.upstream(project, asset)} - set(chosen)
    steps: dict[str, PlannedStep] = {}
    for name in project.assets:
        if name in above or name in chosen:
            forced = request.force and name in chosen
            asked = request if name in chosen else replace(request, partitions=())
            # What is not asked for is not built, so nothing below it waits for it.
            going = {
                above: steps[above] for above in files.upstream(project, name) if above in steps and above in chosen
            }
            steps[name] = decide(project, name, state, asked, going, forced, tokens or {})
    warnings = [
        f"{name} is stale ({steps[name].reason}) and was not asked for; {_readers(project, name, chosen)} read"
        f" {'its version ' + str(steps[name].version) if steps[name].version else 'nothing'} (+ builds it too)"
        for name in project.assets
        if name in above and steps[name].action == "build" and name not in state.borrowed
    ]
    lent = [name for name in project.assets if name in above and name in state.borrowed and name not in state.heads]
    if lent:
        more = f" and {len(lent) - 3} more" if len(lent) > 3 else ""
        where = project.workspace.environment
        warnings.append(f"read from the default lake, because {where} has none: {', '.join(lent[:3])}{more}")
    return Plan(tuple(steps[name] for name in project.assets if name in chosen), tuple(warnings))


def _readers(project: Project, name: str, chosen: Sequence[str]) -> str:
    return ", ".join(c for c in chosen if name in files.upstream(project, c))


def decide(
    project: Project,
    name: str,
    state: State,
    request: Request,
    planned: Mapping[str, PlannedStep],
    forced: bool,
    tokens: Mapping[str, str],
) -> PlannedStep:
    """The step for one asset: the first rule that applies."""
    asset = project.assets[name]
    head = state.heads.get(name)
    stock = stock_of(project, asset, state)
    rule, reason, full = _rule(project, asset, head, state, stock, planned, forced, tokens.get(name, ""), request)
    version = head.version if head else None
    if rule in ("fresh", "on hold"):
        return PlannedStep(name, "hold" if rule == "on hold" else "skip", rule, reason, version=version)
    adds = grows(asset) and head is not None and bool(head.rows_total)
    mode = "partition" if rule == "partitions" else "incremental" if adds and not full else "full"
    wanted = stock.to_read if mode == "incremental" else stock.all
    rows = sum(state.inputs[i].rows_total for i in asset.depends_on if i in state.inputs)
    return PlannedStep(name, "build", rule, reason, mode, version, rows or None, wanted)


def _rule(
    project: Project,
    asset: Asset,
    head: Entry | None,
    state: State,
    stock: Stock,
    planned: Mapping[str, PlannedStep],
    forced: bool,
    token: str,
    request: Request,
) -> tuple[str, str, bool]:
    """(rule, reason, whether all rows are rebuilt)."""
    hold = state.holds.get(asset.name)
    if hold is not None and hold.code_hash == asset.code_hash and not forced:
        return "on hold", f"rolled back to version {hold.version}; rat release {asset.name} lets it go on", False
    if request.partitions and by_partition(asset):
        return "partitions", f"{', '.join(request.partitions)} asked for", False
    if head is None or asset.name not in state.standing:
        return "new", "never built", True
    if forced:
        return "forced", "asked for with -f", True
    if not head.code_hash and head.partitions:
        return "incomplete", "only some of its partitions were built", not grows(asset)
    if head.code_hash != asset.code_hash:
        return "code changed", _after_a_change(asset), asset.on_change != "forward"
    if hold is not None or head.action == "rollback":
        return "released", "its hold was released", True
    if stock.to_read:
        return "new files", _count(stock), False
    waiting = [name for name in asset.depends_on if name in planned and planned[name].action == "build"]
    inputs = input_versions(project, asset.name, state.inputs)
    changed = waiting or [name for name, version in inputs.items() if head.inputs.get(name) != version]
    if changed:
        return "inputs changed", f"{', '.join(changed[:3])}{' ...' if len(changed) > 3 else ''} changed", False
    due = _due(asset, head, token)
    if due:
        return due[0], due[1], False
    if request.again:
        return "asked again", "asked for, though nothing changed", False
    if request.accept_schema and fingerprint(asset, inputs, token) != head.fingerprint:
        return "code changed", "its fingerprint changed", True
    return "fresh", f"unchanged since version {head.version}", False


def by_partition(asset: Asset) -> bool:
    """Whether --partition means something to it."""
    return asset.materialize == "partition"


def _after_a_change(asset: Asset) -> str:
    if not grows(asset):
        return "its code or config changed"
    kept = "its rows stay, and what is new is built the new way" if asset.on_change == "forward" else "all rows anew"
    return f"its code or config changed (on_change: {asset.on_change}, {kept})"


def _count(stock: Stock) -> str:
    said = [f"{len(stock.fresh)} new file{'s' * (len(stock.fresh) != 1)}"] if stock.fresh else []
    said += [f"{len(stock.changed)} rewritten"] if stock.changed else []
    return ", ".join(said)


def _due(asset: Asset, head: Entry, token: str) -> tuple[str, str] | None:
    """The rule for assets that read what the lake cannot see: the clock, chance, the network."""
    if asset.version:
        return ("version changed", "its declared version changed") if token != head.token else None
    if not is_volatile(asset):
        return None
    why = f"uses {asset.volatile[0]}" if asset.volatile else "reads nothing that the lake can see"
    why = f"reads {asset.tables[0]}" if asset.tables else why
    if not asset.refresh_every_s:
        return "always", f"{why}; declare `version:` or `refresh_every:` to skip it"
    published = head.published_at.replace(tzinfo=UTC).timestamp() if head.published_at else 0.0
    age = time.time() - published
    if age >= asset.refresh_every_s:
        return "refresh due", f"{why}, and is {int(age)} s old"
    return None


def is_volatile(asset: Asset) -> bool:
    """Whether it may give other rows though nothing that the lake can see has changed."""
    unseen = asset.kind == "python" and not asset.depends_on and not asset.sources
    return bool(asset.volatile or asset.tables or unseen) and not asset.version


def stock_of(project: Project, asset: Asset, state: State) -> Stock:
    if not asset.sources:
        return Stock()
    aside = {row["file"]: (row["bytes"], row["modified_ns"]) for row in state.aside_rows if row["asset"] == asset.name}
    return take_stock(Path(project.workspace.root), asset.sources, state.landing.get(asset.name, ()), aside)


def version_tokens(project: Project, names: Sequence[str], session: Session | None) -> dict[str, str]:
    """What `version:` says for each asset that declares it: a value that changes when the outside world did."""
    return {n: _token(project, project.assets[n], session) for n in names if project.assets[n].version}


def _token(project: Project, asset: Asset, session: Session | None) -> str:
    kind, said = next(iter(asset.version.items()))
    root = Path(project.workspace.root)
    if kind == "files":
        patterns = [said] if isinstance(said, str) else list(said)
        digest = hashlib.sha256()
        for file in sorted({f for pattern in patterns for f in matching_files(root, pattern)}):
            digest.update(file.encode() + hashlib.sha256(fetched(root, file).read_bytes()).digest())
        return digest.hexdigest()[:32]
    if kind == "python":
        from ratatouille.engine.context import call_version

        return str(call_version(root, asset, str(said)))
    return str(session.rows(str(said))) if session is not None else ""


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
