# SPDX-License-Identifier: MIT
"""Calls of the keeper fail while a machine runs: on its store, on its document, at each step of each operation.

Whatever fails, the machine goes on or is paused with a sentence, a refused operation has changed nothing, what was saved is
there, and nothing is left lying about.

Needs faultio.so (HVA_FAULTIO), which is not built with sanitizers.
"""
import errno
import mmap
import os
import struct
import subprocess
import sys
import time

import harness
from test_document import Document

FAULTIO = os.environ.get('HVA_FAULTIO', '')
LONG = bool(os.environ.get('HSK_LONG'))
OPEN, READ, WRITE, SYNC, NAMES, TRUNCATE = 1, 2, 4, 8, 16, 32
FOR_EVER = 0xffffffff


class Faults:
    """What faultio.c does in the processes that are started from now on: its struct control."""

    def __init__(self, case):
        path = case.path('faults')
        with open(path, 'wb') as f:
            f.truncate(4096)
        with open(path, 'r+b') as f:
            self.map = mmap.mmap(f.fileno(), 4096)
        case.addCleanup(self.map.close)
        case.env.update(LD_PRELOAD=FAULTIO, HVA_FAULTS=path)

    def set(self, below, calls, error, skip=0, fail=FOR_EVER, hold=False):
        self.clear()
        self.map[28:28 + len(below) + 1] = below.encode() + b'\0'
        self.map[:28] = struct.pack('7I', calls, error, skip, fail, 0, 0, hold)

    def let_go(self):
        self.map[24:28] = bytes(4)

    def clear(self):
        self.map[:4] = bytes(4)

    def failed(self):
        return struct.unpack_from('I', self.map, 20)[0]


class Faulty(Document):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self)
        self.store = self.env['XDG_DATA_HOME']

    def try_hva(self, *args):
        """True, or a refusal in one sentence, which self.refusal is."""
        p = subprocess.run([harness.BIN + '/hva', *args], capture_output=True, text=True, env=self.env, cwd=self.dir,
                           timeout=harness.PATIENCE)
        self.refusal = p.stderr
        if p.returncode:
            self.assertEqual(p.returncode, 1, args)
            self.sentence(p.stderr)
        return p.returncode == 0


class Operations(Faulty):
    def each_call_fails(self, calls, error, operation):
        """Runs the generator operation(i) with the n-th call behind its first yield failing, for n = 1.. until none fails."""
        n = runs = failed = 0
        while not runs or failed:
            steps = operation(runs)
            next(steps)
            self.faults.set(self.dir, calls, error, n, 1)
            next(steps)
            failed = self.faults.failed()
            self.faults.clear()
            next(steps, None)
            runs += 1
            n += 1 if LONG else 1 + n // 2
        return runs

    def operations(self, calls, error):
        doc = self.create()
        m = [harness.Running(self, doc)]
        state = self.change(m[0], 'FIRSTONE')
        self.json('snapshot', doc, 'first')
        other = self.change(m[0], 'SECONDON')
        self.json('snapshot', doc, 'second')
        states = {'first': state, 'second': other}
        now = ['second']

        def snapshot(i):
            yield
            yield self.try_hva('snapshot', doc, f'try {i}', '--wait')
            self.alive(m[0], states[now[0]])

        def revert(i):
            to = 'first' if now[0] == 'second' else 'second'
            yield
            yield self.went(now, to, self.try_hva('revert', doc, to))
            self.alive(m[0], states[now[0]])

        def undo(i):
            # What a revert leaves for undo is stored behind its answer: here that goes well.
            to = now[0]
            now[0] = 'first' if to == 'second' else 'second'
            self.json('revert', doc, now[0])
            self.json('snapshot', doc, f'behind it {i}')  # one thing after the other
            yield
            yield self.went(now, to, self.try_hva('undo', doc))
            self.alive(m[0], states[now[0]])

        def drop(i):
            self.json('snapshot', doc, f'dropped {i}')
            yield
            yield self.try_hva('drop', doc, f'dropped {i}')
            self.alive(m[0], states[now[0]])

        def stop(i):
            yield
            stopped = self.try_hva('stop', doc)
            unsaved = 'not in the document' in self.refusal
            yield
            if stopped or unsaved:
                m[0].wait()
                self.is_clean(doc)
                self.hva('verify', doc)
                m[0] = harness.Running(self, doc)
            self.alive(m[0], states[now[0]])

        for operation in snapshot, revert, undo, drop, stop:
            runs = self.each_call_fails(calls, error, operation)
            print(f'{operation.__name__}: {runs} runs; ', end='', file=sys.stderr)
            for name in 'first', 'second':
                self.json('revert', doc, name)
                now[0] = name
                self.assertEqual(self.state(m[0]), states[name])
        self.hva('stop', doc)
        m[0].wait()
        self.is_clean(doc)

    def test_undo_leads_to_what_was_or_is_refused(self):
        doc = self.create()
        m = harness.Running(self, doc)
        first = self.change(m, 'FIRSTONE')
        self.json('snapshot', doc, 'first')
        went = undone = n = 0
        failed = True
        while failed and n < (120 if LONG else 45):
            other = self.change(m, f'OTHER{n:03}')
            self.json('snapshot', doc, f'other {n}', '--wait')
            self.faults.set(self.dir, WRITE | NAMES | TRUNCATE, errno.ENOSPC, n)
            back = self.try_hva('revert', doc, 'first')
            again = back and self.try_hva('undo', doc)
            failed = self.faults.failed()
            self.faults.clear()
            self.alive(m, other if again or not back else first)
            went += back
            undone += again
            n += 1 if LONG else 3
        self.assertGreater(went, undone)
        self.hva('stop', doc)
        m.wait()
        self.is_clean(doc)

    @staticmethod
    def went(now, to, done):
        if done:
            now[0] = to

    def test_full_disk_at_each_write(self):
        self.operations(WRITE | NAMES | TRUNCATE, errno.ENOSPC)

    def test_read_error_at_each_read(self):
        self.operations(READ | OPEN, errno.EIO)


