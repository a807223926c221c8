#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""truth.py TINY.hva [--kills N]: the truth test on a real Linux (templates/tiny).

A nonce in the guest's memory, one in a file on its disk, and a process that counts. Snapshot; all is changed; revert: all is
as it was and the process goes on from its old count; undo: the new is back; the same after `hva stop` and in a new process.
Then N kills of hva-machine and of the keeper at random moments during a running snapshot, while the guest writes its disk:
the document opens, and the last completed version is whole.

Environment: HVA_BIN. The document is copied first. Without a document: HVA_TINY, else the test is skipped (77).
"""
import json
import os
import random
import shutil
import signal
import sys
import time

import harness

PROMPT = r'tiny:[^\n]*# '


class Truth(harness.Case):
    document = None
    kills = 0

    def setUp(self):
        super().setUp()
        self.doc = self.path('tiny.hva')
        shutil.copy(self.document, self.doc)

    def start(self):
        return harness.Running(self, self.doc, '--engine', 'auto')

    def shell(self, c, command):
        """Runs a command in the guest's shell and returns its output."""
        mark = f'{random.randrange(1 << 32):08x}'
        c.send(f'{command}; echo "<$((0x{mark}))>"\n')
        out = c.expect(rf'(?s)(.*?)<{int(mark, 16)}>')[1]
        return out.replace('\r', '').split('"\n', 1)[-1].strip()

    def login(self, m):
        c = m.console()
        c.send('\n')
        c.expect(PROMPT, timeout=180)
        self.shell(c, "stty -echo; dmesg -n 1; PS1=; mkdir /mem; mount -t tmpfs mem /mem")
        return c

    def change(self, c, word):
        """New contents everywhere, and a new counting process."""
        self.shell(c, f'kill $P 2>/dev/null; W={word}; echo {word} > /mem/w; echo {word} > /root/w; '
                      f'head -c 3000000 /dev/urandom > /root/data; sync; md5sum /root/data > /root/sum; sync; '
                      f'I={random.randrange(1000) * 1000000}; echo $I > /mem/c')
        self.shell(c, '(while :; do I=$((I+1)); echo $I > /mem/c.; mv /mem/c. /mem/c; done) & P=$!')

    def state(self, c):
        # Without its caches the guest tells what is on the disk.
        out = self.shell(c, 'echo 3 > /proc/sys/vm/drop_caches; '
                            'echo $W $(cat /mem/w) $(cat /root/w) $(md5sum -c /root/sum >/dev/null 2>&1 && cat /root/sum) '
                            '$(kill -0 $P && echo alive)').split()
        self.assertEqual(len(out), 6, out[:40])
        return out

    def count(self, c):
        return int(self.shell(c, 'cat /mem/c'))

    def goes_on(self, c, since):
        """The count is that of the same process, a little later."""
        first = self.count(c)
        self.assertTrue(since <= first < since + 900000, f'{since} -> {first}')
        end = time.time() + harness.PATIENCE
        while self.count(c) <= first:
            self.assertLess(time.time(), end, 'the process does not count')

    def test_snapshot_revert_undo_and_a_new_process(self):
        m = self.start()
        c = self.login(m)
        self.change(c, 'old')
        old, old_count = self.state(c), self.count(c)
        snap = self.json('snapshot', self.doc, 'before')
        self.change(c, 'new')
        new, new_count = self.state(c), self.count(c)
        self.assertNotEqual(old, new)
        back = self.json('revert', self.doc)
        self.assertEqual(self.state(c), old)
        self.goes_on(c, old_count)
        undone = self.json('undo', self.doc)
        self.assertEqual(self.state(c), new)
        self.goes_on(c, new_count)
        new_count = self.count(c)
        print(f"pause {snap['pause_ms']:.0f} ms, durable {snap['durable_ms']:.0f} ms, {snap['bytes_added'] / 1e6:.1f} MB; "
              f"revert {back['pause_ms']:.0f} ms, undo {undone['pause_ms']:.0f} ms; ", file=sys.stderr, end='')
        c.close()
        self.hva('stop', self.doc)
        self.assertEqual(m.wait()[0], 0)
        self.hva('verify', self.doc)

        m = self.start()
        with m.console() as c:
            self.assertEqual(self.state(c), new)
            self.goes_on(c, new_count)
            self.json('revert', self.doc, 'before')
            self.assertEqual(self.state(c), old)
            self.goes_on(c, old_count)
            self.json('undo', self.doc)
            self.assertEqual(self.state(c), new)
            c.send('poweroff\n')
            self.assertEqual(m.wait()[0], 0)
        self.assertEqual(self.json('info', self.doc)['state'], 'off')
        self.hva('verify', self.doc)

    def kill_during_snapshots(self, whom):
        rng = random.Random(whom)
        m = self.start()
        c = self.login(m)
        self.shell(c, '(while :; do head -c 200000 /dev/urandom > /root/noise; sync; usleep 50000; done) & N=$!')
        self.change(c, 'round0')
        completed = self.json('snapshot', self.doc, 'round 0')['id'], self.state(c), self.count(c)
        for i in range(1, self.kills + 1):
            self.change(c, 'torn')
            s = m.control_socket()
            s.sendall(json.dumps({'id': 1, 'cmd': 'snapshot', 'title': f'torn {i}'}).encode() + b'\n')
            time.sleep(rng.random() * 0.5)
            os.kill(m.machine_pid() if whom == 'machine' else m.process.pid, signal.SIGKILL)
            m.wait()
            s.close()
            c.close()
            # Every version stays in the file, so that checking all of it takes longer and longer.
            if i % 10 == 0:
                self.hva('verify', self.doc)
            m = self.start()
            self.json('revert', self.doc, completed[0])
            c = m.console()
            self.assertEqual(self.state(c), completed[1])
            if i % 5 == 0:
                self.change(c, f'round{i}')
                completed = self.json('snapshot', self.doc, f'round {i}')['id'], self.state(c), self.count(c)
        c.close()
        self.hva('stop', self.doc)
        self.hva('verify', self.doc)

    def test_machine_killed_during_snapshots(self):
        self.kill_during_snapshots('machine')

    def test_keeper_killed_during_snapshots(self):
        self.kill_during_snapshots('keeper')


if __name__ == '__main__':
    args = sys.argv[1:]
    Truth.kills = 50 if os.environ.get('HSK_LONG') else 3
    if '--kills' in args:
        at = args.index('--kills')
        Truth.kills = int(args[at + 1])
        del args[at:at + 2]
    Truth.document = args.pop(0) if args and args[0].endswith('.hva') else os.environ.get('HVA_TINY', '')
    if not os.path.exists(Truth.document):
        print('skipped: no tiny.hva; build it with "hva template build tiny tiny.hva" and name it by HVA_TINY')
        sys.exit(77)
    harness.KERNEL = Truth.document
    sys.argv[1:] = args
    harness.main()
