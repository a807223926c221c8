# SPDX-License-Identifier: MIT
"""A saved machine is opened before its memory is there: what may happen meanwhile, and what when it cannot be."""
import ctypes
import os
import random
import shutil
import signal
import struct
import time
import unittest

import harness
import test_document
import truth
from harness import Running

SYS_USERFAULTFD = 323
LOOPS = 30 if os.environ.get('HSK_LONG') else 8


def forbid_userfaultfd(user_mode_too):
    """A seccomp filter, as a container has it: userfaultfd fails with EPERM, also or only without UFFD_USER_MODE_ONLY."""
    RET_ALLOW, RET_EPERM = 0x7fff0000, 0x00050001
    code = [(0x20, 0, 0, 0), (0x15, 0, 3, SYS_USERFAULTFD),  # load the number; another one: allow
            (0x20, 0, 0, 16), (0x45, 0 if user_mode_too else 1, 0, 1),  # load the flags; user mode only?
            (0x06, 0, 0, RET_EPERM), (0x06, 0, 0, RET_ALLOW)]
    raw = b''.join(struct.pack('<HBBI', *c) for c in code)
    buf = ctypes.create_string_buffer(raw, len(raw))
    prog = ctypes.create_string_buffer(struct.pack('<HxxxxxxQ', len(code), ctypes.addressof(buf)), 16)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, prog, 0, 0):
        raise OSError(ctypes.get_errno(), 'seccomp')


