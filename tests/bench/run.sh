#!/bin/sh
# SPDX-License-Identifier: MIT
# ./dev bench [ROUNDS]: CPU seconds of a Debian kernel's boot to init and power-off, in turn under our software engine
# (bzImage, which it unpacks, and the same kernel unpacked, by PVH) and under QEMU TCG (unpacked). The machine may be busy: the
# ratio of medians counts.
# ./dev bench snapshots [--quick | --long] ...: see snapshots.py
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
export PYTHONDONTWRITEBYTECODE=1
if [ "${1:-}" = snapshots ]; then
    shift
    exec python3 "$here/snapshots.py" "$@"
fi
exec python3 "$here/boot.py" --hva "$top/build/bin/hva" --rounds "${1:-5}" --cache "$top/build/kernel"
