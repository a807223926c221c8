# SPDX-License-Identifier: MIT
"""kill -9 of the keeper or of the machine at a random moment of a snapshot, a revert, an undo, a drop, other words on a version, a
clone, a save-as (both also with a snapshot meanwhile), a timeline step (with the thinning behind it), a purge or a stop; and of a compaction of the document.

After each kill the document opens; every version that was acknowledged is there and says what it was made to say, and one of them
is looked into; the disk is what the guest had flushed; a clone is whole or not there; and in the end nothing was left lying about.
HSK_SEED repeats a run.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import harness
from harness import Running
from test_document import Document

KILLS = 500 if os.environ.get('HSK_LONG') else 8
KINDS = ('snapshot', 'revert', 'undo', 'drop', 'words', 'words', 'keep', 'clone', 'clone', 'save-as', 'timeline', 'timeline', 'purge', 'stop')
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
        """All that was promised is there. What was asked for and not answered may have come through or not."""
        there = {v['id']: v for v in self.json('log', doc, '--timeline')}
        for title, (version, _) in self.versions.items():
            self.assertIn(version, there, f'{title} is lost; seed {SEED}')
        for version, words in self.words.items():
            v = there[version]
            found = {'title': v['title'], 'pinned': v['pinned'], 'kind': v['kind']}
            self.assertTrue(any(w.items() <= found.items() for w in words), f'{found} of {words}; seed {SEED}')
            self.words[version] = [found]
        for out, done in self.clones:
            if done or os.path.exists(out):
                self.hva('verify', out)
                os.unlink(out)
        self.clones = []

    def known(self):
        """The versions whose state was seen when they were taken, and that of each."""
        return [v for v in self.versions.values() if v[1]]

    def begin(self, m, doc, i, kind):
        """What is under way when it is killed. Returns what becomes of its answer."""
        rng, forget = self.rng, lambda answered: None
        version, _ = rng.choice(list(self.versions.values())) if self.versions else (None, None)
        if kind == 'revert':
            version, state = rng.choice(self.known())
            self.disks.append(state[2:])
            return self.ask(m, cmd='revert', to=version), forget
        if kind == 'undo':
            self.json('snapshot', doc, f'before {i}')
            version, state = self.known()[-1]
            self.json('revert', doc, version)
            self.disks.append(state[2:])
            return self.ask(m, cmd='undo'), forget
        if kind == 'drop':
            version = self.versions.pop(rng.choice(list(self.versions)))[0]
            self.words.pop(version, None)
            return self.ask(m, cmd='drop', version=version, force=True), forget
        if kind == 'words':
            return self.other_words(m, version, i)
        if kind == 'keep':
            points = [v['id'] for v in self.json('log', doc, '--timeline') if v['kind'] == 'auto']
            if points:
                return self.keep(m, rng.choice(points), i)
        if kind == 'clone':
            out = self.path('clone.hva')  # the next one writes over what this one leaves
            self.clones.append([out, False])
            clone = self.clones[-1]
            s = self.ask(m, cmd='clone', out=out, **({'version': version} if version and rng.random() < 0.5 else {}))
            self.meanwhile(m, i)
            return s, lambda answered: clone.__setitem__(1, answered)
        if kind == 'save-as':
            s = self.ask(m, cmd='save-as', out=self.path('elsewhere.hva'))
            self.meanwhile(m, i)
            return s, lambda answered: self.bring_back(doc, answered)
        if kind == 'purge':
            return self.ask(m, cmd='timeline', purge=True), forget
        if kind == 'timeline':
            with m.console() as c:
                for command in ('f', 'f'):
                    c.ask(command, 'ok')
            time.sleep(0.7 + rng.random())
            return self.ask(m, cmd='info'), forget
        if kind == 'stop':
            return self.ask(m, cmd='stop'), forget
        return self.ask(m, cmd='snapshot', title=f'torn {i}'), forget

    def meanwhile(self, m, i):
        """A snapshot beside the copy, or not."""
        if self.rng.random() < 0.5:
            self.ask(m, cmd='snapshot', title=f'meanwhile {i}')

    def bring_back(self, doc, answered):
        """The document is where its instance says, as a whole; the other file, if there is one, is whole, too."""
        base = self.env['XDG_DATA_HOME'] + '/haversack/instances'
        origin = harness.read(os.path.join(base, *os.listdir(base), 'origin'))
        out = self.path('elsewhere.hva')
        moved = f'path={out}\n' in origin
        self.assertTrue(moved or not answered, f'seed {SEED}')
        for path in doc, out:
            if path == doc or moved or os.path.exists(path):
                self.hva('verify', path)
        if moved:
            os.replace(out, doc)
        elif os.path.exists(out):
            os.unlink(out)

    def other_words(self, m, version, i):
        now = self.words.get(version, [{}])
        if self.rng.random() < 0.5:
            new, request = {'title': f'renamed {i}'}, {'cmd': 'rename', 'title': f'renamed {i}'}
        else:
            pinned = self.rng.random() < 0.5
            new, request = {'pinned': pinned}, {'cmd': 'pin' if pinned else 'unpin'}
        after = [dict(w, **new) for w in now]
        self.words[version] = now + after
        return self.ask(m, version=version, **request), lambda answered: answered and self.words.update({version: after})

    def keep(self, m, version, i):
        def kept(answered):
            if answered:
                self.versions[f'kept {i}'] = (version, None)
                self.words[version] = [{'kind': 'user', 'title': f'kept {i}'}]
        return self.ask(m, cmd='keep', version=version, title=f'kept {i}'), kept

    def look_into(self, m, doc, i):
        """One of the versions is what it was; now and then also a point of the timeline can be gone back to."""
        title = self.rng.choice(list(self.versions))
        version, state = self.versions[title]
        points = [v['id'] for v in self.json('log', doc, '--timeline') if v['kind'] == 'auto']
        if points and self.rng.random() < 0.3:
            self.json('revert', doc, self.rng.choice(points))
            self.state(m)
        self.json('revert', doc, version)
        found = self.state(m)
        self.assertEqual(found, state or found, f'{title}, round {i}, seed {SEED}')

    def kill_compaction(self, doc):
        p = subprocess.Popen([harness.BIN + '/hva', 'compact', doc], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(self.rng.random() ** 2 * 0.1)
        p.kill()
        p.wait()

    def round(self, doc, i, whom):
        rng = self.rng
        if rng.random() < 0.2:
            self.kill_compaction(doc)
        m = Running(self, doc)
        disks = self.state(m)[2:]
        if self.disks:
            self.assertIn(disks, self.disks, f'round {i}, seed {SEED}')
        self.acknowledged(doc)
        if self.versions:
            self.look_into(m, doc, i)
        state = self.change(m, f'{i:08d}')
        if i % 3 == 0:
            title = f'round {i}'
            self.versions[title] = (self.json('snapshot', doc, title)['id'], state)
            state = self.change(m, f'{i:07d}x')
        self.disks = [state[2:]]
        kind = rng.choice(KINDS)
        if (kind in ('drop', 'words') and not self.versions) or (kind in ('revert', 'undo') and not self.known()):
            kind = 'snapshot'
        s, then = self.begin(m, doc, i, kind)
        time.sleep(rng.random() ** 2 * (0.5 if kind in ('clone', 'save-as') else 0.15))
        self.end(m, whom)
        answered = self.answered(s)
        then(answered)
        if kind == 'stop' and answered:
            m = Running(self, doc)
            self.assertEqual(self.state(m), state, f'the saved state, round {i}, seed {SEED}')
            m.kill()
        s.close()

    def end(self, m, whom):
        """A machine that was killed in a revert to a new process leaves the old one, which goes on: that one, too, then."""
        last = time.monotonic() + harness.PATIENCE
        while m.process.poll() is None and time.monotonic() < last:
            try:
                os.kill(m.machine_pid() if whom == 'machine' else m.process.pid, signal.SIGKILL)
            except (IndexError, ProcessLookupError, FileNotFoundError):
                pass  # it was stopped in time
            try:
                m.process.wait(1)
            except subprocess.TimeoutExpired:
                pass
        m.wait()

    def life(self, kills, whom):
        """The document grows with each publish, so one is not killed for ever."""
        self.versions, self.disks, self.words, self.clones = {}, None, {}, []
        doc = self.create()
        self.hva('timeline', doc, 'every', '1')
        self.hva('timeline', doc, 'limit', '16M')
        for i in range(kills):
            self.round(doc, i, whom)
            if i % 10 == 9:
                self.hva('verify', doc)
            while len(self.versions) > 6:
                title = next(iter(self.versions))
                version = self.versions.pop(title)[0]
                self.words.pop(version, None)
                self.hva('drop', doc, version, '--force')
        m = Running(self, doc)
        self.acknowledged(doc)
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.hva('verify', doc)
        for name in 'clone.hva', 'elsewhere.hva':  # over what the last one left
            self.hva('clone', doc, self.path(name))
            os.unlink(self.path(name))
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