class Pulled(Faulty):
    """The stick that the document is on goes away: every call there fails until it is back."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.path('stick'))

    def pull(self):
        self.faults.set(self.path('stick'), OPEN | READ | WRITE | SYNC | NAMES | TRUNCATE, errno.EIO)

    def test_pulled_while_it_runs(self):
        doc = self.create('stick/doc.hva')
        m = harness.Running(self, doc)
        state = self.change(m, 'FIRSTONE')
        self.json('snapshot', doc, 'first')
        self.pull()
        self.try_hva('snapshot', doc, 'without the stick')
        self.alive(m, state)
        other = self.change(m, 'SECONDON')
        self.try_hva('revert', doc, 'first')
        self.assertIn(self.state(m), (state, other))
        self.faults.clear()
        self.json('revert', doc, 'first')
        self.assertEqual(self.state(m), state)
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.hva('verify', doc)
        self.is_clean(doc)

    def test_pulled_before_the_end(self):
        doc = self.create('stick/doc.hva')
        m = harness.Running(self, doc)
        self.change(m, 'FIRSTONE')
        self.json('snapshot', doc, 'first')
        state = self.change(m, 'SECONDON')
        self.pull()
        self.sentence(self.hva('stop', doc, status=1)[1], 'not in the document')
        self.assertIn('not in the document', m.wait()[1])
        self.faults.clear()
        m = harness.Running(self, doc)
        self.assertEqual(self.state(m), state)
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.hva('verify', doc)
        self.is_clean(doc)

    def test_disk_that_cannot_be_read_or_written_pauses_the_machine(self):
        doc = self.create()
        m = harness.Running(self, doc)
        state = self.change(m, 'FIRSTONE')
        for calls in READ, WRITE | NAMES:
            with m.console() as c:
                self.faults.set(self.store, calls, errno.EIO)
                c.send('B' if calls == READ else 'b')
                end = time.time() + harness.PATIENCE
                while self.json('info', doc)['state'] != 'paused':
                    self.assertLess(time.time(), end)
                    time.sleep(0.02)
                self.assertIn('cannot be used', self.json('info', doc)['text'])
                self.faults.clear()
                self.hva('resume', doc)
                c.expect(r'big=(\d+)\n' if calls == READ else 'ok')
        self.assertEqual(self.state(m)[:3], state[:3])
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(doc)

    def test_flush_that_fails_is_never_answered(self):
        doc = self.create()
        m = harness.Running(self, doc)
        state = self.change(m, 'FIRSTONE')
        with m.console() as c:
            self.faults.set(self.store, SYNC, errno.EIO, fail=1)
            c.send('DSECONDON')
            end = time.time() + harness.PATIENCE
            while self.json('info', doc)['state'] != 'paused':
                self.assertLess(time.time(), end)
                time.sleep(0.02)
            self.assertIn('stop --force', self.json('info', doc)['text'])
            self.hva('resume', doc)
            with self.assertRaises(AssertionError):
                c.expect('ok', timeout=1)
        # What was written last cannot be trusted, so it becomes part of no version either.
        self.assertFalse(self.try_hva('snapshot', doc))
        self.hva('stop', '--force', doc)
        status, out = m.wait()
        self.assertEqual(status, 0)
        self.assertIn('the machine is off', out)
        m = harness.Running(self, doc)
        self.assertIn(self.state(m)[2], ('FIRSTONE', 'SECONDON'))
        self.assertEqual(self.state(m)[3], state[3])
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)

    def test_power_off_with_a_full_disk_keeps_the_disks(self):
        doc = self.create()
        m = harness.Running(self, doc)
        state = self.change(m, 'FIRSTONE')
        self.faults.set(self.store, WRITE | NAMES, errno.ENOSPC)
        with m.console() as c:
            c.send('o')
        status, out = m.wait()
        self.assertEqual(status, 0)
        self.assertIn('the machine is off', out)
        self.faults.clear()
        m = harness.Running(self, doc)
        self.assertEqual(self.state(m)[2:], state[2:])
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(doc)


def skip(why):
    print('skipped: ' + why)
    sys.exit(77)


if __name__ == '__main__':
    if not os.path.exists(FAULTIO):
        skip('HVA_FAULTIO does not name faultio.so')
    harness.main()
