"""What a file of tests may say: closed models, also the source of the editors' JSON Schema."""
# ruff: noqa: RUF012  pydantic copies the defaults

from __future__ import annotations

from typing import Any, Literal

from ratatouille.project.yaml_fields import Closed, Texts


class RowsModel(Closed):
    rows: list[Any] | None = None
    """Rows as columns and values: {id: 1, city: Rome}. A column that a row leaves out is null."""
    csv: str | None = None
    """The text of a CSV with a header."""
    file: str | None = None
    """A .csv, .json, .jsonl or .parquet file, relative to this one."""
    columns: dict[str, str] = {}
    """Types by column, where the values do not tell them."""


class ExpectModel(Closed):
    rows: list[Any] | RowsModel | None = None
    """The table's rows as readers would see them afterwards, in any order."""
    count: int | None = None
    """How many rows the table has afterwards."""
    new_rows: list[Any] | RowsModel | None = None
    """The rows that this run adds; of a full build the same as `rows`."""
    new_count: int | None = None
    """How many rows this run adds."""
    columns: Texts = []
    """The columns that are compared (default: those of the expected rows)."""
    ordered: bool = False
    """Whether the order of the rows counts as well."""
    gates: Literal["pass"] | dict[str, Any] | None = None
    """pass: every gate passes. Or the gates by name: pass, fail, or how many rows it finds bad."""
    quarantined: int | None = None
    """How many rows are kept out: by gates, and lines that cannot be read."""
    error: str | None = None
    """A part of the message with which it must fail."""


class CaseModel(Closed):
    asset: str = ""
    """The asset that is tested (default: the file's `asset`)."""
    given: dict[str, list[Any] | RowsModel] = {}
    """The rows of each table that it reads, of its landing files by their source's name or glob, of a database's table."""
    published: list[Any] | RowsModel | None = None
    """The rows of its current version: then an asset that grows is run incrementally."""
    watermark: dict[str, Any] = {}
    """The watermark by column (default: the highest published value)."""
    data: Literal["given", "published"] = "given"
    """published: the gates look at the rows that are published now."""
    vars: dict[str, Any] = {}
    """Values for {{ var('name') }} in this test."""
    env: dict[str, Any] = {}
    """Values for {{ env('NAME') }} in this test."""
    expect: ExpectModel
    """What must come of it."""


class CasesModel(Closed):
    asset: str = ""
    """The asset that this file's tests are about (default: the file's name, as in tests/silver.sales.yaml)."""
    tests: dict[str, CaseModel]
    """The tests by name; a sentence that says what must be true makes a good one."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a file of tests."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **CasesModel.model_json_schema()}
