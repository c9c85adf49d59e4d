#!/usr/bin/env bash
# Shards -> masked pretraining.
# Usage: pipelines/mae_cxr/run.sh --smoke [SHARED_DATA] [RUN]           a tiny model on CPU, in minutes
#        pipelines/mae_cxr/run.sh NIH_FOLDER CHEXPERT_FOLDER [RUN]      the full recipe on the GPUs of this machine ($GPUS, 8)
# Kill it anywhere and run it again: shards are kept, training resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/mae_cxr
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

if [ "${1:-}" = --smoke ]; then
    data=${2:-../shared/data}
    run=${3:-runs/mae_cxr_smoke}
    export HF_HUB_OFFLINE=1
    mkdir -p "$run"
    [ -s "$run/key" ] || printf '%-32s' 'medclip-mini public sets' >"$run/key"  # public sets, so their key may be
    python pipelines/mae_all/joint_table.py "$data" "$run/table.csv" --sets nih_cxr,covid_cxr --modalities xray
    # A table that changed since makes new shards, and new shards a new training run.
    cmp -s "$run/table.csv" "$run/shards_table.csv" || rm -rf "$run/shards" "$run/train"
    [ -f "$run/shards/index.json" ] || medclip shards build "$run/table.csv" --out "$run/shards" \
        --max-side-px 160 --splits train=0.65,val=0.10,test=0.25 --key-file "$run/key"
    cp "$run/table.csv" "$run/shards_table.csv"
    exec medclip pretrain $here/smoke.yaml --set "data.shards=$run/shards" --out "$run/train"
fi

nih=${1:?name the folder of NIH ChestX-ray14, or --smoke}
chexpert=${2:?name the folder of CheXpert}
run=${3:-runs/mae_cxr}
mkdir -p "$run/shards"
for name in nih chexpert; do
    [ -f "$run/shards/$name/index.json" ] && continue
    python $here/tables.py $name "${!name}" "$run/$name.csv"
    medclip shards build "$run/$name.csv" --out "$run/shards/$name" --image-format jpeg --max-side-px 320
done
exec torchrun --standalone --nproc-per-node "${GPUS:-8}" -m medclip.cli.main pretrain $here/full.yaml \
    --set "data.shards=[$run/shards/chexpert, $run/shards/nih]" --out "$run/train"
