#!/usr/bin/env bash
# Takes the pictures in docs/screenshots/ anew: a file manager and a terminal, on a mount of the examples, or of what
# was imported.
#
#   docs/screenshots.sh
#   docs/screenshots.sh import
#
# On Debian it needs: adwaita-icon-theme dbus fonts-dejavu-core imagemagick jq shared-mime-info thunar xdotool
# xterm xvfb. As root it shows a warning in Thunar's window, so run it as an ordinary user.
set -euo pipefail

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
mount=/tmp/household pictures=$root/docs/screenshots/ view=ThunarIconView
[[ ${1-} != import ]] || mount=/tmp/conversations pictures+=import- view=ThunarDetailsView
for program in Xvfb xdotool import jq thunar xterm dbus-run-session; do
    command -v "$program" >/dev/null || { echo "docs/screenshots.sh: $program is missing" >&2; exit 1; }
done

mkdir -- "$mount"
work=$(mktemp -d)
pids=()
cleanup() {
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
xterm -geometry 92x27+0+0 -fa 'DejaVu Sans Mono' -fs 11 -bg '#1e1e2e' -fg '#e6e6e6' -b 12 \
    -e bash --norc -c "cd '$mount' && . '$work/session'" &
pids+=($!)
window=$(xdotool search --sync --onlyvisible --class xterm | tail -n 1)
xdotool windowfocus "$window" mousemove 899 559
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
