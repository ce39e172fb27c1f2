"""Triggers and freshness as a sidecar says them: usual words and cron lines, and each mistake at its place."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from ratatouille.project.cron import WORDS, cron_line
from ratatouille.project.records import Project

Make = Callable[..., Project]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        *(((word, line)) for word, line in WORDS.items()),
        *(((f"@{word}", line)) for word, line in WORDS.items()),
        ("Daily", "0 0 * * *"),
        (" 0  2 * * * ", "0 2 * * *"),
        ("*/15 8-18 * * MON-FRI", "*/15 8-18 * * mon-fri"),
        ("5,35 0-23/2 1,15 jan-jun/2 *", "5,35 0-23/2 1,15 jan-jun/2 *"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 31 2 1", "0 0 31 2 1"),  # or a Monday
        ("0 0 31 1,2 *", "0 0 31 1,2 *"),
        ("0 0 * * 7", "0 0 * * 7"),
    ],
)
def test_what_is_understood(said: str, line: str) -> None:
    assert cron_line(said) == line


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("dayly", "write five fields"),
        ("", "write five fields"),
        ("0 2 * *", "write five fields"),
        ("0 0 2 * * *", "write five fields"),
        ("60 * * * *", "the minute is from 0 to 59, not '60'"),
        ("0 24 * * *", "the hour is from 0 to 23, not '24'"),
        ("0 0 0 * *", "the day of the month is from 1 to 31, not '0'"),
        ("0 0 1 13 *", "the month is from 1 to 12, not '13'"),
        ("0 0 1 mon *", "the month is from 1 to 12, not 'mon'"),
        ("0 0 * * 8", "the day of the week is from 0 to 7, not '8'"),
        ("0 18-8 * * *", "'18-8' ends before it starts"),
        ("*/90 * * * *", "a step of the minute in '*/90' is from 1 to 59, not 90"),
        ("*/0 * * * *", "a step of the minute in '*/0' is from 1 to 59, not 0"),
        ("1-20/30 * * * *", "a step of the minute in '1-20/30' is from 1 to 19, not 30"),
        ("50/20 * * * *", "a step of the minute in '50/20' is from 1 to 9, not 20"),
        ("0 0 * * 0-0", "'0-0' is one day of the week: write 0"),
        ("0 0 30 2 *", "no year has such a day"),
        ("0 0 31 apr,jun *", "no year has such a day"),
        ("0 0 L * *", "not 'l'"),
        ("0 0 * * fri#2", "'fri#2' is not a day of the week"),
        ("1, * * * *", "'' is not a minute"),
    ],
)
def test_what_is_not(said: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        cron_line(said)


@pytest.mark.parametrize(
    ("line", "column", "sentence"),
    [
        ("triggers: [{schedule: 61 2 * * *}]", 23, "'schedule': the minute is from 0 to 59"),
        ("triggers: [{schedule: dayly}]", 23, "'schedule': write five fields"),
        ("triggers: [{schedule: daily, timezone: Mars/Phobos}]", 40, "there is no time zone 'Mars/Phobos'"),
        ("triggers: [{files: landing/*.csv, timezone: UTC}]", 45, "only a schedule has a time zone"),
        ("triggers: [{files: /tmp/*.csv}]", 20, "write files of this workspace"),
        ("triggers: [{files: ../*.csv}]", 20, "write files of this workspace"),
        ("triggers: [{files: ''}]", 20, "write files of this workspace"),
        ("triggers: [{schedule: daily, files: landing/*.csv}]", 37, "write schedule and files as two triggers"),
        ("triggers: [{files: a, upstream: true}]", 33, "write files and upstream as two triggers"),
        ("triggers: [{status: running}]", 12, "a trigger says one of schedule"),
        ("triggers: [{upstream: false}]", 23, "a trigger says one of schedule"),
        ("triggers: [{schedule: daily, status: on}]", 38, "'on' is not a value of status"),
        ("freshness: {warn_after: 5s}", 25, "'warn_after': must be a minute"),
        ("freshness: {warn_after: 2h, error_after: 1h}", 42, "'error_after': must be longer than warn_after"),
    ],
)
def test_a_mistake_has_its_place(line: str, column: int, sentence: str, make: Make) -> None:
    text = f"description: x\n{line}\n"
    problems = make({"silver/a.sql": "select 1 as a", "silver/a.yaml": text}).problems
    assert [(p.line, p.column, p.severity, p.asset) for p in problems] == [(2, column, "error", "silver.a")], problems
    assert sentence in problems[0].message and problems[0].path.endswith("silver/a.yaml")


def test_what_is_right_is_kept(make: Make) -> None:
    text = """
freshness: {warn_after: 1h}
triggers:
  - {schedule: daily, timezone: Europe/Paris, status: running}
  - {files: "landing/**/*.csv"}
  - {upstream: true, status: stopped}
"""
    project = make({"silver/a.sql": "select 1 as a", "silver/a.yaml": text})
    assert project.errors == ()
    assert project.assets["silver.a"].freshness == {"warn_after_s": 3600.0}
    assert project.assets["silver.a"].triggers == (
        {"schedule": "0 0 * * *", "timezone": "Europe/Paris", "status": "running"},
        {"files": "landing/**/*.csv"},
        {"upstream": True, "status": "stopped"},
    )
