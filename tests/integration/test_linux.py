# SPDX-License-Identifier: MIT
"""A real Linux on bare `hva boot`, serial line on pipes: the kernel of tiny.hva with an initramfs of busybox alone.

Both ways into the kernel (bzImage, PVH), and both ways out (power-off, reset), on one processor and on several. Environment: HVA_BIN, HVA_TINY; without that
document (build it by "hva build tiny tiny.hva") all is skipped. truth.py is about tiny.hva as a document.
"""
import hashlib
import subprocess

import linux_guest

SUM = hashlib.md5(''.join(f'{i}\n' for i in range(1, 20001)).encode()).hexdigest()

INIT = """#!/bin/sh
/bin/busybox mount -t devtmpfs dev /dev
for i in $(seq $(nproc)); do seq 1 20000 | sort -rn | sort -n | md5sum > /sum$i & done
wait
echo "init reached, $(nproc) processors, $(cat /sum* | sort -u)"
read line
echo "heard: $line"
exec /bin/busybox %s -f
"""


class Linux(linux_guest.LinuxGuest):
    def boot_until(self, end, kernel, *args, cpus=1):
        """From the first line to the end, which is the guest's own."""
        p = subprocess.Popen(self.command(kernel, self.initramfs(INIT % end, 'nproc', 'seq', 'sort', 'md5sum', 'cat'), '--cpus',
                                          str(cpus), *args), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors='replace', env=self.env, cwd=self.dir)
        reached = f'init reached, {cpus} processors, {SUM}  -\n'
        seen = line = p.stdout.readline()
        while line and reached not in line.replace('\r', ''):
            line = p.stdout.readline()
            seen += line
        out, err = p.communicate('one two three\n' if line else None)
        self.assertEqual(p.returncode, 0, f'{seen + out!r} {err!r}')
        self.assertIn('heard: one two three', out)
        self.assertEqual(err, '')

    def test_bzimage_to_power_off(self):
        self.boot_until('poweroff', self.path('bzimage'))

    def test_pvh_to_power_off(self):
        self.boot_until('poweroff', self.elf())

    def test_two_processors(self):
        self.boot_until('poweroff', self.path('bzimage'), cpus=2)

    def test_eight_processors(self):
        self.boot_until('poweroff', self.elf(), cpus=8)

    def test_reboot_ends_the_run_if_told_so(self):
        self.boot_until('reboot', self.path('bzimage'), '--on-reset', 'exit')


if __name__ == '__main__':
    linux_guest.main()
