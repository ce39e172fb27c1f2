"""Make a fetched session visible: files renamed into place, stale ones removed, the manifest last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from .corrections import Correction, compare
from .fetching import ENTITIES, Attempt
from .landing import EntityFile, Manifest, sync_folder, write_manifest


def wanted_now(attempt: Attempt, old: Manifest | None, refresh: bool) -> list[str]:
    """The wanted entities that are not there yet, or were read before the session had settled; all, to refresh."""
    if refresh or old is None or not old.complete:
        return list(attempt.wanted)
    settled_at = attempt.session.end + attempt.settle
    return [
        name
        for name in attempt.wanted
        if (entry := old.entities.get(name)) is None
        or datetime.fromisoformat(entry.extracted_at) < settled_at
        or not _lies_there(attempt, entry)
    ]


def publish(attempt: Attempt, old: Manifest | None) -> tuple[Manifest, list[Correction]]:
    """Rename, remove, write the manifest. Returns it, and how the rows differ from those that were there.

    A kill leaves a manifest that is not complete, and the folder aside: the next run comes here without asking the API.
    """
    layout, session = attempt.layout, attempt.session
    home = layout.home(session)
    # A manifest that is not complete may name files that were still aside then.
    known = {name: entry for name, entry in old.entities.items() if _lies_there(attempt, entry)} if old else {}
    changed = [name for name, entry in attempt.fetched.items() if not _same(attempt, known.get(name), entry)]
    corrections = _corrections(attempt, known, changed) if old and old.complete else []
    manifest = _manifest(attempt, {**known, **attempt.fetched}, missing=())
    if changed and old and old.complete:
        # From here on the files are neither the old session nor the new one.
        write_manifest(layout.manifest(session), replace(old, complete=False, missing=tuple(changed)))
    home.mkdir(parents=True, exist_ok=True)
    for name in attempt.fetched:
        _put(attempt, name, changed)
    sync_folder(home)
    write_manifest(layout.manifest(session), manifest)
    shutil.rmtree(attempt.folder, ignore_errors=True)
    return manifest, corrections


def say_what_is_missing(attempt: Attempt, old: Manifest | None, fetch: Sequence[str], reason: str) -> None:
    """A manifest that is not complete, for a session nobody has read yet. A complete one stands: readers keep it."""
    if old and old.complete:
        return
    missing = [
        *attempt.missing,
        *(name for name in fetch if name not in attempt.fetched),
        *([reason] if reason else []),
    ]
    write_manifest(
        attempt.layout.manifest(attempt.session), _manifest(attempt, attempt.fetched, missing=tuple(missing))
    )


def _put(attempt: Attempt, name: str, changed: Sequence[str]) -> None:
    new = attempt.fetched[name].file
    target = attempt.layout.file(attempt.session, name)
    if new and name in changed:
        os.replace(attempt.folder / new, target)
    # The entity became empty, or is compressed now: a stale file would be loaded for ever.
    stem = target.name.removesuffix(".gz").removesuffix(".json")
    for stale in {f"{stem}.json", f"{stem}.json.gz"} - {new}:
        (target.parent / stale).unlink(missing_ok=True)


def _corrections(attempt: Attempt, known: dict[str, EntityFile], changed: Sequence[str]) -> list[Correction]:
    home, found = attempt.layout.home(attempt.session), []
    for name in changed:
        before, after = known.get(name), attempt.fetched[name]
        if before is None:
            continue  # asked for the first time, which corrects nothing
        old = home / before.file if before.file and (home / before.file).exists() else None
        new = attempt.folder / after.file if after.file else None
        correction = compare(attempt.session.key, name, old, new, ENTITIES[name])
        if correction.added or correction.changed or correction.removed:
            found.append(correction)
    return found


def _manifest(attempt: Attempt, entities: dict[str, EntityFile], *, missing: tuple[str, ...]) -> Manifest:
    session = attempt.session
    return Manifest(
        session_key=session.key,
        meeting_key=session.meeting_key,
        year=session.year,
        session_name=session.name,
        location=session.location,
        batch_day=session.batch_day,
        local_day=session.local_day,
        date_start=session.start.isoformat(),
        date_end=session.end.isoformat(),
        complete=not missing,
        written_at=attempt.now.isoformat(),
        naming=attempt.layout.naming,
        entities={name: entities[name] for name in ENTITIES if name in entities},
        missing=missing,
    )


def _same(attempt: Attempt, old: EntityFile | None, new: EntityFile) -> bool:
    return old is not None and (old.file, old.sha256) == (new.file, new.sha256)


def _lies_there(attempt: Attempt, entry: EntityFile) -> bool:
    """Whether the file of a manifest is there in its size. Its sha256 is for whoever loads it."""
    if entry.file is None:
        return True
    path = attempt.layout.home(attempt.session) / entry.file
    return path.is_file() and path.stat().st_size == entry.bytes
