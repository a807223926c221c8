# SPDX-License-Identifier: MIT
"""The computer's disk runs full: a snapshot is refused, the timeline waits, the machine pauses instead of failing, and nothing is lost.

Needs a small file system of its own: runs in a mount namespace, or, as root where there is none (in a chroot), mounts it in place.
"""
import os
import subprocess
import sys
import tempfile
import time

import harness
from test_document import Document


class FullDisk(Document):
    def mount(self, size, *options):
        subprocess.run(['mount', '-t', 'tmpfs', '-o', ','.join([*options, 'size=' + size]), 'none', self.env['XDG_DATA_HOME']], check=True)

    def leave(self, store, left):
        """False if it grew meanwhile: some things are stored behind an answer."""
        st = os.statvfs(store)
        used = (st.f_blocks - st.f_bfree) * st.f_frsize
        try:
            self.mount(str(used + left), 'remount')
        except subprocess.CalledProcessError:
            return False
        return True

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

    def test_full_stick_is_told_to_whoever_takes_it_along(self):
        """The document is on it; what does not fit is kept here, and nobody is told that it is there."""
        stick = self.path('stick')
        os.mkdir(stick)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', stick], check=True)
        self.addCleanup(subprocess.run, ['umount', '-l', stick])
        doc = self.create(os.path.join(stick, 'doc.hva'))
        m = harness.Running(self, doc)
        first = self.change(m, 'FIRSTONE')
        self.sentence(self.hva('snapshot', doc, 'first', '--wait', status=1)[1], 'not in the document', 'disk is full')
        second = self.change(m, 'SECONDON')
        self.json('revert', doc, 'first')
        self.assertEqual(self.state(m), first)
        self.json('undo', doc)
        self.sentence(self.hva('clone', doc, os.path.join(stick, 'clone.hva'), status=1)[1], 'disk is full')
        self.sentence(self.hva('stop', doc, status=1)[1], 'not in the document', 'disk is full')
        self.assertEqual(m.wait()[0], 0)
        self.sentence(self.hva('rename', doc, 'first', 'another', status=1)[1], 'noted on this computer', 'disk is full')
        self.hva('verify', doc)
        self.assertEqual(os.listdir(stick), ['doc.hva'])
        subprocess.run(['mount', '-o', 'remount,size=20m', stick], check=True)
        m = harness.Running(self, doc)
        self.assertEqual(self.state(m), second)
        self.json('revert', doc, 'another')
        self.assertEqual(self.state(m), first)
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(doc)
        self.hva('verify', doc)

    def test_whatever_space_is_left_nothing_is_lost(self):
        """Each operation with a little more space than the last time, until it fits; the guest writes its disk meanwhile."""
        store = self.env['XDG_DATA_HOME']
        self.mount('60m')
        self.addCleanup(subprocess.run, ['umount', '-l', store])
        doc = self.create()
        m = harness.Running(self, doc)
        states = {'first': self.change(m, 'FIRSTONE')}
        self.json('snapshot', doc, 'first')
        states['second'] = self.change(m, 'SECONDON')
        self.json('snapshot', doc, 'second')
        now = 'second'
        for operation in 'snapshot', 'revert', 'undo', 'stop':
            left, done = 0, False
            while not done:
                to = now if operation in ('snapshot', 'stop') else 'first' if now == 'second' else 'second'
                if operation == 'undo':
                    self.json('revert', doc, to)
                    self.json('snapshot', doc, f'behind it {left}')  # what was parked is stored
                    now, to = to, now
                self.wait_for(lambda: self.leave(store, left))
                command = {'snapshot': ['snapshot', doc, '--wait'], 'revert': ['revert', doc, to]}.get(operation, [operation, doc])
                p = subprocess.run([harness.BIN + '/hva', *command], capture_output=True, text=True, env=self.env, timeout=harness.PATIENCE)
                done = p.returncode == 0
                if not done:
                    self.sentence(p.stderr, 'disk is full')
                if operation == 'stop' and done:
                    m.wait()
                    self.mount('60m', 'remount')
                    m = harness.Running(self, doc)
                else:
                    with m.console() as c:
                        c.send('D' + states[to if done else now][2])
                        # It fits, or the machine waits until it does.
                        while self.json('info', doc)['state'] != 'paused':
                            try:
                                c.expect('ok', timeout=0.2)
                                break
                            except AssertionError:
                                pass
                        self.mount('60m', 'remount')
                        if self.json('info', doc)['state'] == 'paused':
                            self.assertIn('disk is full', self.json('info', doc)['text'])
                            self.hva('resume', doc)
                            c.expect('ok')
                now = to if done else now
                self.assertEqual(self.state(m), states[now], f'{operation} with {left} bytes left')
                left = left + 16384 if os.environ.get('HSK_LONG') else max(4096, left * 4)
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(doc)
        self.hva('verify', doc)

    def test_the_timeline_leaves_room(self):
        """A checkpoint would fit, but the guest is to have what is left."""
        store = self.env['XDG_DATA_HOME']
        self.mount('200m')
        self.addCleanup(subprocess.run, ['umount', '-l', store])
        doc = self.create()
        self.hva('timeline', doc, 'every', '2')
        m = harness.Running(self, doc)

        def points():
            return len(self.json('log', doc, '--timeline'))

        self.change(m, 'FIRSTONE')
        self.wait_for(points)
        self.wait_for(lambda: self.leave(store, 48 << 20))
        time.sleep(3)  # one may be under way
        before = points()
        for i in range(3):
            state = self.change(m, f'NOPOINT{i}')
            time.sleep(2.1)
        self.assertEqual(points(), before)
        self.assertEqual(self.json('info', doc)['state'], 'running')
        # with room, and a step that makes it look at once
        self.mount('200m', 'remount')
        self.hva('timeline', doc, 'every', '1')
        self.wait_for(lambda: points() > before)
        self.assertEqual(self.state(m), state)
        self.hva('stop', doc)
        said = m.wait()[1]
        self.assertEqual(said.count('too little room for a checkpoint'), 1, said)


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
