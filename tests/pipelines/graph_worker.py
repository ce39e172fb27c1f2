"""A process that loads the graph of a lab and is killed (SIGKILL) in the middle: graph_worker.py FOLDER WRITES.

So many writes of the back end later it dies: in Neo4j with the rows written and not committed, in ladybug a
millisecond after COPY has begun (or as soon as it is done).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

for folder in (Path(__file__).parent, Path(__file__).resolve().parents[2]):
    sys.path.insert(0, str(folder))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    from pipelines.sbir.graph import in_ladybug, in_neo4j

    from ratatouille.handle import Workspace

    left = int(sys.argv[2])

    def dying(real: Any, within_s: float) -> Any:
        def wrapped(*given: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0 and within_s:
                threading.Timer(within_s, die).start()
            answer = real(*given)
            if left <= 0:
                die()
            return answer

        return wrapped

    in_neo4j._counted = dying(in_neo4j._counted, 0)
    in_ladybug.InLadybug._copy = dying(in_ladybug.InLadybug._copy, 0.001)  # type: ignore[method-assign]
    Workspace(Path(sys.argv[1])).run("pipeline:sbir")


if __name__ == "__main__":
    main()
