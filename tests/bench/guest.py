# SPDX-License-Identifier: MIT
"""The guest of the snapshot figures: kernel and modules of tiny.hva, guest.c as its only program, this computer's /usr as its data.

All parts are made once and kept in the cache folder; a part is made again when what it is made of has changed.
"""
import glob
import hashlib
import os
import shutil
import stat
import subprocess
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
DATA_BYTES = 1024 * MIB
LOG_DISK = '256M'
INIT = """#!/bin/busybox sh
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
/bin/busybox mount -t devtmpfs dev /dev
exec /bench/guest
"""


def shell(command, **kw):
    subprocess.run(command, shell=True, check=True, **kw)


def key(*parts):
    h = hashlib.sha256()
    for part in parts:
        if isinstance(part, str) and os.path.isfile(part):
            with open(part, 'rb') as f:
                h.update(f.read())
        else:
            h.update(repr(part).encode())
    return h.hexdigest()[:12]


def cached(folder, name, *made_of):
    """Where a thing that is made of these belongs; what was made of others goes."""
    path = f'{folder}/{name}-{key(*made_of)}'
    for old in glob.glob(f'{folder}/{name}-*'):
        if old != path:
            os.remove(old)
    return path


def libraries(program):
    out = subprocess.run(['ldd', program], capture_output=True, text=True, check=True).stdout
    return [word for line in out.splitlines() for word in line.split() if word.startswith('/')]


def compiler():
    return subprocess.run(['gcc', '-print-prog-name=cc1'], capture_output=True, text=True, check=True).stdout.strip()


def copy_into(root, source, name):
    os.makedirs(os.path.dirname(f'{root}/{name}'), exist_ok=True)
    shutil.copy(source, f'{root}/{name}')


class Guest:
    """kernel, initrd, data (raw), log_disk (raw): paths."""

    def __init__(self, cache, tiny):
        self.cache, self.tiny = os.path.abspath(cache), tiny
        os.makedirs(self.cache, exist_ok=True)
        self.kernel, self.initrd = (cached(self.cache, name, tiny, f'{HERE}/guest.c', INIT) for name in ('kernel', 'initrd'))
        self.data, self.log_disk = f'{self.cache}/data-{DATA_BYTES // MIB}.raw', f'{self.cache}/log-{LOG_DISK}.raw'
        if not os.path.exists(self.initrd):
            self.make_boot()
        if not os.path.exists(self.data):
            self.made(self.data, make_data, DATA_BYTES)
        if not os.path.exists(self.log_disk):
            self.made(self.log_disk, lambda path: shell(f'PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 {path} {LOG_DISK}'))

    @staticmethod
    def made(path, make, *args):
        make(path + '.new', *args)
        os.rename(path + '.new', path)

    def make_boot(self):
        root = f'{self.cache}/root'
        shutil.rmtree(root, ignore_errors=True)
        for name in ('bench', 'tmp', 'disk', 'proc', 'dev'):
            os.makedirs(f'{root}/{name}')
        shell(f'gcc -std=gnu17 -O2 -Wall -Wextra -Wno-unused-parameter -Werror -static -pthread -o {root}/bench/guest {HERE}/guest.c')
        shell(f'gcc -std=gnu17 -E {HERE}/guest.c -o {root}/bench/job.i')
        copy_into(root, compiler(), 'bench/cc1')
        for library in libraries(compiler()):
            copy_into(root, library, library.lstrip('/'))
        with open(f'{root}/init', 'w') as f:
            f.write(INIT)
        os.chmod(f'{root}/init', 0o755)
        with tarfile.open(self.tiny) as tar:
            for member, path in ('boot/kernel', self.kernel), ('boot/initrd', self.initrd + '.new'):
                with open(path, 'wb') as out:
                    shutil.copyfileobj(tar.extractfile(member), out)
        # The kernel unpacks one archive after the other; the later /init replaces the earlier one.
        with open(self.initrd + '.new', 'ab') as out:
            out.write(bytes(-out.tell() % 4))
            subprocess.run('find . | cpio -o -H newc --quiet', shell=True, cwd=root, stdout=out, check=True)
        os.rename(self.initrd + '.new', self.initrd)
        shutil.rmtree(root)


def real_files():
    """Programs, libraries, text: in turn from several folders of /usr, biggest files cut, so that no kind rules."""
    queues = []
    for folder in ('bin', 'include', 'lib', 'share', 'sbin', 'libexec'):
        names = sorted(os.path.join(d, f) for d, _, files in os.walk('/usr/' + folder) for f in files)
        queues.append(iter(names))
    while queues:
        for queue in list(queues):
            name = next(queue, None)
            if name is None:
                queues.remove(queue)
            elif stat.S_ISREG(os.lstat(name).st_mode):
                yield name


def make_data(path, size):
    """Files back to back, and between them zeros: a quarter of the whole, as in the memory of a computer in use."""
    with open(path, 'wb') as out:
        while out.tell() < size:
            before = out.tell()
            for name in real_files():
                with open(name, 'rb') as f:
                    piece = f.read(8 * MIB)
                pad = -len(piece) % 4096
                out.write(piece + bytes(pad + (len(piece) + pad) // 3 // 4096 * 4096))
                if out.tell() >= size:
                    break
            if out.tell() == before:
                raise RuntimeError('/usr holds no files')
        out.truncate(size)


def real_data(path, size, seek_every=0):
    """size bytes of real files; with seek_every they lie in pieces of 64 KiB that far apart."""
    left = size
    with open(path, 'r+b') as out:
        for name in real_files():
            with open(name, 'rb') as f:
                while left:
                    piece = f.read(min(65536, left))
                    if not piece:
                        break
                    piece += bytes(-len(piece) % 4096)
                    out.write(piece)
                    left -= min(len(piece), left)
                    if seek_every:
                        out.seek(seek_every, os.SEEK_CUR)
            if not left:
                return
