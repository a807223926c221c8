# SPDX-License-Identifier: MIT
"""Every hostile document of tests/unit/snapshots/test_hostile.c under the programs: a sentence, an exit status, no signal;
and a document that is taken away while its machine runs."""
import os
import subprocess
import time
import unittest

import harness
from harness import KERNEL, Running

MAKER = harness.BIN + '/snapshots_test_hostile'


class Hostile(harness.Case):
    def run_one(self, *args):
        p = subprocess.run([harness.BIN + '/hva', *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                           timeout=harness.PATIENCE, env=self.env, cwd=self.dir)
        self.assertIn(p.returncode, (0, 1, 3), f'{args}: {p.returncode} {p.stderr}')
        if p.returncode:
            lines = p.stderr.strip().split('\n')
            self.assertTrue(lines and all(line.startswith('hva: ') for line in lines), f'{args}: {p.stderr!r}')
            self.assertNotIn('\x1b', p.stderr + p.stdout)
        return p

    @unittest.skipUnless(os.path.exists(MAKER), 'the program that makes the documents is not built')
    def test_programs_refuse_with_a_sentence(self):
        folder = self.path('hostile')
        os.mkdir(folder)
        subprocess.run([MAKER, folder], check=True, env=self.env, timeout=harness.PATIENCE)
        names = sorted(os.listdir(folder))
        self.assertGreater(len(names), 100)
        for name in names:
            doc = os.path.join(folder, name)
            self.run_one('info', doc)
            verified = self.run_one('verify', doc)
            self.assertEqual(verified.returncode, 0 if name.endswith('-whole.hva') else 1, f'{name}: {verified.stdout} {verified.stderr}')
            # its kernel is none, so it never gets further than that
            run = self.run_one('run', '--no-window', '--engine', 'soft', '--serial', 'null', doc)
            self.assertNotEqual(run.returncode, 0, name)

    def test_document_taken_away_under_a_running_machine(self):
        with open(self.path('disk.raw'), 'wb') as f:
            f.write(b'contents' * (1 << 20))
        for how in 'truncated', 'overwritten':
            doc = self.path(how + '.hva')
            self.hva('create', doc, '--kernel', KERNEL, '--append', 'serve', '--disk', 'disk.raw', '--memory', '64M')
            m = Running(self, doc)
            with m.console() as c:
                c.ask('wBEFORE--', 'ok')
                size = os.path.getsize(doc)
                if how == 'truncated':
                    os.truncate(doc, 0)
                else:
                    with open(doc, 'r+b') as f:
                        f.write(b'\x5a' * size)
                c.send('B')  # reads 512 KiB of the disk
                end = time.time() + harness.PATIENCE
                while self.json('info', doc)['state'] != 'paused':
                    self.assertLess(time.time(), end, 'the machine goes on')
                    time.sleep(0.02)
            info = self.json('info', doc)
            self.assertIn('disk "root" cannot be used', info['text'])
            self.assertIn(doc, info['text'])
            self.hva('stop', doc, '--force')
            self.assertIsNotNone(m.wait()[0])


if __name__ == '__main__':
    harness.main()
