"""What lies beside a model: its card, its figures, the curve of its losses, and what it writes."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .shards import write_json

CURVE, CARD, METRICS, SAMPLES = "loss_curve.png", "README.md", "metrics.json", "samples.json"


def write(folder: Path, about: dict[str, Any], job: dict[str, Any], samples: list[dict[str, str]]) -> bytes:
    """Write all of it into the model's folder; the picture's bytes."""
    write_json(folder / METRICS, about)
    write_json(folder / SAMPLES, samples)
    picture = curve(about)
    (folder / CURVE).write_bytes(picture)
    (folder / CARD).write_text(_card(about, job, samples), encoding="utf-8")
    return picture


def curve(about: dict[str, Any]) -> bytes:
    """The losses as PNG."""
    import io

    with io.BytesIO() as png:
        chart(about).save(png, format="png", scale_factor=2)
        return png.getvalue()


def chart(about: dict[str, Any]) -> Any:
    """Training loss by step, validation loss by epoch, and the bigram baseline, as an altair chart."""
    import altair as alt
    import polars as pl

    def losses(name: str, pairs: Any) -> pl.DataFrame:
        rows = [{"step": step, "loss": loss, "of": name} for step, loss in pairs]
        return pl.DataFrame(rows, schema={"step": pl.Int64, "loss": pl.Float64, "of": pl.String})

    train = about["curve"]["train"]
    training = losses("training", train[:: max(1, len(train) // 400)])
    validation = losses("validation", about["curve"]["val"])
    baseline = losses("bigram baseline", [(train[-1][0] if train else 0, about["bigram_loss"])])
    colors = alt.Scale(domain=["training", "validation", "bigram baseline"], range=["#9ecae9", "#d62728", "#54585c"])
    x = alt.X("step:Q", title="step")
    y = alt.Y("loss:Q", title="loss, nats per token", scale=alt.Scale(zero=False))
    color = alt.Color("of:N", title=None, scale=colors)
    layers = (
        alt.Chart(training).mark_line(strokeWidth=1.5).encode(x=x, y=y, color=color),
        alt.Chart(validation).mark_line(strokeWidth=2, point={"size": 50}).encode(x=x, y=y, color=color),
        alt.Chart(baseline).mark_rule(strokeDash=[6, 4], strokeWidth=1.5).encode(y="loss:Q", color=color),
    )
    return alt.layer(*layers).properties(width=560, height=320, title="Losses")


def _card(about: dict[str, Any], job: dict[str, Any], samples: list[dict[str, str]]) -> str:
    origin = f"`{job['model']}` with LoRA" if job["model"] else f"from scratch, size `{job['size']}`"
    written = "\n\n".join(f"```\n{one['text']}\n```" for one in samples)
    return f"""# A model of recipes

Trained {origin}, on {about["train_examples"]:,} texts ({about["train_tokens"]:,} tokens), validated on {about["val_examples"]:,}.
No text of the validation set, and no near-duplicate of one, was trained on.

| | |
|---|---|
| validation loss | {about["val_loss"]:.4f} nats per token |
| validation perplexity | {about["val_perplexity"]:.2f} |
| bigram baseline, same tokenizer | {about["bigram_loss"]:.4f} (perplexity {about["bigram_perplexity"]:.2f}) |
| parameters | {about["total_params"]:,}, trained {about["trainable_params"]:,} |
| tokens seen | {about["tokens_seen"]:,} in {about["steps"]:,} steps, {job["epochs"]} epochs |
| speed | {about["tokens_per_second"]:,.0f} tokens a second on {about["device"]} ({platform.machine()}), {about["processes"]} process(es) |
| rows | {about["row_length"]} tokens, {about["packing_fill"]:.1%} full |
| tokenizer | {about["vocabulary"]:,} tokens, sha256 `{about["tokenizer_sha256"]}` |
| made with | torch {version("torch")}, transformers {version("transformers")}, seed {job["seed"]} |

![losses]({CURVE})

## What it writes

{written}

## Limits

It has read recipes and nothing else. It knows what recipes look like, not what is safe to eat: quantities, times and
temperatures are made up.
"""
