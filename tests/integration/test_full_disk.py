# SPDX-License-Identifier: MIT
"""The computer's disk runs full: a snapshot is refused, the machine pauses instead of failing, and nothing is lost.

Needs a small file system of its own: runs in a mount namespace, or, as root where there is none (in a chroot), mounts it in place.
"""
import os
import subprocess
import sys
import tempfile

import harness
from test_document import Document


class FullDisk(Document):
    def mount(self, size, *options):
        subprocess.run(['mount', '-t', 'tmpfs', '-o', ','.join([*options, 'size=' + size]), 'none', self.env['XDG_DATA_HOME']], check=True)

    def test_full_disk_pauses_the_machine_and_loses_nothing(self):
        doc = self.create()
        self.mount('2m')
        self.addCleanup(subprocess.run, ['umount', '-l', self.env['XDG_DATA_HOME']])
        m = harness.Running(self, doc)
        state = self.change(m, 'FIRSTONE')
        self.sentence(self.hva('snapshot', doc, 'too big', status=1)[1], 'disk is full')
        self.assertEqual(self.json('log', doc), [])
        self.assertEqual(self.state(m), state)
        with m.console() as c:
            for _ in range(8):
                c.send('b')
                try:
                    c.expect('ok', timeout=1)
                except AssertionError:
                    break
            else:
                self.fail('the disk never ran full')
            info = self.json('info', doc)
            self.assertEqual(info['state'], 'paused')
            self.assertIn('disk is full', info['text'])
            self.sentence(self.hva('snapshot', doc, 'still too big', status=1)[1], 'resume')
            self.mount('60m', 'remount')
            self.hva('resume', doc)
            c.expect('ok')
        state = self.state(m)
        self.json('snapshot', doc, 'fits')
        self.change(m, 'SECONDON')
        self.json('revert', doc)
        self.assertEqual(self.state(m), state)
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)


def can_mount(*prefix):
    with tempfile.TemporaryDirectory() as place:
        if subprocess.run([*prefix, 'mount', '-t', 'tmpfs', 'none', place], capture_output=True).returncode:
            return False
        if not prefix:
            subprocess.run(['umount', place], check=True)
        return True


if __name__ == '__main__':
    if 'HVA_NAMESPACE' not in os.environ:
        os.environ['HVA_NAMESPACE'] = '1'
        unshare = ['unshare', '-m'] if os.geteuid() == 0 else ['unshare', '-rm']
        if can_mount(*unshare):
            os.execvp('unshare', [*unshare, sys.executable, *sys.argv])
        if not can_mount():
            print('skipped: neither a mount namespace nor a mount is allowed here')
            sys.exit(77)
    harness.main()
