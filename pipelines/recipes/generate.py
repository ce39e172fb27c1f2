"""Text from the current model, or from any that trained_model has stored.

python -m pipelines.recipes.generate --prompt "Lemon chicken soup" --tokens 200 --temperature 0.8 --seed 1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratatouille import RatError, workspace

from .extras import CURE, missing


class NoModelError(ValueError):
    """There is no model to sample from; `cure` helps."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.cure = cure


def model_folder(named: Path | None = None) -> Path:
    """The folder `named`, else that of the current version of trained_model."""
    if lacking := missing():
        raise NoModelError(f"sampling needs {', '.join(lacking)}, which is not installed", CURE)
    if named is None:
        try:
            return workspace().artifact("recipes.trained_model")
        except RatError as error:
            raise NoModelError(error.what, "rat run trained_model") from error
    if not (named / "tokenizer.json").is_file():
        raise NoModelError(f"{named} holds no model of this pipeline", "name a folder that trained_model has stored")
    return named


def load(folder: Path) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    from tokenizers import Tokenizer

    from .model import load as load_model

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return load_model(folder), tokenizer


def generate(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 42,
    say: Callable[[str], Any] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> str:
    """The prompt and what the model makes of it, up to its end mark or the longest it was trained on. A temperature of 0 takes the likeliest token.

    The same prompt, seed and settings give the same text on a CPU. ValueError for an empty prompt: texts begin with
    their title, and the model has never been asked to make one up. `say` is given the text as it comes, piece by
    piece; once `enough()` is true no more is made.
    """
    import torch
    from transformers import StoppingCriteriaList

    if not prompt.strip():
        raise ValueError("the prompt is empty; begin with a title, such as 'Lemon chicken soup'")
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids], device=model.device)
    chosen = (
        {"do_sample": True, "temperature": temperature, "top_k": top_k} if temperature > 0 else {"do_sample": False}
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max(1, min(tokens, model.config.max_position_embeddings - ids.shape[1])),
            pad_token_id=model.config.eos_token_id,
            streamer=_Spoken(tokenizer, say) if say else None,
            stopping_criteria=StoppingCriteriaList([lambda *_, **__: enough()]),
            **chosen,
        )
    return str(tokenizer.decode(made[0].tolist(), skip_special_tokens=True))


class _Spoken:
    """What transformers calls a streamer; a character of several tokens waits until it is whole."""

    def __init__(self, tokenizer: Any, say: Callable[[str], Any]) -> None:
        self._tokenizer, self._say = tokenizer, say
        self._ids: list[int] = []
        self._said = ""

    def put(self, ids: Any) -> None:
        self._ids += ids.flatten().tolist()
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            self._say(text[len(self._said) :])
            self._said = text

    def end(self) -> None:
        pass


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="Lemon chicken soup")
    parser.add_argument("--tokens", type=int, default=200, help="at most (default 200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token each time")
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--model", type=Path, default=None, help="a folder; without it the current version")
    asked = parser.parse_args(arguments)
    try:
        model, tokenizer = load(model_folder(asked.model))
        generate(
            model,
            tokenizer,
            asked.prompt,
            tokens=asked.tokens,
            temperature=asked.temperature,
            top_k=asked.top_k,
            seed=asked.seed,
            say=lambda piece: print(piece, end="", flush=True),
        )
        print(flush=True)
    except NoModelError as error:
        return _refused(str(error), error.cure)
    except ValueError as error:
        return _refused(str(error), "python -m pipelines.recipes.generate --help")
    return 0


def _refused(what: str, cure: str) -> int:
    print(f"{what}\nNext: {cure}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
