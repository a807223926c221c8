# SPDX-License-Identifier: MIT
"""The keeper believes nothing that a machine process says: whatever it sends, the keeper lives or ends in a sentence."""
import os
import shutil
import time
import unittest

import harness
from harness import Running
from test_document import Document


class Hostile(Document):
    def setUp(self):
        super().setUp()
        self.doc = self.create()
        bin_dir = self.path('bin')
        os.mkdir(bin_dir)
        for name in ('hva', 'hva-keeper'):
            shutil.copy(os.path.join(harness.BIN, name), bin_dir)
        shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'hostile_machine.py'), bin_dir + '/hva-machine')
        self.real_bin, harness.BIN = harness.BIN, bin_dir
        self.addCleanup(setattr, harness, 'BIN', self.real_bin)

    def start(self, how, *args):
        self.env['HOSTILE'] = how
        return Running(self, self.doc, *args)

    def survives(self, m):
        self.assertIn('instance', self.json('info', self.doc), 'the keeper is gone')
        self.hva('verify', self.doc)
        m.kill()

    def test_impossible_disk_requests_get_no_answer(self):
        for how in ('number', 'slot', 'length', 'end', 'wrap', 'op', 'short', 'long'):
            with self.subTest(how):
                m = self.start('disk-' + how)
                end = time.time() + harness.PATIENCE
                while self.json('info', self.doc).get('text') != 'refused' and time.time() < end:
                    time.sleep(0.05)
                self.assertEqual(self.json('info', self.doc).get('text'), 'refused')
                self.survives(m)

    def test_values_of_wrong_types(self):
        self.survives(self.start('types'))

    def test_a_flood_of_descriptors(self):
        m = self.start('fds')
        self.survives(m)

    def test_what_is_no_message_ends_it_in_a_sentence(self):
        for how in ('junk', 'array'):
            with self.subTest(how):
                self.env['HOSTILE'] = how
                _, err = self.hva('run', '--no-window', '--engine', 'soft', '--serial', 'null', self.doc, status=1)
                self.sentence(err, 'killed by signal 9')

    def test_answers_that_nobody_asked_for_and_false_lengths(self):
        m = self.start('claims')
        self.sentence(self.hva('snapshot', self.doc, status=1)[1], 'could not be read')
        self.survives(m)

    @unittest.skipUnless(os.access('/dev/kvm', os.W_OK), '/dev/kvm cannot be used')
    def test_rounds_that_never_end_on_kvm(self):
        m = self.start('made-up', '--engine', 'kvm')
        for title in ('lies', 'more lies'):
            self.json('snapshot', self.doc, title)
        self.survives(m)
        m = self.start('claims', '--engine', 'kvm')
        self.sentence(self.hva('snapshot', self.doc, status=1)[1], 'could not be read')
        self.survives(m)

    def test_a_made_up_state_is_stored_but_never_run(self):
        m = self.start('made-up')
        snap = self.json('snapshot', self.doc, 'lies')
        # It says that it went back: that harms only itself. What it was is kept, and lies too.
        self.json('revert', self.doc, 'lies')
        self.json('snapshot', self.doc, 'more lies')
        self.survives(m)
        harness.BIN = self.real_bin
        m = Running(self, self.doc)
        state = self.state(m)
        self.sentence(self.hva('revert', self.doc, snap['id'], status=1)[1], 'lies', 'goes on as it was')
        self.assertEqual(self.state(m), state)
        self.hva('stop', self.doc)


if __name__ == '__main__':
    harness.main()
