"""What `deploy/` ships: the files are valid, they agree with each other, and Dagster takes its settings for real."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.storage.tags import GRPC_INFO_TAG

from ratatouille.dagster.dead_runs import mark_dead_runs
from ratatouille.dagster.instance import SETTINGS_TEXT

sys.path.insert(0, str(Path(__file__).parent))

from postgres_server import Postgres, a_postgres, with_debian_binaries

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "deploy.md"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
# The top-level keys of Dagster's chart, and those below the ones that we set, as its own schema has them (1.13).
CHART = {
    "": {
        "global", "generatePostgresqlPasswordSecret", "postgresql", "telemetry", "dagster-user-deployments",
        "runLauncher", "dagsterWebserver", "dagsterDaemon", "retention", "rabbitmq", "redis", "flower",
    },
    "k8sRunLauncher": {
        "imagePullPolicy", "loadInclusterConfig", "envConfigMaps", "envSecrets", "envVars", "volumes", "volumeMounts",
        "runK8sConfig",
    },
    "celeryK8sRunLauncher": {"image", "workerQueues", "volumes", "volumeMounts", "nodeSelector"},
    "runK8sConfig": {"podSpecConfig", "containerConfig", "jobSpecConfig"},
    "deployment": {
        "name", "image", "codeServerArgs", "port", "env", "includeConfigInLaunchedRuns", "volumes", "volumeMounts",
        "nodeSelector", "podSecurityContext", "resources",
    },
    "dagsterDaemon": {"enabled", "runCoordinator", "runMonitoring", "runRetries", "sensors", "schedules"},
}  # fmt: skip


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = read("docker-compose.yaml")
    return found


@pytest.fixture(scope="module")
def postgres(need_tool: Callable[[str, str], str]) -> Iterator[Postgres]:
    with pytest.MonkeyPatch.context() as patch:
        import os

        patch.setenv("PATH", with_debian_binaries(os.environ["PATH"]))
        with a_postgres(need_tool) as made:
            yield made


@pytest.fixture
def home(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster home as the image has it, in the environment that docker-compose.yaml gives to it."""
    (tmp_path / "dagster.yaml").write_bytes((DEPLOY / "dagster.yaml").read_bytes())
    for name, value in {
        "HOST": postgres.host,
        "PORT": str(postgres.port),
        "DB": postgres.database,
        "USER": postgres.user,
        "PASSWORD": postgres.password,
    }.items():
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value)
    monkeypatch.setenv("DAGSTER_COMPUTE_LOGS", str(tmp_path / "logs"))
    return tmp_path


# Each file, and what they say of each other


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".yaml"], ids=lambda p: p.name)
def test_every_yaml_file_is_one(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_page_names_every_file() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [str(p.relative_to(ROOT)) for p in FILES if p.name not in page] == []
    assert {ROOT / name for name in re.findall(r"`(deploy/[\w./-]+)`", page)} <= {*FILES, DEPLOY}


def test_a_team_gets_the_settings_of_rat_dev() -> None:
    team, alone = read("dagster.yaml"), yaml.safe_load(SETTINGS_TEXT)
    assert {key: team[key] for key in team if key not in ("storage", "compute_logs")} == alone


def test_every_variable_of_the_settings_is_set_in_every_container(compose: dict[str, Any]) -> None:
    wanted = set(re.findall(r"'env': '(\w+)'", str(read("dagster.yaml"))))
    assert len(wanted) == 6
    for name in ("kitchen", "webserver", "daemon"):
        assert wanted <= set(compose["services"][name]["environment"])
    example = re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "docker-compose.yaml").read_text()))
    assert used == set(example)
    # The one that must be chosen is refused while it is empty.
    assert "${DAGSTER_POSTGRES_PASSWORD:?" in (DEPLOY / "docker-compose.yaml").read_text()


