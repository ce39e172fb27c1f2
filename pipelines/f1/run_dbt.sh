#!/usr/bin/env bash
# The document's command: ./run_dbt.sh build --select silver. Guarded: nothing is visible before every test has passed.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" -m pipelines.f1.run_dbt "$@"
