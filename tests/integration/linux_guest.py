# SPDX-License-Identifier: MIT
"""A real Linux for tests on bare `hva boot`: the kernel of tiny.hva with an initramfs of busybox and an init of the test's own."""
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tarfile

import harness


class LinuxGuest(harness.Case):
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

    def initramfs(self, init, *applets):
        root = self.path('root')
        for name in ('bin', 'dev', 'proc'):
            os.makedirs(f'{root}/{name}')
        shutil.copy(self.busybox, root + '/bin/busybox')
        for name in ('sh', *applets):
            os.symlink('busybox', f'{root}/bin/{name}')
        with open(root + '/init', 'w') as f:
            f.write(init)
        os.chmod(root + '/init', 0o755)
        with open(self.path('initramfs'), 'wb') as out:
            subprocess.run('find . | cpio -o -H newc --quiet', shell=True, cwd=root, stdout=out, check=True)
        return self.path('initramfs')

    def command(self, kernel, initramfs, *args, timeout=150):
        """hva boot; --timeout ends what hangs."""
        return [harness.BIN + '/hva', 'boot', '--engine', 'soft', '--no-window', '--kernel', kernel, '--initrd', initramfs,
                '--append', 'console=ttyS0 panic=-1 quiet', '--memory', '256M', '--timeout', str(timeout), *args]


def main():
    if not os.path.exists(LinuxGuest.document):
        print('skipped: no tiny.hva; ./dev run builds it, templates/tiny/build.sh too; or name one by HVA_TINY')
        sys.exit(77)
    for tool in ('busybox', 'cpio'):
        if not shutil.which(tool):
            print(f'skipped: {tool} is not installed')
            sys.exit(77)
    harness.main()