def test_the_web_server_finds_the_code(compose: dict[str, Any]) -> None:
    [location] = read("code-locations.yaml")["load_from"]
    server = location["grpc_server"]
    kitchen = compose["services"][server["host"]]
    # The sensor dead_runs compares the two.
    assert kitchen["hostname"] == server["host"]
    command = kitchen["command"]
    assert command[command.index("--port") + 1] == str(server["port"])
    assert command[command.index("--module-name") + 1] == "ratatouille.definitions"
    assert str(server["port"]) in kitchen["healthcheck"]["test"]
    for name in ("webserver", "daemon"):
        words = compose["services"][name]["command"]
        assert Path(words[words.index("--workspace") + 1]).name == "code-locations.yaml"
        assert kitchen["image"] == compose["services"][name]["image"]


def test_only_the_pages_can_be_reached_and_from_this_machine_alone(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"webserver": ["127.0.0.1:3030:3030"]}


def test_volumes_are_declared_and_the_lake_is_in_one_container(compose: dict[str, Any]) -> None:
    used: dict[str, set[str]] = {}
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            used.setdefault(source, set()).add(f"{name}:{target}")
    named = {source: places for source, places in used.items() if not source.startswith(".")}
    assert set(named) == set(compose["volumes"])
    assert named["lake"] == {"kitchen:/srv/kitchen/.rat"}
    logs = compose["services"]["kitchen"]["environment"]["DAGSTER_COMPUTE_LOGS"]
    assert named["logs"] == {f"{name}:{logs}" for name in ("kitchen", "webserver", "daemon")}
    home = compose["services"]["kitchen"]["environment"]["DAGSTER_HOME"]
    assert f"{home}/" in (DEPLOY / "Dockerfile").read_text()


