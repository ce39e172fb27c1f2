"""The current model over HTTP: text as it is made.

    python -m pipelines.recipes.serve --port 8000
    curl -N localhost:8000/generate -d '{"prompt": "Lemon chicken soup", "tokens": 200}'

GET  /          which version answers, with its losses
POST /generate  prompt, and as for the command: tokens, temperature, top_k, seed; the answer is plain text, piece by piece

One text is made at a time, others wait; a client that leaves ends its own. The version is the one that was current at
the start. It listens on this machine alone unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .generate import NoModelError, generate, load, model_folder

LARGEST_BODY = 20_000  # bytes


class Asked(BaseModel):
    """One request for a text."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    prompt: str = Field(min_length=1, max_length=2_000)
    tokens: int = Field(200, ge=1, le=4_096)
    temperature: float = Field(0.8, ge=0, le=5)
    top_k: int = Field(50, ge=1, le=1_000)
    seed: int = Field(42, ge=0, lt=2**63)


def app(folder: Path) -> Starlette:
    """The application for the model in `folder`; the model is loaded here, once."""
    model, tokenizer = load(folder)
    metrics = folder / "metrics.json"
    about = json.loads(metrics.read_text()) if metrics.is_file() else {}
    turn = threading.Lock()  # what is random is the process's own, so one text is made at a time

    async def tell(_: Request) -> Response:
        losses = {name: about.get(name) for name in ("val_loss", "val_perplexity", "bigram_loss")}
        return JSONResponse({"version": folder.name, **losses})

    async def write(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return JSONResponse({"error": f"a request has {LARGEST_BODY:,} bytes at most"}, 413)
        try:
            asked = Asked.model_validate_json(bytes(body))
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors()]
            return JSONResponse({"error": "; ".join(wrong)}, 422)
        return StreamingResponse(speak(asked), media_type="text/plain; charset=utf-8")

    async def speak(asked: Asked) -> AsyncIterator[str]:
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        gone = threading.Event()

        def work() -> None:
            try:
                with turn:
                    generate(model, tokenizer, say=pieces.put, enough=gone.is_set, **asked.model_dump())
            finally:
                pieces.put(None)

        threading.Thread(target=work, daemon=True).start()
        try:
            while (piece := await run_in_threadpool(pieces.get)) is not None:
                yield piece
        finally:
            gone.set()

    return Starlette(routes=[Route("/", tell), Route("/generate", write, methods=["POST"])])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", type=Path, default=None, help="a folder; without it the current version")
    asked = parser.parse_args(arguments)
    try:
        made: Any = app(model_folder(asked.model))
    except NoModelError as error:
        print(f"{error}\nNext: {error.cure}", file=sys.stderr)
        return 2
    import uvicorn

    uvicorn.run(made, host=asked.host, port=asked.port)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
