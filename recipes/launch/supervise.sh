# shellcheck shell=bash
# Run a command to its end, and pass the scheduler's notice on to it. For requeue.sh and task.sh.

: "${POLL:=1}"  # seconds between two looks at the command and at the signals that came
notices=''  # the signals that came, in order
# Nothing but a note: what a trap does may be cut short where it interrupts a `read` that has a time-out.
trap 'notices="${notices}USR1 "' USR1
trap 'notices="${notices}TERM "' TERM

# supervise SIGNAL COMMAND...: what passes the first notice on, as SIGNAL; a second could end torchrun in the middle of
# a checkpoint. Sets `code` to the command's exit code; signals are ignored from then on.
# shellcheck disable=SC2034  # code is for those who source this
supervise() {
    local pipe child passed=''
    local passed_as=$1
    shift
    exec {pipe}<> <(:)
    # A signal that reaches the subshell before its first command is lost, so that command says that it has begun.
    # torchrun dies of SIGUSR1, which some sites send to all processes of a step.
    ( [ "$passed_as" = USR1 ] || trap '' USR1; echo >&"$pipe"; exec {pipe}>&-; exec "$@" ) &
    child=$!
    read -r -t 60 -u "$pipe"
    exec {pipe}>&-
    # Two signals in a row make bash's `wait` return early, or with a wrong code, so it is asked only when all is over.
    while kill -0 "$child" 2>/dev/null; do
        if [ -n "$notices" ]; then
            [ -n "$passed" ] || kill -s "$passed_as" "$child" 2>/dev/null
            passed=yes
            on_notice
        fi
        ( trap '' USR1 TERM; exec sleep "$POLL" )
    done
    trap '' USR1 TERM
    wait "$child"
    code=$?
}

# What else is to be done while signals have come and the command runs.
on_notice() {
    :
}
