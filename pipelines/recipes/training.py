"""Training: packed rows through a model until the epochs are over, and on from the last checkpoint after a kill.

    torchrun --nproc-per-node 2 -m pipelines.recipes.training job.json        (what `processes: 2` does)

step        `batch_tokens` tokens, in as many portions as fit; the loss of a step is per token, however it was cut
checkpoint  parameters that are trained, the optimizer, torch's dice and where we are; written aside, then renamed.
            The same checkpoint goes on to the same bits on a CPU (with the same threads), and nothing is unpickled
best        the parameters after the epoch whose validation loss was lowest: they become the model
job.json    folders and settings; every process of a launcher reads the same
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn import functional

from . import splitting, tokens
from .batches import NO_LABEL, Batch, batch, order, portions
from .model import LORA_RATE, SIZES, ModelError, adapted, from_scratch, parameters
from .packing import pack_full
from .shards import ABOUT, Progress, Say, read_json, write_json

WARM_UP, FLOOR = 0.05, 0.1  # share of the steps, and of the learning rate at the end
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Job:
    """What to train on what. `splits` holds train/ and val/; `work` is where checkpoints and the result lie."""

    splits: str
    work: str
    size: str = "small"
    model: str = ""
    qlora: bool = False
    epochs: int = 3
    batch_tokens: int = 0
    learning_rate: float = 0.0
    device: str = "auto"
    precision: str = "auto"
    compile: str = "auto"
    processes: int = 1
    checkpoint_every_s: float = 60.0
    seed: int = 42


@dataclass(slots=True)
class Progressed:
    """How far a training is; this is what a checkpoint remembers beside tensors."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    best_loss: float = math.inf
    best_epoch: int = -1
    train: list[list[float]] = field(default_factory=list)  # [step, loss per token]
    val: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process computes, and which of how many it is."""

    device: str
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device if self.device == "cuda" else "cpu")
        dist.all_reduce(tensor)
        return [float(one) for one in tensor]


def train(job: Job, say: Say) -> dict[str, Any]:
    """Train, or go on training; the best parameters are in `work/best.safetensors`. What is known of it all."""
    place = _place(job.device)
    devices = [torch.cuda.current_device()] if place.device == "cuda" else []
    threads = torch.get_num_threads()
    if job.size == "tiny" and not job.model:
        torch.set_num_threads(1)  # its matrices are too small to share: threads would only wait for each other
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(job.seed)
        try:
            return _Training(job, place, say if place.first else _silent).run()
        finally:
            torch.set_num_threads(threads)
            if place.world > 1:
                dist.destroy_process_group()


def _silent(_: str) -> None:
    return None


def _place(device: str) -> Place:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return Place(device, rank, world)


class _Training:
    def __init__(self, job: Job, place: Place, say: Say) -> None:
        self.job, self.place, self.say = job, place, say
        self.work, about = Path(job.work), read_json(Path(job.splits) / ABOUT)
        self.end = int(about["end_id"])
        self.sides = {name: splitting.read(Path(job.splits) / name) for name in splitting.SIDES}
        longest = int(about["max_seq_length"])
        self.packed, self.length = pack_full(self.sides["train"].lengths, longest)
        self.held_out, self.held_length = pack_full(self.sides["val"].lengths, longest)
        dial = SIZES[job.size]
        if job.model:
            self.model = adapted(job.model, place.device, four_bits=job.qlora)
            _same_tokens(self.model, job.model, about)
        else:
            self.model = from_scratch(job.size, int(about["vocabulary"]), self.end, longest)
        if not job.qlora:
            self.model.to(place.device)
        self.rate = job.learning_rate or (LORA_RATE if job.model else dial.learning_rate)
        self.rows_at_once = max(1, dial.micro_tokens // self.length)
        self.rows_in_step = max(1, (job.batch_tokens or dial.batch_tokens) // self.length)
        self.steps_in_epoch = math.ceil(len(self.packed) / self.rows_in_step)
        self.steps = self.steps_in_epoch * job.epochs
        self.trained = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        self.optimizer = _optimizer(self.trained, self.rate, fused=place.device == "cuda")
        self.state = Progressed()
        self.faster = self._wrapped()

    def _wrapped(self) -> Any:
        """The model as it is called: compiled on CUDA, and with its gradients shared between processes."""
        chosen, model = self.job.compile, self.model
        if chosen == "on" or (chosen == "auto" and self.place.device == "cuda" and not self.job.qlora):
            model = torch.compile(model)
        if self.place.world > 1:
            devices = [torch.cuda.current_device()] if self.place.device == "cuda" else None
            model = torch.nn.parallel.DistributedDataParallel(model, device_ids=devices)
        return model

    def run(self) -> dict[str, Any]:
        self._resume()
        clock = Progress("training", self.steps, self.say)
        clock.done = self.state.step
        clock.began -= self.state.seconds
        saved = before = time.monotonic()
        while self.state.step < self.steps:
            loss = self._step()
            self.state.train.append([self.state.step, loss])
            now = time.monotonic()
            self.state.seconds += now - before
            before = now
            clock.step(1, f", loss {loss:.3f}")
            if self.state.step % self.steps_in_epoch == 0:
                self._validate()
                self._save()
                saved = before = time.monotonic()
            elif self._due(now - saved):
                self._save()
                saved = before = time.monotonic()
        return self._about()

    def _due(self, since_s: float) -> bool:
        """Whether to save now: the first process decides, because clocks differ and all must stop together."""
        return self.place.total(float(self.place.first and since_s >= self.job.checkpoint_every_s))[0] > 0

    def _step(self) -> float:
        state, place = self.state, self.place
        epoch, number = divmod(state.step, self.steps_in_epoch)
        rows = order(len(self.packed), epoch, self.job.seed)
        rows = rows[number * self.rows_in_step : (number + 1) * self.rows_in_step]
        mine = rows[place.rank :: place.world]
        made = [
            batch(self.sides["train"], self.packed, part, self.length, self.end)
            for part in portions(mine, self.rows_at_once)
        ]
        (n_labels,) = place.total(sum(one.n_labels for one in made))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * _schedule(state.step, self.steps)
        self.faster.train()
        total = 0.0
        for number, one in enumerate(made):
            last = number == len(made) - 1
            # Gradients are exchanged once a step, with the last portion.
            quiet = self.faster.no_sync() if place.world > 1 and not last else nullcontext()
            with quiet:
                loss = self._loss(one)
                # DDP takes the mean over processes; the sum is what a step means.
                (loss * (place.world / max(1.0, n_labels))).backward()
            total += float(loss.detach())
        if not made and place.world > 1:
            self._take_part()
        torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.tokens += int(n_labels)
        return place.total(total)[0] / max(1.0, n_labels)

    def _take_part(self) -> None:
        """A process without rows in the last step of an epoch still meets the others: with gradients of zero."""
        one = batch(self.sides["train"], self.packed, order(len(self.packed), 0, 0)[:1], self.length, self.end)
        (self._loss(one) * 0.0).backward()

    def _loss(self, one: Batch) -> torch.Tensor:
        """The sum of the losses of a batch's labels, in float32."""
        device = self.place.device
        half = self.job.precision == "bfloat16" or (self.job.precision == "auto" and device == "cuda")
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = self.faster(
                input_ids=one.ids.to(device),
                position_ids=one.positions.to(device),
                attention_mask=one.mask.to(device),
                use_cache=False,
            ).logits
        return functional.cross_entropy(
            logits.flatten(0, 1).float(), one.labels.to(device).flatten(), ignore_index=NO_LABEL, reduction="sum"
        )

    @torch.no_grad()
    def _validate(self) -> None:
        self.faster.eval()
        lost, counted = 0.0, 0
        mine = order(len(self.held_out), 0, 0)[self.place.rank :: self.place.world]
        for rows in portions(mine, max(1, self.rows_at_once * self.length // self.held_length)):
            one = batch(self.sides["val"], self.held_out, rows, self.held_length, self.end)
            lost, counted = lost + float(self._loss(one)), counted + one.n_labels
        lost, n_labels = self.place.total(lost, counted)
        state, loss = self.state, lost / max(1.0, n_labels)
        state.val.append([state.step, loss])
        self.say(f"training: epoch {len(state.val)} of {self.job.epochs}, validation loss {loss:.4f}")
        if loss < state.best_loss:
            state.best_loss, state.best_epoch = loss, len(state.val)
            if self.place.first:
                _save_tensors(self._parameters(), self.work / f"best-{state.best_epoch}.safetensors")

    # Checkpoints

    def _parameters(self) -> dict[str, torch.Tensor]:
        return {name: one.detach().cpu().contiguous() for name, one in self.trained.items()}

    def _save(self) -> None:
        if self.place.first:
            aside, home = self.work / ".checkpoint", self.work / f"checkpoint-{self.state.step:08d}"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            save_file(self._parameters(), aside / "parameters.safetensors")
            save_file(_optimizer_tensors(self.optimizer, self.trained), aside / "optimizer.safetensors")
            save_file(_dice(self.place.device), aside / "dice.safetensors")
            write_json(aside / STATE, asdict(self.state))
            shutil.rmtree(home, ignore_errors=True)
            os.rename(aside, home)
            for old in self.work.glob("checkpoint-*"):
                if old != home:
                    shutil.rmtree(old)
            for old in self.work.glob("best-*.safetensors"):
                if old.name != f"best-{self.state.best_epoch}.safetensors":
                    old.unlink()
        if self.place.world > 1:
            dist.barrier()

    def _resume(self) -> None:
        found = sorted(self.work.glob("checkpoint-*"))
        if not found:
            return
        home = found[-1]
        self.state = Progressed(**read_json(home / STATE))
        with torch.no_grad():
            for name, tensor in load_file(home / "parameters.safetensors").items():
                self.trained[name].copy_(tensor)
        _restore_optimizer(self.optimizer, self.trained, load_file(home / "optimizer.safetensors"))
        dice = load_file(home / "dice.safetensors")
        torch.set_rng_state(dice["cpu"])
        if "cuda" in dice and self.place.device == "cuda":
            torch.cuda.set_rng_state(dice["cuda"])
        self.say(f"training: goes on from step {self.state.step:,} of {self.steps:,}")

    def _about(self) -> dict[str, Any]:
        state = self.state
        trainable, total = parameters(self.model)
        return {
            "train_loss": state.train[-1][1] if state.train else None,
            "val_loss": state.best_loss,
            "val_perplexity": math.exp(state.best_loss),
            "best_epoch": state.best_epoch,
            "steps": state.step,
            "tokens_seen": state.tokens,
            "seconds": round(state.seconds, 2),
            "tokens_per_second": round(state.tokens / state.seconds, 1) if state.seconds else 0.0,
            "packing_fill": round(self.packed.fill, 4),
            "row_length": self.length,
            "trainable_params": trainable,
            "total_params": total,
            "device": self.place.device,
            "processes": self.place.world,
            "curve": {"train": state.train, "val": state.val},
        }


def _same_tokens(model: Any, name: str, about: dict[str, Any]) -> None:
    """ModelError if the texts were encoded with another tokenizer than the model's."""
    file = Path(name) / tokens.FILE
    known = model.get_input_embeddings().num_embeddings
    other = file.is_file() and tokens.identity(file.read_text(encoding="utf-8")) != about["tokenizer_sha256"]
    if other or known < int(about["vocabulary"]):
        raise ModelError(
            f"the texts were not encoded with the tokenizer of {name}", f"tokenized_dataset: {{tokenizer: {name}}}"
        )


def _optimizer(trained: dict[str, torch.nn.Parameter], rate: float, *, fused: bool) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors do not."""
    matrices = [one for one in trained.values() if one.dim() >= 2]
    vectors = [one for one in trained.values() if one.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused or None)


def _optimizer_tensors(optimizer: torch.optim.AdamW, trained: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {
        f"{kind}/{name}": value.detach().cpu().clone()
        for name, one in trained.items()
        for kind, value in optimizer.state[one].items()
    }


def _restore_optimizer(
    optimizer: torch.optim.AdamW, trained: dict[str, torch.nn.Parameter], tensors: dict[str, torch.Tensor]
) -> None:
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        one = trained[name]
        # The count of steps lies on the CPU unless the optimizer is a fused one.
        fused = any(group.get("fused") for group in optimizer.param_groups)
        optimizer.state[one][kind] = value if kind == "step" and not fused else value.to(one.device)


def _dice(device: str) -> dict[str, torch.Tensor]:
    dice = {"cpu": torch.get_rng_state()}
    return dice | {"cuda": torch.cuda.get_rng_state()} if device == "cuda" else dice


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    aside = path.with_name(f".{path.name}")
    save_file(tensors, aside)
    os.replace(aside, path)


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up in a straight line, then down along a cosine to a tenth."""
    warm = max(1, int(steps * WARM_UP))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def best_model(job: Job, about: dict[str, Any]) -> Any:
    """The model with its best parameters, on the CPU (a quantized one where it is)."""
    said = read_json(Path(job.splits) / ABOUT)
    place = _place_of_one(job.device)
    if job.model:
        model = adapted(job.model, place, four_bits=job.qlora)
    else:
        model = from_scratch(job.size, int(said["vocabulary"]), int(said["end_id"]), int(said["max_seq_length"]))
    tensors = load_file(Path(job.work) / f"best-{about['best_epoch']}.safetensors")
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            named[name].copy_(tensor)
    return model.eval()


def _place_of_one(device: str) -> str:
    return "cuda" if device == "auto" and torch.cuda.is_available() else device


def main(arguments: list[str]) -> int:
    job = Job(**json.loads(Path(arguments[0]).read_text()))
    about = train(job, lambda line: sys.stderr.write(f"{line}\n") and None)
    if int(os.environ.get("RANK", "0")) == 0:
        write_json(Path(job.work) / "trained.json", about)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
