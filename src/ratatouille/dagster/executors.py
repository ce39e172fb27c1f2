"""Where the assets of a run are built: RATATOUILLE_EXECUTOR, a variable of the code location.

multiprocess   each asset in a process of its own, on the machine of the run: Dagster's own default, also when unset
in_process     one after the other, in the process of the run: the least memory
k8s            each asset in a pod of its own
celery         each asset waits in a Celery queue for a worker
celery_k8s     each asset waits in a Celery queue for a pod of its own

A job that names an executor keeps it. An asset is built, gated and published by one step, whichever it is: the steps of
a run share nothing but the lake.

The processes of `multiprocess` are forked from one that has imported Dagster and this package and has done nothing else:
a step begins a second of CPU earlier than one that imports them itself. A run that wants another way says so in its
configuration: start_method.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import dagster as dg

from ratatouille.errors import RequestError, near_miss

VARIABLE = "RATATOUILLE_EXECUTOR"
_EXTRAS = {
    "k8s": ("dagster_k8s", "k8s_job_executor", "k8s"),
    "celery": ("dagster_celery", "celery_executor", "celery"),
    "celery_k8s": ("dagster_celery_k8s", "celery_k8s_job_executor", "celery"),
}
# Modules of ours and Dagster's, never of a person: what their import starts (a thread, a connection) must not be forked.
_FORKED = {"forkserver": {"preload_modules": ["dagster", "ratatouille.dagster.code_location"]}}


def _forked(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"start_method": _FORKED, **config}


def _forked_or_in_process(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {kind: _forked(said) if kind == "multiprocess" else said for kind, said in config.items()}


def _configured(executor: dg.ExecutorDefinition, by: Callable[[Mapping[str, Any]], Any]) -> dg.ExecutorDefinition:
    """The same executor, which takes the same configuration from a run."""
    return executor.configured(by, executor.name, executor.config_schema.as_field(), executor.description)


_DEFAULT = _configured(dg.multi_or_in_process_executor, _forked_or_in_process)
_OWN = {"multiprocess": _configured(dg.multiprocess_executor, _forked), "in_process": dg.in_process_executor}


def chosen_executor(name: str | None = None) -> dg.ExecutorDefinition:
    """The executor that `name` (default: the variable) asks for; Dagster's default one where nothing is said.

    RequestError for a name that nobody knows, and for a package that is not installed.
    """
    name = os.environ.get(VARIABLE, "") if name is None else name
    if not name:
        return _DEFAULT
    if name in _OWN:
        return _OWN[name]
    if name not in _EXTRAS:
        known = [*_OWN, *_EXTRAS]
        raise RequestError(
            f"There is no executor called '{name}'.{near_miss(name, known)}",
            where=f"{VARIABLE}={name}",
            state="Nothing was loaded.",
            next=f"Set it to one of: {', '.join(known)}",
        )
    module, attribute, extra = _EXTRAS[name]
    try:
        found: dg.ExecutorDefinition = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise RequestError(
            f"The executor {name} needs {module.replace('_', '-')}, which is not installed.",
            where=f"{VARIABLE}={name}",
            state="Nothing was loaded.",
            next=f"pip install 'ratatouille-lakehouse[dagster,{extra}]'",
        ) from error
    return found
