#!/usr/bin/env bash
# Pairs -> stage 1 -> captions for patches of slides -> stage 2 -> nine tasks of patches -> three tasks of slides.
# Usage: pipelines/pathgen/run.sh --smoke [RUN]              tissue drawn by code, on CPU, in minutes
#        pipelines/pathgen/run.sh PAIRS SLIDES [RUN] [SETS]  the full recipe on the GPUs of this machine ($GPUS, 8)
# PAIRS has a folder for each set of pairs: tars with a licence.txt, or a table.csv. SETS are those of README.md; $TABLE is
# the table of the slides, $START another model to begin with, $AGENT who writes captions, such as
# AGENT="--agent endpoint --endpoint URL --endpoint-model NAME".
# Kill it anywhere and run it again: what is written stays, trainings and captions go on.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/pathgen
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

slide_tasks() {  # SETS PACK OUT [options of learn]: vectors of each set's slides, and heads measured by patient
    local sets=$1 pack=$2 out=$3
    shift 3
    for name in BRACS CAMELYON16 CAMELYON17; do
        [ -d "$sets/$name/slides" ] || continue
        medclip slides embed "$sets/$name/slides" --out "$out/$name/store" --model "$pack" "${embed[@]}"
        [ -f "$out/$name/head/figures.csv" ] || medclip slides learn "$out/$name/store" --labels "$sets/$name/labels.csv" \
            --label label --patient patient --pooling acmil --compare abmil --compare mean --out "$out/$name/head" "$@"
    done
}

if [ "${1:-}" = --smoke ]; then
    run=${2:-runs/pathgen_smoke}
    export HF_HUB_OFFLINE=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
    mkdir -p "$run"
    [ -s "$run/key" ] || printf '%-32s' 'medclip pathgen smoke' >"$run/key"  # nobody is in it, so its key may be public
    [ -f "$run/drawn/.done" ] || { python $here/drawn_tissue.py "$run/drawn" && touch "$run/drawn/.done"; }
    [ -f "$run/initial/index.json" ] || medclip shards build "$run/drawn/pairs.csv" --out "$run/initial" --key-file "$run/key"
    [ -f "$run/stage_1/report.html" ] || medclip pretrain $here/smoke_1.yaml --set "data.shards=$run/initial" --out "$run/stage_1"
    medclip pathgen "$run/drawn/slides" --table "$run/drawn/slides.csv" --model "$run/stage_1/pack" --size-px 128 \
        --num-by-attributes 12 --num-by-findings 12 --num-by-clusters 24 --key-file "$run/key" --out "$run/captioned"
    [ -f "$run/stage_2/report.html" ] || medclip pretrain $here/smoke_2.yaml --set "model.start=$run/stage_1/pack" \
        --set "data.shards=[$run/initial, $run/captioned/shards]" --out "$run/stage_2"
    medclip evaluate --suite pathgen --data "$run/drawn/sets" --model "$run/stage_2/pack" --compare "$run/stage_1/pack" \
        --key-file "$run/key" --num-resamples 500 --out "$run/evaluate"
    embed=(--size-px 128)
    slide_tasks "$run/drawn/wsi" "$run/stage_2/pack" "$run/wsi" --num-folds 2 --num-resamples 300 --set epochs=12 --set lr=0.003
    exit
fi

pairs=${1:?name the folder of the pairs, or --smoke}
slides=${2:?name the folder of the slides}
run=${3:-runs/pathgen}
sets=${4:-$pairs/evaluate}
shards=""
for folder in "$pairs"/*/; do
    folder=${folder%/} name=$(basename "$folder")
    [ "$folder" -ef "$sets" ] && continue
    target="$run/initial/$name"
    if [ ! -f "$target/index.json" ]; then
        if [ -f "$folder/table.csv" ]; then
            medclip shards build "$folder/table.csv" --out "$target" --image-format jpeg --max-side-px 384 --splits train=1
        elif compgen -G "$folder/*.tar" >/dev/null; then
            medclip shards index "$folder" --out "$target" --modality pathology --source "$name" \
                --license "$(cat "$folder/licence.txt")"
        else
            echo "$folder holds neither tars nor a table.csv and is left out" >&2
            continue
        fi
    fi
    shards="${shards:+$shards, }$target"
done
[ -n "$shards" ] || { echo "$pairs: no set of pairs is here" >&2; exit 2; }
training=(torchrun --standalone --nproc-per-node "${GPUS:-8}" -m medclip.cli.main pretrain)
"${training[@]}" $here/stage_1.yaml ${START:+--set "model.start=$START"} --set "data.shards=[$shards]" --out "$run/stage_1"
# shellcheck disable=SC2086
medclip pathgen "$slides" ${TABLE:+--table "$TABLE"} --model "$run/stage_1/pack" --device cuda --image-format jpeg --splits train=1 \
    ${AGENT:-} --out "$run/captioned"
"${training[@]}" $here/stage_2.yaml --set "model.start=$run/stage_1/pack" --set "data.shards=[$shards, $run/captioned/shards]" \
    --out "$run/stage_2"
medclip evaluate --suite pathgen --data "$sets" --model "$run/stage_2/pack" --compare "$run/stage_1/pack" --device cuda \
    --batch-size 256 --out "$run/evaluate"
embed=(--device cuda --qc)
slide_tasks "$sets" "$run/stage_2/pack" "$run/wsi"
