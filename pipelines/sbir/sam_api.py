"""Ask SAM.gov's entity API about UEIs: the second way, where the monthly file lacks them.

quota     requests a day that the key may make: 10, 1,000 or 10,000. A request counts when it is sent, whatever comes of
          it; the counter is on disk, so a second run of the day goes on counting
batch     100 UEIs in one question; the API answers ten at a time, so a batch costs up to ten requests
cache     one small file for each UEI that was asked about, also for one that SAM does not know. It holds what SAM
          publishes about the entity and nothing of ours
left      UEIs that the quota did not reach; the next run asks about them first

A run never fails because the quota has ended: it gives what it has and says what is left.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.sbir.asking import Asker, Clock, Costs, Manners, Refused, Throttled

PUBLIC_API = "https://api.sam.gov"
PATH = "/entity-information/v3/entities"
BATCH, PAGE = 100, 10
UEI = re.compile(r"[A-Z0-9]{12}")
COLUMNS = (
    *("unique_entity_id", "cage_code", "duns_number", "legal_business_name", "dba_name", "registration_status"),
    *("physical_address_line_1", "physical_address_line_2", "city", "state", "zip_postal_code"),
    *("primary_naics", "naics_code_string"),
)


@dataclass(frozen=True)
class Settings:
    """How to reach the API, and what the key may do. `folder` keeps the counter and the cache."""

    folder: Path
    key: str = field(repr=False)
    base_url: str = PUBLIC_API
    daily_quota: int = 10
    cache_days: float = 30
    manners: Manners = field(default_factory=Manners)

    @classmethod
    def from_environment(cls, folder: Path, environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """SAM_GOV_API_KEY, SAM_GOV_API_URL and SAM_GOV_DAILY_QUOTA. Refused without a key."""
        found = os.environ if environment is None else environment
        if not (key := found.get("SAM_GOV_API_KEY", "").strip()):
            raise Refused("There is no key for SAM.gov.", next="Set SAM_GOV_API_KEY, or load the monthly file instead.")
        given.setdefault("base_url", found.get("SAM_GOV_API_URL") or PUBLIC_API)
        if "daily_quota" not in given and (quota := found.get("SAM_GOV_DAILY_QUOTA")):
            if not quota.isdecimal():
                raise Refused("SAM_GOV_DAILY_QUOTA is no number.", next="10, 1000 or 10000")
            given["daily_quota"] = int(quota)
        return cls(folder, key, **given)


@dataclass(frozen=True)
class Answer:
    """`rows` has COLUMNS, all text, one for each entity found. `missing` is unknown to SAM, `left` was not asked.

    An entity that is left and was known before is in the rows as it was then: old news, but no reason to forget it.
    """

    rows: list[dict[str, str | None]]
    missing: list[str]
    left: list[str]
    from_cache: int
    costs: Costs
    stopped: str = ""  # why there is something left

    @property
    def report(self) -> str:
        """One sentence for a log."""
        said = (
            f"{len(self.rows):,} entities ({self.from_cache:,} known from before), {len(self.missing):,} unknown to SAM"
        )
        said += f", {self.costs.requests:,} requests, {self.costs.retries:,} of them again"
        return said + (f"; {len(self.left):,} left: {self.stopped}" if self.left else "")


class _QuotaEnded(Exception):
    pass


class SamApi:
    """The API, as one key sees it. Close it, or use it in a `with`."""

    def __init__(self, settings: Settings, clock: Clock = time, today: Any = None) -> None:
        if not re.fullmatch(r"[\x21-\x7e]{8,200}", settings.key):
            raise Refused("The key for SAM.gov has signs that no key has.", next="Check SAM_GOV_API_KEY.")
        self.settings = settings
        self._today = today or (lambda: datetime.now(UTC))
        self._asker = Asker(
            "SAM.gov",
            settings.base_url,
            settings.manners,
            headers={"X-Api-Key": settings.key},
            before_each=self._count,
            clock=clock,
        )
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def __enter__(self) -> SamApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._asker.close()

    def entities(self, ueis: Iterable[str]) -> Answer:
        """What SAM says about these UEIs; each once, those that are no UEIs are missing.

        Raises Refused (a bad key, a bad question) and Unavailable (no answer in all attempts); what was fetched by
        then is in the cache.
        """
        asked = list(dict.fromkeys(ueis))
        known = {uei: self._cached(uei) for uei in asked if UEI.fullmatch(uei)}
        from_cache = sum(1 for one in known.values() if one)
        waiting = [uei for uei, one in known.items() if one is None]
        stopped = ""
        for at in range(0, len(waiting), BATCH):
            try:
                known.update(self._batch(waiting[at : at + BATCH]))
            except _QuotaEnded:
                stopped = f"the quota of {self.settings.daily_quota} requests a day has ended"
            except Throttled as error:
                self._spend_all()
                stopped = "SAM.gov says that the quota has ended" + (f" until {error.until}" if error.until else "")
            if stopped:
                known.update({uei: self._cached(uei) for uei in waiting[at : at + BATCH]})
                break
        old = [entity for uei, one in known.items() if one is None and (entity := self._cached(uei, any_age=True))]
        return Answer(
            rows=[one for one in known.values() if one] + old,
            missing=[uei for uei in asked if uei not in known or known[uei] == {}],
            left=[uei for uei, one in known.items() if one is None],
            from_cache=from_cache,
            costs=self._asker.costs,
            stopped=stopped,
        )

    def quota_left(self) -> int:
        """Requests that are left today."""
        with self._counter() as counter:
            return max(0, self.settings.daily_quota - counter["used"])

    def _batch(self, ueis: list[str]) -> dict[str, dict[str, str | None] | None]:
        found: dict[str, dict[str, str | None] | None] = {}
        page = 0
        while True:
            said = self._asker.get(
                PATH,
                {
                    "ueiSAM": f"[{'~'.join(ueis)}]",
                    "includeSections": "entityRegistration,coreData,assertions",
                    "page": str(page),
                    "size": str(PAGE),
                },
            )
            rows = [row for one in said.get("entityData") or [] if (row := entity_row(one))]
            for row in rows:
                if row["unique_entity_id"] in ueis:
                    found[str(row["unique_entity_id"])] = row
                    self._keep(str(row["unique_entity_id"]), row)
            page += 1
            if not rows or page * PAGE >= _number(said.get("totalRecords")):
                break
        unknown: dict[str, dict[str, str | None] | None] = {uei: {} for uei in ueis if uei not in found}
        for uei in unknown:
            self._keep(uei, {})
        return found | unknown

    def _count(self) -> None:
        with self._counter() as counter:
            if counter["used"] >= self.settings.daily_quota:
                raise _QuotaEnded
            counter["used"] += 1

    def _spend_all(self) -> None:
        with self._counter() as counter:
            counter["used"] = max(counter["used"], self.settings.daily_quota)

    @contextmanager
    def _counter(self) -> Iterator[dict[str, Any]]:
        """What was used today, locked against other processes and written back."""
        day = self._today().astimezone(UTC).date().isoformat()
        with (self.settings.folder / "quota.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self.settings.folder / "quota.json"
            counter = _read(path) or {}
            if counter.get("day") != day or not isinstance(counter.get("used"), int):
                counter = {"day": day, "used": 0}
            before = dict(counter)
            try:
                yield counter
            finally:
                if counter != before:
                    _write(path, counter)

    def _cache_file(self, uei: str) -> Path:
        return self.settings.folder / "entities" / uei[-2:] / f"{uei}.json"

    def _cached(self, uei: str, any_age: bool = False) -> dict[str, str | None] | None:
        """The entity; {} when SAM did not know it; None when we do not know."""
        said = _read(self._cache_file(uei))
        try:
            asked_at = datetime.fromisoformat(said["asked_at"])  # type: ignore[index]
            entity = {name: said["entity"][name] for name in COLUMNS} if said["entity"] else {}  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            return None
        young = self._today() - asked_at < timedelta(days=self.settings.cache_days)
        return entity if young or any_age else None

    def _keep(self, uei: str, row: Mapping[str, str | None]) -> None:
        path = self._cache_file(uei)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, {"asked_at": self._today().isoformat(), "entity": dict(row)})


def entity_row(said: Any) -> dict[str, str | None] | None:
    """The columns of raw.sam_entities from one entity of an answer; None for one without a UEI."""
    registration, core = _at(said, "entityRegistration"), _at(said, "coreData")
    address, goods = _at(core, "physicalAddress"), _at(said, "assertions", "goodsAndServices")
    uei = _text(registration.get("ueiSAM"))
    if not uei:
        return None
    zip_code = "-".join(filter(None, (_text(address.get("zipCode")), _text(address.get("zipCodePlus4")))))
    naics = [_text(one.get("naicsCode")) for one in goods.get("naicsList") or [] if isinstance(one, dict)]
    status = _text(registration.get("registrationStatus"))
    values = (
        *(uei, _text(registration.get("cageCode")), None, _text(registration.get("legalBusinessName"))),
        *(_text(registration.get("dbaName")), status and status[0].upper()),
        *(_text(address.get("addressLine1")), _text(address.get("addressLine2")), _text(address.get("city"))),
        *(_text(address.get("stateOrProvinceCode")), zip_code or None),
        *(_text(goods.get("primaryNaics")), "~".join(code for code in naics if code) or None),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _at(said: Any, *path: str) -> dict[str, Any]:
    for name in path:
        said = said.get(name) if isinstance(said, dict) else None
    return said if isinstance(said, dict) else {}


def _text(value: Any) -> str | None:
    return str(value).strip() or None if value is not None and not isinstance(value, (dict, list)) else None


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _read(path: Path) -> dict[str, Any] | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _write(path: Path, said: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".new", delete=False, encoding="utf-8") as file:
        json.dump(said, file)
    os.replace(file.name, path)
