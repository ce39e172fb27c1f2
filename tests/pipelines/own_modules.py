"""Whose modules `pipelines` are: a test that works in a copied workspace imports the copy's, the next one what was there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("pipelines", "pipeline")


def _ours() -> dict[str, object]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}


@contextmanager
def modules_of(root: Path) -> Iterator[None]:
    """Import the pipelines of the workspace at `root`, all of them and no other's, until the end.

    Half of one and half of another would be worse than either: two classes of one name, of which an `except` knows one.
    """
    path, before = list(sys.path), _ours()
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in _ours():
            del sys.modules[name]
        sys.modules.update(before)