class Opening(test_document.Document):
    def saved(self, engine='soft'):
        """A machine with contents everywhere, stopped."""
        doc = self.create(engine + '.hva')
        m = Running(self, doc, '--engine', engine)
        state = self.change(m, 'SAVED---')
        self.hva('stop', doc)
        m.wait()
        return doc, state

    def engines(self):
        return ('soft', 'kvm') if os.environ.get('HSK_LONG') and os.access('/dev/kvm', os.W_OK) else ('soft',)

    def test_what_was_saved_is_there(self):
        for engine in self.engines():
            doc, state = self.saved(engine)
            for _ in range(2):
                m = Running(self, doc, '--engine', engine)
                self.assertEqual(self.state(m), state)
                self.hva('stop', doc)
                m.wait()
            self.hva('verify', doc)

    def test_saved_again_at_once(self):
        doc, state = self.saved()
        for _ in range(LOOPS):
            m = Running(self, doc)
            self.hva('stop', doc)
            self.assertEqual(m.wait()[0], 0)
        m = Running(self, doc)
        self.assertEqual(self.state(m), state)
        self.hva('stop', doc)
        self.hva('verify', doc)

    def test_snapshot_revert_and_undo_at_once(self):
        doc, state = self.saved()
        m = Running(self, doc)
        snap = self.json('snapshot', doc, 'first')['id']
        new = self.change(m, 'NEW-----')
        self.hva('stop', doc)
        m.wait()
        m = Running(self, doc)
        self.json('revert', doc, snap)
        self.assertEqual(self.state(m), state)
        self.json('undo', doc)
        self.assertEqual(self.state(m), new)
        self.hva('stop', doc)
        self.hva('verify', doc)

    def test_reset_at_once(self):
        doc, _ = self.saved()
        m = Running(self, doc)
        with m.console() as c:
            self.hva('reset', doc)
            c.expect(r'hello\s+ready')
        self.assertEqual(self.nonce(m), '--------')
        self.hva('stop', doc)

    def test_killed_at_any_moment(self):
        doc, state = self.saved()
        rng = random.Random(11)
        for i in range(LOOPS):
            m = Running(self, doc)
            time.sleep(rng.random() * 0.06)
            os.kill(m.process.pid if i % 2 else m.machine_pid(), signal.SIGKILL)
            status, out = m.wait()
            if i % 2 == 0:
                self.assertEqual(status, 1)
                self.assertIn('killed by signal 9', out)
            m = Running(self, doc)
            self.assertEqual(self.state(m), state)
            m.process.kill()
            m.wait()
        self.hva('verify', doc)

    def start_filtered(self, doc, engine, user_mode_too):
        """Like Running; the filter stays with the programs."""
        pid = os.fork()
        if pid == 0:
            try:
                forbid_userfaultfd(user_mode_too)
                null = os.open('/dev/null', os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                os.chdir(self.dir)
                os.execve(harness.BIN + '/hva', ['hva', 'run', '--no-window', '--engine', engine, '--serial', 'null', doc], self.env)
            finally:
                os._exit(99)
        return pid

    def test_without_userfaultfd_all_is_read_first(self):
        for engine in self.engines():
            doc, state = self.saved(engine)
            for user_mode_too in (True, False):
                pid = self.start_filtered(doc, engine, user_mode_too)
                self.addCleanup(lambda pid=pid: os.path.exists(f'/proc/{pid}') and os.kill(pid, signal.SIGKILL))
                m = Running.__new__(Running)
                m.case, m.document = self, doc
                end = time.time() + harness.PATIENCE
                while not m.is_up():
                    self.assertEqual(os.waitpid(pid, os.WNOHANG), (0, 0), 'hva run ended')
                    self.assertLess(time.time(), end)
                    time.sleep(0.02)
                self.assertEqual(self.state(m), state)
                self.hva('stop', doc)
                self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def damage(self, doc):
        """Overwrites the saved memory in the document's last segment of data; its first half is pages, the end device state."""
        good = doc + '.good'
        shutil.copy(doc, good)
        with open(doc, 'r+b') as f:
            whole = f.read()
            at = whole.rindex(b'ustar', 0, whole.rindex(b'data/') + 512)
            start = whole.rindex(b'data/', 0, at)
            size = int(whole[start + 124:start + 135], 8)
            f.seek(start + 512 + size // 8)
            f.write(os.urandom(size // 2))
        return good

    def wait_for_text(self, doc):
        end = time.time() + harness.PATIENCE
        while True:
            info = self.json('info', doc)
            if info['text']:
                return info
            self.assertLess(time.time(), end, 'it does not notice')
            time.sleep(0.05)

    def test_damaged_memory_is_never_zeros(self):
        doc, state = self.saved()
        good = self.damage(doc)
        m = Running(self, doc)
        info = self.wait_for_text(doc)
        self.assertEqual(info['state'], 'paused')
        self.assertIn('cannot be read', info['text'])
        for command in ('snapshot', 'revert', 'undo', 'stop', 'resume', 'reset', 'pause'):
            self.sentence(self.hva(command, doc, status=1)[1], 'cannot be read')
        self.hva('stop', '--force', doc)
        self.assertEqual(m.wait()[0], 1)
        # Somebody brings the good file back: nothing was lost.
        shutil.copyfile(good, doc)
        m = Running(self, doc)
        self.assertEqual(self.state(m), state)
        self.hva('stop', doc)
        self.hva('verify', doc)

    def test_damaged_memory_ends_by_a_signal(self):
        doc, _ = self.saved()
        self.damage(doc)
        m = Running(self, doc)
        self.wait_for_text(doc)
        m.process.terminate()
        status, out = m.wait()
        self.assertEqual(status, 1)
        self.assertIn('cannot be read', out)

    def test_damaged_memory_without_userfaultfd_does_not_start(self):
        doc, _ = self.saved()
        self.damage(doc)
        pid = self.start_filtered(doc, 'soft', True)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 1)


@unittest.skipUnless(os.path.exists(os.environ.get('HVA_TINY', '')), 'no tiny.hva')
class Linux(truth.Truth):
    """A real Linux with so much in its memory that filling it in takes a while."""
    document = os.environ.get('HVA_TINY', '')
    test_snapshot_revert_undo_and_a_new_process = None
    test_machine_killed_during_snapshots = None
    test_keeper_killed_during_snapshots = None

    def filling(self, m):
        with m.control_socket() as s:
            return m.ask(s, cmd='info')['filling']

    def test_at_once(self):
        m = self.start()
        c = self.login(m)
        self.shell(c, 'seq 1 2000000 > /mem/seq; md5sum /mem/seq > /root/seq')
        self.change(c, 'old')
        old, old_count = self.state(c), self.count(c)
        c.close()
        self.hva('stop', self.doc)
        m.wait()
        busy = 0
        for act in ('stop', 'snapshot', 'revert', 'undo', 'kill', 'check'):
            m = self.start()
            busy += self.filling(m)
            if act == 'kill':
                os.kill(m.machine_pid(), signal.SIGKILL)
                self.assertEqual(m.wait()[0], 1)
                continue
            if act == 'snapshot':
                self.json('snapshot', self.doc, 'at once')
            elif act in ('revert', 'undo'):
                self.json(act, self.doc)
            with m.console() as c:
                if act != 'stop':
                    self.assertEqual(self.state(c), old)
                    self.assertEqual(self.shell(c, 'md5sum -c /root/seq'), '/mem/seq: OK')
                    self.goes_on(c, old_count)
            self.hva('stop', self.doc)
            self.assertEqual(m.wait()[0], 0)
        self.assertGreater(busy, 3, 'the memory is there too soon for this test')
        self.hva('verify', self.doc)


if __name__ == '__main__':
    harness.main()
