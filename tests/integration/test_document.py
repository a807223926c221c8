# SPDX-License-Identifier: MIT
"""A document's life: create, run, snapshot, revert, undo, stop, resume; and what must not go wrong with it."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import unittest

import harness
from harness import KERNEL, Running

LOOPS = 50 if os.environ.get('HSK_LONG') else 8


class Document(harness.Case):
    def create(self, name='doc.hva', append='serve', cpus=1, memory='64M'):
        self.hva('create', name, '--kernel', KERNEL, '--append', append, '--disk', '8M', '--memory', memory, '--cpus', str(cpus))
        return self.path(name)

    def say(self, machine, text, pattern):
        with machine.console() as c:
            return c.ask(text, pattern)

    def nonce(self, machine):
        return self.say(machine, 'p', r'nonce=(.{8}) count=\d+\n')[1]

    def count(self, machine):
        return int(self.say(machine, 'p', r'count=(\d+)\n')[1])

    def change(self, machine, nonce):
        """New contents everywhere: a word and 4 MiB in memory, a word and 512 KiB on the disk."""
        with machine.console() as c:
            for command in ('w' + nonce, 'f', 'D' + nonce, 'b'):
                c.ask(command, 'ok')
        return self.state(machine)

    def state(self, machine):
        with machine.console() as c:
            return (c.ask('p', r'nonce=(.{8}) ')[1], c.ask('v', r'fill=(\w+)\n')[1], c.ask('d', r'disk=(.{8})\n')[1],
                    c.ask('B', r'big=(\w+)\n')[1])

    def alive(self, m, state):
        """It goes on, and everything in it is as it was."""
        first = self.count(m)
        self.assertEqual(self.state(m), state)
        self.assertGreater(self.count(m), first)

    def is_clean(self, doc):
        """In the store of a document that nobody has open: what ROOT lists, and the log."""
        base = self.env['XDG_DATA_HOME'] + '/haversack/instances'
        ids = os.listdir(base)
        self.assertEqual(len(ids), 1, ids)
        place = os.path.join(base, ids[0])
        listed = set(re.findall(r'^BLAKE2b-256 \((.*?)\)', harness.read(place + '/ROOT'), re.M))
        for folder, _, files in os.walk(place):
            for f in files:
                name = os.path.relpath(os.path.join(folder, f), place)
                if name.startswith('log/') or name in ('ROOT', 'ROOT.prev', 'origin'):
                    continue
                self.assertIn(name, listed, 'left behind')
        self.assertEqual([f for f in os.listdir(os.path.dirname(doc)) if f.endswith(('.tmp', '.unfinished'))], [])

    def work(self, machine, cpus):
        """What the other processors have done, once all are at it; checked by the guest itself."""
        end = time.time() + harness.PATIENCE
        while True:
            with machine.console() as c:
                m = c.ask('c', r'cpus=(\d+) work=(\w+)\n')
            self.assertTrue(m[2].isdigit(), m[2])
            if int(m[1]) == cpus:
                return int(m[2])
            self.assertLess(time.time(), end, 'not all processors start')


class Life(Document):
    def test_created_document_tells_what_it_is(self):
        doc = self.create()
        info = self.json('info', doc)
        self.assertEqual((info['name'], info['state'], info['memory'], info['cpus'], info['snapshots']), ('doc', 'off', 64 << 20, 1, 0))
        self.assertEqual([(d['id'], d['bytes']) for d in info['disks']], [('root', 8 << 20)])
        self.assertEqual(self.json('log', doc), [])
        self.hva('verify', doc)

    def test_truth(self):
        """Memory, disk and a count: snapshot, change all, revert, undo, and the same over the end of a process."""
        doc = self.create()
        m = Running(self, doc)
        old, old_count = self.change(m, 'OLDNONCE'), self.count(m)
        self.assertEqual((old[0], old[2]), ('OLDNONCE', 'OLDNONCE'))
        snap = self.json('snapshot', doc, 'Before it')
        self.assertEqual(snap['title'], 'Before it')
        for figure in ('pause_ms', 'durable_ms', 'bytes_added'):
            self.assertGreater(snap[figure], 0)
        new, new_count = self.change(m, 'NEWNONCE'), self.count(m)
        for before, after in zip(old, new):
            self.assertNotEqual(before, after)

        back = self.json('revert', doc)
        self.assertEqual(back['to'], snap['id'])
        self.assertEqual(self.state(m), old)
        self.assertGreater(self.count(m), old_count)
        undone = self.json('undo', doc)
        self.assertEqual(undone['title'], 'Before revert')
        self.assertEqual(self.state(m), new)
        self.assertGreater(self.count(m), new_count)
        self.json('undo', doc)
        self.assertEqual(self.state(m), old)
        self.json('undo', doc)
        self.assertEqual(self.state(m), new)

        last = self.count(m)
        self.hva('stop', doc)
        self.assertEqual(m.wait()[0], 0)
        self.assertEqual(self.json('info', doc)['state'], 'saved')
        self.hva('verify', doc)
        m = Running(self, doc)
        self.assertEqual(self.state(m), new)
        self.assertGreater(self.count(m), last)
        self.json('revert', doc, 'Before it')
        self.assertEqual(self.state(m), old)
        self.json('undo', doc)
        self.assertEqual(self.state(m), new)
        self.hva('stop', doc)
        self.hva('verify', doc)

    def test_truth_with_processors_at_work(self):
        """Snapshot, revert, undo, stop and resume while three processors do nothing but locked additions."""
        doc = self.create(append='smp serve', cpus=4)
        self.assertEqual(self.json('info', doc)['cpus'], 4)
        m = Running(self, doc)
        first = self.work(m, 4)
        old = self.change(m, 'OLDNONCE')
        self.json('snapshot', doc, 'Before it')
        then = self.work(m, 4)
        self.assertGreater(then, first)
        new = self.change(m, 'NEWNONCE')
        for _ in range(3):
            self.json('revert', doc)
            self.assertEqual(self.state(m), old)
            self.assertGreater(self.work(m, 4), first)
            self.json('undo', doc)
            self.assertEqual(self.state(m), new)
            last = self.work(m, 4)
            self.assertGreater(last, then)
        self.hva('stop', doc)
        m = Running(self, doc)
        self.assertEqual(self.state(m), new)
        self.assertGreater(self.work(m, 4), last)
        self.hva('stop', doc)
        self.hva('verify', doc)

    def test_document_carries_everything_to_another_computer(self):
        doc = self.create()
        m = Running(self, doc)
        state = self.change(m, 'CARRYME-')
        with m.console() as c:
            c.send('o')
            self.assertEqual(m.wait()[0], 0)
        self.env['XDG_DATA_HOME'] = self.path('other')
        os.mkdir(self.path('other'))
        m = Running(self, doc)
        self.assertEqual(self.state(m)[2:], state[2:])
        self.hva('stop', doc)

    def test_disks_survive_a_power_cut(self):
        doc = self.create()
        m = Running(self, doc)
        state = self.change(m, 'POWERCUT')
        m.process.kill()
        m.wait()
        m = Running(self, doc)
        self.assertEqual(self.state(m)[2:], state[2:])
        self.assertEqual(self.nonce(m), '--------')
        self.hva('stop', doc)

    @unittest.skipUnless(os.environ.get('HSK_LONG') and os.access('/dev/kvm', os.W_OK), 'only in the long run, with /dev/kvm')
    def test_engines_take_over_each_others_machines(self):
        for cpus, append in (1, 'serve'), (3, 'smp serve'):
            doc = self.create(f'{cpus}.hva', append, cpus)
            state = None
            for engine in ('kvm', 'soft', 'kvm'):
                m = Running(self, doc, '--engine', engine)
                self.work(m, cpus)
                if state:
                    self.assertEqual(self.state(m), state)
                state = self.change(m, engine.ljust(8))
                self.hva('stop', doc)

    def test_snapshots_in_a_row_hold_each_its_own(self):
        doc = self.create()
        m = Running(self, doc)
        ids, states = [], []
        for i in range(4):
            states.append(self.change(m, f'NONCE-{i}-'))
            ids.append(self.json('snapshot', doc, f'number {i}')['id'])
        for i in (2, 0, 3, 1):
            self.json('revert', doc, ids[i])
            self.assertEqual(self.state(m), states[i])
        self.wait_for(lambda: [v['kind'] for v in self.json('log', doc)].count('before-revert') == 4)  # stored behind the answer
        self.assertEqual([v['kind'] for v in self.json('log', doc)].count('user'), 4)
        for i in (2, 0, 3, 1):
            self.json('revert', doc, f'number {i}')
        kinds = [v['kind'] for v in self.json('log', doc)]
        self.assertIn(kinds.count('before-revert'), (5, 6))
        self.hva('drop', doc, ids[0])
        self.assertNotIn(ids[0], [v['id'] for v in self.json('log', doc)])
        self.hva('stop', doc)
        self.hva('drop', doc, ids[2])
        self.assertNotIn(ids[2], [v['id'] for v in self.json('log', doc)])
        self.hva('verify', doc)

    def test_paused_machine_stands_still(self):
        doc = self.create()
        m = Running(self, doc)
        before = self.count(m)
        self.hva('pause', doc)
        self.assertEqual(self.json('info', doc)['state'], 'paused')
        time.sleep(0.3)
        # A snapshot of a paused machine leaves it paused.
        self.json('snapshot', doc)
        self.assertEqual(self.json('info', doc)['state'], 'paused')
        self.hva('resume', doc)
        self.assertGreater(self.count(m), before)
        self.hva('stop', doc)

    def test_power_off_keeps_no_running_state(self):
        doc = self.create()
        m = Running(self, doc)
        self.say(m, 'wGONE----', 'ok')
        with m.console() as c:
            c.send('o')
            self.assertEqual(m.wait()[0], 0)
        self.assertEqual(self.json('info', doc)['state'], 'off')
        m = Running(self, doc)
        self.assertEqual(self.nonce(m), '--------')
        self.hva('stop', doc, '--force')
        self.assertEqual(m.wait()[0], 0)
        self.assertEqual(self.json('info', doc)['state'], 'off')

    def test_reset_and_triple_fault_boot_again(self):
        doc = self.create()
        m = Running(self, doc)
        with m.console() as c:
            for command in 'rt':
                c.ask('wX-X-X-X-', 'ok')
                c.ask(command, r'hello\s+ready')
                c.ask('p', 'nonce=--------')
            c.ask('wX-X-X-X-', 'ok')
            self.hva('reset', doc)
            c.expect(r'hello\s+ready')
        self.hva('stop', doc)

    def test_fresh_leaves_the_saved_state_and_discard_deletes_it(self):
        doc = self.create()
        m = Running(self, doc)
        self.say(m, 'wKEPT----', 'ok')
        self.hva('stop', doc)
        m = Running(self, doc, '--discard')
        self.assertEqual(self.nonce(m), '--------')
        m.kill()
        self.assertEqual(self.json('info', doc)['state'], 'off')

    def test_signal_saves_like_closing(self):
        doc = self.create()
        m = Running(self, doc)
        self.say(m, 'wSIGNAL--', 'ok')
        m.process.terminate()
        self.assertEqual(m.wait()[0], 0)
        m = Running(self, doc)
        self.assertEqual(self.nonce(m), 'SIGNAL--')
        self.hva('stop', doc)

    def test_ps_screenshot_and_names(self):
        doc = self.create()
        Running(self, doc)
        self.assertEqual([p['name'] for p in self.json('ps')], ['doc'])
        self.hva('screenshot', 'doc', self.path('s.png'))
        with open(self.path('s.png'), 'rb') as f:
            self.assertEqual(f.read(8), b'\x89PNG\r\n\x1a\n')
        self.hva('key', 'doc', 'ctrl+alt+delete')
        self.hva('type', 'doc', 'Hello, World!\n')
        self.hva('mouse', 'doc', '10', '20', 'left')
        self.sentence(self.hva('key', 'doc', 'ctrl+nokey', status=2)[1], 'nokey')
        self.hva('stop', 'doc')
        self.assertEqual(self.json('ps'), [])


class BadInput(Document):
    def fails(self, words, *args, status=1):
        self.sentence(self.hva(*args, status=status)[1], *words)

    def test_files_that_are_no_documents(self):
        with open(self.path('text.hva'), 'w') as f:
            f.write('this is no machine\n' * 1000)
        open(self.path('empty.hva'), 'w').close()
        doc = self.create()
        with open(doc, 'rb') as f:
            whole = f.read()
        with open(self.path('cut.hva'), 'wb') as f:
            f.write(whole[:len(whole) // 2])
        for name in ('text.hva', 'empty.hva', 'cut.hva', 'missing.hva'):
            for command in (['run', '--no-window', '--engine', 'soft'], ['info'], ['log'], ['snapshot']):
                self.fails([name], command[0], *command[1:], self.path(name))
            if name != 'missing.hva':
                self.fails([name], 'verify', self.path(name))

    def test_commands_for_running_machines_say_that_it_does_not_run(self):
        doc = self.create()
        for command in ('snapshot', 'revert', 'undo', 'pause', 'stop', 'reset', 'power', 'console'):
            self.fails(['is not running'], command, doc)

    def test_second_opener_gets_a_sentence(self):
        doc = self.create()
        m = Running(self, doc)
        self.fails(['running already'], 'run', '--no-window', doc)
        self.assertEqual(self.nonce(m), '--------')

    def test_copy_of_an_open_document_is_another_machine(self):
        doc = self.create()
        m = Running(self, doc)
        self.say(m, 'wFIRST---', 'ok')
        self.json('snapshot', doc, 'one', '--wait')
        shutil.copy(doc, self.path('copy.hva'))
        copy = Running(self, self.path('copy.hva'))
        self.assertEqual(len(self.json('ps')), 2)
        self.say(copy, 'wSECOND--', 'ok')
        self.assertEqual(self.nonce(m), 'FIRST---')
        self.hva('stop', self.path('copy.hva'))
        self.hva('stop', doc)

    def test_existing_file_is_not_replaced(self):
        doc = self.create()
        self.fails(['doc.hva'], 'create', doc, '--kernel', KERNEL)

    def test_create_refuses(self):
        self.fails(['--kernel'], 'create', 'x.hva', status=2)
        self.fails(['nothing-there'], 'create', 'x.hva', '--kernel', 'nothing-there')
        self.fails(['nothing-there'], 'create', 'x.hva', '--kernel', KERNEL, '--disk', 'nothing-there')
        self.assertFalse(os.path.exists(self.path('x.hva')))

    def test_kernel_that_is_none(self):
        with open(self.path('text'), 'w') as f:
            f.write('this is no kernel\n' * 100)
        self.hva('create', 'x.hva', '--kernel', self.path('text'))
        self.fails(['kernel'], 'run', '--no-window', '--engine', 'soft', '--serial', 'null', 'x.hva')

    def theirs(self):
        """A document that was saved running, with a snapshot, now on another computer."""
        doc = self.create()
        m = Running(self, doc)
        self.say(m, 'wTHEIRS--', 'ok')
        self.json('snapshot', doc, 'theirs')
        self.hva('stop', doc)
        return doc

    def another_computer(self, name='other'):
        self.env['XDG_DATA_HOME'] = self.path(name)
        os.mkdir(self.path(name))

    def run_without_terminal(self, doc, *args):
        return ['run', '--no-window', '--engine', 'soft', '--serial', 'null', *args, doc]

    def test_state_of_somebody_else_is_not_resumed_unasked(self):
        doc = self.theirs()
        self.another_computer()
        self.fails(['somebody else', '--trust-state', '--fresh'], *self.run_without_terminal(doc), status=3)
        self.fails(['not signed by'], *self.run_without_terminal(doc, '--trust', '0123'))
        m = Running(self, doc, '--fresh')
        self.assertEqual(self.nonce(m), '--------')
        self.fails(['somebody else'], 'revert', doc, 'theirs')
        self.say(m, 'wMINE----', 'ok')
        self.json('snapshot', doc, 'mine')
        self.hva('stop', doc)
        # What was written here is resumed; what came along is still somebody else's.
        m = Running(self, doc)
        self.assertEqual(self.nonce(m), 'MINE----')
        self.fails(['somebody else'], 'revert', doc, 'theirs')
        self.json('revert', doc, 'mine')
        self.hva('stop', doc)
        # Who takes it over takes all of it.
        m = Running(self, doc, '--trust-state')
        self.json('revert', doc, 'theirs')
        self.assertEqual(self.nonce(m), 'THEIRS--')
        self.hva('stop', doc)

    def test_publisher_is_asked_for_once(self):
        doc = self.theirs()
        signed = self.json('sign', doc, '--name', 'Ada')
        self.assertEqual(signed['publisher'], 'Ada')
        key = self.hva('publisher', 'export')[0].split('\n')[1]
        for name in 'copy.hva', 'third.hva':
            shutil.copy(doc, self.path(name))
        self.another_computer()
        info = self.json('info', doc)['origin']
        self.assertEqual((info['trust'], info['publisher'], info['fingerprint']), ('unknown', 'Ada', signed['fingerprint']))
        self.fails(['Ada', '--trust ' + signed['fingerprint']], *self.run_without_terminal(doc), status=3)
        m = Running(self, doc, '--trust', signed['fingerprint'])
        self.assertEqual(self.nonce(m), 'THEIRS--')
        self.json('revert', doc, 'theirs')
        self.hva('stop', doc)
        self.assertEqual(self.json('info', doc)['origin']['signature'], 'ended')
        # The same publisher's, again: no question. Somebody else's under the same name: a stop.
        m = Running(self, self.path('copy.hva'))
        self.assertEqual(self.nonce(m), 'THEIRS--')
        self.hva('stop', self.path('copy.hva'), '--force')
        m.wait()
        shutil.copy(doc, self.path('forged.hva'))
        self.another_computer('third')
        self.hva('publisher', 'trust', key, 'my friend')
        self.assertIn('my friend', self.hva('publisher', 'list')[0])
        m = Running(self, self.path('third.hva'))
        self.assertEqual(self.nonce(m), 'THEIRS--')
        self.hva('stop', self.path('third.hva'), '--force')
        m.wait()
        self.fails(['not any more', 'hva publisher forget'], *self.run_without_terminal(self.path('forged.hva')))
        self.hva('publisher', 'forget', self.path('forged.hva'))
        self.hva('publisher', 'forget', 'my friend')
        self.fails(['--trust-state'], *self.run_without_terminal(self.path('forged.hva')), status=3)

    @unittest.skipUnless(shutil.which('minisign'), "Debian's package minisign is missing")
    def test_minisign_checks_a_signed_document(self):
        doc = self.create()
        self.hva('sign', doc)
        with open(self.path('key.pub'), 'w') as f:
            f.write(self.hva('publisher', 'export')[0])
        subprocess.run('tar xf doc.hva && minisign -V -p key.pub -m ROOT && b2sum -l 256 -c ROOT',
                       shell=True, cwd=self.dir, check=True, capture_output=True)
        # and a key of its making signs
        subprocess.run('minisign -G -W -p t.pub -s t.key', shell=True, cwd=self.dir, check=True, capture_output=True)
        self.hva('sign', doc, '--key', 't.key', '--name', 'Test')
        subprocess.run('tar xf doc.hva ROOT ROOT.minisig && minisign -V -p t.pub -m ROOT', shell=True, cwd=self.dir, check=True, capture_output=True)
        with open(self.path('pw'), 'w') as f:
            f.write('open sesame\n')
        self.hva('publisher', 'new', '--out', 'new.key', '--password-file', 'pw')
        self.fails(['--password-file'], 'sign', doc, '--key', 'new.key', status=2)
        self.hva('sign', doc, '--key', 'new.key', '--password-file', 'pw')
        self.assertEqual(self.json('info', doc)['origin']['signature'], 'good')

    def test_verify_shows_progress_names_damage_and_stops(self):
        with open(self.path('disk.raw'), 'wb') as f:
            f.write(random.Random(1).randbytes(96 << 20))
        doc = self.path('big.hva')
        self.hva('create', doc, '--kernel', KERNEL, '--append', 'serve', '--disk', 'disk.raw', '--memory', '64M')
        r = self.json('verify', doc)
        self.assertTrue(r['whole'] and r['bytes'] > 96 << 20 and r['frames'] >= 768 and r['problems'] == [])
        before = sorted(os.listdir(self.dir))
        master, slave = os.openpty()
        p = subprocess.Popen([harness.BIN + '/hva', 'verify', doc], stdin=slave, stdout=slave, stderr=slave, env=self.env, cwd=self.dir)
        os.close(slave)
        seen = b''
        while b'MB/s' not in seen:
            seen += os.read(master, 4096)
        self.assertIn(b'%', seen)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(harness.PATIENCE), 130)
        os.close(master)
        self.assertEqual(sorted(os.listdir(self.dir)), before)
        with open(doc, 'r+b') as f:
            f.seek(40 << 20)
            f.write(b'damage')
        r = json.loads(self.hva('verify', doc, '--json', status=1)[0])
        self.assertFalse(r['whole'])
        self.assertIn('frame', r['problems'][0])
        self.assertIn('disk.root', r['present'])

    def test_without_display_it_says_so(self):
        doc = self.create(append='poweroff')
        p = subprocess.run([harness.BIN + '/hva', 'run', doc], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.env, timeout=60)
        self.assertEqual((p.returncode, p.stdout), (0, 'hello\n'))
        self.assertIn('no display', p.stderr)

    def test_without_a_runtime_folder_it_makes_a_private_one(self):
        os.makedirs(self.path('.cache/haversack'), 0o755)  # other things of ours lie there, and not privately
        del self.env['XDG_RUNTIME_DIR']
        doc = self.create(append='poweroff')
        self.assertEqual(self.hva('run', doc, '--no-window', '--serial', 'stdio')[0], 'hello\n')
        self.assertEqual(os.stat(self.path('.cache/haversack-run')).st_mode & 0o777, 0o700)


class Crashes(Document):
    def test_killed_machine_is_reported_and_keeps_its_snapshots(self):
        doc = self.create()
        m = Running(self, doc)
        self.json('snapshot', doc, 'the last one')
        os.kill(m.machine_pid(), signal.SIGKILL)
        status, out = m.wait()
        self.assertEqual(status, 1)
        self.assertIn('killed by signal 9', out)
        self.assertIn('the last one', out)
        m = Running(self, doc)
        self.json('revert', doc, 'the last one')
        self.hva('stop', doc)

    def check(self, doc, completed):
        """Starts the machine again and goes to the last completed version."""
        m = Running(self, doc)
        if completed:
            self.json('revert', doc, completed[0])
            self.assertEqual(self.state(m), completed[1])
        return m

    def kill_during(self, whom):
        """Kills during a running snapshot, again and again: the file opens and the last completed version is whole."""
        rng = random.Random(7)
        doc = self.create()
        completed = None
        for i in range(LOOPS):
            m = self.check(doc, completed)
            state = self.change(m, f'{i:08d}')
            completed = (self.json('snapshot', doc, f'round {i}')['id'], state)
            self.change(m, 'torn----')
            s = m.control_socket()
            s.sendall(json.dumps({'id': 1, 'cmd': 'snapshot', 'title': f'torn {i}'}).encode() + b'\n')
            time.sleep(rng.random() * 0.08)
            os.kill(m.machine_pid() if whom == 'machine' else m.process.pid, signal.SIGKILL)
            m.wait()
            s.close()
            self.hva('verify', doc)
        self.check(doc, completed)
        self.hva('stop', doc)
        self.hva('verify', doc)

    def test_machine_killed_during_snapshots(self):
        self.kill_during('machine')

    def test_keeper_killed_during_snapshots(self):
        self.kill_during('keeper')


if __name__ == '__main__':
    harness.main()
