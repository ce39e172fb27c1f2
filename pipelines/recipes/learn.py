"""trained_model from the splits to a folder: train (here or under a launcher), evaluate, write the model and its report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import evaluate, report, splitting, tokens
from .generate import generate
from .model import SIZES, ModelError
from .shards import ABOUT, Say, read_json, write_json
from .training import Job, best_model, train

__all__ = ["ModelError", "learn"]
PROMPTS = 3


def learn(splits: Path, work: Path, wish: dict[str, Any], say: Say) -> tuple[dict[str, Any], bytes]:
    """The model is in `work/result`; its figures, and the picture of its losses."""
    if wish["size"] not in SIZES:
        raise ModelError(f"there is no size {wish['size']}", f"choose one of {', '.join(SIZES)}")
    job = Job(splits=str(splits), work=str(work), **wish)
    _write_job(job)
    about = _launched(job, say) if job.processes > 1 and "RANK" not in os.environ else train(job, say)
    said, sides = read_json(splits / ABOUT), {name: splitting.read(splits / name) for name in splitting.SIDES}
    about = said | about | evaluate.baselines(sides["train"], sides["val"], int(said["vocabulary"]))
    result = work / "result"
    shutil.rmtree(result, ignore_errors=True)
    model = best_model(job, about)
    model.save_pretrained(result)
    (result / tokens.FILE).write_bytes((splits / tokens.FILE).read_bytes())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": said["end"], "pad_token": said["end"]}
    write_json(result / "tokenizer_config.json", settings)
    return about, report.write(result, about, asdict(job), _samples(model, result, sides["val"]))


def _samples(model: Any, result: Path, val: splitting.Side) -> list[dict[str, str]]:
    """What the model makes of the first words of texts that it has not seen."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(result / tokens.FILE))
    found = []
    for number in range(min(PROMPTS, len(val))):
        prompt = tokenizer.decode(val.text(number)[:40].tolist()).split("\n")[0]
        if prompt.strip():
            found.append({"prompt": prompt, "text": generate(model, tokenizer, prompt, tokens=120, seed=number)})
    return found


def _launched(job: Job, say: Say) -> dict[str, Any]:
    """Train under torchrun, with `processes` processes on this machine; what the first of them says."""
    _write_job(job)
    work = Path(job.work)
    done = work / "trained.json"
    done.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.processes}"]
    command += ["-m", "pipelines.recipes.training", str(work / "job.json")]
    env = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", _threads(job.processes))}
    root = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH", "")]))
    say(f"training: torchrun with {job.processes} processes")
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        last: list[str] = []
        for line in process.stderr or ():
            last = [*last[-20:], line.rstrip()]
            if line.startswith("training:"):
                say(line.rstrip())
    if process.returncode or not done.exists():
        said = next((line for line in reversed(last) if "Error" in line), f"exit code {process.returncode}")
        raise ModelError(f"torchrun failed: {said.strip()[:300]}", "processes: 1 shows the error itself")
    return dict(json.loads(done.read_text()))


def _write_job(job: Job) -> None:
    """What every process of a launcher is given, here and on other machines."""
    write_json(Path(job.work) / "job.json", asdict(job))


def _threads(processes: int) -> str:
    return str(max(1, (os.cpu_count() or 1) // processes))
