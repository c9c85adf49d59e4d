#!/usr/bin/env bash
# Shards of pipelines/mini -> stored answers of medclip-mini -> a training for each arm and seed -> one table.
# Usage: pipelines/distil/run.sh [--smoke] [SHARED_DATA] [RUN] [more options of measure.py]
# Kill it anywhere and run it again: shards, answers, packs and results are kept, training goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/distil
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
run=runs/distil few="" scale=shared
if [ "${1:-}" = --smoke ]; then
    shift
    few="--few 8" run=runs/distil_smoke scale=smoke
fi
data=${1:-../shared/data}
run=${2:-$run}
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$run"
# Key, shares and names of patients are those of pipelines/mini: who is held out there is held out here.
[ -s "$run/key" ] || printf '%-32s' 'medclip-mini public sets' >"$run/key"  # public: anyone may recompute the patient hashes
python pipelines/mini/table.py "$data" "$run/table.csv" --records "$run/records" --known-to medclip-mini $few
[ -f "$run/shards/index.json" ] || python -m medclip.cli.main shards build "$run/table.csv" \
    --out "$run/shards" --max-side-px 192 --splits train=0.65,val=0.10,test=0.25 --key-file "$run/key"
exec python $here/measure.py "$run" --scale "$scale" "${@:3}"
