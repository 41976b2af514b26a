#!/usr/bin/env bash
# Installs what is missing, then runs the checks and all tests.
#
#   tests/run.sh [ARGUMENT...]    arguments go to pytest: -k cancel, -x, tests/test_store.py
set -euo pipefail

# Debian packages that tests use, besides what mounting needs: the programs that people use on a mount.
packages=(attr e2fsprogs jq postgresql rsync strace vim zsh)

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
cd -- "$root"
scripts/setup dev "${packages[@]}"
scripts/check || {
    echo "tests/run.sh: scripts/check failed, so no test was run (without it: .venv/bin/pytest)" >&2
    exit 1
}
exec .venv/bin/python3 -m pytest "$@"
