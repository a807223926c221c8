# SPDX-License-Identifier: MIT
"""The tree of versions: new titles, pins, branches from any snapshot, points of the timeline that become snapshots, and
what deleting one leaves of the others; on a machine that runs and on a document that does not."""
import fcntl
import os
import subprocess
import time

import harness
from harness import KERNEL, Running


class Tree(harness.Case):
    def setUp(self):
        super().setUp()
        self.doc = self.path('doc.hva')
        self.hva('create', self.doc, '--kernel', KERNEL, '--append', 'serve', '--disk', '8M', '--memory', '64M')
        self.hva('timeline', self.doc, 'off')

    def change(self, m, nonce):
        with m.console() as c:
            for command in ('w' + nonce, 'f', 'D' + nonce, 'b'):
                c.ask(command, 'ok')
        return self.state(m)

    def state(self, m):
        with m.console() as c:
            return (c.ask('p', r'nonce=(.{8}) ')[1], c.ask('v', r'fill=(\w+)\n')[1], c.ask('d', r'disk=(.{8})\n')[1],
                    c.ask('B', r'big=(\w+)\n')[1])

    def version(self, title):
        return [v for v in self.json('log', self.doc) if v['title'] == title][0]

    def titles(self):
        return [v['title'] for v in self.json('log', self.doc) if v['kind'] == 'user']

    def edit_all(self):
        """The same commands, whether it runs or not."""
        self.hva('rename', self.doc, 'second', 'The second')
        self.assertEqual(self.titles(), ['first', 'The second', 'third'])
        self.hva('pin', self.doc, 'The second')
        self.hva('pin', self.doc, 'The second')
        self.assertTrue(self.version('The second')['pinned'])
        self.assertIn('(pinned)', self.hva('log', self.doc)[0])
        self.sentence(self.hva('drop', self.doc, 'The second', status=1)[1], 'pinned', '--force')
        self.hva('unpin', self.doc, 'The second')
        self.assertFalse(self.version('The second')['pinned'])
        self.sentence(self.hva('rename', self.doc, 'nothing', 'x', status=1)[1], 'nothing')
        self.sentence(self.hva('keep', self.doc, 'first', status=2)[1], 'kept already')
        self.hva('rename', self.doc, 'The second', 'second')

    def test_a_new_machine_from_a_snapshot(self):
        m = Running(self, self.doc)
        first = self.change(m, 'FIRSTONE')
        self.json('snapshot', self.doc, 'first')
        second = self.change(m, 'SECONDON')
        self.json('snapshot', self.doc, 'second', '--wait')
        other = self.path('other.hva')
        self.hva('stop', self.doc)
        m.wait()
        self.sentence(self.hva('clone', self.doc, 'nothing', other, status=1)[1], 'nothing')
        self.assertFalse(os.path.exists(other))
        self.hva('clone', self.doc, 'first', other)
        self.hva('verify', other)
        uuids = {self.json('info', doc)['uuid'] for doc in (self.doc, other)}
        self.assertEqual(len(uuids), 2)
        self.assertEqual([v['title'] for v in self.json('log', other)], ['first'])
        m, n = Running(self, self.doc), Running(self, other)  # both at once
        self.assertEqual(self.state(m), second)
        self.assertEqual(self.state(n), first)
        self.change(n, 'CLONEDON')
        self.assertEqual(self.state(m), second)
        self.hva('stop', self.doc)
        self.hva('stop', other)

    def runs_as(self, doc, state):
        """The clone goes on from there, and is a machine of its own."""
        self.hva('verify', doc)
        self.assertNotEqual(self.json('info', doc)['uuid'], self.json('info', self.doc)['uuid'])
        self.assertEqual(self.json('info', doc)['name'] + '.hva', os.path.basename(doc))
        m = Running(self, doc)
        self.assertEqual(self.state(m), state)
        self.change(m, 'CLONEDON')
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)

    def test_a_machine_that_runs_is_cloned(self):
        m = Running(self, self.doc)
        first = self.change(m, 'FIRSTONE')
        self.json('snapshot', self.doc, 'first', '--wait')
        second = self.change(m, 'SECONDON')
        with open(self.doc, 'rb') as f:
            before = f.read()
        self.hva('clone', self.doc, self.path('now.hva'))
        self.hva('clone', 'doc', 'first', 'then.hva')  # by its name, into the folder we are in
        self.sentence(self.hva('clone', self.doc, self.path('now.hva'), status=1)[1], 'now.hva', 'exists')
        self.sentence(self.hva('clone', self.doc, 'nothing', self.path('x.hva'), status=1)[1], 'nothing')
        self.sentence(self.hva('clone', self.doc, self.path('no/x.hva'), status=1)[1], 'no')
        # the original is what it was: the file, its versions, and what runs
        with open(self.doc, 'rb') as f:
            self.assertEqual(f.read(), before)
        self.assertEqual([v['title'] for v in self.json('log', self.doc)], ['first'])
        self.assertEqual(self.state(m), second)
        self.runs_as(self.path('now.hva'), second)
        self.runs_as(self.path('then.hva'), first)
        third = self.change(m, 'THIRDONE')
        self.json('snapshot', self.doc, 'third')
        self.json('revert', self.doc, 'first')
        self.assertEqual(self.state(m), first)
        self.json('undo', self.doc)
        self.assertEqual(self.state(m), third)
        self.hva('stop', self.doc)
        m.wait()
        self.hva('verify', self.doc)
        # a saved machine's clone goes on where it was saved
        self.hva('clone', self.doc, self.path('saved.hva'))
        self.runs_as(self.path('saved.hva'), third)
        self.assertEqual([n for n in os.listdir(self.dir) if n.endswith('.unfinished')], [])

    def test_a_clone_that_nobody_waits_for_is_given_up(self):
        big = self.path('big.raw')
        with open(big, 'wb') as f:
            f.write(os.urandom(96 << 20))
        self.doc = self.path('big.hva')
        self.hva('create', self.doc, '--kernel', KERNEL, '--append', 'serve', '--disk', big, '--memory', '64M')
        m = Running(self, self.doc)
        state = self.change(m, 'FIRSTONE')
        out = self.path('out.hva')
        p = subprocess.Popen([harness.BIN + '/hva', 'clone', self.doc, out], env=self.env)
        self.wait_for(lambda: os.path.exists(out + '.unfinished'))
        p.kill()
        p.wait()
        self.json('snapshot', self.doc, 'behind it')
        self.assertEqual([n for n in os.listdir(self.dir) if n.startswith('out.hva')], [])
        self.assertEqual([v['title'] for v in self.json('log', self.doc)], ['behind it'])
        self.assertEqual(self.state(m), state)
        self.hva('stop', self.doc)

    def test_a_document_that_somebody_else_has_open_is_cloned(self):
        m = Running(self, self.doc)
        state = self.change(m, 'FIRSTONE')
        self.hva('stop', self.doc)
        m.wait()
        with open(self.doc) as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            self.hva('clone', self.doc, self.path('other.hva'))
        self.runs_as(self.path('other.hva'), state)

    def test_titles_pins_and_deleting(self):
        m = Running(self, self.doc)
        states = {}
        for title in ('first', 'second', 'third'):
            states[title] = self.change(m, title.ljust(8, '-'))
            self.json('snapshot', self.doc, title)
        self.edit_all()
        self.hva('stop', self.doc)
        m.wait()
        self.edit_all()
        self.hva('pin', self.doc, 'second')
        self.hva('drop', self.doc, 'second', '--force')
        self.assertEqual(self.titles(), ['first', 'third'])
        self.hva('verify', self.doc)
        m = Running(self, self.doc)
        for title in ('first', 'third'):
            self.json('revert', self.doc, title)
            self.assertEqual(self.state(m), states[title])
        self.hva('stop', self.doc)
        self.hva('verify', self.doc)

    def sizes(self):
        return {v['title']: (v['own'], v['shared']) for v in self.json('log', self.doc, '--sizes') if v['kind'] == 'user'}

    def test_sizes(self):
        m = Running(self, self.doc)
        self.json('snapshot', self.doc, 'first')
        self.change(m, 'SECONDON')
        self.json('snapshot', self.doc, 'second')
        sizes = self.sizes()
        self.change(m, 'THIRDONE')
        self.json('snapshot', self.doc, 'third')
        later = self.sizes()
        # what the present has left behind is the second's alone
        self.assertGreater(later['second'][0], sizes['second'][0])
        self.assertLess(later['second'][1], sizes['second'][1])
        self.assertEqual(sum(later['second']), sum(sizes['second']))
        self.assertNotIn('own', self.json('log', self.doc)[0])
        self.assertIn('MB own', self.hva('log', self.doc, '--sizes')[0])
        self.hva('stop', self.doc)
        m.wait()
        self.hva('drop', self.doc, 'third')
        self.assertEqual(sum(self.sizes()['second']), sum(sizes['second']))

    def test_any_snapshot_is_the_base_of_further_work(self):
        m = Running(self, self.doc)
        states = {}

        def snapshot(title):
            states[title] = self.change(m, title.ljust(8, '-'))
            return self.json('snapshot', self.doc, title)['id']

        root, left = snapshot('root'), snapshot('left')
        leaf = snapshot('leaf')
        self.json('revert', self.doc, 'root')
        right = snapshot('right')
        self.json('revert', self.doc, 'left')
        other = snapshot('other')
        parents = {v['id']: v['parent'] for v in self.json('log', self.doc)}
        self.assertEqual([parents[v] for v in (root, left, leaf, right, other)], ['', root, left, root, left])
        # deleting one in the middle leaves the others what they are
        self.hva('drop', self.doc, 'left')
        parents = {v['id']: v['parent'] for v in self.json('log', self.doc)}
        self.assertEqual([parents[v] for v in (leaf, right, other)], [root, root, root])
        for title in ('right', 'leaf', 'root', 'other'):
            self.json('revert', self.doc, title)
            self.assertEqual(self.state(m), states[title])
        self.hva('stop', self.doc)
        log = self.hva('log', self.doc)[0]
        lines = {title: line for line in log.splitlines() for title in states if line.endswith('  ' + title)}
        self.assertTrue(lines['root'].startswith('o '), log)
        self.assertEqual(sum(line.startswith('|-') for line in (lines[t] for t in ('leaf', 'right', 'other'))), 3, log)
        self.assertEqual(len([line for line in log.splitlines() if '* ' in line[:8]]), 1, log)
        self.hva('verify', self.doc)

    def test_a_point_that_is_kept_belongs_to_the_document(self):
        self.hva('timeline', self.doc, 'on')
        self.hva('timeline', self.doc, 'every', '1')
        m = Running(self, self.doc)
        state = self.change(m, 'POINT---')
        end = time.time() + harness.PATIENCE
        points = []
        while not points:
            self.assertLess(time.time(), end)
            time.sleep(0.2)
            with m.console() as c:
                c.ask('f', 'ok')
            state = self.state(m)
            time.sleep(1.2)
            points = [v for v in self.json('log', self.doc, '--timeline') if v['kind'] == 'auto']
        self.hva('timeline', self.doc, 'off')
        point = [v for v in self.json('log', self.doc, '--timeline') if v['kind'] == 'auto'][-1]
        state = None
        self.json('revert', self.doc, point['id'])
        state = self.state(m)
        self.hva('keep', self.doc, point['id'], 'Worth it')
        self.assertEqual(self.version('Worth it')['id'], point['id'])
        self.hva('timeline', self.doc, 'purge')
        self.change(m, 'LATER---')
        self.hva('stop', self.doc)
        m.wait()
        # a document without its instance has it
        self.env['XDG_DATA_HOME'] = self.path('other')
        self.assertIn('Worth it', self.titles())
        self.hva('verify', self.doc)
        m = Running(self, self.doc, '--trust-state')
        self.assertEqual(self.state(m)[0], 'LATER---')
        self.hva('stop', self.doc)


if __name__ == '__main__':
    harness.main()
