#!/usr/bin/env bash
# Train, measure and publish medclip-mini. Usage: pipelines/mini/run.sh [SHARED_DATA] [RUN_FOLDER]
# Needs `make train-deps` once. Kill it anywhere and run it again: shards are kept, training resumes, the rest is quick.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:-../shared/data}
run=${2:-runs/mini}
bin=.venv/bin
export HF_HUB_OFFLINE=1
mkdir -p "$run"
[ -s "$run/key" ] || printf '%-32s' 'medclip-mini public sets' >"$run/key"   # public: anyone may recompute the patient hashes
$bin/python pipelines/mini/prepare.py "$data" "$run/table.csv"
# A table that changed since makes new shards, and new shards a new training run.
cmp -s "$run/table.csv" "$run/shards_table.csv" || rm -rf "$run/shards" "$run/train"
[ -f "$run/shards/index.json" ] || $bin/medclip shards build "$run/table.csv" --out "$run/shards" \
    --max-side 192 --splits train=0.65,val=0.10,test=0.25 --key-file "$run/key"
cp "$run/table.csv" "$run/shards_table.csv"
$bin/medclip shards check "$run/shards"
$bin/medclip pretrain pipelines/mini/recipe.yaml --set "data.shards=$run/shards" --out "$run/train"
$bin/python pipelines/mini/evaluate.py "$run/shards" "$run/train/pack" "$run/figures.json"
$bin/python pipelines/mini/publish.py "$run/shards" "$run/train/pack" "$run/figures.json" medclip/models/builtin/medclip-mini
$bin/python pipelines/mini/across_sources.py "$data" medclip-mini
$bin/python pipelines/mini/home.py "$data" medclip-mini
