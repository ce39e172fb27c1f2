"""A model's copy in MLflow: once, whole, under its stage; and a server that says something else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pipelines.forklift import in_mlflow
from pipelines.forklift.models import ModelError


class Tracking:
    """What a tracking server keeps, as its REST API tells of it. `broken` fails the next upload of a file."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.models: dict[str, list[dict[str, Any]]] = {}
        self.aliases: dict[str, str] = {}
        self.broken = self.silly = False

    def answer(self, what: str, said: Any) -> tuple[int, Any]:
        if what == "experiments/get-by-name":
            found = self.experiments.get(said["experiment_name"])
            return (200, {"experiment": {"experiment_id": found}}) if found else (404, {"error_code": "NONE"})
        if what == "experiments/create":
            self.experiments[said["name"]] = "7"
            return 200, {"experiment_id": "7"}
        if what == "runs/create":
            run = f"run{len(self.runs)}"
            self.runs[run] = {"status": "RUNNING", "tags": {}, "metrics": {}, "params": {}}
            return 200, {"run": {"info": {"run_id": run}}}
        if what == "runs/log-batch":
            for kind in ("metrics", "params", "tags"):
                self.runs[said["run_id"]][kind] |= {one["key"]: one["value"] for one in said[kind]}
        elif what == "runs/update":
            self.runs[said["run_id"]]["status"] = said["status"]
        elif what == "runs/search":
            fit = [
                name
                for name, run in self.runs.items()
                if f"'{run['tags'].get(in_mlflow.TAG)}'" in said["filter"] and run["status"] == "FINISHED"
            ]
            return 200, {"runs": [{"info": {"run_id": name}} for name in fit]}
        elif what == "registered-models/get":
            return (200, {"registered_model": {}}) if said["name"] in self.models else (404, {})
        elif what == "registered-models/create":
            self.models[said["name"]] = []
        elif what == "registered-models/alias":
            self.aliases[said["alias"]] = said["version"]
        elif what == "model-versions/create":
            made = {"version": str(len(self.models[said["name"]]) + 1), **said}
            self.models[said["name"]].append(made)
            return 200, {"model_version": made}
        elif what == "model-versions/search":
            every = [one for versions in self.models.values() for one in versions]
            return 200, {"model_versions": [one for one in every if f"'{one['run_id']}'" in said["filter"]]}
        return 200, {}


@pytest.fixture
def tracking() -> Iterator[tuple[Tracking, str]]:
    kept = Tracking()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            from urllib.parse import parse_qsl, urlsplit

            where = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            what = where.path.removeprefix("/api/2.0/mlflow/")
            if self.command == "PUT" and kept.broken:
                kept.broken, status, said = False, 503, {"message": "no room"}
            elif self.command == "PUT":
                kept.files[where.path.partition("/artifacts/")[2]] = body
                status, said = 200, {}
            else:
                status, said = kept.answer(what, json.loads(body) if body else dict(parse_qsl(where.query)))
            content = b"<html>" if kept.silly else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield kept, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def a_model(folder: Path, run: str, stage: str) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    scores = {"without_load": {"f1": 0.9, "roc_auc": None}, "with_load": {"f1": 0.8}}
    (folder / "metrics.json").write_text(json.dumps({"wish": {"rounds": 15}, "scores": scores}))
    (folder / "manifest.json").write_text("{}")
    (folder / "without_load.skops").write_bytes(b"a model")
    made = {"rows": 12, "rows_sha256": "ab", "version": 3, "commits": [{"commit_id": "c0ffee"}]}
    return {
        "run_id": run,
        "sha256": "cd",
        "kind": "logistic",
        "stage": stage,
        "folder": str(folder),
        "made_from": made,
    }


def test_a_model_is_sent_once_and_whole_and_its_stage_is_an_alias(tracking: Any, tmp_path: Path) -> None:
    kept, address = tracking
    first = a_model(tmp_path / "model", "run-of-monday", "production")
    with in_mlflow.MLflow(address) as server:
        kept.broken = True
        with pytest.raises(ModelError, match="says 503"):
            in_mlflow.send(server, first)
        run, new = in_mlflow.send(server, first)
        assert new and run == "run1", "what broke off is sent anew"
        assert in_mlflow.send(server, first) == (run, False)
        about = kept.runs[run]
        assert about["metrics"] == {"f1": 0.9, "with_load_f1": 0.8} and about["params"]["rounds"] == "15"
        assert about["tags"]["commits"] == "c0ffee" and about["params"]["rows_sha256"] == "ab"
        assert kept.files[f"7/{run}/artifacts/model/without_load.skops"] == b"a model"
        assert not any("manifest" in name for name in kept.files)
        assert [one["version"] for one in kept.models["forklift-carrying"]] == ["1"]
        in_mlflow.send(server, {**first, "stage": "archived"})
        in_mlflow.send(server, a_model(tmp_path / "model", "run-of-tuesday", "production"))
    assert kept.aliases == {"production": "2", "archived": "1"} and list(kept.experiments) == ["forklift"]


def test_what_is_no_server_is_said(
    tracking: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, address = tracking
    kept.silly = True
    model = a_model(tmp_path / "model", "r", "candidate")
    with in_mlflow.MLflow(address) as server, pytest.raises(ModelError, match="none of MLflow's"):
        in_mlflow.send(server, model)
    with in_mlflow.MLflow("http://127.0.0.1:9") as server, pytest.raises(ModelError, match="does not answer"):
        in_mlflow.send(server, model)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert in_mlflow.main([]) == 2 and "The lake has the model all the same" in capsys.readouterr().err
