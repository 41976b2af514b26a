#!/bin/sh
# A worker: claims queued runs, answers each with a message, and completes it.
#
#   examples/worker.sh MNT COMMAND...    COMMAND gets the conversation on its input and prints the answer
#
# Any number of workers may run at once, on any number of mounts. Goes once through what is queued; for one
# that stays: while sleep 1; do examples/worker.sh MNT COMMAND...; done
if [ $# -lt 2 ] || ! [ -d "$1/runs/queued" ] || ! command -v jq >/dev/null || ! command -v "$2" >/dev/null; then
    echo "usage: worker.sh MNT COMMAND... (MNT is a mount; jq and COMMAND are needed)" >&2
    exit 2
fi
mnt=$1
shift

for link in "$mnt"/runs/queued/*; do
    run=${link##*/}
    # Of several workers that move the same run, one succeeds.
    mv "$link" "$mnt/runs/in_progress/" 2>/dev/null || continue
    thread=$mnt/threads/${run#*@}
    status=$thread/runs/${run%@*}/status

    word=failed
    if answer=$("$@" < "$mnt/transcripts/${run#*@}.md"); then
        grep -q '"status": "in_progress"' "$status" || continue # cancelled: nobody waits for the answer
        jq -cn --arg run "${run%@*}" --arg text "$answer" \
            '{role: "assistant", content: $text, run_id: $run}' >> "$thread/messages.jsonl" && word=completed
    fi
    # Refused when the run has been cancelled in between, which then stands.
    echo "$word" 2>/dev/null > "$status" || echo "worker: $run was cancelled" >&2
done
