#!/usr/bin/env bash
# One table over all shared sets -> shards -> masked pretraining.
# Usage: pipelines/mae_all/run.sh [--smoke] [SHARED_DATA] [RUN]
# Kill it anywhere and run it again: shards are kept, training resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/mae_all
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
recipe=full max_side=272 run=runs/mae_all  # 272: a crop of half the area still has 192 pixels a side
if [ "${1:-}" = --smoke ]; then
    shift
    recipe=smoke max_side=160 run=runs/mae_all_smoke
fi
data=${1:-../shared/data}
run=${2:-$run}
export HF_HUB_OFFLINE=1
mkdir -p "$run"
# The key, the shares and the names of patients are those of pipelines/mini: who is held out there is held out here.
[ -s "$run/key" ] || printf '%-32s' 'medclip-mini public sets' >"$run/key"  # public: anyone may recompute the patient hashes
python $here/joint_table.py "$data" "$run/table.csv"
# A table that changed since makes new shards, and new shards a new training run.
cmp -s "$run/table.csv" "$run/shards_table.csv" || rm -rf "$run/shards" "$run/train"
[ -f "$run/shards/index.json" ] || medclip shards build "$run/table.csv" --out "$run/shards" \
    --max-side-px $max_side --splits train=0.65,val=0.10,test=0.25 --key-file "$run/key"
cp "$run/table.csv" "$run/shards_table.csv"
medclip shards check "$run/shards"
exec medclip pretrain $here/$recipe.yaml --set "data.shards=$run/shards" --out "$run/train"
