# SPDX-License-Identifier: MIT
"""The timeline: automatic checkpoints of a guest that is active, going back to any of them, and what bounds them."""
import json
import os
import random
import signal
import subprocess
import time

import harness
from harness import KERNEL, Running

POINTS = 50 if os.environ.get('HSK_LONG') else 4


class Timeline(harness.Case):
    def create(self, *timeline):
        self.doc = self.path('doc.hva')
        self.hva('create', self.doc, '--kernel', KERNEL, '--append', 'serve', '--disk', '8M', '--memory', '64M')
        for words in timeline or ('every 1',):
            self.hva('timeline', self.doc, *words.split())
        return Running(self, self.doc)

    def say(self, m, text, pattern):
        with m.console() as c:
            return c.ask(text, pattern)

    def change(self, m, nonce):
        """New contents everywhere: a word and 4 MiB in memory, a word and 512 KiB on the disk."""
        with m.console() as c:
            for command in ('w' + nonce, 'f', 'D' + nonce, 'b'):
                c.ask(command, 'ok')
        return self.state(m)

    def state(self, m):
        with m.console() as c:
            return (c.ask('p', r'nonce=(.{8}) ')[1], c.ask('v', r'fill=(\w+)\n')[1], c.ask('d', r'disk=(.{8})\n')[1],
                    c.ask('B', r'big=(\w+)\n')[1])

    def points(self):
        return [v for v in self.json('log', self.doc, '--timeline') if v['kind'] == 'auto']

    def wait_point(self, since):
        """The newest point, once there is one that was not in since."""
        end = time.time() + harness.PATIENCE
        known = {v['id'] for v in since}
        while True:
            new = [v for v in self.points() if v['id'] not in known]
            if new:
                return new[-1]
            self.assertLess(time.time(), end, 'no checkpoint comes')
            time.sleep(0.1)

    def changed_point(self, m, nonce):
        """Changes the guest and waits for a point that holds all of that; its id and the state. None is taken meanwhile:
        it is off, and what was under way has ended when an operation that had to wait for it is done."""
        self.hva('timeline', self.doc, 'off')
        self.hva('log', self.doc, '--sizes')
        before = self.points()
        state = self.change(m, nonce)
        self.hva('timeline', self.doc, 'on')
        return self.wait_point(before)['id'], state


