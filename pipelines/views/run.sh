#!/usr/bin/env bash
# Both sets -> shards -> a training for each arm and seed -> one table. Usage: pipelines/views/run.sh [SHARED_DATA] [RUN] [--seeds N...]
# Kill it anywhere and run it again: shards, packs and vectors are kept, training goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
run=${2:-runs/views}
mkdir -p "$run"
exec python pipelines/views/measure.py "${1:-../shared/data}" "$run" "${@:3}"
