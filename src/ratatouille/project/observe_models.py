"""What `observe:` and `alerts:` of workspace.yaml may say: closed models, also the source of the editors' JSON Schema."""
# ruff: noqa: RUF012  pydantic copies the defaults

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ratatouille.project.yaml_fields import Closed, Duration, Share, Size, Texts

Condition = Literal[
    "run_failed",
    "gate_failed",
    "gate_warned",
    "quarantine",
    "regression",
    "anomaly",
    "stale",
    "memory_pressure",
    "disk_low",
    "overdue",
    "recovered",
]


class ShareLimitsModel(Closed):
    warn: Share | None = None
    """From where on it is worth a warning; 0 is never."""
    fail: Share | None = None
    """From where on it counts as a failure, for alerts with level: fail; 0 is never."""


class SizeLimitsModel(Closed):
    warn: Size | None = None
    """Below this it is worth a warning."""
    fail: Size | None = None
    """Below this it counts as a failure."""


class ObserveModel(Closed):
    window: Annotated[int | None, Field(ge=3, le=500)] = None
    """How many earlier steps of an asset are looked at: those of the same engine, machine, profile and mode (default 30)."""
    at_least: Annotated[int | None, Field(ge=3, le=500)] = None
    """With fewer of them nothing is said (default 6)."""
    confirm: Annotated[int | None, Field(ge=1, le=10)] = None
    """How many steps in a row must be too slow, or too large, before it is a regression (default 2)."""
    time: ShareLimitsModel = ShareLimitsModel()
    """How much slower than usual, for as many rows (default 10% and 25%)."""
    memory: ShareLimitsModel = ShareLimitsModel()
    """How much more memory than usual (default 20% and 50%)."""
    quality: ShareLimitsModel = ShareLimitsModel()
    """How many points fewer rows than usual pass, or score in a check (default 5% and 10%)."""
    rows: ShareLimitsModel = ShareLimitsModel()
    """How many rows more or fewer than usual are an anomaly (default 50%, no failure)."""
    nulls: ShareLimitsModel = ShareLimitsModel()
    """How many points more or fewer nulls in a column are an anomaly (default 5%, no failure)."""
    memory_used: ShareLimitsModel = ShareLimitsModel()
    """The share of the profile's memory that is pressure (default 80% and 95%)."""
    disk_left: SizeLimitsModel = SizeLimitsModel()
    """How little room on the disk is a worry (default 2GB and 500MB)."""
    keep_runs: Duration | None = None
    """How long `rat clean` keeps the records of runs (default 90d). Their figures stay longer."""
    keep_figures: Duration | None = None
    """How long it keeps the figures of steps, in short (default 730d)."""


class AlertRuleModel(Closed):
    when: list[Condition]
    """What it is about. With `recovered` it also tells when that is over; `recovered` alone: of anything."""
    to: Texts
    """The channels that are told."""
    assets: str = ""
    """Which assets, as in rat run: tag:critical, owner:ada, pipeline:sales and not layer:bronze (default: all)."""
    level: Literal["warn", "fail"] = "warn"
    """Of what has two levels (regression, stale, overdue, memory_pressure, disk_low): from which on."""
    over: Share = 0.0
    """Of quarantine: the share of the rows that must be kept out before it is told."""
    cooldown: Duration = 3600.0
    """For how long the same thing of the same asset is not told again (default 1h)."""
    repeat: Duration = 86_400.0
    """How often it is told again while it lasts (default 1d); 0 is never."""
    title: str = ""
    """A template for the first line; docs/observe.md says what it may use."""
    message: str = ""
    """A template for the rest."""


class AlertsModel(Closed):
    channels: dict[str, str] = {}
    """Names, and the variable that holds the address of each, like ${TEAM_CHANNEL}: any address that apprise knows."""
    rules: dict[str, AlertRuleModel] = {}
    """Rules by name."""
