#!/usr/bin/env bash
# Few-shot comparison over many sets. Usage:
#   pipelines/clip_svd/run.sh DATA PACK [OUT]                the ten-set biomedical protocol, on the sets that DATA holds
#   pipelines/clip_svd/run.sh --smoke [RUN]                 two sets drawn by code, medclip-mini, in minutes
#   pipelines/clip_svd/run.sh --shared [SHARED_DATA] [RUN]   the shared sets, from a base without their labels
# $PROCESSES runs at a time (2); $OPTIONS go to measure.py, such as OPTIONS="--quick" or OPTIONS="--sets brain_mri".
# Kill it anywhere and run it again: shards are kept, training resumes, every run of the comparison is kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/clip_svd
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
processes=${PROCESSES:-2} suite=biomedical

if [ "${1:-}" = --shared ]; then
    data=${2:-../shared/data}
    run=${3:-runs/plain}
    mkdir -p "$run"
    [ -s "$run/key" ] || printf '%-32s' 'medclip-mini public sets' >"$run/key"  # public: anyone may recompute the hashes
    if [ ! -f "$run/train/pack/manifest.json" ]; then
        python pipelines/mini/prepare.py "$data" "$run/mini.csv"
        python $here/base_table.py "$run/mini.csv" "$run/table.csv"
        [ -f "$run/shards/index.json" ] || medclip shards build "$run/table.csv" --out "$run/shards" \
            --max-side-px 192 --splits train=0.65,val=0.10,test=0.25 --key-file "$run/key"
        OMP_NUM_THREADS=2 medclip pretrain $here/recipe_base.yaml --set "data.shards=$run/shards" --out "$run/train"
    fi
    python $here/prepare.py "$data" "$run/shards" "$run/few_shot/tables"
    measure=(python $here/measure.py $here/shared.yaml "$run/few_shot/tables" "$run/few_shot/out" --model "$run/train/pack"
        --key-file "$run/key" --workers "$processes")
    # shellcheck disable=SC2086
    "${measure[@]}" ${OPTIONS:-}
    exec python $here/summary.py "$run/few_shot/out" $here/shared.yaml
fi

if [ "${1:-}" = --smoke ]; then
    run=${2:-runs/clip_svd_smoke}
    python $here/simulate.py "$run/data"
    set -- "$run/data" medclip-mini "$run/out"
    suite=smoke processes=1
fi

data=${1:?name the folder that holds the sets, --smoke or --shared}
pack=${2:?name the base pack}
out=${3:-runs/clip_svd}
# shellcheck disable=SC2086
python $here/measure.py $here/$suite.yaml "$data" "$out" --model "$pack" --workers "$processes" ${OPTIONS:-}
# shellcheck disable=SC2086
python $here/measure.py $here/$suite.yaml "$data" "$out" --model "$pack" --workers "$processes" --novel ${OPTIONS:-}
exec python $here/summary.py "$out" $here/$suite.yaml
