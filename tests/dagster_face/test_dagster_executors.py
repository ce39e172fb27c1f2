"""RATATOUILLE_EXECUTOR: where the assets of a run are built."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import dagster as dg
import pytest

from ratatouille.dagster.executors import VARIABLE, chosen_executor
from ratatouille.errors import RequestError


def settings_of(executor: dg.ExecutorDefinition, said: dict[str, Any]) -> Any:
    """What a run that says this of its executor works with."""

    @dg.job(executor_def=executor)
    def nothing() -> None: ...

    (found,) = dg.validate_run_config(nothing, {"execution": {"config": said}} if said else {})["execution"].values()
    return found


def test_nothing_said_is_a_process_for_each_step_forked_from_one_that_has_only_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    default, processes = chosen_executor(), chosen_executor("multiprocess")
    preloaded = settings_of(default, {})["multiprocess"]["start_method"]["forkserver"]["preload_modules"]
    assert preloaded and {name.partition(".")[0] for name in preloaded} == {"dagster", "ratatouille"}
    assert all(find_spec(name) for name in preloaded)  # Python says nothing of one that is missing
    assert settings_of(processes, {})["start_method"] == {"forkserver": {"preload_modules": preloaded}}
    monkeypatch.setenv(VARIABLE, "in_process")
    assert chosen_executor() is dg.in_process_executor


def test_a_run_configures_its_executor_as_dagster_has_it() -> None:
    default = chosen_executor("")
    assert default.name == dg.multi_or_in_process_executor.name
    found = settings_of(default, {"multiprocess": {"max_concurrent": 4, "start_method": {"spawn": {}}}})["multiprocess"]
    assert (found["max_concurrent"], found["start_method"]) == (4, {"spawn": {}})
    assert set(settings_of(default, {"in_process": {}})) == {"in_process"}
    found = settings_of(chosen_executor("multiprocess"), {"max_concurrent": 3})
    assert found["max_concurrent"] == 3 and "forkserver" in found["start_method"]


def test_an_unknown_name_offers_the_near_miss() -> None:
    with pytest.raises(RequestError, match="Did you mean 'in_process'") as failed:
        chosen_executor("inprocess")
    assert failed.value.where == "RATATOUILLE_EXECUTOR=inprocess" and "celery_k8s" in failed.value.next


@pytest.mark.parametrize(("name", "extra"), [("k8s", "k8s"), ("celery", "celery"), ("celery_k8s", "celery")])
def test_a_missing_package_says_what_to_install(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("dagster_k8s", "dagster_celery", "dagster_celery_k8s"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RequestError, match="is not installed") as failed:
        chosen_executor(name)
    assert failed.value.next == f"pip install 'ratatouille-lakehouse[dagster,{extra}]'"
