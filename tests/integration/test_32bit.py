# SPDX-License-Identifier: MIT
"""Whole 32-bit programs on the software engine: a Debian kernel of the i386 architecture, and memtest86+ in both widths.

The packages are downloaded once (packages.py); without them all is skipped. Environment: HVA_BIN.
"""
import os
import re
import shutil
import subprocess
import sys

import harness
import packages

INIT = """#!/bin/sh
/bin/busybox mount -t proc proc /proc
echo "init reached: $(/bin/busybox uname -m), $(/bin/busybox nproc) processors"
read line
echo "heard: $line"
/bin/busybox grep ttyS0 /proc/interrupts
exec /bin/busybox reboot -f
"""


class Guest(harness.Case):
    def file(self, pattern, *args, **kwargs):
        """That file of a package."""
        try:
            deb = packages.fetch(*args, **kwargs)
        except packages.Missing as e:
            self.skipTest(str(e))
        return packages.unpack(deb, pattern, self.path('from.' + os.path.basename(deb)))


class Linux(Guest):
    def initramfs(self):
        root = self.path('initramfs.d')
        for name in ('bin', 'dev', 'proc'):
            os.makedirs(f'{root}/{name}')
        shutil.copy(self.file('bin/busybox$', 'busybox-static', 'i386'), root + '/bin/busybox')
        os.chmod(root + '/bin/busybox', 0o755)
        os.symlink('busybox', root + '/bin/sh')
        with open(root + '/init', 'w') as f:
            f.write(INIT)
        os.chmod(root + '/init', 0o755)
        with open(self.path('initramfs'), 'wb') as out:
            subprocess.run('find . | cpio -o -H newc --quiet', shell=True, cwd=root, stdout=out, check=True)
        return self.path('initramfs')

    def boot_to_init(self, append, *args):
        kernel = self.file('boot/vmlinuz', 'linux-image-[0-9]*-686', 'i386', meta='linux-image-686')
        out, _ = self.hva('boot', '--engine', 'soft', '--no-window', '--memory', '256M', '--initrd', self.initramfs(),
                          '--kernel', kernel, '--append', 'console=ttyS0 panic=-1 quiet ' + append,
                          '--on-reset', 'exit', '--timeout', '150', *args, input='one two three\n', timeout=200)
        self.assertIn('heard: one two three', out)
        return out

    def test_32_bit_kernel_reaches_its_init(self):
        self.assertIn('init reached: i686, 1 processors', self.boot_to_init(''))

    def test_without_acpi_the_mp_table_leads_to_the_io_apic(self):
        out = self.boot_to_init('acpi=off', '--cpus', '2')
        self.assertIn('init reached: i686, 2 processors', out)
        self.assertRegex(out, r'4: .*[1-9]\d* +IO-APIC +4-edge +ttyS0')

    def test_with_neither_the_8259_interrupts(self):
        self.assertRegex(self.boot_to_init('acpi=off noapic nolapic'), r'4: +[1-9]\d* +XT-PIC +ttyS0')


class Memtest(Guest):
    """The screen comes every two seconds: a test may have ended without being shown."""

    def run_to_the_sixth(self, name, *args):
        out, _ = self.hva('boot', '--engine', 'soft', '--no-window', '--memory', '32M', '--append', 'console=ttyS0,115200',
                          '--kernel', self.file(re.escape('/' + name), 'memtest86+'), '--exit-on', r'#([6-9]|10) +\[',
                          '--timeout', '100', *args, timeout=150)
        self.assertIn('Errors: 0', out)
        self.assertIsNone(re.search(r'Errors: +[1-9]|Unexpected|FAIL', out), out[-2000:])
        return out

    def test_32_bits(self):
        self.run_to_the_sixth('memtest86+ia32.bin')

    def test_64_bits_on_two_processors(self):
        self.assertIn('SMP: 2T', self.run_to_the_sixth('memtest86+x64.bin', '--cpus', '2'))


if __name__ == '__main__':
    for tool in ('cpio', 'apt-get', 'dpkg-deb'):
        if not shutil.which(tool):
            print(f'skipped: {tool} is not installed')
            sys.exit(77)
    harness.main()
