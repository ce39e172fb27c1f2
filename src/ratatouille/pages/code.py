"""Facts of an asset's code: its file, its YAML file, and the SQL that a run would build it from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ratatouille.engine import look
from ratatouille.engine.plan import State
from ratatouille.errors import RatError, redact
from ratatouille.lake import Entry, Session, ledger
from ratatouille.pages.reading import Reading
from ratatouille.project.records import Asset

LARGEST_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Code:
    """'' for what there is not. `error`: why the SQL cannot be rendered now."""

    path: str = ""
    source: str = ""
    sidecar_path: str = ""
    sidecar: str = ""
    rendered: str = ""
    incremental: str = ""  # as a later run builds it, where that differs
    error: RatError | None = None


def code(seen: Reading, name: str) -> Code:
    """Nothing but empty fields of what no file builds."""
    asset = seen.project.assets.get(name)
    if asset is None:
        return Code()
    root = Path(seen.project.workspace.root)
    known = Code(asset.path, _text(root, asset.path), asset.sidecar, _text(root, asset.sidecar))
    if asset.kind != "sql":
        return known
    if seen.lake is None or seen.session is None:
        return known  # nothing was built: what it reads is not there
    try:
        state = None if seen.project.workspace.environment else _state(seen, seen.session, asset)
        rendered = _plain(look.sql_on(seen.lake, seen.session, seen.project, asset, state))
        if not asset.incremental or name not in seen.standing():
            return replace(known, rendered=rendered)
        later = _plain(look.sql_on(seen.lake, seen.session, seen.project, asset, state, incremental=True))
    except RatError as error:
        return replace(known, error=error)
    return replace(known, rendered=rendered, incremental=later if later != rendered else "")


def _state(seen: Reading, session: Session, asset: Asset) -> State:
    """What rendering asks of the state, as far as it is known: the ledger is not read again for one asset."""
    head = seen.heads().get(asset.name)
    heads = {asset.name: Entry(asset.name, head.run_id, head.version, code_hash=head.code_hash)} if head else {}
    landing = ledger.landing_by_asset(session, [asset.name] if asset.sources else [])
    return State(seen.version, heads, seen.holds(), seen.standing(), landing)


def _text(root: Path, path: str) -> str:
    """The beginning of a text file; nothing of one that is data."""
    if not path or not path.endswith((".sql", ".py", ".yaml", ".yml")):
        return ""
    try:
        with (root / path).open("rb") as file:
            return _plain(file.read(LARGEST_BYTES).decode("utf-8", "replace"))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def _plain(text: str) -> str:
    return redact(text.strip("\n"))
