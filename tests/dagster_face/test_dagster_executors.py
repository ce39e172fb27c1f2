"""RATATOUILLE_EXECUTOR: where the assets of a run are built."""

from __future__ import annotations

import sys

import dagster as dg
import pytest

from ratatouille.dagster.executors import VARIABLE, chosen_executor
from ratatouille.errors import RequestError


def test_nothing_said_leaves_it_to_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_executor() is None
    monkeypatch.setenv(VARIABLE, "in_process")
    assert chosen_executor() is dg.in_process_executor
    assert chosen_executor("multiprocess") is dg.multiprocess_executor


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
