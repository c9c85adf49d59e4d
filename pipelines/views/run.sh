#!/usr/bin/env bash
# Both sets -> shards -> a training for each arm and seed -> one table.
# Usage: pipelines/views/run.sh [--smoke] [SHARED_DATA] [RUN] [--seeds N...]
# Kill it anywhere and run it again: shards, packs and vectors are kept, training goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
run=runs/views few=()
if [ "${1:-}" = --smoke ]; then
    shift
    run=runs/views_smoke few=(--seeds 0 1 --steps 2)
fi
run=${2:-$run}
mkdir -p "$run"
exec python pipelines/views/measure.py "${1:-../shared/data}" "$run" "${few[@]}" "${@:3}"
