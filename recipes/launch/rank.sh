#!/bin/bash
# A task of a Slurm step, or of a job array, as a rank of `hastezoo prepare` or `eval-fid`:  srun bash rank.sh COMMAND...
set -u
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    RANK=$((SLURM_ARRAY_TASK_ID - ${FIRST:-$SLURM_ARRAY_TASK_MIN}))
    WORLD_SIZE=${RANKS:-$SLURM_ARRAY_TASK_COUNT}
else
    RANK=$SLURM_PROCID
    WORLD_SIZE=$SLURM_NTASKS
fi
LOCAL_RANK=$SLURM_LOCALID
# With --gpus-per-task each task sees its own GPU alone, and that is number 0.
case ${CUDA_VISIBLE_DEVICES:-,} in
    *,*) ;;
    *) LOCAL_RANK=0 ;;
esac
export RANK WORLD_SIZE LOCAL_RANK
exec bash "$(dirname "$0")/task.sh" "$@"
