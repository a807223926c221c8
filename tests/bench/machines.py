# SPDX-License-Identifier: MIT
"""The two machines that are compared, with the same words: a Haversack document and QEMU TCG with a qcow2 file."""
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from ear import Ear, Silence
from guest import cached

APPEND = 'console=tty0 quiet panic=-1 bench_fill=%d'
PATIENCE = 300


class Refused(Exception):
    """The program said no."""


def cpu_seconds(pid):
    """CPU time of a process with all its threads, ended ones too."""
    return time.clock_gettime(((~pid) << 3) | 2)


def disk_usage(*paths):
    total = 0
    for path in paths:
        names = [path] if os.path.isfile(path) else [os.path.join(d, f) for d, _, files in os.walk(path) for f in files]
        for name in names:
            try:
                total += os.stat(name).st_blocks * 512
            except FileNotFoundError:
                pass  # removed meanwhile
    return total


def end_with_us():
    """In a new process: a bench that was killed leaves no machine behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Wire:
    """One JSON object a line, question and answer."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self.buf = b''

    def line(self):
        while b'\n' not in self.buf:
            piece = self.sock.recv(1 << 20)
            if not piece:
                raise ConnectionError('the connection was closed')
            self.buf += piece
        line, self.buf = self.buf.split(b'\n', 1)
        return json.loads(line)

    def tell(self, **question):
        self.sock.sendall(json.dumps(question).encode() + b'\n')


class Base:
    def __init__(self, work, memory, cpus=1):
        self.work, self.memory, self.cpus = work, memory, cpus
        self.process = self.ear = None
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)

    def fill_mib(self):
        return self.memory // 2

    def cpu(self):
        return sum(cpu_seconds(pid) for pid in self.pids().values())

    def ready(self):
        return self.ear.expect('ready', PATIENCE)

    def wait_end(self, seconds=PATIENCE):
        self.process.wait(seconds)
        self.hang_up()

    def hang_up(self):
        if self.ear:
            self.ear.close()
            self.ear = None

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.hang_up()
        shutil.rmtree(self.work, ignore_errors=True)


class Haversack(Base):
    """hva run of a document of its own, in a home of its own."""
    name = 'ours'

    def __init__(self, work, memory, guest, hva, engine='soft', cpus=1):
        super().__init__(work, memory, cpus)
        self.hva, self.engine, self.guest = hva, engine, guest
        self.document = f'{work}/bench.hva'
        self.control_wire = self.console = None
        self.env = dict(os.environ, HOME=work, XDG_DATA_HOME=work + '/data', XDG_RUNTIME_DIR=work + '/run')
        for name in 'DISPLAY', 'WAYLAND_DISPLAY':
            self.env.pop(name, None)
        os.mkdir(work + '/run', 0o700)
        os.mkdir(work + '/data')
        template = cached(guest.cache, f'template-{memory}-{cpus}', hva, guest.initrd)
        if not os.path.exists(template):
            self.tool('create', '--force', template + '.new', '--kernel', guest.kernel, '--initrd', guest.initrd,
                      '--append', APPEND % self.fill_mib(), '--disk', guest.data, '--disk', guest.log_disk,
                      '--memory', f'{memory}M', '--cpus', str(cpus))
            os.rename(template + '.new', template)
        subprocess.run(['cp', '--reflink=auto', template, self.document], check=True)
        # Checkpoints by themselves are a figure of their own, and in the way of the others.
        self.has_timeline = re.search('^ *timeline ', self.tool('--help'), re.M) is not None
        if self.has_timeline:
            self.tool('timeline', self.document, 'off')

    def tool(self, *args, timeout=PATIENCE):
        p = subprocess.run([self.hva, *args], capture_output=True, text=True, errors='replace', timeout=timeout, env=self.env)
        if p.returncode:
            raise Refused(p.stderr.strip() or f'hva {args[0]} ended with {p.returncode}')
        return p.stdout

    def spawn(self):
        """hva run; the serial line on a socket of ours as its standard input and output, so that not even the first byte is missed."""
        ours, theirs = socket.socketpair()
        self.log = open(f'{self.work}/run.log', 'ab')
        command = [self.hva, 'run', '--no-window', '--engine', self.engine, '--serial', 'stdio', self.document]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=self.log, env=self.env,
                                        preexec_fn=end_with_us)
        theirs.close()
        self.console = ours
        self.ear = Ear(ours.fileno(), ours.sendall)

    def start(self):
        self.spawn()
        end = time.monotonic() + 60
        while not self.connect():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Refused(f'hva run did not come up: {self.said()}')
            time.sleep(0.005)

    def said(self):
        with open(f'{self.work}/run.log', errors='replace') as f:
            return f.read()[-500:].strip()

    def connect(self):
        base = f'{self.work}/run/haversack'
        for name in os.listdir(base) if os.path.isdir(base) else []:
            try:
                self.control_wire = Wire(f'{base}/{name}/control')
                return True
            except OSError:
                pass
        return False

    def control(self, cmd, **arguments):
        """The answer, and when it was asked and answered (seconds)."""
        start = time.monotonic()
        self.control_wire.tell(id=1, cmd=cmd, **arguments)
        answer = self.control_wire.line()
        while 'event' in answer:
            answer = self.control_wire.line()
        if not answer.get('ok'):
            raise Refused(f'{cmd}: {answer.get("error")}')
        return answer, start, time.monotonic()

    def pids(self):
        with open(f'/proc/{self.process.pid}/task/{self.process.pid}/children') as f:
            children = [int(p) for p in f.read().split()]
        return {'keeper': self.process.pid, 'machine': children[-1]} if children else {'keeper': self.process.pid}

    def take(self, title):
        answer, start, end = self.control('snapshot', title=title)
        return dict(id=answer['version'], start=start, end=end, **{k: answer[k] for k in ('pause_ms', 'durable_ms', 'bytes_added')})

    def back(self, cmd, **arguments):
        answer, start, end = self.control(cmd, **arguments)
        return dict(pause_ms=answer['pause_ms'], start=start, end=end)

    def revert(self, version=None):
        return self.back('revert', **({'to': version} if version else {}))

    def undo(self):
        return self.back('undo')

    def drop(self, *versions):
        for version in versions:
            self.control('drop', version=version)

    def du(self):
        return disk_usage(self.document, self.work + '/data')

    def sizes(self):
        return disk_usage(self.document), disk_usage(self.work + '/data')

    def stop(self):
        self.control_wire.tell(id=1, cmd='stop')
        self.wait_end()
        self.control_wire.sock.close()
        self.control_wire = None
        self.console.close()


