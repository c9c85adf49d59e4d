#!/usr/bin/env bash
# Two machines with 8 GPUs each, without a scheduler. Run it on both:
#   machine 0:  NODE_RANK=0 HEAD=host0 pipelines/unimed/launch/torchrun.sh
#   machine 1:  NODE_RANK=1 HEAD=host0 pipelines/unimed/launch/torchrun.sh
# The run's folder must lie on a file system that both see; weights/ and the hub's cache ($HF_HOME) must be on each. Run it again after a stop: it resumes, also with fewer GPUs.
set -euo pipefail
cd "$(dirname "$0")/../../.."
run=${RUN:-runs/unimed}
shards=$(python pipelines/unimed/prepare.py list "$run/shards")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}       # starting weights come from the cache, not sixteen times from the network
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}  # seconds for the checkpoint after SIGTERM
exec torchrun \
    --nnodes "${NODES:-2}" --nproc-per-node "${GPUS:-8}" --node-rank "${NODE_RANK:?0 on the first machine, 1 on the second}" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:?host name of the first machine}:${PORT:-29500}" --rdzv-id unimed \
    --max-restarts 3 \
    -m medclip.cli.main pretrain pipelines/unimed/recipe.yaml --set "data.shards=$shards" --out "$run/train"
