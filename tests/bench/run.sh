#!/bin/sh
# SPDX-License-Identifier: MIT
# ./dev bench [ROUNDS]: CPU seconds of a Debian kernel's boot to init and power-off, in turn under our software engine
# (bzImage, which it unpacks, and the same kernel unpacked, by PVH) and under QEMU TCG (unpacked). The machine may be busy: the
# ratio of medians counts.
set -eu
rounds=${1:-5}
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
exec python3 "$here/boot.py" --hva "$top/build/bin/hva" --rounds "$rounds" --cache "$top/build/kernel"
