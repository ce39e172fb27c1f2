"""The F1 dbt project by dbt alone, on DuckDB and on Spark: `spark_worker.py PROJECT BRONZE OUT`, in an empty folder.

BRONZE holds the eight bronze tables as Parquet; OUT gets `<target>/<model>.parquet` of each, and `<target>.json` with the
results. Spark is Sail, a Spark Connect server of one process; its catalog is its session's, which is why dbt runs in
this process, too.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

PROJECT, BRONZE, OUT = (Path(one).resolve() for one in sys.argv[1:4])
MODELS = {path.stem: f"default_{schema}" for folder, schema in (("silver", "silver_clean"), ("core", "gold_analytics"), ("marts", "gold_analytics")) for path in (PROJECT / "models" / folder).glob("*.sql")}  # fmt: skip
TABLES = sorted(BRONZE.glob("*.parquet"))


def build(target: str) -> dict[str, str]:
    """Model -> its table, of those that were built."""
    from dbt.cli.main import dbtRunner

    words = ["--target", target, "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    done: Any = dbtRunner().invoke(
        ["--quiet", "--no-use-colors", "build", *words, "--target-path", str(Path(f"target_{target}").resolve())]
    )
    if done.exception:
        raise done.exception
    told = [(one.node.name, str(one.status), one.message) for one in done.result]
    (OUT / f"{target}.json").write_text(json.dumps(told, indent=1))
    return {name: f"{MODELS[name]}.{name}" for name, status, _ in told if status == "success"}


def on_duckdb() -> None:
    import duckdb

    file = Path("f1.duckdb")
    os.environ["F1_DBT_FILE"] = str(file)
    with duckdb.connect(str(file)) as connection:
        connection.execute("create schema bronze_raw")
        for path in TABLES:
            connection.execute(f"create table bronze_raw.{path.stem} as from '{path}'")
    built = build("dev")
    with duckdb.connect(str(file)) as connection:
        for name, table in built.items():
            connection.execute(f"copy {table} to '{OUT / 'dev' / name}.parquet'")


def on_spark() -> None:
    import pyarrow.parquet
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    os.environ["SPARK_REMOTE"] = f"sc://127.0.0.1:{server.listening_address[1]}"
    session = SparkSession.builder.getOrCreate()
    session.sql("create database bronze_raw")
    for path in TABLES:
        session.read.parquet(str(path)).write.saveAsTable(f"bronze_raw.{path.stem}")
    for name, table in build("spark").items():
        rows = session.table(table).toArrow()
        pyarrow.parquet.write_table(rows, OUT / "spark" / f"{name}.parquet")
    session.stop()
    server.stop()


if __name__ == "__main__":
    for target, play in (("dev", on_duckdb), ("spark", on_spark)):
        (OUT / target).mkdir(parents=True)
        play()
