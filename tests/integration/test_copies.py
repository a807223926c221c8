# SPDX-License-Identifier: MIT
"""A machine that runs is cloned or saved elsewhere, and that takes long: what the user wants meanwhile goes on as ever.

The copy is held at its third write (faultio.c) until the test lets it go on, so nothing here depends on time.
Needs faultio.so (HVA_FAULTIO), which is not built with sanitizers.
"""
import json
import os
import subprocess
import sys
import time

import harness
from harness import Running
from test_document import Document
from test_faults import FAULTIO, WRITE, Faults


class Copies(Document):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self)
        self.doc, self.out = self.create(), self.path('out.hva')
        self.hva('timeline', self.doc, 'off')
        self.m = Running(self, self.doc)
        self.first = self.change(self.m, 'FIRSTONE')
        self.json('snapshot', self.doc, 'first', '--wait')
        self.second = self.change(self.m, 'SECONDON')

    def held(self, command, *version):
        """It writes, and has not written much yet."""
        self.faults.set(self.out + '.unfinished', WRITE, 0, skip=2, hold=True)
        p = subprocess.Popen([harness.BIN + '/hva', command, self.doc, *version, self.out], env=self.env, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.wait_for(self.faults.failed)
        return p

    def written(self, p):
        self.assertIsNone(p.poll())
        self.assertFalse(os.path.exists(self.out))
        self.faults.let_go()
        self.assertEqual(p.wait(harness.PATIENCE), 0, p.stderr.read())

    def titles(self, doc):
        return [v['title'] for v in self.json('log', doc) if v['kind'] == 'user']

    def runs_as(self, doc, state):
        self.hva('verify', doc)
        m = Running(self, doc)
        self.assertEqual(self.state(m), state)
        self.change(m, 'CLONEDON')
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)

    def leftovers(self):
        return [n for n in os.listdir(self.dir) if n.startswith('out.hva')]

    def end(self, doc, state):
        self.assertEqual(self.state(self.m), state)
        self.hva('stop', doc)
        self.assertEqual(self.m.wait()[0], 0)
        self.runs_as(doc, state)

    def busy_life(self):
        """Everything that needs the store."""
        third = self.change(self.m, 'THIRDONE')
        self.json('snapshot', self.doc, 'third', '--wait')
        self.json('revert', self.doc, 'first')
        self.assertEqual(self.state(self.m), self.first)
        self.json('undo', self.doc)
        self.assertEqual(self.state(self.m), third)
        self.hva('drop', self.doc, 'first')
        self.json('log', self.doc, '--sizes')
        self.assertEqual(self.titles(self.doc), ['third'])
        return third

    def test_the_present_is_cloned(self):
        p = self.held('clone')
        self.assertEqual(self.titles(self.doc), ['first'])  # what it is copied from is in nobody's way
        third = self.busy_life()
        self.written(p)
        self.assertEqual(self.titles(self.doc), ['third'])
        self.runs_as(self.out, self.second)
        self.end(self.doc, third)

    def test_a_version_is_cloned_and_dropped(self):
        p = self.held('clone', 'first')
        third = self.busy_life()
        self.written(p)
        self.runs_as(self.out, self.first)
        self.end(self.doc, third)

    def test_two_do_not_write_the_same_file(self):
        p = self.held('clone')
        self.sentence(self.hva('clone', self.doc, self.out, status=1)[1], 'out.hva', 'being written')
        self.hva('clone', self.doc, 'first', self.path('other.hva'))
        self.written(p)
        self.runs_as(self.out, self.second)
        self.runs_as(self.path('other.hva'), self.first)
        self.end(self.doc, self.second)

    def test_the_document_is_saved_elsewhere(self):
        p = self.held('save-as')
        third = self.busy_life()
        self.written(p)
        self.assertEqual(self.titles(self.out), ['third'])
        self.hva('verify', self.doc)  # the old file has all until then
        self.m.document = self.out
        self.end(self.out, third)

    def stopped(self, command):
        p = self.held(command)
        s = self.m.control_socket()
        self.assertTrue(self.m.ask(s, cmd='subscribe')['ok'])
        stop = subprocess.Popen([harness.BIN + '/hva', 'stop', self.doc], env=self.env)
        with s, s.makefile() as lines:
            self.assertTrue(any(json.loads(line).get('event') == 'closing' for line in lines))
        self.assertIsNone(stop.poll())  # the document is still open
        self.faults.let_go()
        self.assertEqual(stop.wait(harness.PATIENCE), 0)
        self.assertEqual(p.wait(harness.PATIENCE), 1)
        self.sentence(p.stderr.read(), 'out.hva', 'given up because the machine was stopped')
        self.assertEqual(self.m.wait(), (0, ''))
        self.assertEqual(self.leftovers(), [])
        self.is_clean(self.doc)
        self.runs_as(self.doc, self.second)

    def test_a_stop_gives_the_clone_up(self):
        self.stopped('clone')

    def test_a_stop_gives_the_move_up(self):
        self.stopped('save-as')

    def test_nobody_waits_any_more_before_it_began(self):
        def start(*args):
            return subprocess.Popen([harness.BIN + '/hva', *args], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        self.faults.set(self.doc, WRITE, 0, hold=True)
        snapshot = start('snapshot', self.doc, 'held', '--wait')
        self.wait_for(self.faults.failed)
        clone = start('clone', self.doc, self.out)
        time.sleep(0.5)  # it waits in the queue; if it is not there yet nothing is tested
        clone.kill()
        clone.wait()
        self.json('info', self.doc)  # the keeper has seen that
        self.faults.let_go()
        self.assertEqual(snapshot.wait(harness.PATIENCE), 0)
        self.hva('clone', self.doc, self.out)
        self.runs_as(self.out, self.second)
        self.assertEqual(self.titles(self.doc), ['first', 'held'])

    def test_killed(self):
        self.held('clone')
        self.m.kill()
        self.assertEqual(self.leftovers(), ['out.hva.unfinished'])
        self.faults.clear()
        self.hva('clone', self.doc, 'first', self.out)
        self.is_clean(self.doc)
        self.assertEqual(self.leftovers(), ['out.hva'])
        self.runs_as(self.out, self.first)
        self.assertEqual(self.titles(self.doc), ['first'])


if __name__ == '__main__':
    if not FAULTIO:
        sys.exit(77)
    harness.main()
