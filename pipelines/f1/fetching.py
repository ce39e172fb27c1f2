"""Fetch one session, entity by entity and window by window, into the folder aside.

attempt   one go at a session; takes up what an earlier one left aside
step      where it is, for a progress display and the log
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .corrections import rows_of_file
from .landing import ENRICHED, EntityFile, Layout, Part, Session, Windows, chunk_of, start_aside
from .openf1 import Answer, ApiUnavailable, Condition, OpenF1, WindowTooLarge

WINDOW = timedelta(minutes=15)
BEFORE_START, AFTER_END = timedelta(minutes=30), timedelta(minutes=30)
LONGEST_OVERRUN = timedelta(hours=4)  # windows go on after the end while they have rows, so far at most
FAILURES_IN_A_ROW = 3  # then the API is down, and asking 200 times more helps nobody
ATTEMPT_LASTS = timedelta(hours=24)  # what gathered aside longer ago is fetched anew
WHOLE = "whole"

# Entity (the endpoint has the same name) -> the columns that tell its rows apart within a session.
ENTITIES: dict[str, tuple[str, ...]] = {
    "sessions": ("session_key",),
    "meetings": ("meeting_key",),
    "drivers": ("driver_number",),
    "laps": ("driver_number", "lap_number"),
    "position": ("driver_number", "date"),
    "pit": ("driver_number", "lap_number"),
    "stints": ("driver_number", "stint_number"),
    "weather": ("date",),
    "race_control": ("date", "message"),
    "intervals": ("driver_number", "date"),
    "session_result": ("driver_number",),
    "starting_grid": ("driver_number",),
    "location": ("driver_number", "date"),
    "car_data": ("driver_number", "date"),
}
WINDOWED = ("location", "car_data")
DATED = ("position", "intervals", "weather", "race_control", "pit")  # a date on every row, so time can split them


@dataclass(frozen=True)
class Step:
    """`done` of `total` windows of an entity, `rows` so far. `final`: worth a line in the log."""

    session_key: int
    entity: str
    text: str = ""
    done: int = 0
    total: int = 0
    rows: int = 0
    final: bool = False

    def __str__(self) -> str:
        return self.text or f"{self.session_key} {self.entity}: window {self.done} of {self.total}, {self.rows:,} rows"


@dataclass(frozen=True)
class Window:
    """One request for telemetry: a driver and a span of time."""

    driver: int
    start: datetime
    end: datetime

    @property
    def id(self) -> str:
        return f"{self.driver} {self.start:%Y-%m-%dT%H:%M:%S}"


@dataclass
class Attempt:
    """One go at a session. `fetched`: entities that are whole aside; `missing`: windows that failed for good."""

    client: OpenF1
    layout: Layout
    session: Session
    wanted: Sequence[str]
    now: datetime
    settle: timedelta
    workers: int
    say: Callable[[Step], None]

    def __post_init__(self) -> None:
        self.fetched: dict[str, EntityFile] = {}
        self.missing: list[str] = []
        self.windows = Windows()
        self.api_s, self.requests, self.retries = 0.0, 0, 0
        self.began_at = self.now
        self.folder = self.layout.aside(self.session)

    def begin(self) -> None:
        """Take up the folder aside. Windows of another attempt count if the session has kept its times since."""
        shape = {
            "start": self.session.start.isoformat(),
            "end": self.session.end.isoformat(),
            "naming": self.layout.naming,
            "compressed": self.layout.compressed,
        }
        self.began_at = start_aside(self.folder, shape, now=self.now, lasts=ATTEMPT_LASTS)

    def fetch(self, entity: str) -> None:
        """Fetch an entity whole into the folder aside, or add to `missing`."""
        with Part(self.folder, entity) as part:
            order = self._telemetry(part, entity) if entity in WINDOWED else self._whole(part, entity)
            pieces = [part.pieces[id] for id in order if id in part.pieces]
            windows = Windows(
                fetched=sum(piece.rows > 0 for piece in pieces),
                empty=sum(piece.rows == 0 for piece in pieces),
                failed=len(order) - len(pieces),
                split=sum(piece.splits for piece in pieces),
                resumed=part.resumed,
            )
            self.windows = self.windows.plus(windows)
            rows = sum(piece.rows for piece in pieces)
            if windows.failed:
                return
            target = self.layout.file(self.session, entity)
            size, digest = part.assemble(order, self.folder / target.name) if rows else (0, None)
        self.fetched[entity] = EntityFile(
            rows=rows,
            file=target.name if rows else None,
            bytes=size,
            sha256=digest,
            extracted_at=self.began_at.isoformat(),
            api_s=round(sum(piece.api_s for piece in pieces), 3),
            requests=sum(piece.requests for piece in pieces),
            retries=sum(piece.retries for piece in pieces),
            windows=windows,
        )
        self.say(Step(self.session.key, entity, "", len(order), len(order), rows))

    def _add(self, part: Part, id: str, entity: str, answer: Answer) -> None:
        more: dict[str, Any] | None = None
        if entity in ENRICHED:
            more = {"session_name": self.session.name, "batch_day": self.session.batch_day}
        chunk = chunk_of(answer.rows, ENTITIES[entity], self.layout.naming, more)
        self.api_s += answer.api_s
        self.requests += answer.requests
        self.retries += answer.retries
        part.add(
            id,
            chunk,
            rows=len(answer.rows),
            api_s=answer.api_s,
            requests=answer.requests,
            retries=answer.retries,
            splits=answer.splits,
        )

    def _whole(self, part: Part, entity: str) -> list[str]:
        if WHOLE not in part.pieces:
            self._add(part, WHOLE, entity, self._rows(entity))
        return [WHOLE]

    def _rows(self, entity: str) -> Answer:
        """All rows of an entity that has no windows. Too large for one answer: by driver, or by time."""
        if entity == "sessions":
            return Answer([self.session.row], requests=0)
        if entity == "meetings":
            return self.client.rows(entity, ("meeting_key", "=", self.session.meeting_key))
        session: Condition = ("session_key", "=", self.session.key)
        try:
            return self.client.rows(entity, session)
        except WindowTooLarge:
            if entity in DATED:
                day = timedelta(days=1)
                return self.client.rows_between(entity, self.session.start - day, self.session.end + day, session)
            if entity != "laps":
                raise
        # The start of a lap can be null, so time would lose laps; drivers do not.
        found = Answer([], requests=1, splits=1)
        for number in self._numbers():
            found = found.plus(self.client.rows(entity, session, ("driver_number", "=", number)))
        return found

    def _telemetry(self, part: Part, entity: str) -> list[str]:
        numbers = self._numbers()
        total = len(numbers) * len(_grid(self.session, numbers[0])) if numbers else 0
        order: list[str] = []
        failures, rows = 0, 0
        of_driver = dict.fromkeys(numbers, 0)
        with ThreadPoolExecutor(self.workers, thread_name_prefix="f1-window") as pool:
            for number in numbers:
                for window, answer in self._of_driver(pool, part, entity, number):
                    order.append(window.id)
                    if isinstance(answer, Answer):
                        self._add(part, window.id, entity, answer)
                        failures = 0
                    elif answer is not None:
                        self.missing.append(f"{entity} {window.id}")
                        failures += 1
                        if failures == FAILURES_IN_A_ROW:
                            raise answer
                    brought = part.pieces[window.id].rows if window.id in part.pieces else 0
                    rows += brought
                    of_driver[number] += brought
                    self.say(Step(self.session.key, entity, "", len(order), max(total, len(order)), rows))
        if silent := [str(number) for number, count in of_driver.items() if not count]:
            text = f"{self.session.key} {entity}: no rows of drivers {', '.join(silent)}"
            self.say(Step(self.session.key, entity, text, len(order), total, rows, final=True))
        return order

    def _of_driver(
        self, pool: ThreadPoolExecutor, part: Part, entity: str, number: int
    ) -> Iterator[tuple[Window, Answer | ApiUnavailable | WindowTooLarge | None]]:
        """A driver's windows in order: an answer, the error that is left of it, or None for one that is there."""
        windows = _grid(self.session, number)
        yield from _in_order(pool, self._one_window(part, entity), windows, ahead=2 * self.workers)
        # A session can run late: go on while there is something.
        last = windows[-1]
        while last.end < self.session.end + LONGEST_OVERRUN and last.id in part.pieces and part.pieces[last.id].rows:
            last = Window(number, last.end, last.end + WINDOW)
            yield last, self._one_window(part, entity)(last)

    def _one_window(
        self, part: Part, entity: str
    ) -> Callable[[Window], Answer | ApiUnavailable | WindowTooLarge | None]:
        def ask(window: Window) -> Answer | ApiUnavailable | WindowTooLarge | None:
            if window.id in part.pieces:
                return None
            conditions: tuple[Condition, ...] = (
                ("session_key", "=", self.session.key),
                ("driver_number", "=", window.driver),
            )
            try:
                return self.client.rows_between(entity, window.start, window.end, *conditions)
            except (ApiUnavailable, WindowTooLarge) as error:
                return error

        return ask

    def _numbers(self) -> list[int]:
        """Who drove: the drivers of the session, and whoever has laps without being among them."""
        numbers: set[int] = set()
        known = False
        for entity in ("drivers", "laps"):
            name = self.layout.file(self.session, entity).name
            for path in (self.folder / name, self.layout.home(self.session) / name):
                if path.exists():
                    numbers |= {
                        row["driver_number"] for row in rows_of_file(path) if _is_number(row.get("driver_number"))
                    }
                    known = known or entity == "drivers"
                    break
        if not known:
            answer = self.client.rows("drivers", ("session_key", "=", self.session.key))
            numbers |= {row["driver_number"] for row in answer.rows if _is_number(row.get("driver_number"))}
        return sorted(numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _grid(session: Session, number: int) -> list[Window]:
    """The windows of one driver, from half an hour before the start until half an hour after the end."""
    windows, start = [], session.start - BEFORE_START
    while start < session.end + AFTER_END:
        windows.append(Window(number, start, start + WINDOW))
        start += WINDOW
    return windows


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Window], Any], windows: Iterable[Window], *, ahead: int
) -> Iterator[tuple[Window, Any]]:
    """(window, result) in the order given, while at most `ahead` more are asked for or wait in memory."""
    waiting: deque[tuple[Window, Future[Any]]] = deque()
    try:
        for window in windows:
            waiting.append((window, pool.submit(work, window)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
