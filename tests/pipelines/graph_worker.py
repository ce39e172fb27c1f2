"""A process that loads the graph of a lab and is killed (SIGKILL) in the middle: graph_worker.py FOLDER WRITES.

After so many writes of the back end it dies, inside a transaction.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

for folder in (Path(__file__).parent, Path(__file__).resolve().parents[2]):
    sys.path.insert(0, str(folder))


def main() -> None:
    from pipelines.sbir.graph import in_ladybug, in_neo4j

    from ratatouille.handle import Workspace

    left = int(sys.argv[2])

    def dying(real: Any, die_after: bool) -> Any:
        def wrapped(*given: Any) -> Any:
            nonlocal left
            left -= 1
            answer = real(*given) if left or die_after else None
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return wrapped

    in_neo4j._counted = dying(in_neo4j._counted, die_after=True)  # written, and not committed
    in_ladybug.InLadybug._copy = dying(in_ladybug.InLadybug._copy, die_after=False)  # type: ignore[method-assign]
    Workspace(Path(sys.argv[1])).run("pipeline:sbir")


if __name__ == "__main__":
    main()
