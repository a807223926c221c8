#!/bin/sh
# SPDX-License-Identifier: MIT
# build.sh OUT.hva [WORKDIR]: the template "tiny", a Linux of 20 MB with a shell on the screen and on the serial line.
#
# Takes Debian's kernel and static busybox (apt-get download: no root needed; kept in $HSK_PACKAGES, default
# ~/.cache/haversack/packages), unpacks them, makes an initramfs and an ext4 disk, and packs all with `hva create`.
# With WORKDIR the parts stay there: vmlinuz, initrd, root.ext4, append (the kernel's command line).
# HVA: the program hva to use; "none" only makes the parts.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
disk_size=64M
memory=256M
append='root=/dev/vda console=ttyS0 console=tty0 quiet'
# In the order of loading; what they depend on comes by itself.
modules='virtio_pci virtio_blk crc32c_generic ext4 virtio_input evdev button'

die()
{
    echo "tiny: $*" >&2
    exit 1
}

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: build.sh OUT.hva [WORKDIR]" >&2
    exit 2
fi
out=$1
PATH=$PATH:/sbin:/usr/sbin
for tool in apt-get apt-cache dpkg-deb mke2fs debugfs; do
    command -v "$tool" >/dev/null || die "$tool is not installed (packages: apt, dpkg, e2fsprogs)."
done
hva=${HVA:-hva}
[ "$hva" = none ] || command -v "$hva" >/dev/null || die "the program hva was not found; set HVA to its path."

packages=${HSK_PACKAGES:-${XDG_CACHE_HOME:-$HOME/.cache}/haversack/packages}
mkdir -p "$packages"
if [ $# = 2 ]; then
    mkdir -p "$2"
    work=$(cd "$2" && pwd)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
else
    work=$(mktemp -d)
    scratch=$work
    trap 'rm -rf "$work"' EXIT
fi
trap 'exit 1' INT TERM

# ---- packages ----

# The meta package names the current kernel. Without package lists, what an earlier run left behind is taken.
kernel_package()
{
    apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

cached()
{
    find "$packages" -name "$1_*.deb" | sort | tail -n 1
}

fetch()
{
    [ -z "$(cached "$1")" ] || return 0
    (cd "$packages" && apt-get download "$1" >/dev/null 2>"$scratch/apt.log") || {
        tail -n 1 "$scratch/apt.log" >&2
        die "the Debian package $1 could not be downloaded; put its .deb into $packages."
    }
}

kernel=$(kernel_package)
[ -n "$kernel" ] || kernel=$(basename "$(cached 'linux-image-[0-9]*')" | cut -d_ -f1)
[ -n "$kernel" ] || die "no Debian kernel: run apt-get update, or put a linux-image-*.deb into $packages."
fetch "$kernel"
fetch busybox-static
dpkg-deb -x "$(cached "$kernel")" "$scratch/kernel"
dpkg-deb -x "$(cached busybox-static)" "$scratch/busybox"
busybox=$(find "$scratch/busybox" -type f -path '*bin/busybox')
version=$(ls "$scratch/kernel/lib/modules")
cp "$scratch/kernel/boot/vmlinuz-$version" "$work/vmlinuz"

# ---- initramfs ----

initramfs=$scratch/initramfs
mkdir -p "$initramfs/bin" "$initramfs/dev" "$initramfs/proc" "$initramfs/sys" "$initramfs/newroot" "$initramfs/modules"
cp "$busybox" "$initramfs/bin/busybox"
cp "$here/init" "$initramfs/init"
chmod 755 "$initramfs/init"

# Copies a module after all that it depends on; the list keeps the order of loading.
add_module()
{
    name=$(echo "$1" | tr - _)
    ! grep -qx "$name.ko" "$initramfs/modules/order" || return 0
    file=$(find "$scratch/kernel/lib/modules" -name '*.ko*' | grep -E "/$(echo "$name" | sed 's/_/[-_]/g')\.ko(\.xz)?$" | head -n 1)
    [ -n "$file" ] || return 0 # built into this kernel
    case $file in
    *.xz) xz -dc "$file" >"$scratch/$name.ko" ;;
    *) cp "$file" "$scratch/$name.ko" ;;
    esac
    for dependency in $(tr '\0' '\n' <"$scratch/$name.ko" | sed -n 's/^depends=//p' | tr , ' '); do
        add_module "$dependency"
    done
    name=$(echo "$1" | tr - _)
    mv "$scratch/$name.ko" "$initramfs/modules/$name.ko"
    echo "$name.ko" >>"$initramfs/modules/order"
}
: >"$initramfs/modules/order"
for module in $modules; do
    add_module "$module"
done
(cd "$initramfs" && find . | sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$work/initrd"

# ---- disk ----

root=$scratch/root
mkdir -p "$root/bin" "$root/sbin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/run" "$root/root" "$root/var/log" "$root/var/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list-full); do
    case $applet in
    bin/busybox | linuxrc) ;;
    *) mkdir -p "$root/$(dirname "$applet")" && ln -sf /bin/busybox "$root/$applet" ;;
    esac
done
cp -R "$here/root/." "$root/"
chmod 755 "$root/etc/rcS" "$root/etc/acpi/PWRF/00000080"
chmod 1777 "$root/tmp"
rm -f "$work/root.ext4"
truncate -s "$disk_size" "$work/root.ext4"
mke2fs -q -F -t ext4 -L tiny -m 0 -E root_owner=0:0 -d "$root" "$work/root.ext4" ||
    die "the disk could not be made in $work."
# Everything belongs to the guest's root, whoever ran this.
(cd "$root" && find . -mindepth 1 | sed 's,^\.\(.*\)$,sif "\1" uid 0\nsif "\1" gid 0,') >"$scratch/owners"
debugfs -w -f "$scratch/owners" "$work/root.ext4" >/dev/null 2>&1
e2fsck -fn "$work/root.ext4" >/dev/null 2>&1 || die "the disk that was made is not a sound ext4 file system."

echo "$append" >"$work/append"
[ "$hva" = none ] || "$hva" create ${HVA_FORCE:+--force} "$out" --kernel "$work/vmlinuz" --initrd "$work/initrd" --append "$append" \
    --disk "$work/root.ext4" --memory "$memory"
