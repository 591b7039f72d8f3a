# shellcheck shell=bash
# What the batch scripts share: they source this, run a step by `step`, and end with `conclude`.
#   MAX_FAILURES  starts after failures in a row
#   MAX_RESTARTS  starts after the first, for whatever reason
# shellcheck source-path=SCRIPTDIR source=supervise.sh
source "$LAUNCH/supervise.sh" || exit

job=$SLURM_JOB_ID
# One task of an array may have the id of the whole array.
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
failures_file=${SLURM_SUBMIT_DIR:-.}/slurm-$job.failures
# srun does not take it over from sbatch (since Slurm 22.05).
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

say() {
    echo "$(date '+%F %T') job $job: $*" >&2
}

say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST"

# step COMMAND...: srun in the background. It passes USR1 on to its tasks as it is; SIGTERM would be their SIGKILL.
# A task that fails does not have the others killed: they write what they have (task.sh tells them).
step() {
    supervise USR1 srun --kill-on-bad-exit=0 "$@"
}

# SIGTERM after the notice: time is up before the run has ended. Soon SIGKILL ends this shell too.
on_notice() {
    case $notices in
        *'USR1 '*'TERM '*) code=75; again "time was up before the run had stopped; it goes on from an older checkpoint" ;;
    esac
}

# How the job ends, by the step's `code` and the signals that came.
conclude() {
    case $code:$notices in
        0:*) rm -f "$failures_file"; exit 0 ;;
        *:*USR1*) rm -f "$failures_file"; again "the scheduler's notice" ;;
        *:TERM*) say "ended by Slurm (scancel, a limit, or a preemption after which Slurm itself requeues)"; exit "$code" ;;
        75:*) rm -f "$failures_file"; again "a scheduler's signal to the run" ;;
    esac
    local failures=0
    [ ! -f "$failures_file" ] || failures=$(<"$failures_file")
    failures=$((failures + 1))
    if [ "$failures" -gt "$MAX_FAILURES" ]; then
        say "failed $failures times in a row, the last time with code $code; not requeued"
        rm -f "$failures_file"
        exit "$code"
    fi
    # Where it cannot be counted, it would go on for ever.
    echo "$failures" >"$failures_file" || exit "$code"
    again "failure $failures of at most $MAX_FAILURES in a row, code $code"
}

# Into the queue again, under the same number. Slurm then ends this shell.
again() {
    trap '' USR1 TERM
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAX_RESTARTS" ]; then
        say "$1; not requeued, after ${SLURM_RESTART_COUNT:-0} restarts (MAX_RESTARTS)"
    elif scontrol requeue "$job"; then
        say "$1; requeued"
    else
        say "$1; scontrol did not requeue it"
    fi
    exit "$code"
}
