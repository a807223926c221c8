# SPDX-License-Identifier: MIT
"""Reverts and undos in place, many of them, and snapshots of a guest that writes all the time and checks itself."""
import os
import random
import signal
import time
import unittest

import harness
from harness import Running
from test_document import Document

LONG = bool(os.environ.get('HSK_LONG'))


class GoingBack(Document):
    def sum(self, machine):
        return int(self.say(machine, 'S', r'sum=(\d+)\n')[1])

    def in_place(self, machine, action):
        """Does that and sees that the machine process stays."""
        before = machine.machine_pid()
        result = action()
        self.assertEqual(machine.machine_pid(), before, 'a new process was started')
        return result

    def test_alternating_reverts_and_undos(self):
        doc = self.create()
        m = Running(self, doc)
        old = self.change(m, 'OLDNONCE')
        self.json('snapshot', doc, 'old')
        new = self.change(m, 'NEWNONCE')
        self.in_place(m, lambda: self.json('revert', doc))
        for i in range(50 if LONG else 16):
            self.assertEqual(self.state(m), (old, new)[i % 2])
            self.in_place(m, lambda: self.json('undo', doc))
        self.assertEqual(self.state(m), old)
        kinds = [v['kind'] for v in self.json('log', doc)]
        self.assertIn(kinds.count('before-revert'), (5, 6))
        self.hva('stop', doc)
        self.hva('verify', doc)
        m = Running(self, doc)
        self.assertEqual(self.state(m), old)
        self.hva('stop', doc)

    def test_what_was_is_kept_in_the_store_too(self):
        """What going back leaves behind is a version like any other, also for a new process."""
        doc = self.create()
        m = Running(self, doc)
        states = {}
        for i in range(3):
            state = self.change(m, f'NONCE-{i}-')
            states[self.json('snapshot', doc, f'number {i}')['id']] = state
        rng = random.Random(5)
        for i in range(6):
            state = self.change(m, f'LEFT--{i}-')
            before = {v['id'] for v in self.json('log', doc)}
            target = rng.choice(list(states))
            self.json('revert', doc, target)
            self.assertEqual(self.state(m), states[target])
            while True:
                left = [v for v in self.json('log', doc) if v['id'] not in before]
                if left:
                    break
                time.sleep(0.02)
            self.assertEqual([v['kind'] for v in left], ['before-revert'])
            states[left[0]['id']] = state
        last = self.state(m)
        self.hva('stop', doc)
        m = Running(self, doc)
        self.assertEqual(self.state(m), last)
        left = list(states)[3:]
        for version in left[:-3:-1] + list(states)[:3]:  # of what was left, five stay
            self.json('revert', doc, version)
            self.assertEqual(self.state(m), states[version])
        self.hva('stop', doc)
        self.hva('verify', doc)

    def far_away(self, *args):
        """Versions that the machine does not keep: the pages that differ come out of the store."""
        doc = self.create()
        m = Running(self, doc, *args)
        states = {}
        for i in range(10):
            state = self.change(m, f'NONCE-{i}-')
            states[self.json('snapshot', doc, f'number {i}')['id']] = state
        present = self.change(m, 'PRESENT-')
        for target in [list(states)[i] for i in (0, 9, 4, 0)]:
            self.in_place(m, lambda: self.json('revert', doc, target))
            self.assertEqual(self.state(m), states[target])
            self.in_place(m, lambda: self.json('undo', doc))
            self.assertEqual(self.state(m), present)
        self.in_place(m, lambda: self.json('revert', doc, 'number 3'))
        last = self.state(m)
        self.hva('stop', doc)
        m = Running(self, doc, *args)
        self.assertEqual(self.state(m), last)
        self.json('revert', doc, 'number 7')
        self.assertEqual(self.state(m), states[list(states)[7]])
        self.hva('stop', doc)
        self.hva('verify', doc)

    def test_far_versions(self):
        self.far_away()

    @unittest.skipUnless(os.access('/dev/kvm', os.W_OK), '/dev/kvm cannot be used')
    def test_far_versions_on_kvm(self):
        # A KVM that interprets this kernel would take minutes over megabytes.
        self.change = lambda m, nonce: (self.say(m, 'w' + nonce, 'ok'), self.state(m))[1]
        self.state = self.nonce
        self.far_away('--engine', 'kvm')

    def under_load(self, *args, cpus=1, append='serve', rounds=10):
        doc = self.create(append=append, cpus=cpus)
        m = Running(self, doc, *args)
        self.say(m, 'W', 'ok')
        rng = random.Random(cpus)
        least = {}
        for i in range(rounds):
            time.sleep(rng.random() * 0.1)
            at_least = self.sum(m)
            least[self.json('snapshot', doc, f'round {i}')['id']] = at_least
            for target in rng.sample(list(least), min(2, len(least))):
                present = self.sum(m)
                self.json('revert', doc, target)
                self.assertGreaterEqual(self.sum(m), least[target])
                if cpus > 1:
                    self.work(m, cpus)
                if rng.random() < 0.5:
                    self.json('undo', doc)
                    self.assertGreaterEqual(self.sum(m), present)
        self.hva('stop', doc)
        m = Running(self, doc)
        for target in list(least)[-3:]:
            self.json('revert', doc, target)
            self.assertGreaterEqual(self.sum(m), least[target])
        self.hva('stop', doc)
        self.hva('verify', doc)

    def test_guest_that_writes_all_the_time(self):
        self.under_load(rounds=40 if LONG else 6)

    def test_with_another_processor_at_work(self):
        self.under_load(cpus=2, append='smp serve', rounds=40 if LONG else 4)

    def test_with_chaos(self):
        self.under_load('--chaos', '7', cpus=2, append='smp serve', rounds=20 if LONG else 3)

    @unittest.skipUnless(os.access('/dev/kvm', os.W_OK), '/dev/kvm cannot be used')
    def test_on_kvm(self):
        self.under_load('--engine', 'kvm', cpus=2, append='smp serve', rounds=20 if LONG else 3)

    # One that only emulates stands still for ever in KVM_RUN now and then, after memory was changed from outside.
    @unittest.skipUnless(os.access('/dev/kvm', os.W_OK) and (LONG or harness.kvm_virtualizes()),
                         'only in the long run where KVM emulates, or /dev/kvm cannot be used')
    def test_copies_while_it_writes_on_kvm(self):
        """Takes that give way, thousands of pages that change places, and a machine process that dies in the middle: all is of one moment."""
        doc = self.create(memory='256M')
        rng = random.Random(3)
        least = {}
        for i in range(10 if LONG else 2):
            m = Running(self, doc, '--engine', 'kvm')
            self.hva('timeline', doc, 'every', '1')
            self.say(m, 'W', 'ok')
            for k in range(3):
                time.sleep(rng.random() * 1.5)  # into a take of the timeline, or beside it
                at_least = self.sum(m)
                snap = self.json('snapshot', doc, f'{i}, {k}')
                self.assertLess(snap['pause_ms'], 2000)
                least[snap['id']] = at_least
            self.hva('timeline', doc, 'off')
            for target in rng.sample(list(least)[-3:], 2):
                present = self.sum(m)
                self.in_place(m, lambda: self.json('revert', doc, target))
                back = self.sum(m)
                self.assertGreaterEqual(back, least[target])
                self.in_place(m, lambda: self.json('undo', doc))
                self.assertGreaterEqual(self.sum(m), present)
                self.in_place(m, lambda: self.json('undo', doc))
                self.assertGreaterEqual(self.sum(m), back)
            parked = [v['id'] for v in self.json('log', doc) if v['kind'] == 'before-revert']
            self.in_place(m, lambda: self.json('revert', doc, parked[-3]))  # out of the store
            self.sum(m)
            s = m.control_socket()
            s.sendall(b'{"id": 1, "cmd": "snapshot"}\n')
            time.sleep(rng.random() * 0.02)
            os.kill(m.machine_pid(), signal.SIGKILL)
            self.assertNotEqual(m.wait()[0], 0)
            s.close()
            self.hva('verify', doc)
        m = Running(self, doc)
        for target in rng.sample(list(least), 3):
            self.json('revert', doc, target)
            self.assertGreaterEqual(self.sum(m), least[target])
        self.hva('stop', doc)

    def test_snapshots_asked_for_at_once_wait_for_each_other(self):
        doc = self.create()
        m = Running(self, doc)
        self.say(m, 'W', 'ok')
        sockets = [m.control_socket() for _ in range(4)]
        for i, s in enumerate(sockets):
            s.sendall(b'{"id": 1, "cmd": "snapshot", "title": "at once %d"}\n' % i)
        for s in sockets:
            buf = b''
            while not buf.endswith(b'\n'):
                buf += s.recv(65536)
            self.assertIn(b'"ok":', buf.replace(b' ', b''))
            s.close()
        titles = [v['title'] for v in self.json('log', doc)]
        self.assertEqual(titles, [f'at once {i}' for i in range(4)])
        for title in reversed(titles):
            self.json('revert', doc, title)
            self.sum(m)
        self.hva('stop', doc)


if __name__ == '__main__':
    harness.main()
