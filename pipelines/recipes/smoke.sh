#!/usr/bin/env bash
# The whole chain on a few synthetic recipes, on a CPU: half a minute where nothing else runs, two at most.
# It works in a folder of its own and leaves nothing behind.   pipelines/recipes/smoke.sh [recipes, default 150]
set -euo pipefail
cd "$(dirname "$0")/../.."
python="$PWD/.venv/bin/python"
[ -x "$python" ] || python="$(command -v python3)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/pipelines" "$work/tmp"
export TMPDIR="$work/tmp" # torch keeps a cache there
cp workspace.yaml "$work"
cp -r pipelines/recipes "$work/pipelines"
touch "$work/pipelines/__init__.py"
export RECIPES_SETTINGS="$work/pipelines/recipes/smoke.yaml" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
cd "$work"

"$python" -m pipelines.recipes.corpus --recipes "${1:-150}"
"$python" -m ratatouille.cli run raw_dataset cleaned_dataset tokenized_dataset train_val_splits trained_model
"$python" -m pipelines.recipes.generate --prompt "Smoky tofu and rice curry" --tokens 40
"$python" - <<'PYTHON'
import json
from pathlib import Path

said = json.loads(next(Path(".rat/artifacts/recipes.trained_model").glob("*/metrics.json")).read_text())
print(f"smoke: validation loss {said['val_loss']:.3f}, counting tokens gives {said['unigram_loss']:.3f}")
assert said["val_loss"] < said["unigram_loss"], "the model has learnt less than counting tokens would"
PYTHON
