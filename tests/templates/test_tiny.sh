#!/bin/sh
# SPDX-License-Identifier: MIT
# test_tiny.sh TEMPLATES: builds the parts of the template tiny without hva and looks at them. Exit 77: no packages.
set -eu
templates=$1
PATH=$PATH:/sbin:/usr/sbin
packages=${HSK_PACKAGES:-${XDG_CACHE_HOME:-$HOME/.cache}/haversack/packages}
for tool in apt-get dpkg-deb mke2fs debugfs cpio; do
    command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
# Only what is there already: a test downloads nothing.
ls "$packages"/linux-image-[0-9]*.deb "$packages"/busybox-static_*.deb >/dev/null 2>&1 ||
    { echo "skipped: no packages in $packages; build the template once"; exit 77; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail()
{
    echo "FAILED: $*"
    exit 1
}
HVA=none HSK_PACKAGES=$packages sh "$templates/tiny/build.sh" unused "$work/parts"
size=$(du -ck "$work/parts/vmlinuz" "$work/parts/initrd" "$work/parts/root.ext4" | tail -n 1 | cut -f1)
[ "$size" -le 40960 ] || fail "the parts take $size KiB"
mkdir "$work/initrd"
(cd "$work/initrd" && cpio -id --quiet <"$work/parts/initrd")
[ -x "$work/initrd/init" ] || fail "no /init in the initramfs"
for module in virtio_blk ext4 virtio_pci evdev; do
    grep -qx "$module.ko" "$work/initrd/modules/order" || fail "$module is missing"
done
[ "$(grep -nx jbd2.ko "$work/initrd/modules/order" | cut -d: -f1)" -lt \
  "$(grep -nx ext4.ko "$work/initrd/modules/order" | cut -d: -f1)" ] || fail "ext4 comes before jbd2"
debugfs -R 'stat /etc/inittab' "$work/parts/root.ext4" 2>/dev/null | grep -Eq 'User: +0 +Group: +0' ||
    fail "the guest's files do not belong to root"
debugfs -R 'stat /sbin/init' "$work/parts/root.ext4" 2>/dev/null | grep -q symlink || fail "no /sbin/init"

# Without packages and without a way to get them there is one clear sentence.
mkdir "$work/empty" "$work/bin"
printf '#!/bin/sh\nexit 1\n' >"$work/bin/apt-get"
cp "$work/bin/apt-get" "$work/bin/apt-cache"
chmod 755 "$work/bin/"*
if PATH=$work/bin:$PATH HVA=none HSK_PACKAGES=$work/empty sh "$templates/tiny/build.sh" unused "$work/none" 2>"$work/err"; then
    fail "was built out of nothing"
fi
grep -q '^tiny: no Debian kernel' "$work/err" || fail "$(cat "$work/err")"
echo "all passed"
