#!/usr/bin/env bash
# Shards -> pre-training -> zero-shot evaluation.
# Usage: pipelines/unimed/run.sh DATA [RUN] [EVALUATION_DATA]     the full recipe on the GPUs of this machine ($GPUS, 8)
#        pipelines/unimed/run.sh --smoke [SHARED_DATA] [RUN]      a small model, three seeds ($SEEDS), on CPU, in minutes
# DATA has one folder for each part (see prepare.py), EVALUATION_DATA one for each set (docs/how-to/evaluate_zero_shot.md).
# Kill it anywhere and run it again: shards are kept, training resumes, sets that were measured are kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/unimed
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

key_in() {  # the smoke sets are public, so their key may be: anyone may recompute the hashes
    mkdir -p "$1"
    [ -s "$1/key" ] || printf '%-32s' 'medclip unimed smoke' >"$1/key"
}

if [ "${1:-}" = --smoke ]; then
    data=${2:-../shared/data}
    run=${3:-runs/unimed_smoke}
    export HF_HUB_OFFLINE=1
    key_in "$run"
    [ -f "$run/parts/.done" ] || { python $here/smoke.py "$data" "$run/parts" && touch "$run/parts/.done"; }
    python $here/prepare.py shards "$run/parts" "$run/shards" --parts $here/parts_smoke.csv \
        --key-file "$run/key" --max-side 128 --val 0.1
    shards=$(python $here/prepare.py list "$run/shards" --parts $here/parts_smoke.csv)
    for seed in ${SEEDS:-0 1 2}; do
        medclip pretrain $here/recipe_smoke.yaml --set "data.shards=$shards" --set "seed=$seed" --out "$run/seed-$seed/train"
        medclip evaluate --model "$run/seed-$seed/train/pack" --suite $here/suite_shared.yaml --data "$data" \
            --dataset brain_mri --dataset csdi_cataract --dataset nih_view --dataset nih_pneumonia --key-file "$run/key" --out "$run/seed-$seed/evaluate"
    done
    exec python $here/smoke_summary.py "$run" $here/floors_smoke.csv  # 1 where a figure is below its floor
fi

data=${1:?name the folder that holds the parts, or --smoke}
run=${2:-runs/unimed}
sets=${3:-$data/evaluate}
python $here/prepare.py check
python $here/prepare.py shards "$data" "$run/shards"
shards=$(python $here/prepare.py list "$run/shards")
torchrun --standalone --nproc-per-node "${GPUS:-8}" -m medclip.cli.main pretrain $here/recipe.yaml \
    --set "data.shards=$shards" --out "$run/train"
exec medclip evaluate --model "$run/train/pack" --suite unimed --data "$sets" --device cuda --batch-size 256 \
    --out "$run/evaluate"
