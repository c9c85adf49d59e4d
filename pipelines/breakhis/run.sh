#!/usr/bin/env bash
# BreakHis by patient: towers of timm, frozen features and descriptors in one table.
# Usage: pipelines/breakhis/run.sh --smoke [RUN]                 a folder drawn by code, on CPU, in minutes
#        pipelines/breakhis/run.sh FOLDER [RUN] [PROTOCOL]       FOLDER holds BreaKHis_v1; on a GPU ($DEVICE, cuda).
# $TOWERS: names of timm (random weights) or packs of pretrained ones (medclip models import), in quotes, with spaces.
# $ENCODERS: packs whose features stay frozen, such as a pathology CLIP.
# Kill it anywhere and run it again: what is answered stays, trainings resume.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/breakhis
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

if [ "${1:-}" = --smoke ]; then
    run=${2:-runs/breakhis_smoke}
    export HF_HUB_OFFLINE=1
    [ -d "$run/images" ] || python $here/simulate.py "$run/images" --patients 40 --images 1
    python $here/measure.py "$run/images" "$run/measured" --tiny --protocol patient_5fold_7030 --magnifications 40 \
        --towers test_resnet test_vit --encoders random:test_vit
    exit
fi

folder=${1:?name the folder of BreaKHis_v1, or --smoke}
run=${2:-runs/breakhis}
protocol=${3:-patient_cv}
towers=${TOWERS:-resnet50 densenet121 efficientnet_b0 vit_base_patch16_224 swin_tiny_patch4_window7_224}
# shellcheck disable=SC2086
python $here/measure.py "$folder" "$run/$protocol" --protocol "$protocol" --device "${DEVICE:-cuda}" --towers $towers \
    --encoders ${ENCODERS:-imagenet:tf_efficientnet_lite0 random:tf_efficientnet_lite0}