def test_the_commands_of_the_containers_exist(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if "command" not in service:
            continue
        program, *words = service["command"]
        subcommands = words[: next(i for i, word in enumerate(words) if word.startswith("-"))]
        said = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *subcommands, "--help"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        options = [word for word in words if word.startswith("--")]
        assert [option for option in options if option not in said.stdout] == []


def test_the_image_is_built_from_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [
        word
        for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
        if not word.startswith("--")
    ]
    assert "uv.lock" in copied and "deploy/dagster.yaml" in copied
    for name in copied:
        assert (ROOT / name.removeprefix("./")).exists()
        assert f"!{name.removeprefix('./')}" in ignored
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = set(re.findall(r"--extra (\w+)", text + "".join(p.read_text() for p in DEPLOY.rglob("values*.yaml"))))
    assert extras <= set(project["project"]["optional-dependencies"])
    # The same uv as in the Makefile.
    [pinned] = re.findall(r"uv==([\d.]+)", text)
    assert f"UV_VERSION := {pinned}" in (ROOT / "Makefile").read_text()


# Kubernetes: as far as it can be told without one


@pytest.mark.parametrize("name", ["helm/values.yaml", "helm/values-celery.yaml"])
def test_the_values_have_keys_that_the_chart_knows(name: str) -> None:
    values = read(name)
    assert set(values) <= CHART[""]
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert set(deployment) <= CHART["deployment"]
    launcher = values["runLauncher"]
    chosen = launcher["type"][0].lower() + launcher["type"][1:]
    assert list(launcher["config"]) == [chosen]
    assert set(launcher["config"][chosen]) <= CHART[chosen]
    assert set(launcher["config"][chosen].get("runK8sConfig", {})) <= CHART["runK8sConfig"]
    assert set(values.get("dagsterDaemon", {})) <= CHART["dagsterDaemon"]


def test_every_pod_that_uses_the_lake_is_on_its_machine() -> None:
    claim = read("helm/lake-volume.yaml")
    values, celery = read("helm/values.yaml"), read("helm/values-celery.yaml")
    node = values["dagster-user-deployments"]["deployments"][0]["nodeSelector"]
    k8s = values["runLauncher"]["config"]["k8sRunLauncher"]
    assert k8s["runK8sConfig"]["podSpecConfig"]["nodeSelector"] == node
    places = [
        values["dagster-user-deployments"]["deployments"][0],
        k8s,
        celery["dagster-user-deployments"]["deployments"][0],
        celery["runLauncher"]["config"]["celeryK8sRunLauncher"],
    ]
    for place in places:
        assert place["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {mount["name"] for mount in place["volumeMounts"]} == {place["volumes"][0]["name"]}
        assert place.get("nodeSelector", node) == node
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert f"ratatouille/lake={node['ratatouille/lake']}" in (DEPLOY / "helm/lake-volume.yaml").read_text()


def test_the_variants_say_the_same_and_name_an_executor_that_exists() -> None:
    from ratatouille.dagster.executors import _EXTRAS, VARIABLE

    plain, celery = (
        read(f"helm/{name}.yaml")["dagster-user-deployments"]["deployments"][0] for name in ("values", "values-celery")
    )
    named = [deployment["env"].pop(VARIABLE) for deployment in (plain, celery)]
    assert named == ["k8s", "celery_k8s"] and set(named) <= set(_EXTRAS)
    assert plain == celery
    retries = read("helm/values.yaml")["dagsterDaemon"]["runRetries"]
    alone = yaml.safe_load(SETTINGS_TEXT)
    assert retries["maxRetries"] == alone["run_retries"]["max_retries"]
    for kind, ours in (("schedule", "schedule"), ("sensor", "sensor"), ("autoMaterialize", "auto_materialize")):
        kept = read("helm/values.yaml")["retention"][kind]["purgeAfterDays"]
        assert kept == alone["retention"][ours]["purge_after_days"]


# PostgreSQL: a real one


@pytest.mark.service
def test_dagster_keeps_its_history_in_postgresql(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert {type(part).__name__ for part in (instance.run_storage, instance.event_log_storage)} == {
            "PostgresRunStorage",
            "PostgresEventLogStorage",
        }
        assert not instance.telemetry_enabled and instance.run_retries_max_retries == 2
        result = dg.materialize([_dish], instance=instance)
        assert result.success
    with dg.DagsterInstance.from_config(str(home)) as again:
        [run] = again.get_runs()
        assert run.run_id == result.run_id and run.is_success
        event = again.get_latest_materialization_event(_dish.key)
        assert event is not None and event.asset_materialization is not None
        assert event.asset_materialization.metadata["dagster/row_count"].value == 3
    assert not (home / "history").exists()  # no SQLite beside it
    assert any((home / "logs").rglob("*.err"))  # what the step printed, where the web server looks for it


@pytest.mark.service
def test_on_a_shared_history_only_runs_of_this_machine_are_judged(home: Path) -> None:
    gone = 2**22 + 1  # above the kernel's highest process number
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = {
            host: _run_given_to(instance, host, gone) for host in (socket.gethostname(), "another-machine", "localhost")
        }
        assert mark_dead_runs(instance) == [runs[socket.gethostname()]]


@dg.asset
def _dish() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"dagster/row_count": 3})


def _run_given_to(instance: dg.DagsterInstance, host: str, pid: int) -> str:
    tags = {GRPC_INFO_TAG: json.dumps({"host": host, "port": 4000})}
    job = dg.Definitions(assets=[_dish]).resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    data = dg._core.events.EngineEventData.in_process(pid)
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, data)
    return run.run_id


# Alerts


def test_the_unit_the_timer_and_the_line_for_cron_ask_for_the_same_look() -> None:
    import configparser

    from ratatouille.cli.alerts import What

    def unit(name: str) -> configparser.ConfigParser:
        found = configparser.ConfigParser(interpolation=None, strict=True)
        found.optionxform = str  # type: ignore[assignment,method-assign]
        found.read_string((DEPLOY / "systemd" / name).read_text(encoding="utf-8"))
        return found

    service, timer = unit("rat-alerts.service"), unit("rat-alerts.timer")
    command = service["Service"]["ExecStart"].split()
    assert command[0].endswith("/bin/rat") and command[1:] == ["alerts", What.tick]
    assert (service["Service"]["Type"], timer["Install"]["WantedBy"]) == ("oneshot", "timers.target")
    assert timer["Timer"]["OnUnitInactiveSec"] == "1min"
    [line] = [one for one in (DEPLOY / "rat-alerts.cron").read_text().splitlines() if one.startswith("*")]
    assert " ".join(command[1:]) in line and line.split()[:5] == ["*"] * 5
    assert subprocess.run(["sh", "-n", "-c", line.split(None, 5)[5]], check=False).returncode == 0
