"""`make({...})` writes a workspace from a mapping of paths to texts and loads it.

A path without a folder is a file of `pipelines/sales/`: "silver/sales.sql".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ratatouille.project import load
from ratatouille.project.records import Project

Make = Callable[..., Project]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, str | bytes]], Path]:
    root = tmp_path / "shop"

    def write_files(files: Mapping[str, str | bytes]) -> Path:
        for name, text in {"workspace.yaml": "name: shop\n", **files}.items():
            top = name.split("/")[0]
            path = (
                root / name
                if "/" not in name or top in ("pipelines", "workspaces")
                else root / "pipelines/sales" / name
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return root

    return write_files


@pytest.fixture
def make(write: Callable[[Mapping[str, str | bytes]], Path]) -> Make:
    def load_files(files: Mapping[str, str | bytes], **options: object) -> Project:
        options.setdefault("use_cache", False)
        options.setdefault("environment", {})
        return load(write(files), **options)  # type: ignore[arg-type]

    return load_files
