"""Tables: connect, stage, publish, ledger, journal, versions.

This is the only package that knows what the lake is made of. The rest of the house asks for a few verbs:
`open_lake`, `stage`, `seal`, `publish`, `roll_back`, and reads through a `Session`.
"""

from ratatouille.lake.attached import External, attached_table
from ratatouille.lake.checkpoint import Checkpoint, Spool, open_checkpoint, stage_chunks
from ratatouille.lake.connect import Lake, Storage, confine, load_extension, open_lake, storage_as_text, storage_secrets
from ratatouille.lake.faults import QueryFailed
from ratatouille.lake.journal import Journal, heartbeat, open_journal
from ratatouille.lake.layout import Layout
from ratatouille.lake.ledger import Entry, Hold, LandingFile
from ratatouille.lake.limits import budget_bytes, container_limit_bytes
from ratatouille.lake.publish import Outcome, Publication, Superseded, UnknownOutcome, publish
from ratatouille.lake.session import Session
from ratatouille.lake.stage import Staged, attempt_folder, discard, seal, stage, stage_batches
from ratatouille.lake.verify import damaged_tables
from ratatouille.lake.versions import (
    before_and_after,
    borrowed,
    fed_since,
    newest_version,
    release,
    roll_back,
    standing,
    table_columns,
)

__all__ = [
    "Checkpoint",
    "Entry",
    "External",
    "Hold",
    "Journal",
    "Lake",
    "LandingFile",
    "Layout",
    "Outcome",
    "Publication",
    "QueryFailed",
    "Session",
    "Spool",
    "Staged",
    "Storage",
    "Superseded",
    "UnknownOutcome",
    "attached_table",
    "attempt_folder",
    "before_and_after",
    "borrowed",
    "budget_bytes",
    "confine",
    "container_limit_bytes",
    "damaged_tables",
    "discard",
    "fed_since",
    "heartbeat",
    "load_extension",
    "newest_version",
    "open_checkpoint",
    "open_journal",
    "open_lake",
    "publish",
    "release",
    "roll_back",
    "seal",
    "stage",
    "stage_batches",
    "stage_chunks",
    "standing",
    "storage_as_text",
    "storage_secrets",
    "table_columns",
]
