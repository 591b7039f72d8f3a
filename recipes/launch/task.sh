#!/bin/bash
# A task of a Slurm step:  srun bash task.sh COMMAND...
# srun reports the largest exit code of its tasks, so that of a failure is raised above that of a stop.
#   0      it is finished
#   75     the scheduler stopped it; the same command goes on
#   100+C  it failed with code C;  128 and more: a signal killed it
set -u
# shellcheck source-path=SCRIPTDIR source=supervise.sh
source "$(dirname "$0")/supervise.sh" || exit
# Seconds from the notice to the end of what does not end: torchrun that has lost the first node hears no signals.
: "${KILL_AFTER:=$((${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-270} + 15))}"

on_notice() {
    : "${noticed:=$SECONDS}"
    [ $((SECONDS - noticed)) -lt "$KILL_AFTER" ] || kill -s KILL "$child" 2>/dev/null
}

supervise TERM "$@"
case $code in
    0 | 75) exit "$code" ;;
esac
[ -z "$notices" ] || exit 75  # torchrun that was stopped says 1
# The tasks of a step wait for each other.
if [ "${SLURM_NTASKS:-1}" -gt 1 ]; then
    scancel --signal=TERM "$SLURM_JOB_ID.$SLURM_STEP_ID"
fi
[ "$code" -ge 100 ] || code=$((100 + code))
exit "$code"
