#!/usr/bin/env bash
# Articles -> figures -> clusters, labels, selection -> continual pretraining -> WiSE-FT -> the suite.
# Usage: pipelines/biomedica/run.sh --smoke [SHARED_DATA] [RUN]       articles made by code, medclip-mini, minutes on CPU
#        pipelines/biomedica/run.sh ARTICLES RUN EVALUATION_DATA      yours, on the GPUs of this machine ($GPUS, 8)
# The second ends after the clusters until somebody has filled in RUN/labels.csv, a copy of RUN/clusters/labels.csv.
# Kill it anywhere and run it again: what is finished is kept, training goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/biomedica
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1

if [ "${1:-}" = --smoke ]; then
    data=${2:-../shared/data} run=${3:-runs/biomedica_smoke} articles= scorer=medclip-mini clusters=8 components=16
    splits=train=1 license=(--license commercial) alphas="0 0.5 1"
    sets="--dataset referable_retinopathy --num-resamples 200"
    mkdir -p "$run"
    articles=$run/articles
    [ -f "$run/articles.done" ] || { python $here/simulate.py articles "$articles" && touch "$run/articles.done"; }
    pretrain=(python -m medclip.cli.main pretrain $here/smoke.yaml)
    start=medclip-mini device=cpu steps=$here/select_smoke.yaml
else
    articles=${1:?name the folder or list of articles, or --smoke} run=${2:-runs/biomedica} data=${3:-../shared/data}
    scorer=${SCORER:-medclip-mini} clusters=${CLUSTERS:-2000} components=45
    splits=train=1 license=(--license commercial) alphas="0 0.25 0.5 0.75 1" sets=""
    start=${START:-packs/commonpool} device=cuda steps=${STEPS:-$here/select.yaml}
    pretrain=(torchrun --standalone --nproc-per-node "${GPUS:-8}" -m medclip.cli.main pretrain $here/full.yaml
        --set "model.start=$start")
    mkdir -p "$run"
fi

[ -f "$run/figures/index.json" ] || medclip pairs from-articles "$articles" --out "$run/figures" "${license[@]}" --splits "$splits"
[ -f "$run/clusters/clusters.json" ] || medclip pairs cluster "$run/figures" --model "$scorer" --clusters "$clusters" \
    --num-components "$components" --out "$run/clusters"
if [ ! -f "$run/labels.csv" ]; then
    [ "${1:-}" = --smoke ] || { echo "Look at $run/clusters/clusters.html, fill in a copy of $run/clusters/labels.csv as $run/labels.csv, and call this again."; exit; }
    python $here/simulate.py labels "$run/clusters" "$run/figures" "$run/labels.csv"
fi
[ -f "$run/labels.parquet" ] || medclip pairs label "$run/clusters" --labels "$run/labels.csv" --out "$run/labels.parquet"
cp "$steps" "$run/select.yaml"
[ -f "$run/kept.parquet" ] || medclip pairs select "$run/figures" --steps "$run/select.yaml" --split train --out "$run/kept.parquet"
"${pretrain[@]}" --set "data.shards=$run/figures" --set "data.selection=$run/kept.parquet" --out "$run/train"
for alpha in $alphas; do
    [ -d "$run/alpha_$alpha" ] || medclip models merge "$run/train/pack" --base "$start" --method wise-ft --alpha "$alpha" --out "$run/alpha_$alpha"
    [ ! -d "$data" ] || medclip evaluate --model "$run/alpha_$alpha" --suite $here/suite.yaml --data "$data" $sets \
        --device "$device" --out "$run/evaluate_$alpha" || [ $? -eq 3 ]  # 3: sets that are not there are named
done
