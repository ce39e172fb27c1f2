"""The report of a model: report.json with every figure, report.html with the same and pictures. No network, no script.

Pictures are SVG inside the page, so it opens anywhere, also in ten years.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from .models import WITH, WITHOUT, write_json

REPORT, PAGE = "report.json", "report.html"
NAMES = {
    WITHOUT: "without the load signal (served)",
    WITH: "with the load signal",
    "majority": "baseline: the commoner answer",
    "rule": "baseline: the label's rule, 5 s earlier, without load",
    "rule_with_load": "baseline: the label's rule, 5 s earlier, with load",
}
COLUMNS = {
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "log_loss": "log loss",
    "brier": "Brier",
    "calibration_error": "calibration error",
}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}.verdict{padding:.6rem 1rem;background:#f2f4f7;border-left:4px solid #4c78a8}
figure{margin:1rem 0}code{background:#f2f4f7;padding:0 .25rem}"""


def write(folder: Path, about: dict[str, Any]) -> dict[str, bytes]:
    """Write both files into `folder`; two of the pictures as PNG, for the asset's page in Dagster."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT, about)
    made = {name: chart.to_json() for name, chart in charts(about).items()}
    pictures = {name: vl_convert.vegalite_to_svg(spec) for name, spec in made.items()}
    (folder / PAGE).write_text(page(about, pictures), encoding="utf-8")
    return {name: bytes(vl_convert.vegalite_to_png(made[name])) for name in ("calibration", "importance")}


def charts(about: dict[str, Any]) -> dict[str, Any]:
    """The pictures by name, as altair charts."""
    import altair as alt

    def bars(rows: list[dict[str, Any]], x: str, y: str, title: str) -> Any:
        encoding = {"x": alt.X(f"{x}:Q", title=title), "y": alt.Y(f"{y}:N", sort=None, title=None)}
        return alt.Chart(alt.Data(values=rows)).mark_bar(color="#4c78a8").encode(**encoding).properties(width=420)

    points = [{"of": NAMES[name], **one} for name, curve in about["calibration"].items() for one in curve]
    both = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("said:Q", title="probability said", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("was:Q", title="share that carried", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("of:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=400)),
    )
    honest = alt.Chart(alt.Data(values=[{"said": 0, "was": 0}, {"said": 1, "was": 1}])).mark_line(
        strokeDash=[4, 4], color="#999"
    )
    machines = [
        {"machine": one["machine"], "of": NAMES[name], "f1": one["f1"]}
        for name, listed in about["machines"].items()
        for one in listed
        if one.get("f1") is not None
    ]
    spread = alt.Chart(alt.Data(values=machines)).mark_point(filled=True, size=70)
    confusion = [
        {"was": was, "said": said, "windows": about["scores"][WITHOUT]["confusion"][cell]}
        for cell, was, said in (
            *(("tp", "carried", "said yes"), ("fn", "carried", "said no")),
            *(("fp", "did not", "said yes"), ("tn", "did not", "said no")),
        )
    ]
    squares = alt.Chart(alt.Data(values=confusion)).encode(
        x=alt.X("said:N", title=None, axis=alt.Axis(labelAngle=0)), y=alt.Y("was:N", title=None)
    )
    heat = squares.mark_rect().encode(color=alt.Color("windows:Q", scale=alt.Scale(scheme="blues"), legend=None))
    made = {
        "calibration": (honest.encode(x="said:Q", y="was:Q") + both.mark_line(point=True)).properties(
            width=360, height=300
        ),
        "confusion": (heat + squares.mark_text(fontSize=14).encode(text="windows:Q")).properties(width=240, height=160),
        "importance": bars(about["importance"][:12], "loss", "feature", "average precision lost without it"),
        "machines": spread.encode(
            x=alt.X("f1:Q", scale=alt.Scale(domain=[0, 1]), title="F1"),
            y=alt.Y("machine:N", title=None),
            color=alt.Color("of:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=400)),
        ).properties(width=420),
    }
    if about.get("drift"):
        made["drift"] = bars(about["drift"][:12], "index", "feature", "population stability index (0.25: shifted)")
    return made


def page(about: dict[str, Any], pictures: dict[str, str]) -> str:
    """The whole page as HTML; `pictures` are SVG."""
    decision, splits = about["promotion"], about["splits"]
    parts = [
        f"<h1>Carry state: model {escape(about['run_id'][:8])}</h1>",
        f"<p class=verdict>{'To be promoted' if decision['promote'] else 'Not to be promoted'}: {escape(decision['why'])}.</p>",
        f"<p>{_made_from(about)}</p>",
        "<h2>On machines never seen, later than all training</h2>",
        _table(
            ["", *COLUMNS.values()],
            [
                [NAMES[name], *(_figure(one.get(column)) for column in COLUMNS)]
                for name, one in {**about["scores"], **about["baselines"]}.items()
            ],
        ),
        (
            f"<p>{splits['test']['windows']:,} windows of {len(splits['test']['machines'])} machine(s), "
            f"{splits['test']['carrying']:,} of them carrying. Kinds, calibration and thresholds were chosen on other windows.</p>"
        ),
        _with_picture("Confusion, without the load signal", "confusion", pictures),
        _with_picture("Calibration", "calibration", pictures),
        _with_picture("Each machine", "machines", pictures),
        _machines(about),
        _with_picture("What it looks at", "importance", pictures),
        _with_picture(
            f"Drift against the model of run {escape(about.get('drift_against', '')[:8])}", "drift", pictures
        ),
        "<h2>What was tried</h2>",
        _table(
            ["", "features", "log loss before calibration", "log loss", "average precision"],
            [
                [
                    f"{one['kind']}, {NAMES[name]}",
                    str(one["features"]),
                    *(_figure(one[c]) for c in ("log_loss_before_calibration", "log_loss", "average_precision")),
                ]
                for name, listed in about["tried"].items()
                for one in listed
            ],
        ),
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Carry state</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _made_from(about: dict[str, Any]) -> str:
    made = about["made_from"]
    commits = ", ".join(f"<code>{escape(str(one['commit_id'])[:12])}</code>" for one in made["commits"][:5])
    more = f" and {len(made['commits']) - 5} more" if len(made["commits"]) > 5 else ""
    return (
        f"Trained on {about['splits']['train']['windows']:,} windows of {len(about['splits']['train']['machines'])} machine(s) "
        f"from version {made['version']} of <code>{escape(made['table'])}</code>, commits {commits}{more}. "
        f"<code>python -m pipelines.forklift.lineage {escape(about['run_id'])}</code> finds the rows."
    )


def _machines(about: dict[str, Any]) -> str:
    rows = [
        [
            one["machine"],
            f"{one['windows']:,}",
            f"{one['carrying']:,}",
            *(_figure(one.get(c)) for c in ("f1", "roc_auc", "log_loss")),
        ]
        for one in about["machines"][WITHOUT]
    ]
    return _table(["machine, without the load signal", "windows", "carrying", "F1", "ROC AUC", "log loss"], rows)


def _with_picture(title: str, name: str, pictures: dict[str, str]) -> str:
    return f"<h2>{title}</h2><figure>{pictures[name]}</figure>" if name in pictures else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def card(about: dict[str, Any]) -> str:
    """The model card, as Markdown."""
    scores, made, splits = about["scores"], about["made_from"], about["splits"]
    rows = "\n".join(
        f"| {NAMES[name]} | {' | '.join(_figure(one.get(c)) for c in ('average_precision', 'f1', 'log_loss'))} |"
        for name, one in {**scores, **about["baselines"]}.items()
    )
    return f"""# Does the forklift carry? Model of run {about["run_id"]}

Says from the last minutes of speed, height and motion whether a forklift carries a load, without asking the load sensor.
Meant for machines whose load sensor is broken. Not meant for safety, nor for judging people.

| on {len(splits["test"]["machines"])} machine(s) never seen, {splits["test"]["windows"]:,} windows | average precision | F1 | log loss |
|---|---|---|---|
{rows}

Made from version {made["version"]} of `{made["table"]}` ({splits["train"]["windows"]:,} windows of {len(splits["train"]["machines"])}
machines, {splits["train"]["from"]} to {splits["train"]["to"]} UTC), commits {", ".join(str(one["commit_id"])[:12] for one in made["commits"][:5])}.
The labels are the load sensor's, debounced: what the sensor gets wrong, the labels get wrong. Random state {about["wish"]["random_state"]}.
"""
