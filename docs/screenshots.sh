#!/usr/bin/env bash
# Takes the pictures in docs/screenshots/ anew: a file manager and a terminal, on a mount of the examples, or of what
# was imported; or a terminal in which a small model answers.
#
#   docs/screenshots.sh
#   docs/screenshots.sh import
#   docs/screenshots.sh work      # needs the tools for tests: scripts/setup dev
#
# On Debian it needs: adwaita-icon-theme dbus fonts-dejavu-core imagemagick jq shared-mime-info thunar tmux xdotool
# xterm xvfb. As root it shows a warning in Thunar's window, so run it as an ordinary user.
set -euo pipefail

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
mount=/tmp/household pictures=$root/docs/screenshots/ view=ThunarIconView
[[ ${1-} != import ]] || mount=/tmp/conversations pictures+=import- view=ThunarDetailsView
[[ ${1-} != work ]] || mount=/tmp/chats
programs=(Xvfb xdotool import jq xterm)
if [[ ${1-} == work ]]; then programs+=(tmux); else programs+=(thunar dbus-run-session); fi
for program in "${programs[@]}"; do
    command -v "$program" >/dev/null || { echo "docs/screenshots.sh: $program is missing" >&2; exit 1; }
done

mkdir -- "$mount"
work=$(mktemp -d)
pids=()
cleanup() {
    [[ ! -S $work/tmux ]] || tmux -S "$work/tmux" kill-server || true
    kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    fusermount3 -uzq -- "$mount" || true
    rmdir -- "$mount"
    rm -rf -- "$work"
}
trap cleanup EXIT

# A home without settings, but for the icons and the view; a screen as large as a window of Thunar.
export HOME=$work/home XDG_RUNTIME_DIR=$work/runtime GSETTINGS_BACKEND=memory NO_AT_BRIDGE=1 GIO_USE_VFS=local LANG=C.UTF-8
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_CACHE_HOME WAYLAND_DISPLAY
mkdir -p -- "$HOME/.config/gtk-3.0" "$HOME/.config/xfce4/xfconf/xfce-perchannel-xml"
mkdir -m 700 -- "$XDG_RUNTIME_DIR"
printf '[Settings]\ngtk-icon-theme-name=Adwaita\ngtk-font-name=DejaVu Sans 10\n' >"$HOME/.config/gtk-3.0/settings.ini"
cat >"$HOME/.config/xfce4/xfconf/xfce-perchannel-xml/thunar.xml" <<XML
<?xml version="1.0" encoding="UTF-8"?>
<channel name="thunar" version="1.0">
  <property name="last-view" type="string" value="$view"/>
  <property name="last-sort-column" type="string" value="THUNAR_COLUMN_DATE_MODIFIED"/>
  <property name="last-sort-order" type="string" value="GTK_SORT_DESCENDING"/>
  <property name="misc-single-click" type="bool" value="false"/>
</channel>
XML

store=$HOME/assistants shown=$mount/threads/Trip\ to\ Oslo
if [[ ${1-} == import ]]; then
    mkdir -p -- "$store" "$HOME/Downloads"
    for source in chatgpt/branches chatgpt/tools claude/basic; do
        cp -- "$root/tests/importing/fixtures/$source/export.zip" "$HOME/Downloads/${source/\//-}.zip"
    done
    shown=$mount/transcripts
elif [[ ${1-} == work ]]; then
    mkdir -- "$store"
else
    cp -r -- "$root/examples/household" "$store"
fi
"$root/.venv/bin/python3" -m threadfs.cli --log "$work/log" "$store" "$mount" >/dev/null

mkfifo -- "$work/display"
Xvfb -displayfd 3 -screen 0 900x560x24 -noreset -nolisten tcp 3>"$work/display" 2>/dev/null &
pids+=($!)
read -r number <"$work/display"
export DISPLAY=:$number

# still FILE: the picture of the screen, when it is twice the same.
still() {
    local before='' now
    until import -window root "$1" && now=$(identify -format '%#' "$1") && [[ $now == "$before" ]]; do
        before=$now
        sleep 0.5
    done
}

# terminal COLUMNS ROWS COMMAND...: in the corner of the screen; its process is the last of $pids.
terminal() {
    xterm -geometry "$1x$2+0+0" -fa 'DejaVu Sans Mono' -fs 11 -bg '#1e1e2e' -fg '#e6e6e6' -b 12 -e "${@:3}" &
    pids+=($!)
    window=$(xdotool search --sync --onlyvisible --class xterm | tail -n 1)
    xdotool windowfocus "$window" mousemove 899 559
}

# --- A terminal in which a model answers ----------------------------------------------------------------------

