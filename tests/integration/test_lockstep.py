# SPDX-License-Identifier: MIT
"""A real Linux boots and computes while one in so many of its blocks is run a second time in strict mode and compared
(`hva boot --lockstep N`, vmm/engine-soft/lockstep.c). More of them with HSK_LONG=1.
"""
import os
import re
import subprocess

import linux_guest

INIT = """#!/bin/sh
busybox seq 1 3000 | busybox sort -rn | busybox md5sum
busybox head -c 40000 /bin/busybox | busybox gzip -c | busybox sha256sum
exec /bin/busybox poweroff -f
"""


class Lockstep(linux_guest.LinuxGuest):
    def test_blocks_agree_with_strict_mode(self):
        long = os.environ.get('HSK_LONG')
        p = subprocess.run(self.command(self.elf(), self.initramfs(INIT), '--stats', '--lockstep', '30' if long else '1000', timeout=3000),
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace', env=self.env, cwd=self.dir)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        compared = int(re.search(r'^soft-compared (\d+)', p.stderr, re.M)[1])
        print(f'{compared} blocks compared')
        self.assertGreater(compared, 100000)


if __name__ == '__main__':
    linux_guest.main()
