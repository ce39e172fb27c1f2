"""Reports on load sensors, anomalies and safety: the gold tables, and their pictures as artifacts."""

import json
from base64 import b64encode
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from dagster import AssetCheckResult, AssetExecutionContext, AssetKey, MetadataValue, asset, asset_check

from ratatouille import query, run


def _folder(context: AssetExecutionContext, charts: dict[str, Any], figures: dict[str, Any]) -> Path:
    """PNG pictures, the charts as Vega-Lite, and report.json; the pictures are shown with the materialization."""
    import vl_convert

    folder = Path(mkdtemp(prefix="forklift-report-"))
    shown: dict[str, Any] = {}
    for name, chart in charts.items():
        said = chart.to_json()
        png = vl_convert.vegalite_to_png(said, scale=1.0)
        (folder / f"{name}.vl.json").write_text(said)
        (folder / f"{name}.png").write_bytes(png)
        shown[name] = MetadataValue.md(f"![{name}](data:image/png;base64,{b64encode(png).decode()})")
    (folder / "report.json").write_text(json.dumps(figures, indent=1, default=str))
    context.add_output_metadata({**{k: v for k, v in figures.items() if isinstance(v, int | float | str)}, **shown})
    return folder


@asset(
    group_name="reports",
    deps=[AssetKey("carrying_dataset")],
    io_manager_key="artifact_io_manager",
    description="How reliable each load sensor is: duty cycle, changes in an hour, short stretches.",
    compute_kind="altair",
)
def load_sensor_report(context: AssetExecutionContext) -> Path:
    from ..pictures import load_sensors

    done = run("gold.forklift_load_sensor")
    rows = query("select * from gold.forklift_load_sensor order by machine")
    verdicts = dict(rows["verdict"].value_counts().iter_rows())
    figures = {"version": done["version"], "machines": rows.height, **verdicts, "sensors": rows.to_dicts()}
    return _folder(context, load_sensors(rows), figures)


@asset(
    group_name="reports",
    deps=[AssetKey("carrying_dataset")],
    io_manager_key="artifact_io_manager",
    description="Moments at which a load changed at speed, by machine and by hour.",
    compute_kind="altair",
)
def anomaly_report(context: AssetExecutionContext) -> Path:
    from ..pictures import anomalies

    done = run("gold.forklift_anomalies")
    counts = query("select machine, count(*) as n from gold.forklift_anomalies group by machine order by machine")
    hours = query("select hour(ts) as hour, count(*) as n from gold.forklift_anomalies group by 1 order by 1")
    figures = {"version": done["version"], "anomalies": int(counts["n"].sum()), "by_machine": counts.to_dicts()}
    return _folder(context, anomalies(counts, hours), figures)


@asset(
    group_name="reports",
    deps=[AssetKey("carrying_dataset")],
    io_manager_key="artifact_io_manager",
    description="How safely each forklift is driven: raised forks at speed, high forks while moving, oscillations.",
    compute_kind="altair",
)
def safety_report(context: AssetExecutionContext) -> Path:
    from ..pictures import safety

    done = run("gold.forklift_safety")
    rows = query("select * from gold.forklift_safety order by machine")
    figures = {
        "version": done["version"],
        "machines": rows.height,
        "raised_fast_s": float(rows["raised_fast_s"].sum()),
        "high_moving_s": float(rows["high_moving_s"].sum()),
        "by_machine": rows.to_dicts(),
    }
    return _folder(context, safety(rows), figures)


def _has_figures(report: Path) -> AssetCheckResult:
    figures = json.loads((report / "report.json").read_text())
    pictures = sorted(path.name for path in report.glob("*.png") if path.stat().st_size > 1000)
    return AssetCheckResult(passed=bool(pictures) and bool(figures.get("version")), metadata={"pictures": pictures})


@asset_check(asset=load_sensor_report, blocking=True, description="It has figures and pictures.")
def load_sensor_report_whole_check(load_sensor_report: Path) -> AssetCheckResult:
    return _has_figures(load_sensor_report)


@asset_check(asset=anomaly_report, blocking=True, description="It has figures and pictures.")
def anomaly_report_whole_check(anomaly_report: Path) -> AssetCheckResult:
    return _has_figures(anomaly_report)


@asset_check(asset=safety_report, blocking=True, description="It has figures and pictures.")
def safety_report_whole_check(safety_report: Path) -> AssetCheckResult:
    return _has_figures(safety_report)


all_report_assets = [load_sensor_report, anomaly_report, safety_report]
all_report_checks = [load_sensor_report_whole_check, anomaly_report_whole_check, safety_report_whole_check]
