"""A workspace with Python files in it that call `run`, `query` and `tools`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FILES = {
    "workspace.yaml": "name: shop\n",
    "landing/sales/b.csv": "id,amount,email\n1,1.50,a@x\n2,2.50,b@x\n3,,c@x\n",
    "pipelines/bronze/sales.sql": "select id, amount, email, _file, _loaded_at, _run_id from {{ source('landing/sales/*.csv') }}",
    "pipelines/bronze/sales.yaml": "materialize: append\ncolumns: {email: {sensitive: true, description: Who}}\n"
    "sources: {landing/sales/*.csv: {columns: {id: integer, amount: 'decimal(9,2)', email: varchar}}}\n",
    "pipelines/gold/total.sql": "select sum(id) as ids, sum(amount) as amount, count(*) as n from {{ ref('bronze.sales') }}",
    "pipelines/gold/total.yaml": "description: All of it.\ncolumns: {n: {checks: [positive]}}\n",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a workspace that is not the current folder."""
    for name, text in FILES.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("RATATOUILLE_WORKSPACE", raising=False)
    return tmp_path / "shop"


@pytest.fixture
def code_in(tmp_path: Path) -> Callable[[Path, str], ModuleType]:
    """`code_in(folder, "def f(): ...")`: that code as a module whose file lies in the folder."""

    def load(folder: Path, code: str) -> ModuleType:
        path = folder / "someones_code.py"
        path.write_text(f"from ratatouille import query, run, tools, workspace\n{code}\n", encoding="utf-8")
        spec = importlib.util.spec_from_file_location("someones_code", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
