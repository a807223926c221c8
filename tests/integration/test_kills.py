# SPDX-License-Identifier: MIT
"""kill -9 of the keeper or of the machine at a random moment of a snapshot, a revert, an undo, a drop, a timeline step or a stop.

After each kill the document opens; every version that was acknowledged is there, and one of them is looked into; the disk is
what the guest had flushed; and in the end nothing was left lying about. HSK_SEED repeats a run.
"""
import json
import os
import random
import shutil
import signal
import sys
import time

import harness
from harness import Running
from test_document import Document

KILLS = 500 if os.environ.get('HSK_LONG') else 6
SEED = int(os.environ.get('HSK_SEED', random.randrange(1 << 30)))


class Kills(Document):
    def ask(self, m, **q):
        """Sends a request without waiting for its end."""
        s = m.control_socket()
        self.addCleanup(s.close)
        s.sendall(json.dumps(dict(q, id=7)).encode() + b'\n')
        return s

    @staticmethod
    def answered(s):
        """Was the request done before the end?"""
        s.settimeout(harness.PATIENCE)
        buf = b''
        try:
            while piece := s.recv(65536):
                buf += piece
        except OSError:
            pass
        return any(a.get('id') == 7 and a.get('ok') for a in map(json.loads, buf.decode(errors='replace').split('\n')[:-1]))

    def acknowledged(self, doc):
        there = {v['id'] for v in self.json('log', doc)}
        for title, (version, _) in self.versions.items():
            self.assertIn(version, there, f'{title} is lost; seed {SEED}')

    def round(self, doc, i, whom):
        rng = self.rng
        m = Running(self, doc)
        disks = self.state(m)[2:]
        if self.disks:
            self.assertIn(disks, self.disks, f'round {i}, seed {SEED}')
        self.acknowledged(doc)
        if self.versions:
            title = rng.choice(list(self.versions))
            self.json('revert', doc, self.versions[title][0])
            self.assertEqual(self.state(m), self.versions[title][1], f'{title}, round {i}, seed {SEED}')
        state = self.change(m, f'{i:08d}')
        if i % 3 == 0:
            title = f'round {i}'
            self.versions[title] = (self.json('snapshot', doc, title)['id'], state)
            state = self.change(m, f'{i:07d}x')
        self.disks = [state[2:]]
        kind = rng.choice(('snapshot', 'snapshot', 'revert', 'undo', 'drop', 'stop'))
        if kind in ('revert', 'undo', 'drop') and not self.versions:
            kind = 'snapshot'
        if kind == 'revert':
            target = rng.choice(list(self.versions.values()))
            self.disks.append(target[1][2:])
            s = self.ask(m, cmd='revert', to=target[0])
        elif kind == 'undo':
            self.json('snapshot', doc, f'before {i}')
            target = list(self.versions.values())[-1]
            self.json('revert', doc, target[0])
            self.disks.append(target[1][2:])
            s = self.ask(m, cmd='undo')
        elif kind == 'drop':
            target = self.versions.pop(rng.choice(list(self.versions)))
            s = self.ask(m, cmd='drop', version=target[0])
        elif kind == 'stop':
            s = self.ask(m, cmd='stop')
        else:
            s = self.ask(m, cmd='snapshot', title=f'torn {i}')
        time.sleep(rng.random() ** 2 * 0.15)
        try:
            os.kill(m.machine_pid() if whom == 'machine' else m.process.pid, signal.SIGKILL)
        except (IndexError, ProcessLookupError, FileNotFoundError):
            pass  # it was stopped in time
        m.wait()
        if kind == 'stop' and self.answered(s):
            m = Running(self, doc)
            self.assertEqual(self.state(m), state, f'the saved state, round {i}, seed {SEED}')
            m.kill()
        s.close()

    def life(self, kills, whom):
        """The document grows with each publish, so one is not killed for ever."""
        self.versions, self.disks = {}, None
        doc = self.create()
        for i in range(kills):
            self.round(doc, i, whom)
            if i % 10 == 9:
                self.hva('verify', doc)
            while len(self.versions) > 6:
                title = next(iter(self.versions))
                self.hva('drop', doc, self.versions.pop(title)[0])
        m = Running(self, doc)
        self.acknowledged(doc)
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.hva('verify', doc)
        self.is_clean(doc)
        os.unlink(doc)
        shutil.rmtree(self.env['XDG_DATA_HOME'])
        os.mkdir(self.env['XDG_DATA_HOME'])

    def kill(self, whom):
        self.rng = random.Random(SEED)
        for done in range(0, KILLS, 50):
            self.life(min(KILLS - done, 50), whom)
            print(f'{min(done + 50, KILLS)} kills; ', end='', file=sys.stderr, flush=True)

    def test_keeper_killed_at_any_moment(self):
        self.kill('keeper')

    def test_machine_killed_at_any_moment(self):
        self.kill('machine')


if __name__ == '__main__':
    harness.main()
