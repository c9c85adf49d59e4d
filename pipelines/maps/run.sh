#!/usr/bin/env bash
# Sets with masks -> each arm learns from a share of the images -> Dice on those held out -> one table.
# Usage: pipelines/maps/run.sh [SHARED_DATA] [RUN] [more options of measure.py]
# Kill it anywhere and run it again: results are kept by set, arm, share and seed.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python pipelines/maps/measure.py "${1:-../shared/data}" "${2:-runs/maps}" "${@:3}"
