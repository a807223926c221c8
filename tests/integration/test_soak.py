# SPDX-License-Identifier: MIT
"""Soak: two processors under load for half an hour (HSK_LONG=1; HSK_SOAK_SECONDS for another time), the sums right in every
pass, and the machine process no bigger at the end than when it had warmed up.
"""
import os
import re
import subprocess
import sys

import harness
import linux_guest

SECONDS = int(os.environ.get('HSK_SOAK_SECONDS') or (1800 if os.environ.get('HSK_LONG') else 0))

INIT = """#!/bin/sh
busybox mount -t devtmpfs none /dev
busybox mount -t proc none /proc
sums() {
    busybox seq 1 5000 | busybox sort -rn | busybox md5sum
    busybox head -c 300000 /bin/busybox | busybox gzip -c | busybox gunzip -c | busybox sha256sum
    busybox find /proc/self /bin > /dev/null
}
now() { busybox cut -d. -f1 /proc/uptime; }
sums > /right
pass=0
while [ $(now) -lt %d ]; do
    sums > /a &
    sums > /b &
    wait
    busybox cmp /a /right && busybox cmp /b /right || echo "WRONG SUM in pass $pass"
    pass=$((pass + 1))
    echo "pass $pass"
done
echo "all passes done"
exec /bin/busybox poweroff -f
"""


def memory(keeper):
    """(anonymous, all) kilobytes of the machine process, which the keeper started."""
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            text = harness.read(f'/proc/{pid}/status')
        except OSError:
            continue
        if 'Name:\thva-machine' in text and re.search(rf'^PPid:\t{keeper}$', text, re.M):
            found = [re.search(rf'^{name}:\s+(\d+)', text, re.M) for name in ('RssAnon', 'VmRSS')]
            return tuple(int(f[1]) for f in found) if all(found) else None
    return None


class Soak(linux_guest.LinuxGuest):
    def test_two_processors_under_load(self):
        p = subprocess.Popen(self.command(self.elf(), self.initramfs(INIT % SECONDS), '--cpus', '2', timeout=2 * SECONDS + 120),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace',
                             env=self.env, cwd=self.dir)
        self.addCleanup(p.kill)
        samples, passes = [], 0
        for line in p.stdout:
            self.assertNotIn('WRONG SUM', line)
            if line.startswith('pass '):
                passes += 1
                samples += filter(None, [memory(p.pid)])
        p.stdout.close()
        self.assertEqual(p.wait(), 0)
        self.assertGreaterEqual(passes, 4)
        warm, last = samples[len(samples) // 4], samples[-2]
        print(f'{passes} passes; anonymous memory {samples[0][0]} kB at first, {warm[0]} kB warm, {last[0]} kB at the end; '
              f'resident {samples[0][1]}, {warm[1]}, {last[1]} kB')
        self.assertLess(last[0], warm[0] + max(warm[0] // 10, 4096))


if __name__ == '__main__':
    if not SECONDS:
        print('skipped: only with HSK_LONG=1')
        sys.exit(77)
    linux_guest.main()
