# shellcheck shell=bash
# Run a command to its end, and pass the scheduler's notice on to it. For requeue.sh and task.sh.

notices=''  # the signals that came, in order
child=''
trap 'take_notice USR1' USR1
trap 'take_notice TERM' TERM

# supervise SIGNAL COMMAND...: what passes the first notice on, as SIGNAL; a second could end torchrun in the middle of
# a checkpoint. Sets `code` to the command's exit code; signals are ignored from then on.
# shellcheck disable=SC2034  # code is for those who source this
supervise() {
    local pipe started
    passed_as=$1
    shift
    exec {pipe}<> <(:)
    # A signal that reaches the subshell before its first command is lost, so that command says that it has begun.
    # torchrun dies of SIGUSR1, which some sites send to all processes of a step.
    ( [ "$passed_as" = USR1 ] || trap '' USR1; echo >&"$pipe"; exec {pipe}>&-; exec "$@" ) &
    started=$!
    read -r -t 60 -u "$pipe"
    child=$started
    [ -z "$notices" ] || pass_notice
    # Two signals in a row make bash's `wait` return early, or with a wrong code. Nothing comes through the pipe any
    # more: reading it sleeps, and hears signals.
    while kill -0 "$child" 2>/dev/null; do read -r -t 0.1 -u "$pipe"; done
    trap '' USR1 TERM
    wait "$child"
    code=$?
    exec {pipe}>&-
}

take_notice() {
    [ -n "$notices" ] || pass_notice
    notices="$notices$1 "
    if [ "$(type -t on_notice)" = function ]; then on_notice; fi
}

pass_notice() {
    [ -z "$child" ] || kill -s "$passed_as" "$child" 2>/dev/null
}
