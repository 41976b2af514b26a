#!/usr/bin/env bash
# Sets up what is missing, then mounts a store of conversations in the background. See ./mount.sh --help.
set -euo pipefail

root=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")

help() {
    cat <<'HELP'
usage: ./mount.sh [OPTION...] [STORE [MNT]]

Installs what is missing, then mounts STORE on MNT in the background and says where. MNT is created if need be, and so
is a STORE that is given with a directory that is there (./new, not new), or with --create.

  STORE   a directory of conversations, or a postgresql:// URL
          (default: ~/.local/share/threadfs, a store of your own that starts with one small conversation)
  MNT     where they appear as files (default: ~/threadfs, or ~/threads where ~/threadfs is this checkout)

./mount.sh COMMAND ... is threadfs COMMAND ...: list, umount, work, ask, follow, events, next, wait, search, ls, fsck, export,
import, prune, expire. (unmount is umount, and ./mount.sh mount ... is ./mount.sh ...) Options go to threadfs, for example
--read-only, --create, --log FILE, --allow-other, --foreground, -o OPTS, --version.

  ./mount.sh
  ./mount.sh --read-only examples/household /tmp/household
  ./mount.sh --read-only /srv/assistant/threads ~/threads
HELP
}

# die STATUS REASON: status 1 failed, 2 used wrongly.
die() {
    printf 'mount.sh: %s\n' "$2" >&2
    exit "$1"
}

# make_own_store STORE: makes it, readable for nobody else. While no thread is in it, the example is put there; it gets
# its name when it is complete and on disk. The lock is for two that are started at once.
make_own_store() {
    local store=$1 example copy
    (umask 077 && mkdir -p -- "$store")
    exec 9<"$store"
    flock 9
    rm -rf -- "$store"/.welcome.* # left by one that was interrupted
    if [[ -z $(find "$store/" -mindepth 1 -maxdepth 1 ! -name '.*' -print -quit) ]]; then
        example=$(echo "$root"/examples/welcome/thread_*)
        copy=$(mktemp -d -- "$store/.welcome.XXXXXX")
        cp -R -- "$example/." "$copy"
        find "$copy" -exec sync -- {} +
        mv -T -- "$copy" "$store/${example##*/}"
        sync -- "$store"
        printf 'To bring in conversations of ChatGPT, Claude.ai and others: %q import %q FILE (see docs/import.md)\n' "$0" "$store"
    fi
    exec 9<&-
}

case ${1-} in
    list | umount | unmount | work | ask | follow | events | next | wait | search | ls | fsck | export | import | prune | expire)
        # A store of that name is ./list.
        "$root/scripts/setup" run
        exec "$root/.venv/bin/threadfs" "$@"
        ;;
    mount) shift ;;
esac

options=()
places=()
while (($#)); do
    case $1 in
        -h | --help)
            help
            exit
            ;;
        --version)
            "$root/scripts/setup" run
            exec "$root/.venv/bin/threadfs" --version
            ;;
        --log | -o)
            (($# > 1)) || die 2 "$1 needs a value (see ./mount.sh --help)"
            options+=("$1" "$2")
            shift
            ;;
        --)
            shift
            places+=("$@")
            break
            ;;
        -*) options+=("$1") ;;
        '') die 2 "STORE and MNT cannot be empty (see ./mount.sh --help)" ;;
        *) places+=("$1") ;;
    esac
    shift
done
((${#places[@]} <= 2)) || die 2 "too many arguments: ${places[2]} (see ./mount.sh --help)"
((${#places[@]} == 2)) || [[ ${HOME-} ]] || die 2 "HOME is not set: give STORE and MNT"

"$root/scripts/setup" run

if ((${#places[@]} == 0)); then
    data=${XDG_DATA_HOME-}
    [[ $data == /* ]] || data=$HOME/.local/share # as the XDG specification has it, a relative one counts as unset
    places=("$data/threadfs")
    make_own_store "${places[0]}"
fi
if ((${#places[@]} == 1)); then
    mountpoint=$HOME/threadfs
    [[ ! $mountpoint -ef $root ]] || mountpoint=$HOME/threads
    places+=("$mountpoint")
fi

# A relative path is given as ./path, so that no store is taken for a command or an option. (A STORE that is not there
# may be a mistyped command: threadfs says so.)
[[ ${places[0]} == /* || ! -e ${places[0]} ]] || places[0]=./${places[0]}
[[ ${places[1]} == /* || ${places[1]} == *://* ]] || places[1]=./${places[1]}
[[ ${places[0]} != -* ]] || options+=(--)
THREADFS_COMMAND=$0 exec "$root/.venv/bin/threadfs" "${options[@]}" "${places[@]}"
