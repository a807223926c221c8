# SPDX-License-Identifier: MIT
"""What names of files and folders do to the programs, and to the terminal that shows them."""
import os
import subprocess

import harness
from harness import Running
from test_document import Document


class Names(Document):
    def put(self, folder, name):
        """A document under a name that it could not be created with."""
        doc = self.create()
        place = os.path.join(os.fsencode(self.dir), folder)
        os.mkdir(place)
        os.rename(doc, os.path.join(place, name))
        return os.path.join(place, name)

    def shown(self, *args, status=0, cwd=None):
        """What a terminal would get: nothing in it that a terminal obeys, and UTF-8."""
        p = subprocess.run([harness.BIN + '/hva', *args], stdin=subprocess.DEVNULL, capture_output=True, env=self.env,
                           cwd=cwd or self.dir, timeout=harness.PATIENCE)
        self.assertEqual(p.returncode, status, (args, p.stderr))
        for text in p.stdout, p.stderr:
            self.assertTrue(text.decode().replace('\n', '').isprintable(), text)
        if status:
            self.sentence(p.stderr.decode())
        return p.stdout.decode(), p.stderr.decode()

    def test_a_terminal_gets_nothing_to_obey(self):
        doc = os.fsdecode(self.put(b'a\x1b[31mfolder\nand', b'a\rname\xc2\x9b5n.hva'))
        for command in ['info', doc], ['log', doc], ['verify', doc], ['compact', doc], ['sign', doc]:
            self.shown(*command)
        self.shown('clone', doc, doc, status=1)
        self.shown('console', doc, status=1)
        m = Running(self, doc)
        state = self.change(m, 'FIRSTONE')
        for command in ['ps'], ['info', doc], ['snapshot', '--wait', doc], ['log', doc]:
            self.shown(*command)
        self.shown('run', '--no-window', doc, status=1)
        self.shown('compact', doc, status=1)
        m.kill()
        m = Running(self, doc, '--at', 'last')
        self.assertEqual(self.state(m), state)
        self.shown('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.is_clean(doc)
        os.truncate(doc, 3000)
        self.shown('verify', doc, status=1)

    def test_what_is_not_utf8_is_refused(self):
        """The instance's origin and the control socket could not name it: its instance would not be found again."""
        doc = self.put(b'caf\xe9', b'doc.hva')
        place = os.path.dirname(doc)
        commands = (['info'], ['info', '--json'], ['log'], ['verify'], ['compact'], ['timeline'],
                    ['run', '--no-window', '--engine', 'soft', '--serial', 'null'])
        for command in commands:
            self.assertIn('not UTF-8', self.shown(*command, 'doc.hva', status=1, cwd=place)[1])
            self.assertIn('UTF-8', self.shown(*command, doc, status=2)[1])
        self.assertEqual(os.listdir(place), [b'doc.hva'])

    def test_a_text_that_is_not_utf8_is_never_taken_for_none(self):
        """"revert" without a name would go back to the newest."""
        doc = self.create()
        m = Running(self, doc)
        self.hva('snapshot', doc, 'first')
        state = self.change(m, 'FIRSTONE')
        for command in ['revert', doc, b'\xff'], ['snapshot', doc, b'\xff'], ['drop', doc, b'\xff'], ['clone', doc, b'\xff.hva']:
            self.shown(*command, status=2)
        self.assertEqual(self.state(m), state)
        self.assertEqual([v['title'] for v in self.json('log', doc)], ['first'])


if __name__ == '__main__':
    harness.main()
