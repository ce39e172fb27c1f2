"""What the fault tests run in a process of its own: a publisher that can be killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ratatouille.engine import Request
from ratatouille.errors import RatError
from ratatouille.handle import run_request


def runs(root: str, asset: str, count: int) -> None:
    """Build an asset again and again; one JSON line for each version that was acknowledged."""
    for _ in range(count):
        try:
            result = run_request(Path(root), Request((asset,), force=True))
        except RatError as error:
            print(json.dumps({"status": "refused", "version": 0, "error": error.as_record()}), flush=True)
            continue
        for step in result.steps:
            print(json.dumps({"status": step.status, "version": step.version, "error": step.error}), flush=True)


if __name__ == "__main__":
    print(json.dumps({"ready": True}), flush=True)
    runs(sys.argv[1], sys.argv[2], int(sys.argv[3]))
