"""What the tests of extraction share: a client without patience, and looking into the folder."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pipelines.f1.extract import Extraction
from pipelines.f1.landing import Manifest, manifests
from pipelines.f1.openf1 import Settings
from pipelines.f1.server import Server

Extract = Callable[..., Extraction]
RACE_END = datetime(2024, 3, 3, 19, tzinfo=UTC)  # session 9002
LATER = datetime(2024, 12, 1, tzinfo=UTC)


def settings_of(server: Server) -> Settings:
    return Settings(base_url=server.address, requests_per_span=None, wait_s=0.005, jitter_s=0, attempts=3, timeout_s=10)


def manifest_of(folder: Path, key: int) -> Manifest:
    (found,) = [manifest for _, manifest in manifests(folder) if manifest.session_key == key]
    return found


def home_of(folder: Path, key: int) -> Path:
    (found,) = folder.glob(f"year=*/meeting=*/session={key}")
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    """Every visible file below `folder`, and its bytes."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    shown = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in shown}


def data_in(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_in(folder).items() if not name.endswith("manifest.json")}
