#!/bin/sh
# A worker by files alone: claims queued runs, the oldest first, answers each with a message, and completes it.
#
#   examples/worker.sh MNT URL [OPTION...]    asks an endpoint for chat completions (ollama's is
#                                             http://127.0.0.1:11434/v1). Options go to curl: -K FILE with a key
#   examples/worker.sh MNT COMMAND...         asks a command, with the transcript on its input, and MODEL and
#                                             INSTRUCTIONS in its environment
#
# $MODEL is the model for runs without one. The worker goes through the queue once; to keep it running:
#   while sleep 1; do examples/worker.sh MNT URL; done
# Any number of workers may run at once, on any number of mounts. A run that is cancelled is dropped within a second.
# On Ctrl-C the run goes back to the queue. When the worker itself is killed, its run stays in progress until it is
# moved or expired.
#
# shellcheck disable=SC2016 # in single quotes are the variables of jq
case ${2-} in
http://* | https://*) needed=curl is_chat=1 ;;
*) needed=${2-} is_chat='' ;;
esac
if ! [ -d "${1-}/runs/queued" ] || ! command -v jq >/dev/null || ! command -v "$needed" >/dev/null; then
    echo "usage: worker.sh MNT URL | COMMAND... (MNT is a mount; jq, and curl or COMMAND, are needed)" >&2
    exit 2
fi
mnt=$1 url=$2 default_model=${MODEL-}
shift
if [ "$is_chat" ]; then
    shift
    set -- curl -sS --fail-with-body -H 'Content-Type: application/json' --data-binary @- "$@" "${url%/}/chat/completions"
fi
work=$(mktemp -d) || exit 1

signal=''
trap 'signal=INT' INT
trap 'signal=TERM' TERM
trap 'signal=HUP' HUP
# Ctrl-C signals every program in the terminal. This runs one that must not stop half-way.
undisturbed() (
    trap '' INT TERM HUP
    "$@"
)

# Whether the run is still in progress. It counts as such while the mount does not answer.
is_wanted() { [ -L "$claimed" ] || ! ls "$mnt/runs/in_progress" >/dev/null 2>&1 || [ -L "$claimed" ]; }

# The input: the conversation as a request for chat completions, or as a transcript.
question() {
    if [ ! "$is_chat" ]; then
        cat "$mnt/transcripts/$thread.md"
        return
    fi
    # Line by line, so that a line that is not a message is skipped.
    jq -Rn '{
        model: env.MODEL,
        messages: [
            ({role: "system", content: env.INSTRUCTIONS} | select(.content != "")),
            (inputs | fromjson? | {role, content: [.content[].text?.value? | strings] | join("\n")})
        ]
    } | if .model == "" then del(.model) else . end' "$mnt/threads/$thread/messages.jsonl"
}

# Without stderr, where shells report the signal that has ended a child.
pause() { sleep 0.2; } 2>/dev/null

# The job has its own process group, so that all its processes end.
stop_job() {
    kill -s TERM -- "-$job" || kill -s TERM "$job"
    pause
    kill -s KILL -- "-$job"
    wait "$job"
} 2>/dev/null

# Stores the answer. Fails when there is none, or it cannot be stored.
store_answer() {
    if [ "$is_chat" ]; then
        jq -ejs '.[0].choices[0].message.content | strings' "$work/said" >"$work/answer" 2>/dev/null || return
    else
        mv "$work/said" "$work/answer"
    fi
    [ -s "$work/answer" ] || return 0
    jq -cn --arg run "$id" --rawfile text "$work/answer" \
        '{role: "assistant", content: ($text | sub("\n+$"; "")), run_id: $run}' >>"$mnt/threads/$thread/messages.jsonl"
}

# The last error of a run, as OpenAI has it; the job ended with exit status $1.
last_error() {
    why=$(tail -n 1 "$work/errors" | sed 's/^curl: ([0-9]*) //')
    case $is_chat$why in
    1*"error: "400 | 1*"error: "413 | 1*"error: "422) code=invalid_prompt ;;
    1*"error: "429) code=rate_limit_exceeded ;;
    *) code=server_error ;;
    esac
    [ "$1" != 0 ] || why='there was no answer, or none that can be stored'
    said=$(jq -r '.error | .message? // . | strings' "$work/said" 2>/dev/null)
    jq -n --arg code "$code" --arg why "${why:-it ended with exit status $1}${said:+: $said}" \
        '{status: "failed", last_error: {code: $code, message: $why[:1000]}}'
}

finish() {
    if [ "$1" = 0 ] && store_answer; then echo completed; else last_error "$1"; fi >"$work/status"
    # Refused if the run was cancelled meanwhile; it stays cancelled.
    cat "$work/status" 2>/dev/null >"$status" || echo "worker: $run was cancelled" >&2
}

# (Other workers claim runs meanwhile, and ls would report those as missing.)
# shellcheck disable=SC2012 # no name there has a newline
ls -tr "$mnt/runs/queued" 2>/dev/null >"$work/queued"
while [ ! "$signal" ] && IFS= read -r run <&3; do
    # The runs of a thread follow one another. (The next time through the queue, this one may be next.)
    ! ls -d "$mnt/runs/in_progress/"*"@${run#*@}" >/dev/null 2>&1 || continue
    # Of several workers that move the same run, one succeeds.
    undisturbed mv "$mnt/runs/queued/$run" "$mnt/runs/in_progress/" 2>/dev/null || continue
    claimed=$mnt/runs/in_progress/$run
    id=${run%@*} thread=${run#*@}
    status=$mnt/threads/$thread/runs/$id/status
    MODEL=$(jq -r .model "$status")
    MODEL=${MODEL:-$default_model}
    INSTRUCTIONS=$(jq -rs 'first(.[0].instructions, .[1].metadata.instructions? | strings) // ""' \
        "$status" "$mnt/threads/$thread/meta.json")
    export MODEL INSTRUCTIONS

    question >"$work/question"
    setsid "$@" <"$work/question" >"$work/said" 2>"$work/errors" 3<&- &
    job=$!
    while [ ! "$signal" ] && is_wanted && kill -0 "$job" 2>/dev/null; do pause; done
    if [ "$signal" ] || ! is_wanted; then
        stop_job
        [ ! "$signal" ] || undisturbed mv "$claimed" "$mnt/runs/queued/" 2>/dev/null
    else
        wait "$job"
        undisturbed finish $?
    fi
done 3<"$work/queued"

rm -r "$work"
# End by the same signal, so that a loop around this ends too.
[ ! "$signal" ] || { trap - "$signal" && kill -s "$signal" $$; }
