#!/usr/bin/env bash
# Sets with masks -> each arm learns from a share of the images -> Dice on those held out -> one table.
# Usage: pipelines/maps/run.sh [--smoke] [SHARED_DATA] [RUN] [more options of measure.py]
# Kill it anywhere and run it again: results are kept by set, arm, share and seed.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
run=runs/maps few=()
if [ "${1:-}" = --smoke ]; then
    shift
    run=runs/maps_smoke few=(--sets breast_us --arms position probe tuned --shares 0.1 --seeds 0)
fi
exec python pipelines/maps/measure.py "${1:-../shared/data}" "${2:-$run}" "${few[@]}" "${@:3}"
