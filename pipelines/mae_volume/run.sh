#!/usr/bin/env bash
# Shards of volumes -> masked pretraining -> vectors of series that the run has never seen.
# Usage: pipelines/mae_volume/run.sh --smoke [SHARED_DATA] [RUN]   simulated volumes on CPU, in minutes
#        pipelines/mae_volume/run.sh TABLE [RUN]                   your own CT, on the GPUs of this machine ($GPUS, 8)
# Kill it anywhere and run it again: shards are kept, training resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/mae_volume
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

if [ "${1:-}" = --smoke ]; then
    data=${2:-../shared/data}
    run=${3:-runs/mae_volume_smoke}
    export HF_HUB_OFFLINE=1
    mkdir -p "$run"
    [ -f "$run/files/table.csv" ] || python $here/simulate.py "$run/files"
    [ -f "$run/shards/index.json" ] || medclip shards build "$run/files/table.csv" --out "$run/shards" --volumes
    medclip shards check "$run/shards"
    medclip pretrain $here/smoke.yaml --set "data.shards=$run/shards" --out "$run/train"
    # Series of others, of which nothing was learned: what is no axial CT in HU is refused, each with its reason.
    if [ -d "$data/field_dev" ]; then
        for name in dicom-ct nifti; do
            medclip embed "$data/field_dev/$name" --model "$run/train/pack" --modality ct --out "$run/field_$name" || [ $? -eq 3 ]
        done
    fi
    exit
fi

table=${1:?name the table of your volumes, or --smoke}
run=${2:-runs/mae_volume}
mkdir -p "$run"
[ -f "$run/shards/index.json" ] || medclip shards build "$table" --out "$run/shards" --volumes --splits train=0.99,val=0.01
exec torchrun --standalone --nproc-per-node "${GPUS:-8}" -m medclip.cli.main pretrain $here/full.yaml \
    --set "data.shards=$run/shards" --out "$run/train"
