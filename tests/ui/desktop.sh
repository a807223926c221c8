#!/bin/sh
# SPDX-License-Identifier: MIT
# desktop.sh DRIVER HAVERSACK STANDIN: a private home, X server, D-Bus and window manager, then DRIVER (python) with the
# folder of it all: bin/haversack, and bin/hva which is the stand-in machine (STANDIN "real": hva and its helpers from
# beside HAVERSACK). Exit 77: something is missing.
# With HSK_UI_KEEP=DIR the screenshots of every step stay in DIR.
set -eu
driver=$1 haversack=$2 standin=$3

for tool in Xvfb openbox xdotool dbus-run-session import; do
    command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
/usr/bin/python3 -c "import gi; gi.require_version('Atspi', '2.0'); from gi.repository import Atspi" 2>/dev/null ||
    { echo "skipped: python3-gi or gir1.2-atspi-2.0 is not installed"; exit 77; }

work=$(mktemp -d)
xvfb= job=
clean_up()
{
    test -z "$job" || kill "$job" 2>/dev/null || true
    # The window starts machines in sessions of their own, which outlive it: what runs from the private folder is ours.
    for exe in /proc/[0-9]*/exe; do
        case "$(readlink "$exe" || true)" in
        "$work"/*) pid=${exe#/proc/}; kill -9 "${pid%/exe}" || true ;;
        esac
    done 2>/dev/null
    test -z "$xvfb" || kill "$xvfb" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM
mkdir -p "$work/bin" "$work/config/gtk-3.0" "$work/run" "$work/shots"
chmod 700 "$work/run"
cp "$haversack" "$work/bin/haversack"
for program in hva hva-keeper hva-machine; do
    if [ "$standin" = real ]; then
        cp "$(dirname "$haversack")/$program" "$work/bin/$program"
    else
        cp "$standin" "$work/bin/$program"
    fi
done
cat >"$work/config/gtk-3.0/settings.ini" <<'INI'
[Settings]
gtk-enable-animations=0
gtk-cursor-blink=0
gtk-font-name=DejaVu Sans 10
gtk-xft-rgba=none
gtk-xft-hinting=0
INI
HSK_PACKAGES=${HSK_PACKAGES:-${XDG_CACHE_HOME:-$HOME/.cache}/haversack/packages}
export HSK_PACKAGES HOME="$work" XDG_RUNTIME_DIR="$work/run" XDG_CONFIG_HOME="$work/config" XDG_DATA_HOME="$work/data" \
    LC_ALL=C.UTF-8 GDK_BACKEND=x11 GTK_THEME=Adwaita GSETTINGS_BACKEND=memory XDG_CURRENT_DESKTOP=GNOME
unset NO_AT_BRIDGE WAYLAND_DISPLAY DBUS_SESSION_BUS_ADDRESS DISPLAY

Xvfb -displayfd 3 -screen 0 1280x1024x24 -nolisten tcp 3>"$work/display" 2>"$work/xvfb.log" &
xvfb=$!
for _ in $(seq 100); do test -s "$work/display" && break; sleep 0.1; done
DISPLAY=:$(cat "$work/display")
export DISPLAY
status=0
timeout 170 dbus-run-session -- sh -c '
    openbox 2>/dev/null & wm=$!
    /usr/bin/python3 -W ignore::DeprecationWarning "$0" "$1"; status=$?
    kill $wm
    exit $status' "$driver" "$work" &
job=$!
wait "$job" || status=$?
job=
if [ -n "${HSK_UI_KEEP:-}" ]; then mkdir -p "$HSK_UI_KEEP"; cp "$work"/shots/* "$work"/*.log "$HSK_UI_KEEP"/ || true; fi
exit $status
