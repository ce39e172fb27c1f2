"""The page of settings, read: settings.yaml, and over it the file that RECIPES_SETTINGS names."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).with_name("settings.yaml")
VARIABLE = "RECIPES_SETTINGS"


class SettingsError(ValueError):
    """A file of settings that cannot be used; the message says which, and what is wrong."""


@cache
def settings() -> dict[str, dict[str, Any]]:
    """Step -> setting -> value. SettingsError for a file that is no such page, and for names that this page has not."""
    merged = page()
    over = os.environ.get(VARIABLE)
    for step, values in (_read(Path(over)) if over else {}).items():
        if step not in merged or not isinstance(values, dict):
            raise SettingsError(f"{over}: there is no step {step}. The steps are {', '.join(merged)}")
        for name, value in values.items():
            if name not in merged[step]:
                raise SettingsError(f"{over}: {step} has no setting {name}. It has {', '.join(merged[step])}")
            merged[step][name] = value
    return merged


def page() -> dict[str, dict[str, Any]]:
    """settings.yaml alone."""
    return _read(PAGE)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(said, dict):
        raise SettingsError(f"{path} holds no settings")
    return said
