#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Paired boot benchmark: see run.sh. Prints the CPU times of each round and the ratios of the medians."""
import argparse
import glob
import lzma
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys

INIT = """#!/bin/sh
/bin/busybox mount -t proc p /proc
echo INIT-REACHED
/bin/busybox poweroff -f
"""


def fetch_kernel(cache):
    """Debian's kernel package, unpacked; installs nothing."""
    found = glob.glob(f"{cache}/root/boot/vmlinuz-*")
    if found:
        return found[0]
    os.makedirs(cache, exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq", "linux-image-amd64"], cwd=cache, check=True, stderr=subprocess.DEVNULL)
    meta = glob.glob(f"{cache}/linux-image-amd64_*.deb")[0]
    depends = subprocess.run(["dpkg-deb", "-f", meta, "Depends"], capture_output=True, text=True, check=True).stdout
    name = depends.split()[0].rstrip(",")
    subprocess.run(["apt-get", "download", "-qq", name], cwd=cache, check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["dpkg", "-x", glob.glob(f"{cache}/{name}_*.deb")[0], f"{cache}/root"], check=True)
    return glob.glob(f"{cache}/root/boot/vmlinuz-*")[0]


def unpack_elf(bzimage, out):
    """The ELF inside a bzImage (boot protocol: payload_offset, payload_length), for QEMU's PVH loader."""
    if os.path.exists(out):
        return
    data = open(bzimage, "rb").read()
    setup = (data[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[setup + offset:setup + offset + length - 4]
    open(out, "wb").write(lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload))


def make_initrd(cache):
    root, out = f"{cache}/initrd", f"{cache}/initrd.cpio"
    shutil.rmtree(root, ignore_errors=True)
    for d in ("bin", "proc", "dev"):
        os.makedirs(f"{root}/{d}")
    shutil.copy("/bin/busybox", f"{root}/bin/busybox")
    os.symlink("busybox", f"{root}/bin/sh")
    open(f"{root}/init", "w").write(INIT)
    os.chmod(f"{root}/init", 0o755)
    subprocess.run(f"cd {root} && find . | cpio -o -H newc --quiet > {out}", shell=True, check=True)
    return out


def cpu_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if b"INIT-REACHED" not in run.stdout or run.returncode != 0:
        sys.stderr.buffer.write(run.stdout[-3000:])
        sys.exit(f"boot.py: {command[0]} did not reach init and power off (status {run.returncode})")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(what, seconds):
    ours, same, peer = seconds
    print(f"{what}: ours {ours:.2f} s, ratio {ours / peer:.2f}; ours given the unpacked kernel {same:.2f} s, ratio {same / peer:.2f}; "
          f"QEMU TCG {peer:.2f} s", flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--hva", required=True)
    ap.add_argument("--cache", required=True)
    ap.add_argument("--rounds", type=int, default=5)
    o = ap.parse_args()
    cache = os.path.abspath(o.cache)
    kernel = fetch_kernel(cache)
    unpack_elf(kernel, f"{cache}/vmlinux")
    initrd = make_initrd(cache)
    append = "console=ttyS0 panic=-1"
    ours = [o.hva, "boot", "--engine", "soft", "--no-window", "--serial", "stdio", "--memory", "1G",
            "--kernel", kernel, "--initrd", initrd, "--append", append]
    peer = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-nographic", "-no-reboot", "-nic", "none",
            "-kernel", f"{cache}/vmlinux", "-initrd", initrd, "-append", append]
    same = [f"{cache}/vmlinux" if arg == kernel else arg for arg in ours]
    rounds = []
    for i in range(o.rounds):
        rounds.append([cpu_seconds(command) for command in (ours, same, peer)])
        report(f"round {i + 1}", rounds[-1])
    report("median", [statistics.median(column) for column in zip(*rounds)])


if __name__ == "__main__":
    main()