class Points(Timeline):
    def test_an_active_guest_gets_points_and_an_idle_one_none(self):
        m = self.create()
        info = self.json('timeline', self.doc)
        self.assertEqual((info['on'], info['every']), (True, 1))
        self.assertGreater(info['limit'], 16 << 20)
        self.changed_point(m, 'ACTIVE--')
        # quiet: what was under way ends, and no more come
        time.sleep(4)
        before = len(self.points())
        time.sleep(5)
        self.assertEqual(len(self.points()), before)
        # plain log does not show them, nor does the document have them
        self.assertEqual(self.json('log', self.doc), [])
        self.hva('stop', self.doc)
        self.assertIn('kept on this computer', m.wait()[1])
        self.assertEqual([v['kind'] for v in self.json('log', self.doc)], ['saved'])
        self.assertEqual(len(self.points()), before)
        self.hva('verify', self.doc)

    def test_any_point_can_be_gone_back_to(self):
        m = self.create()
        states = {}
        for i in range(POINTS):
            point, state = self.changed_point(m, f'POINT{i:03d}')
            states[point] = state
        there = {v['id'] for v in self.points()}
        kept = [p for p in states if p in there]
        self.assertGreater(len(kept), POINTS // 2)
        rng = random.Random(4)
        for _ in range(POINTS):
            point = rng.choice(kept)
            self.assertEqual(self.json('revert', self.doc, point)['to'], point)
            self.assertEqual(self.state(m), states[point])
        last = self.state(m)
        self.json('undo', self.doc)
        self.json('undo', self.doc)
        self.assertEqual(self.state(m), last)
        self.hva('stop', self.doc)
        self.hva('verify', self.doc)

    def test_going_back_to_a_time(self):
        m = self.create()
        first, state = self.changed_point(m, 'EARLIER-')
        time.sleep(2.1)
        self.changed_point(m, 'LATER---')
        versions = self.json('log', self.doc, '--timeline')
        when = [v['time'] for v in versions if v['id'] == first][0]
        at = time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(when + 1))
        newest = [v['id'] for v in versions if v['time'] <= when + 1 and v['kind'] != 'before-revert'][-1]
        self.assertEqual(self.json('revert', self.doc, '--at', at)['to'], newest)
        if newest == first:
            self.assertEqual(self.state(m), state)
        clock = time.strftime('%H:%M:%S', time.localtime(when + 1))
        self.assertEqual(self.json('revert', self.doc, '--at', clock)['to'], newest)
        self.sentence(self.hva('revert', self.doc, '--at=-1d', status=1)[1], 'oldest point')
        self.sentence(self.hva('revert', self.doc, '--at', 'noon', status=2)[1], 'noon')
        self.sentence(self.hva('revert', self.doc, 'x', '--at=-1s', status=2)[1], '--at')
        self.hva('stop', self.doc)

    def test_after_a_crash_the_last_point_is_offered(self):
        m = self.create()
        point, state = self.changed_point(m, 'CRASHED-')
        self.hva('timeline', self.doc, 'off')
        self.change(m, 'LOST----')
        m.process.kill()
        m.wait()
        # cold by default, with a sentence that names the command
        m = Running(self, self.doc)
        with m.console() as c:
            c.ask('p', r'nonce=--------')
            disk = c.ask('d', r'disk=(.{8})\n')[1]
        self.assertEqual(disk, 'LOST----')
        command = self.points()[-1]['id'][:8]
        self.json('revert', self.doc, command)
        self.assertEqual(self.state(m)[0], state[0])
        m.process.kill()
        out = m.wait()[1]
        self.assertIn(f'hva revert MACHINE {command}', out)
        self.assertEqual(len([line for line in out.splitlines() if 'stopped properly' in line]), 1, out)
        # or at once, with what is on the disks kept
        m = Running(self, self.doc, '--at', 'last')
        self.assertEqual(self.state(m), state)
        self.hva('stop', self.doc)
        self.assertEqual(m.wait()[0], 0)
        m = Running(self, self.doc)
        self.assertEqual(self.state(m), state)
        self.hva('stop', self.doc)
        self.assertNotIn('stopped properly', m.wait()[1])
        self.sentence(self.hva('run', '--no-window', '--at=-2d', self.doc, status=1)[1], 'oldest point')
        self.sentence(self.hva('run', '--no-window', '--at=last', '--fresh', self.doc, status=2)[1], '--fresh')
        self.hva('verify', self.doc)

    def instances(self):
        return os.listdir(self.env['XDG_DATA_HOME'] + '/haversack/instances')

    def test_the_timeline_goes_with_its_document(self):
        m = self.create()
        self.changed_point(m, 'DELETED-')
        self.hva('stop', self.doc)
        m.wait()
        self.hva('ps')
        self.assertEqual(len(self.instances()), 1)
        # a folder that is away is no document that was deleted
        folder = self.path('folder')
        os.mkdir(folder)
        moved = folder + '/doc.hva'
        os.rename(self.doc, moved)
        m = Running(self, moved)
        self.hva('stop', moved)
        m.wait()
        os.rename(folder, self.path('away'))
        self.hva('ps')
        self.assertEqual(len(self.instances()), 1)
        os.rename(self.path('away'), folder)
        self.assertGreater(len([v for v in self.json('log', moved, '--timeline') if v['kind'] == 'auto']), 0)
        # what is in no document stays
        m = Running(self, moved)
        with m.console() as c:
            c.ask('DUNSAVED-', 'ok')
        m.process.kill()
        m.wait()
        os.rename(moved, self.doc)
        self.hva('ps')
        self.assertEqual(len(self.instances()), 1)
        m = Running(self, self.doc)
        with m.console() as c:
            self.assertEqual(c.ask('d', r'disk=(.{8})\n')[1], 'UNSAVED-')
        self.hva('stop', self.doc)
        m.wait()
        os.unlink(self.doc)
        self.hva('ps')
        self.assertEqual(self.instances(), [])

    def test_off_means_off_and_purge_deletes(self):
        m = self.create('every 1', 'off')
        for i in range(3):
            self.change(m, f'OFF{i:05d}')
            time.sleep(1.1)
        self.assertEqual(self.points(), [])
        self.assertEqual(self.json('timeline', self.doc, 'on')['on'], True)
        self.changed_point(m, 'ON------')
        self.hva('timeline', self.doc, 'off')
        self.assertGreater(self.json('timeline', self.doc)['points'], 0)
        self.assertEqual(self.json('timeline', self.doc, 'purge')['points'], 0)
        self.change(m, 'OFFAGAIN')
        time.sleep(2.5)
        self.assertEqual(self.points(), [])
        self.hva('timeline', self.doc, 'on')
        self.changed_point(m, 'ONAGAIN-')
        self.hva('stop', self.doc)
        m.wait()
        self.assertGreater(self.json('timeline', self.doc)['points'], 0)
        self.assertEqual(self.json('timeline', self.doc, 'purge')['points'], 0)
        self.assertEqual(self.points(), [])
        for words in ('sometimes',), ('every', '0'), ('limit', '1M'), ('on', 'now'), ('every',):
            self.sentence(self.hva('timeline', self.doc, *words, status=2)[1])

    def test_limit_holds(self):
        """Each point has a page that the present needs, too: only compacting gives back what was dropped. What fits stays."""
        m = self.create('every 1', 'limit 16M')
        history = []
        for i in range(60 if POINTS > 4 else 18):
            before = self.points()
            self.say(m, 'F', 'ok')
            self.wait_point(before)
            # behind the point others are dropped; it is over when an operation that had to wait is
            self.hva('log', self.doc, '--sizes')
            history.append((len(self.points()), self.on_disk()))
        # a twentieth, and the last point
        self.assertLess(max(disk for _, disk in history), (16 << 20) * 1.05 + 3.2e6, history)
        full = [i for i, (_, disk) in enumerate(history) if disk > (16 << 20) * 0.7]
        self.assertLess(full[0], len(history) // 2, history)
        self.assertGreaterEqual(min(points for points, _ in history[full[0]:]), 4, history)
        self.assertGreater(min(disk for _, disk in history[full[0]:]), (16 << 20) * 0.55, history)
        self.hva('stop', self.doc)
        m.wait()
        self.hva('verify', self.doc)

    def on_disk(self):
        base = self.env['XDG_DATA_HOME'] + '/haversack/instances'
        return sum(os.lstat(os.path.join(d, f)).st_blocks * 512 for d, _, files in os.walk(base) for f in files
                   if os.path.basename(d) in ('data', 'map'))

    def test_what_the_user_wants_comes_first(self):
        m = self.create()
        for i in range(POINTS):
            self.change(m, f'FIRST{i:03d}')
            snap = self.json('snapshot', self.doc, f'number {i}')
            self.assertLess(snap['durable_ms'], 20000)
        for i in range(POINTS):
            self.json('revert', self.doc, f'number {i}')
            self.assertEqual(self.state(m)[0], f'FIRST{i:03d}')
        self.hva('stop', self.doc)
        self.hva('verify', self.doc)


if __name__ == '__main__':
    harness.main()
