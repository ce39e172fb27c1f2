"""The model: packed rows mean what separate texts mean, a killed training goes on to the same bits, and counting loses."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed. Get it with: make setup EXTRAS=recipes")
import uvicorn  # noqa: E402
from pipelines.recipes import (  # noqa: E402
    batches,
    corpus,
    evaluate,
    generate,
    learn,
    model,
    packing,
    serve,
    splitting,
    stages,
    tokens,
    training,
)
from pipelines.recipes.sources import Source  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # torch's own modules still say some things in the way of older Pythons.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
TINY = {"size": "tiny", "epochs": 1, "device": "cpu", "batch_tokens": 1024, "checkpoint_every_s": 1e9}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads of torch beside other tests spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    corpus.write(root / "corpus.jsonl", corpus.generate(160, seed=3))
    folders = [root / name for name in ("raw", "work", "cleaned", "tokens", "splits")]
    for folder in folders:
        folder.mkdir()
    raw, work, cleaned, encoded, split = folders
    stages.raw(Source("corpus.jsonl"), "it", root, raw)
    stages.cleaned(raw, work, cleaned, near=0.8, same_group=0.5, say=quiet)
    stages.tokenized(cleaned, encoded, max_seq_length=128, vocabulary=400, tokenizer=None, end=tokens.END, say=quiet)
    stages.split(encoded, split, ratio=0.15, seed=42)
    return split


def quiet(_: str) -> None: ...


def job(splits: Path, work: Path, **wish: Any) -> training.Job:
    work.mkdir(parents=True, exist_ok=True)
    return training.Job(splits=str(splits), work=str(work), **{**TINY, **wish})


def best(work: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (found,) = work.glob("best-*.safetensors")
    return load_file(found)


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_packed_row_costs_what_its_texts_cost_alone(splits: Path) -> None:
    side = splitting.read(splits / "train")
    packed, length = packing.pack_full(side.lengths, 512)
    torch.manual_seed(1)
    decoder = model.from_scratch("tiny", 400, 0, 512).eval()
    one = batches.batch(side, packed, np.arange(2), length, 0)
    with torch.no_grad():
        logits = decoder(input_ids=one.ids, position_ids=one.positions, attention_mask=one.mask).logits
        together = torch.nn.functional.cross_entropy(logits.flatten(0, 1), one.labels.flatten(), reduction="sum")
        alone, counted = 0.0, 0
        for number in np.concatenate([packed.row(0), packed.row(1)]):
            ids = torch.from_numpy(side.text(int(number)).astype(np.int64))[None]
            alone += float(decoder(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
            counted += ids.shape[1] - 1
    assert one.n_labels == counted
    assert float(together) == pytest.approx(alone, rel=1e-5)


def test_every_row_is_learnt_from_once_an_epoch_in_another_order_each_time() -> None:
    first, second = batches.order(50, 0, 42), batches.order(50, 1, 42)
    assert sorted(first) == sorted(second) == list(range(50)) and first.tolist() != second.tolist()
    assert batches.order(50, 0, 42).tolist() == first.tolist() != batches.order(50, 0, 43).tolist()


class Killed(Exception):
    pass


def test_the_steps_of_an_epoch_take_every_row_once(
    splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def noted(side: Any, packed: Any, rows: np.ndarray, length: int, end: int) -> Any:
        if len(packed) == n_rows:
            taken.extend(int(row) for row in rows)
        return batches.batch(side, packed, rows, length, end)

    packed, _ = packing.pack_full(splitting.read(splits / "train").lengths, 128)
    n_rows = len(packed)
    monkeypatch.setattr(training, "batch", noted)
    training.train(job(splits, tmp_path / "work", epochs=2), quiet)
    assert sorted(taken) == sorted([*range(n_rows)] * 2)
    assert taken[:n_rows] != taken[n_rows:]


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(
    splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.train(job(splits, tmp_path / "whole", epochs=2), quiet)
    torn = job(splits, tmp_path / "torn", epochs=2, checkpoint_every_s=0.0)
    step = training._Training._step
    stops = iter([3, whole["steps"] // 2 + 2])  # within the first epoch, and within the second

    for stop in stops:

        def until(self: Any, stop: int = stop) -> float:
            if self.state.step >= stop:
                raise Killed
            return step(self)

        monkeypatch.setattr(training._Training, "_step", until)
        with pytest.raises(Killed):
            training.train(torn, quiet)
        torch.rand(3)  # somebody else throws torch's dice meanwhile
    monkeypatch.setattr(training._Training, "_step", step)
    said: list[str] = []
    again = training.train(torn, said.append)
    assert f"training: goes on from step {whole['steps'] // 2 + 2:,}" in said[0]
    assert again["curve"] == whole["curve"] and again["tokens_seen"] == whole["tokens_seen"]
    assert equal(best(tmp_path / "torn"), best(tmp_path / "whole"))
    assert len(list((tmp_path / "torn").glob("checkpoint-*"))) == 1
    # A training that is over is not done again.
    assert training.train(torn, quiet)["curve"] == whole["curve"]


def test_how_a_step_is_cut_into_portions_does_not_change_it(
    splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.train(job(splits, tmp_path / "one"), quiet)
    monkeypatch.setitem(model.SIZES, "tiny", model.Size(2, 64, 2, 1024, 1, 4e-3))  # a row at a time
    cut = training.train(job(splits, tmp_path / "cut"), quiet)
    assert [loss for _, loss in cut["curve"]["train"]] == pytest.approx(
        [loss for _, loss in whole["curve"]["train"]], rel=1e-4
    )


def test_two_processes_learn_what_one_learns(splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = training.train(job(splits, tmp_path / "one"), quiet)
    two = job(splits, tmp_path / "two", processes=2)
    together = learn._launched(two, quiet)
    assert together["processes"] == 2 and together["steps"] == alone["steps"]
    assert together["val_loss"] == pytest.approx(alone["val_loss"], rel=2e-3)
    assert [loss for _, loss in together["curve"]["train"]] == pytest.approx(
        [loss for _, loss in alone["curve"]["train"]], rel=2e-2
    )


def test_the_bigram_is_what_counting_gives() -> None:
    train = splitting.Side(np.array([1, 2, 1, 2, 0, 1, 3, 0]), np.array([0, 5, 8]), np.array([0, 1]))
    val = splitting.Side(np.array([1, 2, 0]), np.array([0, 3]), np.array([2]))
    found = evaluate.baselines(train, val, 4)
    # After 1: 2 twice, 3 once. After 2: 1 once, 0 once. What follows anything: 2 2 1 0 3 0.
    chance = (np.bincount([2, 1, 2, 0, 3, 0], minlength=4) + 1) / (6 + 4)
    expected = {
        k: -(math.log((2 + k * chance[2]) / (3 + k)) + math.log((1 + k * chance[0]) / (2 + k))) / 2
        for k in evaluate.WORTH
    }
    assert found["bigram_loss"] == pytest.approx(min(expected.values()))
    assert found["unigram_loss"] == pytest.approx(-np.log(chance[[2, 0]]).mean())


def test_a_model_from_scratch_with_all_that_lies_beside_it(
    splits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    wish = {**TINY, "epochs": 3, "learning_rate": 8e-3}
    about, picture = learn.learn(splits, work, wish, quiet)
    assert about["val_loss"] < about["unigram_loss"] and about["val_perplexity"] == math.exp(about["val_loss"])
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    result = work / "result"
    names = {path.name for path in result.iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "README.md",
        "loss_curve.png",
        "metrics.json",
    } <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    card = (result / "README.md").read_text()
    assert f"{about['val_loss']:.4f}" in card and about["tokenizer_sha256"] in card and "bigram" in card
    assert all(one["text"].startswith(one["prompt"][:5]) for one in json.loads((result / "samples.json").read_text()))
    # What is stored is what was best.
    from safetensors.torch import load_file

    stored = load_file(result / "model.safetensors")
    assert equal({name: stored[name] for name in stored}, {name: best(work)[name] for name in stored})
    # And it writes, the same for the same seed.
    texts = []
    for seed in ("1", "1", "2"):
        assert generate.main(["--model", str(result), "--prompt", "Smoky tofu", "--tokens", "20", "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2] and texts[0].startswith("Smoky tofu")
    assert generate.main(["--model", str(result), "--prompt", " "]) == 2
    assert "begin with a title" in capsys.readouterr().err
    served_as_it_is_made(result, texts[0].strip())


def served_as_it_is_made(folder: Path, text: str) -> None:
    """The model in `folder` over HTTP says `text` too, in pieces; what it cannot take it says."""
    config = uvicorn.Config(serve.app(folder), port=0, log_level="error")
    socket, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    with httpx.Client(base_url=f"http://127.0.0.1:{socket.getsockname()[1]}", timeout=60) as client:
        assert client.get("/").json()["version"] == folder.name
        ask = {"prompt": "Smoky tofu", "tokens": 20, "seed": 1}
        with client.stream("POST", "/generate", json=ask) as answer:
            pieces = list(answer.iter_text())
        assert "".join(pieces).strip() == text and len(pieces) > 3
        with client.stream("POST", "/generate", json=ask | {"tokens": 4000}) as answer:
            next(answer.iter_text())  # and the client leaves
        assert client.post("/generate", json=ask).text.strip() == text
        for wrong, code, said in (
            ({"prompt": " "}, 422, "prompt"),
            ({"prompt": "a", "tokens": 0}, 422, "tokens"),
            ({"prompt": "a", "max_tokens": 5}, 422, "max_tokens"),
            ({"prompt": "a" * 30_000}, 413, "bytes at most"),
        ):
            refused = client.post("/generate", json=wrong)
            assert (refused.status_code, said in refused.json()["error"]) == (code, True)
    server.should_exit = True
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_model_of_somebody_else_is_adapted_with_lora(splits: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    torch.manual_seed(5)
    model.from_scratch("tiny", 400, 0, 128).save_pretrained(base)
    work = tmp_path / "work"
    work.mkdir()
    about, _ = learn.learn(splits, work, {**TINY, "model": str(base), "learning_rate": 5e-3}, quiet)
    assert about["trainable_params"] < about["total_params"] / 2
    losses = [loss for _, loss in about["curve"]["train"]]
    assert losses[-1] < losses[0] - 0.1
    adapter = json.loads((work / "result" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (8, 16, 0.05)
    assert (work / "result" / "adapter_model.safetensors").stat().st_size < (base / "model.safetensors").stat().st_size
    loaded, tokenizer = generate.load(work / "result")
    assert generate.generate(loaded, tokenizer, "Smoky", tokens=4).startswith("Smoky")


def test_a_model_that_cannot_be_had_says_why_and_what_helps(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(model.ModelError, match="qlora needs a CUDA device") as refused:
        training.train(job(splits, tmp_path / "w", model="anything", qlora=True), quiet)
    assert "plain LoRA" in refused.value.cure
    other = tmp_path / "other"
    model.from_scratch("tiny", 200, 0, 128).save_pretrained(other)
    with pytest.raises(model.ModelError, match="not encoded with the tokenizer of"):
        training.train(job(splits, tmp_path / "w", model=str(other)), quiet)
    with pytest.raises(model.ModelError, match="there is no size huge"):
        learn.learn(splits, tmp_path, {**TINY, "size": "huge"}, quiet)