class Qemu(Base):
    """QEMU TCG; internal snapshots, as its own manual recommends for a whole machine."""
    name = 'qemu'

    def __init__(self, work, memory, guest, cpus=1):
        super().__init__(work, memory, cpus)
        self.guest = guest
        self.disks = [f'{work}/data.qcow2', f'{work}/log.qcow2']
        for raw, disk in zip((guest.data, guest.log_disk), self.disks):
            subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', os.path.abspath(raw), '-F', 'raw', disk], check=True)

    def start(self):
        qmp, serial = f'{self.work}/qmp', f'{self.work}/serial'
        drives = [word for d in self.disks for word in ('-drive', f'file={d},if=virtio,format=qcow2')]
        command = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max', '-m', str(self.memory), '-smp', str(self.cpus),
                   '-display', 'none', '-no-reboot', '-nic', 'none', '-kernel', self.guest.kernel, '-initrd', self.guest.initrd,
                   '-append', APPEND % self.fill_mib(), *drives, '-chardev', f'socket,id=s,path={serial},server=on,wait=on',
                   '-serial', 'chardev:s', '-qmp', f'unix:{qmp},server=on,wait=off']
        self.log = open(f'{self.work}/run.log', 'ab')
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=end_with_us)
        self.console = socket.socket(socket.AF_UNIX)
        self.retry(lambda: self.console.connect(serial))
        self.ear = Ear(self.console.fileno(), self.console.sendall)
        self.wire = self.retry(lambda: Wire(qmp))
        self.wire.line()
        self.qmp('qmp_capabilities')

    def retry(self, attempt):
        end = time.monotonic() + 30
        while True:
            try:
                return attempt()
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.01)

    def qmp(self, execute, **arguments):
        self.wire.tell(execute=execute, arguments=arguments)
        while True:
            answer = self.wire.line()
            if 'error' in answer:
                raise Refused(f'{execute}: {answer["error"]["desc"]}')
            if 'return' in answer:
                return answer['return']

    def monitor(self, command):
        start = time.monotonic()
        answer = self.qmp('human-monitor-command', **{'command-line': command})
        if answer.strip():
            raise Refused(f'{command}: {answer.strip()}')
        return start, time.monotonic()

    def pids(self):
        return {'qemu': self.process.pid}

    def take(self, title):
        before = self.du()
        start, end = self.monitor(f'savevm {title}')
        return dict(id=title, durable_ms=(end - start) * 1e3, bytes_added=self.du() - before, start=start, end=end)

    def revert(self, version):
        start, end = self.monitor(f'loadvm {version}')
        return dict(start=start, end=end)

    def drop(self, *versions):
        for version in versions:
            self.monitor(f'delvm {version}')

    def du(self):
        return disk_usage(*self.disks)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.wait_end()
