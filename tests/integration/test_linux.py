# SPDX-License-Identifier: MIT
"""A real Linux on bare `hva boot`, serial line on pipes: the kernel of tiny.hva with an initramfs of busybox alone.

Both ways into the kernel (bzImage, PVH), and both ways out (power-off, reset). Environment: HVA_BIN, HVA_TINY; without that
document (build it by "hva build tiny tiny.hva") all is skipped. truth.py is about tiny.hva as a document.
"""
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tarfile

import harness

INIT = """#!/bin/sh
echo "init reached, $(nproc) processor"
read line
echo "heard: $line"
exec /bin/busybox %s -f
"""


class Linux(harness.Case):
    document = os.environ.get('HVA_TINY', '')
    busybox = shutil.which('busybox')

    def setUp(self):
        super().setUp()
        with tarfile.open(self.document) as tar, open(self.path('bzimage'), 'wb') as out:
            shutil.copyfileobj(tar.extractfile('boot/kernel'), out)

    def elf(self):
        """The ELF inside the bzImage (boot protocol: payload_offset and payload_length): it enters by PVH."""
        with open(self.path('bzimage'), 'rb') as f:
            data = f.read()
        start = (data[0x1F1] + 1) * 512
        offset, length = struct.unpack_from('<II', data, 0x248)
        with open(self.path('vmlinux'), 'wb') as f:
            f.write(lzma.decompress(data[start + offset:start + offset + length - 4]))
        return self.path('vmlinux')

    def initramfs(self, end):
        root = self.path('root')
        for name in ('bin', 'dev', 'proc'):
            os.makedirs(f'{root}/{name}')
        shutil.copy(self.busybox, root + '/bin/busybox')
        for name in ('sh', 'nproc'):
            os.symlink('busybox', f'{root}/bin/{name}')
        with open(root + '/init', 'w') as f:
            f.write(INIT % end)
        os.chmod(root + '/init', 0o755)
        with open(self.path('initramfs'), 'wb') as out:
            subprocess.run('find . | cpio -o -H newc --quiet', shell=True, cwd=root, stdout=out, check=True)
        return self.path('initramfs')

    def boot_until(self, end, kernel, *args):
        """From the first line to the end, which is the guest's own; --timeout ends what hangs."""
        p = subprocess.Popen([harness.BIN + '/hva', 'boot', '--engine', 'soft', '--no-window', '--kernel', kernel,
                              '--initrd', self.initramfs(end), '--append', 'console=ttyS0 panic=-1 quiet', '--memory', '256M',
                              '--timeout', '150', *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, errors='replace', env=self.env, cwd=self.dir)
        seen = line = p.stdout.readline()
        while line and 'init reached, 1 processor' not in line:
            line = p.stdout.readline()
            seen += line
        out, err = p.communicate('one two three\n' if line else None)
        self.assertEqual(p.returncode, 0, f'{seen + out!r} {err!r}')
        self.assertIn('init reached', line)
        self.assertIn('heard: one two three', out)
        self.assertEqual(err, '')

    def test_bzimage_to_power_off(self):
        self.boot_until('poweroff', self.path('bzimage'))

    def test_pvh_to_power_off(self):
        self.boot_until('poweroff', self.elf())

    def test_reboot_ends_the_run_if_told_so(self):
        self.boot_until('reboot', self.path('bzimage'), '--on-reset', 'exit')


if __name__ == '__main__':
    if not os.path.exists(Linux.document):
        print('skipped: no tiny.hva; build it with "hva build tiny tiny.hva" and name it by HVA_TINY')
        sys.exit(77)
    for tool in ('busybox', 'cpio'):
        if not shutil.which(tool):
            print(f'skipped: {tool} is not installed')
            sys.exit(77)
    harness.main()
