# SPDX-License-Identifier: MIT
"""Figures of the file alone: what hva create makes of a sparse and of a real disk, beside qemu-img and tar; how fast a big one opens."""
import json
import os
import resource
import shutil
import subprocess
import time

from guest import MIB, cached, real_data
from machines import Refused, disk_usage

GB = 1000 ** 3


def measured(command, **kw):
    """(CPU seconds, seconds) of a program and its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    p = subprocess.run(command, capture_output=True, text=True, errors='replace', **kw)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if p.returncode:
        raise Refused(f'{command[0]}: {p.stderr.strip()[-300:]}')
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - start


def folder(bench, name):
    path = f'{bench.folder}/{name}'
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def small_kernel(bench, path):
    """A few hundred bytes that pass for a kernel: only the disk is to be measured."""
    found = f'{os.path.dirname(bench.bin)}/tests/integration/kernel.elf'
    shutil.copy(found if os.path.exists(found) else bench.guest().kernel, path)
    return path


def sparse(bench):
    """100 GB with 60 MB in it: real files in pieces of 64 KiB all over the disk; noise, which does not compress, in pieces of 1 MB."""
    work = folder(bench, 'files')
    try:
        kernel = small_kernel(bench, work + '/kernel')
        for kind in 'files', 'noise':
            raw, out = f'{work}/{kind}.raw', f'{work}/{kind}.hva'
            with open(raw, 'wb') as f:
                f.truncate(100 * GB)
                for i in range(60 if kind == 'noise' else 0):
                    f.seek(i * 1600 * MIB)
                    f.write(os.urandom(10 ** 6))
            if kind == 'files':
                real_data(raw, 60 * 10 ** 6, 100 * MIB)
            held = disk_usage(raw)
            cpu, wall = measured([bench.hva, 'create', '--kernel', kernel, '--disk', raw, out])
            size = os.path.getsize(out) - os.path.getsize(kernel)
            bench.results.add('sparse' if kind == 'files' else 'sparse-noise', held=held, bytes=size, cpu_s=cpu, wall_s=wall)
            os.remove(raw)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def info(bench):
    """A bundle of 2 GB, warm: from exec of hva info to its end, and the product's own figure if it prints one."""
    os.makedirs(f'{bench.folder}/cache', exist_ok=True)
    path = cached(f'{bench.folder}/cache', '2gb', bench.hva)
    if not os.path.exists(path):
        raw = path + '.raw'
        with open(raw, 'wb') as f:
            for _ in range(2 * GB // (64 * 10 ** 6) + 1):
                f.write(os.urandom(64 * 10 ** 6))
        kernel = small_kernel(bench, path + '.kernel')
        measured([bench.hva, 'create', '--force', '--kernel', kernel, '--disk', raw, path + '.new'])
        os.rename(path + '.new', path)
        os.remove(raw)
        os.remove(kernel)
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    p = subprocess.run([bench.hva, 'info', '--json', path], capture_output=True, text=True)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if p.returncode:
        raise Refused(p.stderr.strip())
    start = time.monotonic()
    subprocess.run([bench.hva, 'info', '--help'], capture_output=True)
    empty = time.monotonic() - start
    bench.results.add('info', wall_ms=wall * 1e3, empty_ms=empty * 1e3, verified_ms=json.loads(p.stdout).get('verified_ms'),
                      cpu_ms=(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3, size=os.path.getsize(path))


def debian_root(bench):
    """A small Debian as a raw ext4 disk; without mmdebstrap or a network a gigabyte of this computer's /usr."""
    tar, raw = f'{bench.folder}/cache/debian-root.tar', f'{bench.folder}/cache/debian-root.raw'
    if os.path.exists(raw):
        return raw
    root = folder(bench, 'root')
    try:
        if not os.path.exists(tar) and shutil.which('mmdebstrap'):
            subprocess.run(['mmdebstrap', '--quiet', '--variant=important', 'bookworm', tar + '.new'], timeout=900, check=False)
            if os.path.exists(tar + '.new'):
                os.rename(tar + '.new', tar)
        if os.path.exists(tar):
            subprocess.run(['tar', '-C', root, '-xf', tar, '--exclude=./dev/*'], check=True)
        else:
            with open(root + '/usr-files', 'wb') as f:
                f.truncate(1)
            real_data(root + '/usr-files', 1000 * MIB)
        subprocess.run(f'PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -d {root} {raw}.new 4G', shell=True, check=True)
        os.rename(raw + '.new', raw)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return raw


def root(bench):
    """Sizes and CPU of the same disk in each tool's way. The kernel of the document is counted off."""
    raw, work = debian_root(bench), folder(bench, 'files')
    try:
        kernel = small_kernel(bench, work + '/kernel')
        ways = {
            'ours': [bench.hva, 'create', '--kernel', kernel, '--disk', raw, work + '/out'],
            'qemu-img -c zlib': ['qemu-img', 'convert', '-c', '-O', 'qcow2', raw, work + '/out'],
            'qemu-img -c zstd': ['qemu-img', 'convert', '-c', '-O', 'qcow2', '-o', 'compression_type=zstd', raw, work + '/out'],
            'zstd of its files as tar': ['zstd', '-q', '-3', f'{bench.folder}/cache/debian-root.tar', '-o', work + '/out'],
            'tar.zst of the disk': ['tar', '-S', '-I', 'zstd -3', '-cf', work + '/out', '-C', os.path.dirname(raw), os.path.basename(raw)],
        }
        if not os.path.exists(f'{bench.folder}/cache/debian-root.tar'):
            del ways['zstd of its files as tar']
        for way, command in ways.items():
            cpu, wall = measured(command)
            size = os.path.getsize(work + '/out') - (os.path.getsize(kernel) if way == 'ours' else 0)
            bench.results.add('root' if way == 'ours' else 'root-' + way, held=disk_usage(raw), bytes=size, cpu_s=cpu, wall_s=wall)
            os.remove(work + '/out')
    finally:
        shutil.rmtree(work, ignore_errors=True)
