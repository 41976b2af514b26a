#!/usr/bin/env bash
# Installs what is missing, then runs the checks and all tests.
#
#   tests/run.sh [ARGUMENT...]    arguments go to pytest: -k cancel, -x, tests/store, --long (attacks of two hours)
#
# Six processes share the tests, as most wait more than they compute; with -n 0 it is one. Those marked "alone" run
# while the others wait.
set -euo pipefail

# Debian packages that tests use, besides what mounting needs: the programs that people use on a mount, a server
# for the store in PostgreSQL, a screen for windows.
packages=(
    attr bindfs curl dbus-daemon e2fsprogs emacs-nox entr faketime fio fish fonts-dejavu-core gedit git
    inotify-tools jq less libglib2.0-bin moreutils mousepad nano node-chokidar openssl pcmanfm perl postgresql
    procps restic ripgrep rsync shared-mime-info strace stress-ng syncthing thunar tmux vim xdotool xvfb zsh
)

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
cd -- "$root"
scripts/setup dev "${packages[@]}"

# What is imported is compiled once, and not by each of some thousand processes.
unset PYTHONDONTWRITEBYTECODE
if [[ ! -d tests/__pycache__ ]]; then # Else each process that shares the tests would compile them all.
    .venv/bin/python3 -m pytest --collect-only -qq >/dev/null 2>&1 &
fi
scripts/check || {
    wait
    echo "tests/run.sh: scripts/check failed, so no test was run (without it: .venv/bin/pytest)" >&2
    exit 1
}
wait
exec .venv/bin/python3 -m pytest -n 6 "$@"
