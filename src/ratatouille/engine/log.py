"""What Python assets say while a run goes on (`context.log`), kept for whoever looks at the run later.

The newest lines of each asset, and never much: this is no log file. Where nobody listens to these loggers, warnings go to
standard error as they would without it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ratatouille.errors import redact

LINES, LETTERS = 100, 500  # of each asset, of each line
LOGGER = "ratatouille"


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: dict[str, deque[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        asset = record.name.removeprefix(f"{LOGGER}.")
        at = time.strftime("%H:%M:%S", time.gmtime(record.created))
        try:
            said = redact(record.getMessage())
        except Exception as error:  # as the logging of others: what cannot be written down stops nobody
            said = f"{record.msg!r} cannot be written: {error}"
        self.lines.setdefault(asset, deque(maxlen=LINES)).append(f"{at} {record.levelname.lower()}: {said[:LETTERS]}")
        alone = not logging.getLogger().handlers
        if alone and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)


@contextmanager
def kept_log() -> Iterator[Mapping[str, Sequence[str]]]:
    """Asset -> its newest lines (time in UTC, level, text), from INFO on, while the block runs."""
    keeper, logger = _Keeper(), logging.getLogger(LOGGER)
    before = logger.level
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    logger.addHandler(keeper)
    try:
        yield keeper.lines
    finally:
        logger.removeHandler(keeper)
        logger.setLevel(before)
