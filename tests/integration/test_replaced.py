# SPDX-License-Identifier: MIT
"""What happens to the document's file while its machine runs: opened twice, renamed, deleted, replaced, overwritten, cut off.

The machine goes on in all of them; what it had is found again where it belongs, and nowhere else.
"""
import os
import shutil
import signal
import subprocess
import time

import harness
from harness import Running
from test_document import Document


class Replaced(Document):
    def begin(self):
        """A running machine with one snapshot in its document and changes behind it."""
        self.doc = self.create()
        m = Running(self, self.doc)
        self.first = self.change(m, 'FIRSTONE')
        self.json('snapshot', self.doc, 'first', '--wait')
        self.now = self.change(m, 'SECONDON')
        return m

    def end(self, m, doc):
        """What it says at the end."""
        m.process.send_signal(signal.SIGTERM)
        status, out = m.wait()
        self.assertEqual(status, 0, out)
        return out

    def aside(self):
        base = self.env['XDG_DATA_HOME'] + '/haversack/instances'
        return [i for i in os.listdir(base) if 'aside=true' in harness.read(f'{base}/{i}/origin')]

    def goes_on(self, command):
        """A command that cannot reach the document is refused or not; the machine is the same."""
        p = subprocess.run([harness.BIN + '/hva', *command], capture_output=True, text=True, env=self.env, timeout=harness.PATIENCE)
        for line in p.stderr.strip().split('\n') if p.stderr else []:
            self.assertTrue(line.startswith('hva: '), p.stderr)

    def test_four_open_it_at_once(self):
        doc = self.create()
        all_ = [subprocess.Popen([harness.BIN + '/hva', 'run', '--no-window', '--engine', 'soft', '--serial', 'null', doc],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 env=self.env) for _ in range(4)]
        for p in all_:
            self.addCleanup(p.stdout.close)
            self.addCleanup(p.wait)
            self.addCleanup(p.kill)
        end = time.time() + harness.PATIENCE
        while sum(p.poll() is None for p in all_) > 1:
            self.assertLess(time.time(), end)
            time.sleep(0.05)
        for p in all_:
            if p.poll() is not None:
                self.assertEqual(p.returncode, 1)
                self.assertRegex(p.stdout.read(), r'\Ahva: [^\n]*(running|open) already[^\n]*\n\Z')
        winner = next(p for p in all_ if p.poll() is None)
        while True:
            try:
                self.hva('stop', doc)
                break
            except AssertionError:
                self.assertLess(time.time(), end)
                time.sleep(0.1)
        self.assertEqual(winner.wait(harness.PATIENCE), 0)
        self.is_clean(doc)

    def test_by_whatever_name_it_is_the_machine_that_runs(self):
        m = self.begin()
        moved, link = self.path('moved.hva'), self.path('link.hva')
        os.link(self.doc, link)
        os.rename(self.doc, moved)
        for name in moved, link:
            self.assertEqual(self.json('info', name)['state'], 'running')
            self.json('snapshot', name, name, '--wait')
            self.json('revert', name, 'first')
            self.assertEqual(self.state(m), self.first)
            self.json('undo', name)
            self.assertEqual(self.state(m), self.now)
        self.hva('stop', link)
        self.assertEqual(m.wait()[0], 0)

    def test_renamed(self):
        m = self.begin()
        moved = self.path('moved.hva')
        os.rename(self.doc, moved)
        self.assertEqual(self.end(m, self.doc), '')
        m = Running(self, moved)
        self.assertEqual(self.state(m), self.now)
        self.json('revert', moved, 'first')
        self.assertEqual(self.state(m), self.first)
        self.hva('stop', moved)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(moved)

    def test_deleted_and_brought_back(self):
        m = self.begin()
        os.link(self.doc, self.path('bin.hva'))  # as in the desktop's bin
        os.unlink(self.doc)
        self.end(m, self.doc)
        os.rename(self.path('bin.hva'), self.doc)
        m = Running(self, self.doc)
        self.assertEqual(self.state(m), self.now)
        self.hva('stop', self.doc)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(self.doc)

    def test_deleted_for_good(self):
        m = self.begin()
        copy = self.path('copy.hva')
        shutil.copy(self.doc, copy)
        os.unlink(self.doc)
        self.assertIn('kept on this computer only', self.end(m, self.doc))
        # A copy of the document as it was is what belongs to what is kept here.
        os.rename(copy, self.doc)
        m = Running(self, self.doc)
        self.assertEqual(self.state(m), self.now)
        self.hva('stop', self.doc)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(self.doc)

    def test_deleted_and_saved_elsewhere(self):
        m = self.begin()
        os.unlink(self.doc)
        self.sentence(self.hva('snapshot', self.doc, 'second', '--wait', status=1)[1], 'not in the document', 'deleted')
        self.sentence(self.hva('stop', self.doc, status=1)[1], 'deleted or replaced', 'save-as doc.hva', '--force')
        self.assertEqual(self.state(m), self.now)
        new = self.path('new.hva')
        self.sentence(self.hva('save-as', self.doc, self.path('no/new.hva'), status=1)[1], 'no')
        self.hva('save-as', self.doc, new)
        self.sentence(self.hva('save-as', new, new, status=1)[1], 'exists')
        m.document = new
        self.assertEqual(self.state(m), self.now)
        later = self.change(m, 'THIRDONE')
        self.json('snapshot', new, 'third', '--wait')
        self.assertEqual([v['title'] for v in self.json('log', new) if v['kind'] == 'user'], ['first', 'second', 'third'])
        self.hva('stop', new)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(new)
        self.hva('verify', new)
        m = Running(self, new)
        self.assertEqual(self.state(m), later)
        self.json('revert', new, 'first')
        self.assertEqual(self.state(m), self.first)
        self.hva('stop', new)
        self.assertEqual(m.wait()[0], 0)

    def test_saved_elsewhere_while_it_is_there(self):
        """The machine goes on in the new one; the old one stays behind as it was."""
        m = self.begin()
        new = self.path('new.hva')
        self.hva('save-as', self.doc, new)
        m.document = new
        self.change(m, 'THIRDONE')
        old = Running(self, self.doc)
        self.json('revert', self.doc, 'first')
        self.assertEqual(self.state(old), self.first)
        for doc, machine in ((self.doc, old), (new, m)):
            self.hva('stop', doc)
            self.assertEqual(machine.wait()[0], 0)
            self.hva('verify', doc)
        m = Running(self, new)
        self.assertEqual(self.nonce(m), 'THIRDONE')
        self.hva('stop', new)

    def replaced(self, replace, *words):
        m = self.begin()
        replace(m)
        out = self.end(m, self.doc)
        for w in words:
            self.assertIn(w, out)
        return out

    def test_replaced_by_an_older_one_of_its_own(self):
        def replace(m):
            shutil.copy(self.doc, self.path('old.hva'))
            self.json('snapshot', self.doc, 'second', '--wait')
            os.rename(self.path('old.hva'), self.doc)
        self.replaced(replace, 'deleted or replaced', 'kept on this computer only')
        m = Running(self, self.doc)
        self.assertEqual([v['title'] for v in self.json('log', self.doc) if v['kind'] == 'user'], ['first'])
        self.assertEqual(len(self.aside()), 1)
        self.hva('stop', self.doc)
        self.assertIn('put aside', m.wait()[1])

    def test_replaced_by_another_machine(self):
        def replace(m):
            os.rename(self.create('other.hva'), self.doc)
        self.replaced(replace, 'deleted or replaced')
        m = Running(self, self.doc)
        self.assertEqual(self.nonce(m), '--------')
        self.assertEqual(len(self.aside()), 1)
        self.hva('stop', self.doc)
        self.assertIn('put aside', m.wait()[1])
        self.hva('verify', self.doc)

    def test_overwritten_in_place(self):
        """cp other.hva doc.hva: what is read now is another's, and must not become this one's."""
        def replace(m):
            other = self.create('other.hva')
            with open(other, 'rb') as f, open(self.doc, 'r+b') as g:
                shutil.copyfileobj(f, g)
                g.truncate()
            self.state(m)
        self.replaced(replace, 'kept on this computer only')
        m = Running(self, self.doc)
        self.assertEqual(self.nonce(m), '--------')
        self.hva('stop', self.doc)
        self.assertIn('put aside', m.wait()[1])
        self.hva('verify', self.doc)

    def test_cut_off_while_it_runs(self):
        def replace(m):
            with open(self.doc, 'rb') as f:
                self.whole = f.read()
            os.truncate(self.doc, len(self.whole) // 2 // 512 * 512)
            self.goes_on(['snapshot', self.doc, 'with half a document'])
        self.replaced(replace, 'everything is saved in this computer')
        self.assertIn('cut off', self.hva('run', '--no-window', self.doc, status=1)[1])
        with open(self.doc, 'wb') as f:
            f.write(self.whole)
        m = Running(self, self.doc)
        self.assertEqual(self.state(m), self.now)
        self.hva('stop', self.doc)
        self.assertEqual(m.wait()[0], 0)
        self.hva('verify', self.doc)
        self.is_clean(self.doc)


if __name__ == '__main__':
    harness.main()
