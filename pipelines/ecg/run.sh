#!/usr/bin/env bash
# Tables of ECG sets -> reports and labels -> shards -> masked pretraining -> reports -> PTB-XL's benchmark.
# Usage: pipelines/ecg/run.sh --smoke [SHARED_DATA] [RUN]   simulated and shared ECGs on CPU, in minutes
#        pipelines/ecg/run.sh REPORTS RECORDS PTBXL [RUN]   REPORTS: the table of MIMIC-IV-ECG, say, whose records lie in
#        RECORDS; PTBXL: the folder of PTB-XL with ptbxl_database.csv. On the GPUs of this machine ($GPUS, 8).
# Kill it anywhere and run it again: what is written stays, trainings resume.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/ecg
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

if [ "${1:-}" = --smoke ]; then
    data=${2:-../shared/data}
    run=${3:-runs/ecg_smoke}
    export HF_HUB_OFFLINE=1
    small="--set train.max_steps=20 --set train.batch_size=16 --set train.precision=fp32 --set train.threads=1 --set train.warmup_steps=2"
    mkdir -p "$run"
    [ -f "$run/cohort/table.csv" ] || python $here/simulate.py "$run/cohort" --num 60 --hz 100
    [ -f "$run/reports.csv" ] || medclip pairs captions "$run/cohort/ptbxl_database.csv" --from ecg --out "$run/reports.csv" --num-captions 1
    [ -f "$run/shards/index.json" ] || medclip shards build "$run/reports.csv" --signals --out "$run/shards"
    shards="$run/shards"
    if [ -d "$data/ptbxl_z" ]; then # real records beside, for the pretraining without words
        [ -f "$run/ptbxl/table.csv" ] || python $here/ptbxl.py "$data" "$run/ptbxl"
        [ -f "$run/ptbxl/shards/index.json" ] || medclip shards build "$run/ptbxl/table.csv" --signals --out "$run/ptbxl/shards"
        shards="$shards, $run/ptbxl/shards"
    fi
    [ -f "$run/masked/report.html" ] || medclip pretrain $here/masked.yaml --set "data.shards=[$shards]" --set model.signal.size=test \
        --set model.signal.sampling_hz=100 $small --out "$run/masked"
    [ -f "$run/contrastive/report.html" ] || medclip pretrain $here/contrastive.yaml --set "data.shards=$run/shards" \
        --set "model.image_weights=$run/masked/pack" --set model.embed_dim=32 --set model.text_width=32 --set model.text_heads=2 \
        --set model.text_layers=1 --set text.vocab_size=600 --set text.context_length=64 $small --out "$run/contrastive"
    medclip score "$run/cohort/records" --model "$run/contrastive/pack" --task ecg_superclass --out "$run/scores"
    python $here/protocol.py "$run/cohort/ptbxl_database.csv" "$run/protocol" --start "$run/contrastive/pack" --tiny
    exit
fi

reports=${1:?name the table of a set with reports, or --smoke}
records=${2:?name the folder of its records}
ptbxl=${3:?name the folder of PTB-XL}
run=${4:-runs/ecg}
mkdir -p "$run"
[ -f "$run/reports.parquet" ] || medclip pairs captions "$reports" --from ecg --images "$records" --out "$run/reports.parquet" --num-captions 1
[ -f "$run/records/index.json" ] || medclip shards build "$run/reports.parquet" --signals --out "$run/records" \
    --splits train=0.98,val=0.02
for stage in masked contrastive; do
    start=""
    [ $stage = masked ] || start="--set model.image_weights=$run/masked/pack"
    [ -f "$run/$stage/report.html" ] || torchrun --standalone --nproc-per-node "${GPUS:-8}" -m medclip.cli.main pretrain \
        $here/$stage.yaml --set "data.shards=$run/records" $start --out "$run/$stage"
done
python $here/protocol.py "$ptbxl/ptbxl_database.csv" "$run/protocol" --start "$run/contrastive/pack"
