#!/usr/bin/env bash
# The whole thing on real text, on this machine, read top to bottom:
#
#     pipelines/recipes/speedrun.sh path/to/recipes.jsonl.gz
#
# JSON lines with title, ingredients and directions. It fills the lake of this workspace; what stands is not built twice,
# and what was killed goes on. RECIPES_SETTINGS may name other settings than speedrun.yaml.
set -euo pipefail
text="$(realpath "${1:?which file? JSON lines with title, ingredients and directions}")"
cd "$(dirname "$0")/../.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
export RECIPES_SETTINGS="${RECIPES_SETTINGS:-$PWD/pipelines/recipes/speedrun.yaml}"

# 1. The text lies where the workspace reads it.
mkdir -p landing/recipes
cp "$text" landing/recipes/speedrun.jsonl.gz

# 2. Raw, cleaned, what was removed, tokens, splits, model: each guarded, each current only when its checks have passed.
"$python" -m ratatouille.cli run \
  raw_dataset cleaned_dataset removed_texts tokenized_dataset train_val_splits trained_model

# 3. What cleaning took away, and why.
"$python" -m ratatouille.cli query "select reason, count(*) as texts from recipes.removed group by all order by all"

# 4. The model speaks. Its card, its losses and its curve lie beside it.
"$python" -m pipelines.recipes.generate --prompt "Lemon chicken soup" --tokens 150
ls -d .rat/artifacts/recipes.trained_model/*/README.md | tail -1
