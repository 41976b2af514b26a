#!/usr/bin/env bash
# Installs what is missing, then measures the store and the mount, and prints a table of each.
#
#   bench/run.sh [--quick] [--threads N] [--dir DIRECTORY]
#
# The large list has N threads (100,000; --quick: 10,000), the store with most runs ten times as many; they take
# about 70 KB of disk for each of the N while this runs. DIRECTORY (the repository's) must be on a real disk,
# since every write is synced.
# Exits 1 when a target is missed. One table alone: .venv/bin/python3 -m bench.mount --help
set -euo pipefail

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")

for_store=()
for_mount=()
while (($#)); do
    case $1 in
    --quick)
        for_store+=(--quick)
        for_mount+=(--quick)
        ;;
    --threads | --dir)
        [[ ${2-} ]] || {
            echo "bench/run.sh: $1 what?" >&2
            exit 2
        }
        value=$2
        [[ $1 == --threads ]] || value=$(readlink -f -- "$2")
        # What the store opens has as many entries as the mount has runs.
        [[ $1 == --dir ]] && for_store+=(--dir "$value") || for_store+=(--entries "$((value * 10))")
        for_mount+=("$1" "$value")
        shift
        ;;
    *)
        echo "usage: bench/run.sh [--quick] [--threads N] [--dir DIRECTORY]" >&2
        exit 2
        ;;
    esac
    shift
done

cd -- "$root"
# Beside what development needs: bindfs, the same task in C; util-linux, for what the kernel forgets.
scripts/setup dev bindfs

echo "$(nproc) CPUs, $(free -g | awk '/^Mem:/ {print $2}') GiB, Linux $(uname -r), $(.venv/bin/python3 --version)"
missed=0
.venv/bin/python3 -m bench.store "${for_store[@]}" || missed=$?
echo
.venv/bin/python3 -m bench.mount "${for_mount[@]}" || missed=$?
exit "$missed"
