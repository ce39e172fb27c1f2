"""What the last step needs beyond the others, asked for before the first one starts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dagster import AssetExecutionContext, AssetKey, Failure

NEEDED = ("torch", "transformers", "safetensors")
CURE = "make setup EXTRAS=recipes   (or: uv sync --extra recipes; pip install 'ratatouille-lakehouse[recipes]')"


def missing(packages: tuple[str, ...] = NEEDED) -> list[str]:
    return [name for name in packages if find_spec(name) is None]


def check(context: AssetExecutionContext) -> None:
    """Failure if this run is to train a model and cannot: before the first step, not after the fourth."""
    asked = context.run.asset_selection
    trains = AssetKey("trained_model") in (asked if asked is not None else context.selected_asset_keys)
    lacking = missing() if trains else []
    if lacking:
        raise Failure(
            description=f"trained_model needs {', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not"
            f" installed\nthe run {context.run_id[:8]}\nNothing was built.\nNext: {CURE}",
            allow_retries=False,
        )


def tokenizer_of(name: str) -> tuple[Path, str]:
    """The tokenizer file of a model in a folder or on the hub, and its end mark."""
    import json

    folder = Path(name)
    if not (folder / "tokenizer.json").exists():
        if find_spec("huggingface_hub") is None:
            raise Failure(description=f"{name} is no folder with a tokenizer.json\nNext: {CURE}", allow_retries=False)
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=["tokenizer*", "special_tokens*", "config.json"]))
    said = (
        json.loads((folder / "tokenizer_config.json").read_text())
        if (folder / "tokenizer_config.json").exists()
        else {}
    )
    end = said.get("eos_token") or "<|endoftext|>"
    return folder / "tokenizer.json", end["content"] if isinstance(end, dict) else str(end)
