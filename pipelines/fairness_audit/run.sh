#!/usr/bin/env bash
# The audit of the published design, and a real one on the shared sets. Usage:
#   pipelines/fairness_audit/run.sh DATA OUT                   six models x MIMIC-CXR and NIH + NEATX, on what DATA holds
#   pipelines/fairness_audit/run.sh --smoke [RUN]              the same on tables and scores drawn by code, in minutes
#   pipelines/fairness_audit/run.sh --shared [DATA] [RUN]      medclip-mini and two adapted models on the shared films
# $OPTIONS go to every `medclip audit`, such as OPTIONS="--num-resamples 200 --num-permutations 200" for a first look.
# Kill it anywhere and run it again: tables are rewritten, packs and scores are kept, audits are measured anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/fairness_audit
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

audit() {  # OUT ...: 6 with a page says that training and audit share something; the page says what, and we go on
    rm -f "$1/report.html"
    # shellcheck disable=SC2086
    medclip audit "${@:2}" --out "$1" --overwrite ${OPTIONS:-} || { [ $? = 6 ] && [ -f "$1/report.html" ]; }
}

if [ "${1:-}" = --shared ]; then
    data=${2:-../shared/data}
    run=${3:-runs/audit_shared}
    mini=${MINI:-runs/mini}  # what medclip-mini was trained from: key, table and shards
    films=$data/nih_cxr
    pneumonia=label:chest_xray_findings:pneumonia
    for set in nih_cxr covid_cxr; do
        [ -f "$data/$set/labels.csv" ] || { echo "$data has no $set/labels.csv: name the folder of the shared sets" >&2; exit 2; }
    done
    mkdir -p "$run" "$mini"
    [ -s "$mini/key" ] || printf '%-32s' 'medclip-mini public sets' >"$mini/key"  # public: anyone may recompute the hashes
    if [ ! -f "$mini/shards/index.json" ]; then
        echo "$mini/shards is not here: it is built again, with the key that divided the patients in training"
        python pipelines/mini/prepare.py "$data" "$mini/table.csv"
        medclip shards build "$mini/table.csv" --out "$mini/shards" --max-side-px 192 --splits train=0.65,val=0.10,test=0.25 \
            --key-file "$mini/key"
    fi
    python $here/shared.py "$data" "$mini/shards" "$run"
    score() {  # PACK NAME FOLDER OUT: a run that is finished is not computed again
        medclip score "$3" --model "$1" --task chest_xray_findings --modality xray --group-by file --out "$4/$2" \
            --key-file "$mini/key" --workers 1
    }
    score medclip-mini medclip-mini "$films/images" "$run/scores"
    for method in linear-probe svd; do
        [ -f "$run/packs/$method/manifest.json" ] || medclip adapt --labels "$run/shots.csv" --images "$films" \
            --label $pneumonia --method $method --shots 16 --key-file "$mini/key" --workers 1 --num-threads 1 \
            --name "mini-$method" --out "$run/packs/$method"
        score "$run/packs/$method" $method "$films/images" "$run/scores"
    done
    audit "$run/nih" "$run/scores/medclip-mini" --labels "$run/nih.csv" --dataset "NIH films, test patients" \
        --compare "linear-probe=$run/scores/linear-probe" --compare "svd=$run/scores/svd" \
        --label chest_xray_findings:pneumonia=Pneumonia --by sex --by age --by view --by "sex*age" --age-bins 0,25,50,65 \
        --where split=test --choose-where split=val --policy youden --reweight view --reweight age --study study \
        --model medclip-mini --modality xray --images "$films" --training "$mini/shards" --key-file "$mini/key" \
        --exact-counts
    # What was learned from shots is leakage of its own: each adapted model's shots against its audit set.
    for method in linear-probe svd; do
        audit "$run/nih_$method" "$run/scores/$method" --labels "$run/nih.csv" --dataset "NIH films, test patients" \
            --label chest_xray_findings:pneumonia=Pneumonia --by sex --by view --where split=test --choose-where split=val \
            --study study --model "$run/packs/$method" --modality xray --images "$films" --key-file "$mini/key" --exact-counts
    done
    # The example of a red box: a set that medclip-mini was partly trained on, audited as if it were new.
    medclip score "$data/covid_cxr/images" --model medclip-mini --prompt "COVID-19 pneumonia" --modality xray \
        --group-by file --out "$run/covid_scores" --key-file "$mini/key" --workers 1 || [ $? = 3 ]
    # Then, the way out, those films only that it has not seen.
    covid() {  # OUT ...
        audit "$1" "$run/covid_scores" --labels "$run/covid.csv" --label "prompt:COVID-19 pneumonia=COVID-19" \
            --by sex --by view --name medclip-mini --model medclip-mini --modality xray --images "$data/covid_cxr" \
            --training "$mini/shards" --key-file "$mini/key" --exact-counts "${@:2}"
    }
    covid "$run/covid" --dataset "COVID-19 films, training among them"
    covid "$run/covid_unseen" --dataset "COVID-19 films, unseen ones" --where split=test
    exit
fi

if [ "${1:-}" = --smoke ]; then
    run=${2:-runs/fairness_audit_smoke}
    python $here/simulate.py "$run/data"
    : "${OPTIONS:=--num-resamples 200 --num-permutations 200}"
    set -- "$run/data" "$run/out"
fi

data=${1:?name the folder that holds mimic/ and nih/, --smoke or --shared}
out=${2:-runs/fairness_audit}
declare -A label=([mimic]="" [nih]="--label Pneumothorax")
declare -A groups=([mimic]="--by sex --by race --by age --by view --reweight age --reweight view"
    [nih]="--by sex --by age --by view --device-column Drain")
for set in mimic nih; do
    python $here/$set.py "$data/$set" "$out/$set.csv" || { [ $? = 1 ] && continue || exit 2; }
    first="" others=()
    while read -r name; do
        scores=""
        for given in "$data/scores/$set/$name".{parquet,csv}; do [ -f "$given" ] && scores=$given && break; done
        if [ -z "$scores" ] && [ -f "$data/packs/$name/manifest.json" ] && [ -d "$out/$set" ]; then
            scores=$out/scores/$set/$name
            MEDCLIP_TASKS=$here/tasks medclip score "$out/$set" --model "$data/packs/$name" --task cxr_fairness \
                --modality xray --group-by file --out "$scores" || [ $? = 3 ]
        fi
        if [ -z "$scores" ]; then
            echo "$set: $name is not here: neither $data/scores/$set/$name.csv nor $data/packs/$name and images"
        elif [ -z "$first" ]; then
            first=$name audited=$scores
        else
            others+=(--compare "$name=$scores")
        fi
    done < <(tail -n +2 $here/models.csv)
    if [ -z "$first" ]; then
        echo "$set: left out: not one of the models is here"
        continue
    fi
    # shellcheck disable=SC2086
    audit "$out/audit/$set" "$audited" --name "$first" "${others[@]}" --labels "$out/$set.csv" --dataset "$set" \
        ${label[$set]} ${groups[$set]} --age-bins cxr --blank zero --uncertain ignore \
        --where split=test --choose-where split=val --policy youden
done
exec python $here/summary.py "$out"
