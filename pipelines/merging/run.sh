#!/usr/bin/env bash
# Tables -> shards -> packs, merged and continued -> one table of figures on the same held-out patients.
# Usage: pipelines/merging/run.sh [--smoke] [SHARED_DATA] [RUN]
# Kill it anywhere and run it again: shards, packs and figures are kept, training goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/merging
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
run=runs/merging smoke="" most=""
if [ "${1:-}" = --smoke ]; then
    shift
    smoke=--smoke most="--most 60" run=runs/merging_smoke
fi
data=${1:-../shared/data}
run=${2:-$run}
export HF_HUB_OFFLINE=1
mkdir -p "$run"
# The key, the shares and the names of patients are those of pipelines/mini: who is held out there is held out here.
[ -s "$run/key" ] || printf '%-32s' 'medclip-mini public sets' >"$run/key"  # public: anyone may recompute the patient hashes
python $here/modality_tables.py "$data" "$run" $most
for table in xray fundus mri mammography start; do
    [ -f "$run/shards/$table/index.json" ] || python -m medclip.cli.main shards build "$run/$table.csv" \
        --out "$run/shards/$table" --max-side-px 192 --splits train=0.65,val=0.10,test=0.25 --key-file "$run/key"
done
exec python $here/measure.py "$run" $smoke
