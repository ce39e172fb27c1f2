"""Bring finished sessions from the API into files, each session whole or not at all.

    with OpenF1() as client:
        done = extract_sessions(client, Path("landing/f1"), mode="latest", sessions=1)

mode       latest (the newest N finished sessions), oldest (the first N), year (all of a year), manual (given keys)
finished   date_end lies `margin` back, and the session was not cancelled: the API lists future sessions too
settled    read a day or more after date_end. Before that lap times are still corrected, so the session is read again
window     15 minutes of one driver's location or car data, from 30 minutes before the start to after the end

What is fetched gathers aside. When a session is whole its files are renamed into place, and its manifest is written
last. If the API fails midway, the windows that came stay aside, and the next run asks for the others only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from .corrections import Correction
from .fetching import ENTITIES, Attempt, Step
from .landing import Layout, Manifest, Naming, Session, Windows, alone_in, checked_naming, manifests, read_manifest
from .openf1 import ApiUnavailable, BadRequest, OpenF1, OpenF1Error, Row
from .publishing import publish, say_what_is_missing, wanted_now

Mode = Literal["latest", "oldest", "year", "manual"]
MODES = ("latest", "oldest", "year", "manual")
FIRST_YEAR = 2023  # the API has nothing before
DEFAULT_ENTITIES = ("sessions", "meetings", "drivers", "laps", "location")
DOCUMENT_ENTITIES = ("sessions", "drivers", "laps", "location")
SETTLE = timedelta(hours=24)
MARGIN = timedelta(minutes=30)


class ExtractionIncomplete(ApiUnavailable):
    """Some windows never came. The sessions that are whole were published; `extraction` says which."""

    extraction: Extraction


@dataclass(frozen=True)
class SessionResult:
    """What became of one session. status: extracted | unchanged | corrected | kept (not asked for) | incomplete."""

    session_key: int
    status: str
    folder: str
    files: int
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Extraction:
    """What a run brought. Times in seconds; rows by entity; sessions that were kept count in `sessions` only."""

    extraction_mode: str
    sessions_extracted: int
    files_count: int
    rows: Mapping[str, int]
    windows: Windows
    corrections: tuple[Correction, ...]
    sessions: tuple[SessionResult, ...]
    api_s: float
    requests: int
    retries: int
    output_log: tuple[str, ...] = ()

    @property
    def log_tail(self) -> str:
        """The last 1,000 characters of the log."""
        return "\n".join(self.output_log)[-1000:]


@dataclass
class _Tally:
    """What a run has brought so far."""

    mode: str
    log: list[str] = field(default_factory=list)
    results: list[SessionResult] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    windows: Windows = field(default_factory=Windows)
    corrections: list[Correction] = field(default_factory=list)
    api_s: float = 0.0
    requests: int = 0
    retries: int = 0
    names: dict[tuple[str, str, str], int] = field(default_factory=dict)  # (batch_day, location, name) -> session

    def extraction(self) -> Extraction:
        fetched = [one for one in self.results if one.status not in ("kept", "incomplete")]
        return Extraction(
            extraction_mode=self.mode,
            sessions_extracted=len(fetched),
            files_count=sum(one.files for one in fetched),
            rows=dict(self.rows),
            windows=self.windows,
            corrections=tuple(self.corrections),
            sessions=tuple(self.results),
            api_s=round(self.api_s, 3),
            requests=self.requests,
            retries=self.retries,
            output_log=tuple(self.log),
        )


def extract_sessions(
    client: OpenF1,
    folder: Path,
    *,
    mode: str = "latest",
    sessions: int = 1,
    year: int | None = None,
    session_keys: Collection[int] = (),
    entities: Sequence[str] | None = None,
    naming: str = "session",
    compressed: bool = False,
    refresh: bool = False,
    settle: timedelta = SETTLE,
    margin: timedelta = MARGIN,
    workers: int = 3,
    progress: Callable[[Step], None] | None = None,
    now: datetime | None = None,
) -> Extraction:
    """Extract the sessions of `mode` into `folder` and say what was brought.

    sessions: how many, for latest and oldest. year: for the mode year; limits latest and oldest if given.
    entities: names of ENTITIES; by default those of the document. refresh: read again what is there, and compare.

    Raises SessionInProgress (retry later), ApiUnavailable (what came stays aside), ExtractionIncomplete when windows
    are missing at the end, BadRequest for a request that cannot be met, OpenF1Error when the disk refuses.
    """
    layout = Layout(folder, checked_naming(naming), compressed)
    wanted = _checked_entities(entities, layout.naming)
    _check_request(mode, sessions, year, session_keys, workers)
    now = now or datetime.now(UTC)
    tally = _Tally(mode)

    def say(step: Step) -> None:
        if step.final:
            tally.log.append(str(step))
        if progress:
            progress(step)

    try:
        with alone_in(folder):
            for _, known in manifests(folder) if layout.naming == "document" else ():
                tally.names[known.batch_day, known.location, known.session_name] = known.session_key
            chosen = _chosen(client, mode, sessions, year, session_keys, now - margin, say)
            for session in chosen:
                attempt = Attempt(client, layout, session, wanted, now, settle, workers, say)
                _extract_one(attempt, tally, refresh)
    except OpenF1Error as error:
        whole = sum(one.status != "incomplete" for one in tally.results)
        error.state = f"{whole} sessions are whole in {folder}; what came of the next one stays aside."
        raise
    except OSError as error:
        raise OpenF1Error(
            f"The files cannot be written: {error.strerror or error}.",
            where=str(error.filename or folder),
            state="Sessions that were whole are whole; what came of the next one stays aside.",
            next="Make room or allow writing, and run the same command again.",
        ) from error
    return _finished(tally, folder)


def _finished(tally: _Tally, folder: Path) -> Extraction:
    done = tally.extraction()
    lacking = [one.session_key for one in done.sessions if one.status == "incomplete"]
    if lacking:
        error = ExtractionIncomplete(
            f"{done.windows.failed} requests failed for good; incomplete: {', '.join(map(str, lacking))}.",
            where=str(folder),
            state=f"{len(done.sessions) - len(lacking)} sessions are whole; what came of the others stays aside.",
            next="Run the same command again: it asks for the missing windows only.",
        )
        error.extraction = done
        raise error
    return done


def _extract_one(attempt: Attempt, tally: _Tally, refresh: bool) -> None:
    layout, session = attempt.layout, attempt.session
    old = read_manifest(layout.manifest(session))
    other = tally.names.setdefault((session.batch_day, session.location, session.name), session.key)
    if other != session.key and layout.naming == "document":
        raise BadRequest(
            f"Sessions {other} and {session.key} have the same file names in the document's layout.",
            where=str(layout.file(session, "sessions")),
            next="Extract them with the naming 'session'.",
        )
    fetch = wanted_now(attempt, old, refresh)
    if old and not fetch:
        rows = {name: entry.rows for name, entry in old.entities.items()}
        tally.results.append(SessionResult(session.key, "kept", str(layout.home(session)), len(rows), rows))
        attempt.say(Step(session.key, "", f"{_title(session)}: complete already", final=True))
        return
    attempt.begin()
    try:
        for name in fetch:
            attempt.fetch(name)
    except OpenF1Error as error:
        say_what_is_missing(attempt, old, fetch, str(error.what))
        raise
    finally:
        tally.api_s += attempt.api_s
        tally.requests += attempt.requests
        tally.retries += attempt.retries
        tally.windows = tally.windows.plus(attempt.windows)
    if attempt.missing:
        say_what_is_missing(attempt, old, fetch, "")
        tally.results.append(SessionResult(session.key, "incomplete", str(layout.home(session)), 0, {}))
        attempt.say(Step(session.key, "", f"{_title(session)}: {len(attempt.missing)} windows missing", final=True))
        return
    manifest, corrections = publish(attempt, old)
    _count(attempt, tally, manifest, corrections, old)


def _count(
    attempt: Attempt, tally: _Tally, manifest: Manifest, corrections: Sequence[Correction], old: Manifest | None
) -> None:
    session = attempt.session
    rows = {name: manifest.entities[name].rows for name in attempt.fetched}
    tally.rows.update(rows)
    tally.corrections.extend(corrections)
    status = "extracted" if not (old and old.complete) else "corrected" if corrections else "unchanged"
    files = sum(manifest.entities[name].file is not None for name in attempt.fetched)
    tally.results.append(SessionResult(session.key, status, str(attempt.layout.home(session)), files, rows))
    total = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    attempt.say(Step(session.key, "", f"{_title(session)}: {status}, {files} files: {total}", final=True))
    for correction in corrections:
        attempt.say(Step(session.key, correction.entity, str(correction), final=True))
    if not rows.get("drivers", 1):
        attempt.say(Step(session.key, "drivers", f"{_title(session)}: the API knows no driver of it", final=True))


def _title(session: Session) -> str:
    return f"{session.key} {session.location} {session.name} {session.batch_day}"


def _chosen(
    client: OpenF1,
    mode: str,
    count: int,
    year: int | None,
    keys: Collection[int],
    before: datetime,
    say: Callable[[Step], None],
) -> list[Session]:
    """The sessions of a mode that ended before `before` and were not cancelled, oldest first."""
    if mode == "manual":
        answer = client.rows("sessions", *(("session_key", "=", key) for key in sorted(set(keys))))
        unknown = sorted(set(keys) - {row.get("session_key") for row in answer.rows})
        if unknown:
            raise BadRequest(
                f"OpenF1 knows no session {', '.join(map(str, unknown))}.",
                where="session_keys",
                next="Leave them out, or look the keys up at /v1/sessions?year=2024.",
            )
        return _finished_sessions(answer.rows, before, say, tell=True)
    years = range(FIRST_YEAR, before.year + 1) if year is None else [year]
    found: list[Session] = []
    for one in reversed(years) if mode == "latest" else years:
        found += _finished_sessions(client.rows("sessions", ("year", "=", one)).rows, before, say, tell=mode == "year")
        if mode != "year" and len(found) >= count:
            break
    found.sort(key=lambda session: (session.start, session.key))
    if not found:
        span = f"{year}" if year is not None else f"{FIRST_YEAR} to {before.year}"
        raise BadRequest(f"OpenF1 has no finished session in {span}.", where="sessions", next="Ask for another year.")
    if mode == "year":
        return found
    return found[-count:] if mode == "latest" else found[:count]


def _finished_sessions(
    rows: Sequence[Row], before: datetime, say: Callable[[Step], None], *, tell: bool
) -> list[Session]:
    found: dict[int, Session] = {}
    for row in rows:
        try:
            session = Session.of(row)
        except ValueError as error:
            say(Step(0, "sessions", f"left out: {error}", final=True))
            continue
        reason = "cancelled" if session.cancelled else "not finished yet" if session.end >= before else ""
        if reason and tell:
            say(Step(session.key, "sessions", f"left out: {_title(session)} is {reason}", final=True))
        if not reason:
            found[session.key] = session
    return sorted(found.values(), key=lambda session: (session.start, session.key))


def _checked_entities(entities: Sequence[str] | None, naming: Naming) -> tuple[str, ...]:
    if entities is None:
        return DOCUMENT_ENTITIES if naming == "document" else DEFAULT_ENTITIES
    unknown = sorted(set(entities) - set(ENTITIES))
    if unknown or not entities:
        raise BadRequest(
            f"There is no entity {', '.join(map(repr, unknown)) or 'to extract'}.",
            where="entities",
            next=f"Use {', '.join(ENTITIES)}.",
        )
    # Drivers and laps come before telemetry, which needs to know who drove; a manifest needs the session itself.
    return tuple(name for name in ENTITIES if name in {*entities, "sessions"})


def _check_request(mode: str, sessions: int, year: int | None, keys: Collection[int], workers: int) -> None:
    wrong = ""
    if mode not in MODES:
        wrong = f"There is no mode {mode!r}."
    elif mode in ("latest", "oldest") and sessions < 1:
        wrong = f"{sessions} sessions cannot be extracted."
    elif mode == "year" and year is None:
        wrong = "The mode year needs a year."
    elif mode == "manual" and not keys:
        wrong = "The mode manual needs session keys."
    elif workers < 1:
        wrong = "At least one worker is needed."
    if wrong:
        raise BadRequest(wrong, where="mode", next=f"Modes: {', '.join(MODES)}; sessions at least 1; year as in 2024.")
