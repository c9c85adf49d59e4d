#!/usr/bin/env bash
# Train, measure and publish medclip-mini. Usage: pipelines/mini/run.sh [--smoke] [--start imagenet|masked] [--seeds 0,1,2] [--leave-out SOURCE] [SHARED_DATA] [RUN_FOLDER]
# Needs `make train-deps` once. Kill it anywhere and run it again: shards are kept, training resumes, the rest is quick.
# --smoke runs the stages up to the figures at a tiny size in minutes, into RUN_FOLDER alone; nothing is published. --start masked begins with the tower of
# pipelines/mae_all, which is trained first (within 90 minutes; in a smoke run seconds). Of each seed there is a training (three, but in a smoke run two);
# the first is published, whatever the figures of the others: they say how much another training differs. With --leave-out the training does not see a
# source, nothing is published, and it is measured on the films of that source (in a run folder of its own).
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/mini
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
smoke='' start=imagenet seeds='' left=''
while [[ "${1:-}" == --* ]]; do
    case $1 in
        --smoke) smoke=1 ;;
        --start) start=$2 && shift ;;
        --seeds) seeds=$2 && shift ;;
        --leave-out) left=$2 && shift ;;
        *) echo "unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done
data=${1:-../shared/data}
run=${2:-runs/mini${smoke:+_smoke}${left:+_without_$left}}
default=0,1,2
[ "$smoke" ] && default=0,1
[ "$left" ] && default=0
seeds=${seeds:-$default}
max_side=192
few=() set=()
if [ "$smoke" ]; then
    few=(--few 8) max_side=96
    set=(--set model.size_px=64 --set train.epochs=2 --set train.batch_size=32 --set train.warmup_steps=4
        --set model.text_layers=1 --set train.threads=1)
fi
export HF_HUB_OFFLINE=1
mkdir -p "$run"
[ -s "$run/key" ] || printf '%-32s' 'medclip-mini public sets' >"$run/key"   # public: anyone may recompute the patient hashes
python $here/table.py "$data" "$run/table.csv" --records "$run/records" ${left:+--leave-out "$left"} "${few[@]}"
[ "$smoke" ] || python $here/caption_check.py "$run/table.csv" "$run/captions.json"
# A table that changed since makes new shards, and new shards a new training run.
cmp -s "$run/table.csv" "$run/shards_table.csv" || rm -rf "$run/shards" "$run"/train*
[ -f "$run/shards/index.json" ] || medclip shards build "$run/table.csv" --out "$run/shards" \
    --max-side-px $max_side --splits train=0.65,val=0.10,test=0.25 --key-file "$run/key"
cp "$run/table.csv" "$run/shards_table.csv"
medclip shards check "$run/shards"
if [ "$start" = masked ]; then
    pipelines/mae_all/run.sh ${smoke:+--smoke} "$data" "$run/mae"
    set+=(--set model.image_tower=vit_tiny_patch16_224 --set "model.image_weights=$run/mae/train/pack"
        --set model.freeze_blocks=0 --set model.freeze_bn=false)
fi
packs=() figures=()
for seed in ${seeds//,/ }; do
    medclip pretrain $here/recipe.yaml --set "data.shards=$run/shards" --set "seed=$seed" "${set[@]}" --out "$run/train$seed"
    packs+=("$run/train$seed/pack") figures+=("$run/figures$seed.json")
    # Baselines are those of the first seed: the others add what another training gets in words.
    of_first=(--skip-cnn --skip-imagenet)
    [ "$smoke" ] || [ ${#packs[@]} -gt 1 ] || of_first=()
    python $here/evaluate.py "$run/shards" "$run/train$seed/pack" "$run/figures$seed.json" --records "$run/shards_table.csv" "${of_first[@]}"
done
python $here/spread.py "${figures[@]}"
[ "$smoke" ] && exit 0   # no card is made of what was trained for a minute: it recognises no modality
if [ "$left" ]; then
    python $here/across_sources.py "$data" "${packs[0]}"
    exit 0
fi
python $here/publish.py "$run/shards" "${packs[0]}" "${figures[0]}" medclip/models/builtin/medclip-mini "$data"
python $here/across_sources.py "$data" medclip-mini
python $here/home.py "$data" medclip-mini
python $here/guard.py "$data" medclip-mini "$run/guard_vectors.npz"
python $here/words.py "$data" medclip-mini
python $here/exam_pooling.py "$data" "$run/table.csv" "$run/exam_pooling.json" --model medclip-mini --write
python $here/passages.py   # what README and docs say of the pack
