# SPDX-License-Identifier: MIT
"""What the integration tests share: the programs under test, a home of their own, and a running document.

Environment: HVA_BIN (folder of the built programs), HVA_KERNEL (the test kernel, kernel.c).
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

BIN = os.environ.get('HVA_BIN', '')
KERNEL = os.environ.get('HVA_KERNEL', '')
# Sanitizers make everything slower; a limit is there to end a hang, not to measure.
PATIENCE = 60


def kvm_virtualizes():
    """As vmm/engine-kvm sees it: else /dev/kvm, if there is one, emulates."""
    return re.search(r'^flags.*\b(vmx|svm)\b', read('/proc/cpuinfo'), re.M) is not None


def read(path):
    with open(path) as f:
        return f.read()


class Case(unittest.TestCase):
    """A test with a private home: its own runtime folder and its own store."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='hva-test-')
        self.env = dict(os.environ, HOME=self.dir, XDG_DATA_HOME=self.dir + '/data', XDG_RUNTIME_DIR=self.dir + '/run')
        for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
            self.env.pop(name, None)
        os.mkdir(self.dir + '/run', 0o700)
        os.mkdir(self.dir + '/data')
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def hva(self, *args, input='', status=0, timeout=PATIENCE):
        """Runs hva, checks its exit status, and returns (stdout, stderr)."""
        p = subprocess.run([BIN + '/hva', *args], input=input, capture_output=True, text=True, errors='replace',
                           timeout=timeout, env=self.env, cwd=self.dir)
        self.assertEqual(p.returncode, status, f'hva {args}: stdout {p.stdout!r} stderr {p.stderr!r}')
        return p.stdout, p.stderr

    def wait_for(self, condition):
        """For what happens behind an answer."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def json(self, *args):
        return json.loads(self.hva(*args, '--json')[0])

    def boot(self, append, *args, status=0, input=''):
        """Boots the test kernel on the software engine."""
        return self.hva('boot', '--engine', 'soft', '--no-window', '--kernel', KERNEL, '--append', append, '--memory', '64M',
                        '--timeout', '40', *args, status=status, input=input)

    def sentence(self, stderr, *words):
        """An error is one sentence on one line, and it names what it is about."""
        lines = stderr.strip().split('\n')
        self.assertEqual(len(lines), 1, stderr)
        self.assertTrue(lines[0].startswith('hva: '), stderr)
        for w in words:
            self.assertIn(w, lines[0])


class Running:
    """`hva run --no-window` of a document in the background."""

    def __init__(self, case, document, *args):
        self.case = case
        self.document = document
        self.process = subprocess.Popen([BIN + '/hva', 'run', '--no-window', '--engine', 'soft', '--serial', 'null', *args, document],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env=case.env, cwd=case.dir)
        case.addCleanup(self.kill)
        end = time.time() + PATIENCE
        while not self.is_up():
            if self.process.poll() is not None:
                raise AssertionError(f'hva run ended: {self.process.communicate()[0]}')
            if time.time() > end:
                raise AssertionError('hva run did not come up')
            time.sleep(0.02)

    def is_up(self):
        s = self.control_socket()
        if s:
            s.close()
        return s is not None

    def control_socket(self):
        base = self.case.env['XDG_RUNTIME_DIR'] + '/haversack'
        for name in os.listdir(base) if os.path.isdir(base) else []:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(PATIENCE)
            try:
                s.connect(f'{base}/{name}/control')
                if self.ask(s, cmd='info')['path'] == os.path.realpath(self.document):
                    return s
            except OSError:
                pass
            s.close()
        return None

    @staticmethod
    def ask(s, **q):
        """The serial line may follow the answer at once: not a byte more is read."""
        s.sendall(json.dumps(dict(q, id=1)).encode() + b'\n')
        buf = b''
        while not buf.endswith(b'\n'):
            ahead = s.recv(65536, socket.MSG_PEEK)
            piece = s.recv(ahead.find(b'\n') + 1 or max(len(ahead), 1))
            if not piece:
                raise OSError('the keeper closed the connection')
            buf += piece
        return json.loads(buf)

    def console(self):
        s = self.control_socket()
        assert s, 'the machine is not running'
        reply = self.ask(s, cmd='console')
        assert reply['ok'], reply
        return Console(s)

    def machine_pid(self):
        """The hva-machine process; during a revert the newest."""
        with open(f'/proc/{self.process.pid}/task/{self.process.pid}/children') as f:
            return [int(p) for p in f.read().split()][-1]

    def wait(self):
        out = self.process.communicate(timeout=PATIENCE)[0]
        return self.process.returncode, out

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Console:
    """The serial line: send a command, wait for the answer."""

    def __init__(self, sock):
        self.sock = sock
        self.buf = ''

    def expect(self, pattern, timeout=PATIENCE):
        """Waits for a regular expression; returns its match and forgets what came before its end."""
        end = time.time() + timeout
        while True:
            m = re.search(pattern, self.buf)
            if m:
                self.buf = self.buf[m.end():]
                return m
            self.sock.settimeout(max(end - time.time(), 0.01))
            try:
                piece = self.sock.recv(65536)
            except TimeoutError:
                piece = b''
            if not piece:
                raise AssertionError(f'no {pattern!r} on the serial line, but {self.buf[-400:]!r}')
            self.buf += piece.decode(errors='replace')

    def send(self, text):
        self.sock.sendall(text.encode())

    def ask(self, text, pattern):
        self.send(text)
        return self.expect(pattern)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def main():
    if not os.path.exists(KERNEL) or not os.path.exists(BIN + '/hva'):
        print('skipped: HVA_BIN and HVA_KERNEL do not name the programs and the test kernel')
        sys.exit(77)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    result = unittest.main(verbosity=2, exit=False).result
    if result.wasSuccessful() and result.testsRun and len(result.skipped) == result.testsRun:
        print(f'skipped: {result.skipped[0][1]}')
        sys.exit(77)
    sys.exit(not result.wasSuccessful())
