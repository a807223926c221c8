# SPDX-License-Identifier: MIT
"""A real Linux whose processor is disturbed at random (`hva boot --chaos SEED`: flushes, evictions, kicks, the state saved and
loaded between any two blocks) while its programs compute sums that are known here. More seeds with HSK_LONG=1.
"""
import hashlib
import os
import subprocess

import linux_guest

INIT = """#!/bin/sh
busybox mount -t devtmpfs none /dev
busybox seq 1 20000 > /numbers
sums() {
    echo "seq $(busybox md5sum < /numbers)"
    echo "file $(busybox sha256sum < /bin/busybox)"
    echo "packed $(busybox gzip -c /bin/busybox | busybox gunzip -c | busybox sha512sum)"
    echo "sorted $(busybox sort -rn /numbers | busybox sort -n | busybox sha1sum)"
    echo "real $(busybox awk 'BEGIN { for (i = 1; i <= 30000; i++) s += i / 3; printf "%.10f", s }')"
}
sums > /first &
sums > /second
wait
busybox cmp /first /second && echo "the same twice"
busybox cat /first
exec /bin/busybox poweroff -f
"""


class Chaos(linux_guest.LinuxGuest):
    def expected(self):
        numbers = ''.join(f'{i}\n' for i in range(1, 20001)).encode()
        with open(self.busybox, 'rb') as f:
            program = f.read()
        total = 0.0
        for i in range(1, 30001):
            total += i / 3
        return ['the same twice', f'seq {hashlib.md5(numbers).hexdigest()}', f'file {hashlib.sha256(program).hexdigest()}',
                f'packed {hashlib.sha512(program).hexdigest()}', f'sorted {hashlib.sha1(numbers).hexdigest()}', f'real {total:.10f}']

    def setUp(self):
        super().setUp()
        self.files = self.elf(), self.initramfs(INIT)

    def disturbed(self, *args):
        p = subprocess.run(self.command(*self.files, *args, timeout=900), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           errors='replace', env=self.env, cwd=self.dir)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        for line in self.expected():
            self.assertIn(line, p.stdout)

    def test_one_processor(self):
        self.disturbed('--chaos', '1')

    def test_two_processors(self):
        self.disturbed('--chaos', '2', '--cpus', '2')

    def test_more_seeds(self):
        for seed in range(10, 18 if os.environ.get('HSK_LONG') else 10):
            with self.subTest(seed=seed):
                self.disturbed('--chaos', str(seed), '--cpus', str(1 + seed % 3))


if __name__ == '__main__':
    linux_guest.main()
