#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh PREFIX [BUILD]: copies what was built (default: ../build) and the desktop's data into PREFIX and tells the
# desktop about it. For one user: install.sh ~/.local
set -eu

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: install.sh PREFIX [BUILD]" >&2
    exit 2
fi
build=${2:-$here/../build}
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
id=io.github.haversack.Haversack

for program in hva hva-keeper hva-machine haversack; do
    [ -x "$build/bin/$program" ] || { echo "install.sh: $build/bin/$program is missing: build first." >&2; exit 1; }
done
share=$prefix/share
mkdir -p "$prefix/bin" "$share/applications" "$share/mime/packages" "$share/metainfo" "$share/haversack/templates" \
    "$share/icons/hicolor/scalable/apps" "$share/icons/hicolor/scalable/mimetypes"
for program in hva hva-keeper hva-machine haversack; do
    install -m 755 "$build/bin/$program" "$prefix/bin/$program"
done
# With its whole path: PREFIX/bin need not be where the desktop looks for programs.
sed "s,^Exec=haversack,Exec=\"$prefix/bin/haversack\"," "$here/$id.desktop" >"$share/applications/$id.desktop"
install -m 644 "$here/haversack.xml" "$share/mime/packages/haversack.xml"
install -m 644 "$here/$id.metainfo.xml" "$share/metainfo/$id.metainfo.xml"
install -m 644 "$here/$id.svg" "$share/icons/hicolor/scalable/apps/$id.svg"
install -m 644 "$here/$id.svg" "$share/icons/hicolor/scalable/mimetypes/application-vnd.haversack.appliance.svg"
rm -rf "$share/haversack/templates/tiny"
cp -R "$here/../templates/tiny" "$share/haversack/templates/tiny"

tell()
{
    if command -v "$1" >/dev/null; then
        "$@" || echo "install.sh: $1 failed; the file type may not be known to the desktop." >&2
    else
        echo "install.sh: $1 is not installed; the file type may not be known to the desktop." >&2
    fi
}
tell update-mime-database "$share/mime"
tell update-desktop-database "$share/applications"
if command -v gtk-update-icon-cache >/dev/null && [ -f "$share/icons/hicolor/index.theme" ]; then
    gtk-update-icon-cache -q "$share/icons/hicolor" || true
fi
echo "Installed in $prefix. Open an .hva with a double click, or run: $prefix/bin/haversack FILE.hva"
