#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Opening a saved machine in a new process: how long until it runs, shows its screen and answers.

open.py --tiny build/tiny.hva --work FOLDER [--rounds N] [--engine soft|kvm] [--json]

The guest has 2 GiB, 1 GiB of it files of this computer's /usr (real data, as memory holds it) in a tmpfs. It is made once, in
FOLDER, and saved; then each round opens it from a warm page cache and takes, from exec of `hva run` on:
  run     the product's own figure: the keeper's start to the machine's answer that it runs (without the time of hva itself)
  screen  the first complete picture on the display socket
  echo    the first byte of the guest on the serial line: the echo of a command typed ahead
  answer  the command's answer
  filled  all of its memory is there
and the CPU seconds of keeper and machine until then. A round ends with `hva stop`, which saves anew.
"""
import argparse
import glob
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

DATA_BYTES = 1 << 30
PATIENCE = 300


class Guest:
    def __init__(self, o):
        self.o = o
        self.hva = o.bin + '/hva'
        self.work = os.path.abspath(o.work)
        self.doc = f'{self.work}/open-{o.engine}.hva'
        self.env = dict(os.environ, XDG_DATA_HOME=self.work + '/data', XDG_RUNTIME_DIR=self.work + '/run')
        for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
            self.env.pop(name, None)
        for d in ('data', 'run'):
            os.makedirs(f'{self.work}/{d}', 0o700, exist_ok=True)

    def call(self, *args):
        return subprocess.run([self.hva, *args], env=self.env, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout

    def parts(self):
        """Kernel, initramfs and disk of tiny.hva, and a disk of real data."""
        with tarfile.open(self.o.tiny) as tar, open(f'{self.work}/root.zst', 'wb') as disk:
            for m in tar:
                if m.name in ('boot/kernel', 'boot/initrd'):
                    with open(f'{self.work}/{os.path.basename(m.name)}', 'wb') as out:
                        out.write(tar.extractfile(m).read())
                elif m.name.startswith('disks/'):
                    disk.write(tar.extractfile(m).read())
        subprocess.run(['zstd', '-dqf', f'{self.work}/root.zst', '-o', f'{self.work}/root.img'], check=True)
        with open(f'{self.work}/data.img', 'wb') as out:
            p = subprocess.Popen(['tar', '-c', '--sort=name', '/usr'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            left = DATA_BYTES
            while left:
                piece = p.stdout.read(min(left, 1 << 20))
                if not piece:
                    sys.exit('open.py: /usr has not enough data')
                out.write(piece)
                left -= len(piece)
            p.kill()

    def start(self, *args):
        return subprocess.Popen([self.hva, 'run', '--no-window', '--engine', self.o.engine, '--serial', 'stdio', *args, self.doc],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.env)

    def make(self):
        """Boots it, fills its memory, and saves. init_on_free: what the guest frees is zeros again and no data of ours."""
        self.parts()
        self.call('create', '--force', self.doc, '--kernel', f'{self.work}/kernel', '--initrd', f'{self.work}/initrd', '--append',
                  'root=/dev/vda console=ttyS0 console=tty0 quiet init_on_free=1', '--disk', f'{self.work}/root.img',
                  '--disk', f'{self.work}/data.img', '--memory', '2G')
        p = self.start('--fresh')
        p.stdin.write(b'\n')
        p.stdin.flush()
        self.expect(p, rb'tiny:[^\n]*# ')
        for command in ('dmesg -n 1; mkdir -p /mem; mount -t tmpfs -o size=1300m mem /mem',
                        'cat /dev/vdb > /mem/data', 'sync; echo 3 > /proc/sys/vm/drop_caches', 'free -m; sleep 2'):
            p.stdin.write(f'{command}; echo "<$((1+1))>"\n'.encode())
            p.stdin.flush()
            print(self.expect(p, rb'<2>').decode(errors='replace'), file=sys.stderr)
        self.call('stop', self.doc)
        p.wait(PATIENCE)

    @staticmethod
    def expect(p, pattern, buf=b''):
        while not re.search(pattern, buf):
            piece = os.read(p.stdout.fileno(), 65536)
            if not piece:
                raise RuntimeError(f'the machine ended: {buf[-2000:]!r}')
            buf += piece
        return buf

    def connect(self, name):
        while True:
            for path in glob.glob(f'{self.work}/run/haversack/*/{name}'):
                s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if name == 'display' else socket.SOCK_STREAM)
                s.settimeout(PATIENCE)
                try:
                    s.connect(path)
                    return s
                except OSError:
                    s.close()
            time.sleep(0.002)

    def first_picture(self, seen):
        """Speaks the surface protocol (display/proto.h) up to the first DIRTY; seen gets the moment."""
        HELLO, SURFACE, DIRTY, VISIBLE = 1, 16, 17, 71
        s = self.connect('display')
        s.send(struct.pack('<IIII', HELLO, 16, 0x644b5348, 1))
        s.send(struct.pack('<IIII', VISIBLE, 16, 1, 0))
        while 'screen' not in seen:
            message, fds, _, _ = socket.recv_fds(s, 4096, 4)
            for fd in fds:
                os.close(fd)
            if not message:
                return
            if struct.unpack_from('<I', message)[0] == DIRTY:
                seen['screen'] = time.monotonic()
        s.close()

    def info(self, s):
        s.sendall(b'{"id": 1, "cmd": "info"}\n')
        buf = b''
        while not buf.endswith(b'\n'):
            buf += s.recv(65536)
        return json.loads(buf)

    def cpu(self, p):
        ticks = 0
        with open(f'/proc/{p.pid}/task/{p.pid}/children') as f:
            pids = [p.pid, *map(int, f.read().split())]
        for pid in pids:
            with open(f'/proc/{pid}/stat') as f:
                ticks += sum(map(int, f.read().rsplit(')', 1)[1].split()[11:13]))
        return ticks / os.sysconf('SC_CLK_TCK')

    def round(self):
        seen, figures = {}, {}
        start = time.monotonic()
        p = self.start()
        p.stdin.write(b'echo "<$((41+1))>"\n')
        p.stdin.flush()
        screen = threading.Thread(target=self.first_picture, args=(seen,), daemon=True)
        screen.start()
        buf = self.expect(p, rb'.')
        figures['echo'] = time.monotonic() - start
        self.expect(p, rb'<42>', buf)
        figures['answer'] = time.monotonic() - start
        figures['answer_cpu'] = self.cpu(p)
        s = self.connect('control')
        while True:
            info = self.info(s)
            if not info.get('filling'):
                break
            time.sleep(0.02)
        figures['filled'] = time.monotonic() - start
        figures['filled_cpu'] = self.cpu(p)
        figures['run'] = info.get('start_ms', 0) / 1e3
        screen.join(10)
        if 'screen' in seen:
            figures['screen'] = seen['screen'] - start
        for key in ('start_steps', 'faults'):
            if info.get(key):
                print(f'{key}: {info[key]}', file=sys.stderr)
        s.close()
        self.call('stop', self.doc)
        p.wait(PATIENCE)
        return figures


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = os.path.dirname(os.path.abspath(__file__))
    ap.add_argument('--bin', default=f'{here}/../../build/bin')
    ap.add_argument('--tiny', default=f'{here}/../../build/tiny.hva')
    ap.add_argument('--work', required=True)
    ap.add_argument('--rounds', type=int, default=10)
    ap.add_argument('--engine', default='soft', choices=('soft', 'kvm'))
    ap.add_argument('--json', action='store_true')
    guest = Guest(ap.parse_args())
    if not os.path.exists(guest.doc):
        guest.make()
    rounds = []
    for i in range(guest.o.rounds):
        rounds.append(guest.round())
        print(f'round {i + 1}: ' + ', '.join(f'{k} {v * 1e3:.0f}' for k, v in rounds[-1].items()), file=sys.stderr, flush=True)
    columns = {k: [r[k] for r in rounds if k in r] for k in ('run', 'screen', 'echo', 'answer', 'answer_cpu', 'filled', 'filled_cpu')}
    summary = {k: {'p50': statistics.median(v), 'p95': quantile(v, 0.95), 'max': max(v)} for k, v in columns.items() if v}
    if guest.o.json:
        print(json.dumps(summary))
    else:
        for k, v in summary.items():
            print(f"{k:10} p50 {v['p50'] * 1e3:6.0f} ms, p95 {v['p95'] * 1e3:6.0f} ms, worst {v['max'] * 1e3:6.0f} ms")


if __name__ == '__main__':
    main()