if [[ ${1-} == work ]]; then
    mkfifo -- "$work/stdin"
    (cd -- "$root" && exec .venv/bin/python3 -m tests.work.model_server <"$work/stdin" >"$work/url" 2>/dev/null) &
    pids+=($!)
    exec 4>"$work/stdin" # The server ends with it.
    until [[ -s $work/url ]]; do sleep 0.1; done

    cat >"$work/bashrc" <<BASHRC
PS1='\[\e[1;32m\]\w\[\e[0m\] $ '
PATH=$root/.venv/bin:\$PATH
BASHRC
    tmux=(tmux -S "$work/tmux" -f /dev/null)
    pane=(-c "$mount" bash --rcfile "$work/bashrc")
    terminal 92 27 "${tmux[@]}" new-session "${pane[@]}"
    until "${tmux[@]}" split-window -h -l 46 "${pane[@]}" 2>/dev/null; do sleep 0.1; done
    "${tmux[@]}" split-window -v -t 0 -l 14 "${pane[@]}" \; set-option -g status off
    # typed PANE COMMAND: when the pane shows a prompt; 0 and 1 are on the left, 2 is on the right.
    typed() {
        until "${tmux[@]}" capture-pane -p -t "$1" | grep . | tail -n 1 | grep -qF "$mount \$"; do sleep 0.1; done
        "${tmux[@]}" send-keys -t "$1" -l -- "$2" \; send-keys -t "$1" Enter
    }
    typed 0 'mkdir threads/sea'
    typed 1 "threadfs work . --endpoint $(<"$work/url")/v1"
    until [[ -s $mount/.threadfs/workers && -d $mount/threads/sea ]]; do sleep 0.1; done
    typed 2 'tail -n +1 -f transcripts/sea.md'
    typed 0 'cut -f 2- .threadfs/workers'
    typed 0 'echo "Write a short poem about the sea." > threads/sea/ask'
    until (($(wc -l <"$mount/answers/sea.md") > 12)); do sleep 0.05; done
    typed 0 'ls runs/in_progress'
    sleep 0.2
    import -window root "${pictures}answer.png"
    mogrify -trim +repage -strip "${pictures}answer.png"
    exit
fi

# --- A terminal -----------------------------------------------------------------------------------------------

cat >"$work/session" <<SESSION
# What is typed, as it would be at a prompt.
run() {
    printf '\e[1;32m%s\e[0m $ %s\n' "\${PWD/#\$HOME/\~}" "\$1"
    eval "\$1"
}
threadfs() { PYTHONPATH=$root "$root/.venv/bin/python3" -m threadfs.cli "\$@"; }
SESSION
if [[ ${1-} == import ]]; then
    cat >>"$work/session" <<'SESSION'
cd ~/Downloads
run 'threadfs import ~/assistants chatgpt-*.zip claude-basic.zip'
run 'cd /tmp/conversations'
run 'ls -gGt --time-style=long-iso transcripts | tail -n +2 | cut -c 12-'
run 'grep -il honey transcripts/*'
run 'tail -n 3 transcripts/chatgpt-*384.md'
run 'jq -r .metadata.title threads/*/meta.json'
SESSION
else
    cat >>"$work/session" <<'SESSION'
run 'ls threads | head -n 2'
run 'head -n 7 "transcripts/Trip to Oslo.md" | fold -s -w 88'
run 'ls runs'
run 'ls runs/in_progress'
run 'echo 1 > runs/in_progress/*/cancel'
run 'jq -r .status runs/cancelled/run_cb2d*/status'
run 'mkdir threads/idea; echo "Where should we go?" > threads/idea/say'
run 'echo llama3 > threads/idea/start; ls threads/idea/runs | cut -c 1-12'
run 'tail -n 3 transcripts/idea.md'
SESSION
fi
cat >>"$work/session" <<SESSION
printf '\e[1;32m$mount\e[0m $ '
cat
SESSION
terminal 92 27 bash --norc -c "cd '$mount' && . '$work/session'"
still "${pictures}terminal.png"
mogrify -trim +repage "${pictures}terminal.png"
kill "${pids[-1]}"
while xdotool search --class xterm >/dev/null; do sleep 0.1; done

# --- A file manager -------------------------------------------------------------------------------------------

dbus-run-session -- thunar "$mount" >/dev/null 2>&1 &
pids+=($!)
window=$(xdotool search --sync --onlyvisible --name 'Thunar$' | tail -n 1)
xdotool windowmove "$window" 0 0 windowsize --sync "$window" 900 400 windowfocus --sync "$window"
xdotool mousemove 899 559
still "$work/picture.png"
[[ ${1-} == import ]] || xdotool key F3 # A second pane, for one thread.
still "$work/picture.png"
xdotool key ctrl+l
still "$work/picture.png"
xdotool key ctrl+a type "$shown"
xdotool key Return
still "${pictures}file-manager.png"
mogrify -crop 900x400+0+0 +repage "${pictures}file-manager.png"
mogrify -strip "$root"/docs/screenshots/*.png
