# SPDX-License-Identifier: MIT
"""What a real Linux finds when it goes on from a saved state: its clock (caught up, or frozen by setting) and its
generation id, by which it renews its random numbers. The kernel of tiny.hva with an initramfs of busybox alone."""
import random
import shutil
import time

import harness
import linux_guest

INIT = """#!/bin/sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
mkdir /sys
/bin/busybox mount -t sysfs sys /sys
dmesg -n 1
stty -echo
PS1=
echo "the shell is there"
exec /bin/sh
"""
PAUSE = 4
FORK = 'crng reseeded due to virtual machine fork'


class Restore(linux_guest.LinuxGuest):
    def start(self, *args):
        m = harness.Running(self, self.doc, *args)
        self.addCleanup(m.kill)
        return m

    def shell(self, m, command):
        """What the command prints; the prompt of the one before may come late."""
        mark = random.randrange(1 << 32)
        with m.console() as c:
            c.send(f'echo "<$((0x{mark:x}))"; {command}; echo "$((0x{mark:x}))>"\n')
            return c.expect(rf'(?s)<{mark}\r?\n(.*?){mark}>')[1].replace('\r', '').strip()

    def create(self):
        self.doc = self.path('doc.hva')
        root = self.initramfs(INIT, 'mount', 'mkdir', 'dmesg', 'stty', 'date', 'cat', 'grep', 'ls')
        self.hva('create', self.doc, '--kernel', self.path('bzimage'), '--initrd', root, '--append',
                 'console=ttyS0 panic=-1 quiet softlockup_panic=1', '--memory', '256M')
        m = self.start()
        with m.console() as c:
            c.expect('the shell is there', timeout=180)
        return m

    def lag(self, m):
        """How far the guest's UTC is behind the host's, in whole seconds."""
        before = time.time()
        guest = int(self.shell(m, 'date +%s').split()[-1])
        return round((before + time.time()) / 2 - guest - 0.5)

    def forks(self, m):
        return int(self.shell(m, f"dmesg | grep -c '{FORK}'").split()[-1])

    def warnings(self, m):
        return self.shell(m, "dmesg | grep -E 'soft lockup|rcu.*stall|hung task|unstable'")

    def test_clock_and_generation(self):
        m = self.create()
        self.assertIn('VGEN', self.shell(m, 'cat /sys/bus/acpi/devices/*/path'))
        self.assertIn(':', self.shell(m, 'ls /sys/bus/acpi/drivers/vmgenid'))
        self.assertEqual(self.forks(m), 0)
        self.assertLess(abs(self.lag(m)), 3)

        # caught up after a pause, a revert, an undo, and the end of a process
        self.hva('snapshot', self.doc, 'one')
        self.hva('pause', self.doc)
        time.sleep(PAUSE)
        self.hva('resume', self.doc)
        self.assertLess(abs(self.lag(m)), 3)
        self.assertEqual(self.forks(m), 0)
        self.hva('revert', self.doc)
        self.assertLess(abs(self.lag(m)), 3)
        self.assertEqual(self.forks(m), 1)
        self.hva('undo', self.doc)
        self.assertLess(abs(self.lag(m)), 3)
        self.assertEqual(self.forks(m), 1)
        self.hva('stop', self.doc)
        time.sleep(PAUSE)
        m = self.start()
        self.assertLess(abs(self.lag(m)), 3)
        # the same line goes on: nobody is told of a fork
        self.assertEqual(self.forks(m), 1)
        self.assertEqual(self.warnings(m), '')

        # frozen: the guest lives on at the time of the state, the RTC too
        self.assertEqual(self.json('clock', self.doc)['clock'], 'catch-up')
        self.hva('clock', self.doc, 'frozen')
        lag = self.lag(m)
        self.hva('revert', self.doc, 'one')
        behind = self.lag(m)
        self.assertGreater(behind, lag + 2 * PAUSE - 3)
        self.hva('stop', self.doc)
        time.sleep(PAUSE)
        self.assertEqual(self.json('clock', self.doc)['clock'], 'frozen')
        m = self.start()
        self.assertGreater(self.lag(m), behind + PAUSE - 2)
        # back to the present at once
        self.hva('clock', self.doc, 'catch-up')
        self.assertLess(abs(self.lag(m)), 3)
        self.assertEqual(self.warnings(m), '')
        self.hva('stop', self.doc)
        self.hva('clock', self.doc, 'frozen')
        self.hva('clock', self.doc, 'sometimes', status=2)
        self.assertEqual(self.json('clock', self.doc)['clock'], 'frozen')

    def test_a_copy_is_another_generation(self):
        m = self.create()
        self.hva('stop', self.doc)
        self.assertEqual(m.wait()[0], 0)
        shutil.copy(self.doc, self.path('copy.hva'))
        self.doc = self.path('copy.hva')
        m = self.start()
        self.assertEqual(self.forks(m), 1)
        self.hva('stop', self.doc)


if __name__ == '__main__':
    linux_guest.main()
