"""A model of the registry, shown in MLflow too: its figures, what made it, and its files. An option; nothing reads it back.

    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python -m pipelines.forklift.in_mlflow              the model in production
    python -m pipelines.forklift.in_mlflow 894bfc2b --uri http://127.0.0.1:5000                   the model of a run

It speaks MLflow's REST API, so MLflow itself need not be installed here. The lake stays the registry: which model is
served is decided there, and MLflow gets a copy, with a version of the registered model `forklift-carrying` and the alias
of its stage. A model that MLflow has is not sent twice. MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD, are sent where they are set.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from ratatouille import RatError, workspace

from .lineage import lineage
from .models import METRICS, WITHOUT, ModelError, read_json

EXPERIMENT, MODEL = "forklift", "forklift-carrying"
TAG = "ratatouille.run"
EMPTY_CURE = "MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python -m pipelines.forklift.in_mlflow"


class MLflow:
    """The few verbs of MLflow's REST API that are needed. Raises ModelError for what the server says instead."""

    def __init__(self, uri: str) -> None:
        user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
        auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
        headers = {"Authorization": f"Bearer {token}"} if token and not user else {}
        self.uri = uri.rstrip("/")
        self._client = httpx.Client(base_url=self.uri, auth=auth, headers=headers, timeout=60.0)

    def __enter__(self) -> MLflow:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post(self, what: str, **said: Any) -> dict[str, Any]:
        return self._answer("POST", f"/api/2.0/mlflow/{what}", json=said)

    def get(self, what: str, **said: str) -> dict[str, Any]:
        """{} where there is no such thing."""
        return self._answer("GET", f"/api/2.0/mlflow/{what}", params=said, none_is_fine=True)

    def put(self, path: str, content: bytes) -> None:
        self._answer("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", content=content)

    def _answer(self, method: str, path: str, *, none_is_fine: bool = False, **said: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **said)
            if none_is_fine and answer.status_code == 404:
                return {}
            if answer.is_success:
                return dict(answer.json()) if answer.content else {}
        except httpx.HTTPError as error:
            raise ModelError(f"MLflow at {self.uri} does not answer: {error}", "look whether it runs") from None
        except ValueError:
            raise ModelError(f"{self.uri} gave an answer that is none of MLflow's", "look at --uri") from None
        raise ModelError(
            f"MLflow at {self.uri} says {answer.status_code} to {path}: {' '.join(answer.text.split())[:200]}",
            "look at the address and at the MLFLOW_TRACKING_ variables",
        )


def send(server: MLflow, about: dict[str, Any]) -> tuple[str, bool]:
    """(id of the run in MLflow, whether it was sent just now). `about`: what lineage.lineage says of a model."""
    found = server.get("experiments/get-by-name", experiment_name=EXPERIMENT).get("experiment")
    experiment = str(found["experiment_id"] if found else server.post("experiments/create", name=EXPERIMENT)["experiment_id"])  # fmt: skip
    wanted = f"tags.`{TAG}` = '{about['run_id']}' and attributes.status = 'FINISHED'"
    known = server.post("runs/search", experiment_ids=[experiment], filter=wanted, max_results=1).get("runs", [])
    if known:
        run, version = str(known[0]["info"]["run_id"]), _version(server, str(known[0]["info"]["run_id"]))
    else:
        run, version = _sent(server, experiment, about), ""
    version = version or _registered(server, experiment, run)
    # A stage is an alias: of one version at a time in MLflow, as in the lake for production.
    server.post("registered-models/alias", name=MODEL, alias=about["stage"], version=version)
    return run, not known


def _sent(server: MLflow, experiment: str, about: dict[str, Any]) -> str:
    made, now = about["made_from"], int(time.time() * 1000)
    folder = Path(about["folder"])
    wish, scores = read_json(folder / METRICS)["wish"], read_json(folder / METRICS)["scores"]
    tags = {TAG: about["run_id"], "sha256": about["sha256"], "mlflow.runName": about["run_id"][:8]}
    tags |= {"commits": ", ".join(one["commit_id"] for one in made["commits"])[:5000]}
    params = {"kind": about["kind"], "rows": made["rows"], "rows_sha256": made["rows_sha256"], "table_version": made["version"], **wish}  # fmt: skip
    figures = {
        (name if of == WITHOUT else f"{of}_{name}"): value
        for of, found in scores.items()
        for name, value in found.items()
        if isinstance(value, int | float)
    }
    created = server.post("runs/create", experiment_id=experiment, start_time=now, run_name=about["run_id"][:8])
    run = str(created["run"]["info"]["run_id"])
    server.post(
        "runs/log-batch",
        run_id=run,
        metrics=[{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in figures.items()],
        params=[{"key": key, "value": str(value)} for key, value in params.items()],
        tags=[{"key": key, "value": value} for key, value in tags.items()],
    )
    for path in sorted(one for one in folder.iterdir() if one.is_file() and one.name != "manifest.json"):
        server.put(f"{experiment}/{run}/artifacts/model/{path.name}", path.read_bytes())
    # Only a run that is finished counts as sent: what broke off before is sent anew.
    server.post("runs/update", run_id=run, status="FINISHED", end_time=int(time.time() * 1000))
    return run


def _version(server: MLflow, run: str) -> str:
    found = server.get("model-versions/search", filter=f"run_id = '{run}'").get("model_versions", [])
    return str(found[0]["version"]) if found else ""


def _registered(server: MLflow, experiment: str, run: str) -> str:
    if not server.get("registered-models/get", name=MODEL):
        server.post("registered-models/create", name=MODEL)
    source = f"mlflow-artifacts:/{experiment}/{run}/artifacts/model"
    return str(server.post("model-versions/create", name=MODEL, source=source, run_id=run)["model_version"]["version"])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="", help="the run that trained it (default: the model in production)")
    parser.add_argument("--uri", default=os.environ.get("MLFLOW_TRACKING_URI", ""), help="address of the server")
    asked = parser.parse_args(arguments)
    try:
        if not asked.uri.startswith(("http://", "https://")):
            raise ModelError("there is no address of an MLflow server", EMPTY_CURE)
        about = lineage(workspace(), asked.run)
        with MLflow(asked.uri) as server:
            run, new = send(server, about)
    except ModelError as error:
        print(f"{error}\nThe lake has the model all the same.\nNext: {error.cure}", file=sys.stderr)
        return 2
    except RatError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"The model of run {about['run_id']} is MLflow's run {run}{'' if new else ', as before'}; {about['stage']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
