"""The model: a small Llama-shaped decoder of our own, or somebody's model with LoRA on top. Everything else is the same.

size   the one dial: layers, width, heads, tokens in a step, learning rate. `tiny` is for tests; `mini` learns
       6,000 recipes on one core in a quarter of an hour, `small` in an hour; the others want a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as _said_by_transformers

_said_by_transformers.disable_progress_bar()


@dataclass(frozen=True, slots=True)
class Size:
    layers: int
    width: int
    heads: int
    batch_tokens: int  # tokens in a step
    micro_tokens: int  # tokens that go through the model at once; the rest of the step is accumulated
    learning_rate: float


SIZES = {
    "tiny": Size(2, 64, 2, 2_048, 2_048, 4e-3),
    "mini": Size(3, 128, 4, 8_192, 4_096, 3e-3),
    "small": Size(4, 256, 4, 8_192, 4_096, 1.5e-3),
    "medium": Size(8, 512, 8, 32_768, 16_384, 8e-4),
    "large": Size(12, 768, 12, 131_072, 32_768, 6e-4),
    "xl": Size(24, 1_024, 16, 262_144, 32_768, 3e-4),
}
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
LORA_RATE = 2e-4


class ModelError(ValueError):
    """A model that cannot be had as it was asked for; `cure` says what to do."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


def from_scratch(size: str, vocabulary: int, end: int, longest: int) -> LlamaForCausalLM:
    """An untrained decoder of `size` for `vocabulary` tokens and rows of `longest`; weights by torch's seed."""
    dial = SIZES[size]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=dial.width,
        intermediate_size=int(dial.width * 8 / 3 + 63) // 64 * 64,
        num_hidden_layers=dial.layers,
        num_attention_heads=dial.heads,
        max_position_embeddings=longest,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        tie_word_embeddings=True,
        attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]  # taken, and not declared
    )
    return LlamaForCausalLM(config)


def adapted(name: str, device: str, *, four_bits: bool) -> Any:
    """A model from a folder or the hub, with a fresh LoRA on all of its linear layers; only that is trained."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    options: dict[str, Any] = {"attn_implementation": "sdpa"}
    if four_bits:
        options |= _in_four_bits(device)
    model = AutoModelForCausalLM.from_pretrained(name, **options)
    if four_bits:
        model = prepare_model_for_kbit_training(model)
    return get_peft_model(model, LoraConfig(**LORA))


def _in_four_bits(device: str) -> dict[str, Any]:
    """What loads a model in 4 bits (NF4, bfloat16 arithmetic). bitsandbytes has kernels for CUDA alone."""
    from importlib.util import find_spec

    if device != "cuda":
        raise ModelError(f"qlora needs a CUDA device, and this run is on {device}", "set qlora: false (plain LoRA)")
    if find_spec("bitsandbytes") is None:
        raise ModelError("qlora needs the package bitsandbytes", "pip install 'ratatouille-lakehouse[qlora]'")
    from transformers import BitsAndBytesConfig

    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": quantized, "device_map": {"": torch.cuda.current_device()}}


def load(folder: Path) -> Any:
    """A model that trained_model has stored, ready to use: safetensors and JSON are read, no code."""
    if (folder / "adapter_config.json").exists():
        from peft import AutoPeftModelForCausalLM

        return AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()


def parameters(model: Any) -> tuple[int, int]:
    """(trainable, all)"""
    counted = [(one.numel(), one.requires_grad) for one in model.parameters()]
    return sum(n for n, trained in counted if trained), sum(n for n, _ in counted)
