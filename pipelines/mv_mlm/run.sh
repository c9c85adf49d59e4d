#!/usr/bin/env bash
# Reports from a set's table -> shards of examinations -> pretraining -> heads (probe and risk); --smoke also scores and
# audits. Of a set of yours, score and audit the women of the test split (README.md, stage 5).
# Usage: pipelines/mv_mlm/run.sh --smoke [SHARED_DATA] [RUN]          simulated and shared mammograms on CPU, in minutes
#        pipelines/mv_mlm/run.sh TABLE IMAGES [RUN] [DATASET] [FINDINGS]   a set of yours, on the GPUs here ($GPUS, 8)
#        TRUNK=FILE names weights of the image tower, TOWER=NAME another one (README.md); one of them is needed.
# Kill it anywhere and run it again: what is written stays, trainings resume.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/mv_mlm
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

if [ "${1:-}" = --smoke ]; then
    data=${2:-../shared/data}
    run=${3:-runs/mv_mlm_smoke}
    export HF_HUB_OFFLINE=1
    mkdir -p "$run"
    [ -f "$run/cohort/table.csv" ] || python $here/simulate.py "$run/cohort" --num 40
    [ -f "$run/cohort/reports.csv" ] || medclip pairs captions "$run/cohort/table.csv" --from mammography --out "$run/cohort/reports.csv" --num-captions 3
    [ -f "$run/shards/index.json" ] || medclip shards build "$run/cohort/reports.csv" --out "$run/shards" --group exam
    shards="$run/shards"
    for name in cdd_cesm ddsm_4view; do # real examinations: subtracted views, and films
        if [ -d "$data/$name" ]; then
            [ -f "$run/$name.csv" ] || medclip pairs captions "$data/$name/labels.csv" --from mammography --images "$data/$name" --out "$run/$name.csv" --num-captions 3
            [ -f "$run/$name/index.json" ] || medclip shards build "$run/$name.csv" --out "$run/$name" --group exam
            shards="$shards, $run/$name"
        fi
    done
    # Runs that have ended are left alone: the card names the recipe with all its keys, of which another version of medclip
    # may have more, and `score` would take the pack for another model.
    [ -f "$run/pretrain/report.html" ] || medclip pretrain $here/smoke.yaml --set "data.shards=[$shards]" --out "$run/pretrain"
    [ -f "$run/heads/report.html" ] || medclip pretrain $here/heads.yaml --set "data.shards=[$run/shards]" --set "model.start=$run/pretrain/pack" \
        --set train.epochs=2 --set train.threads=1 --out "$run/heads"
    medclip score "$run/cohort/images" --table "$run/cohort/table.csv" --model "$run/heads/pack" --exam --out "$run/scores"
    # Women of all splits are scored, so the audit has to end with 6: its page begins with who was trained on.
    code=0
    medclip audit "$run/scores" --labels "$run/cohort/table.csv" --level exam --risk breast_cancer_risk --by density \
        --training "$run/shards" --images "$run/cohort/images" --modality mammography \
        --out "$run/audit" --num-resamples 200 --num-permutations 200 || code=$?
    [ "$code" = 6 ] || { echo "the audit ended with $code and not with 6" >&2; exit 1; }
    if [ -f "$run/ddsm_4view.csv" ]; then
        medclip score "$data/ddsm_4view/images" --table "$run/ddsm_4view.csv" --model "$run/heads/pack" --exam --out "$run/scores_ddsm"
    fi
    exit
fi

table=${1:?name the table of your set, or --smoke}
images=${2:?name the folder of its images}
run=${3:-runs/mv_mlm}
if [ -z "${TRUNK:-}${TOWER:-}" ]; then
    echo "set TRUNK to a safetensors file of tf_efficientnet_b5, or TOWER to a tower with layer norms, convnext_small say" >&2
    exit 2
fi
mkdir -p "$run"
[ -f "$run/reports.parquet" ] || medclip pairs captions "$table" --from mammography --images "$images" --out "$run/reports.parquet" \
    --num-captions 20 ${4:+--dataset "$4"} ${5:+--findings "$5"}
[ -f "$run/shards/index.json" ] || medclip shards build "$run/reports.parquet" --out "$run/shards" --group exam --max-side-px 2048 \
    --image-format jpeg --splits train=0.8,val=0.1,test=0.1
torchrun --standalone --nproc-per-node "${GPUS:-8}" -m medclip.cli.main pretrain $here/full.yaml \
    --set "data.shards=$run/shards" ${TRUNK:+--set "model.image_weights=$TRUNK"} ${TOWER:+--set "model.image_tower=$TOWER"} \
    --out "$run/pretrain"
torchrun --standalone --nproc-per-node "${GPUS:-8}" -m medclip.cli.main pretrain $here/heads.yaml \
    --set "data.shards=$run/shards" --set "model.start=$run/pretrain/pack" --out "$run/heads"
