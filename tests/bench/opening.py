# SPDX-License-Identifier: MIT
"""Opening a saved machine in a new process, from exec of `hva run` on: its picture, its first heartbeat, a command answered."""
import os
import socket
import struct
import threading
import time

from ear import Silence
from machines import Haversack, cpu_seconds

HELLO, SURFACE, DIRTY, VISIBLE = 1, 16, 17, 71  # display/proto.h
MAGIC, VERSION = 0x644b5348, 1


def first_picture(machine, seen):
    """A window's way: connects to the display socket, and waits for the first changed region of a surface."""
    base, end, s = f'{machine.work}/run/haversack', time.monotonic() + 60, None
    while not s and time.monotonic() < end:
        for name in os.listdir(base) if os.path.isdir(base) else []:
            attempt = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            attempt.settimeout(60)
            try:
                attempt.connect(f'{base}/{name}/display')
                s = attempt
                break
            except OSError:
                attempt.close()
        else:
            time.sleep(0.002)
    if not s:
        return
    with s:
        s.send(struct.pack('<IIII', HELLO, 16, MAGIC, VERSION))
        s.send(struct.pack('<IIII', VISIBLE, 16, 1, 0))
        while True:
            message, fds, _, _ = socket.recv_fds(s, 4096, 4)
            for fd in fds:
                os.close(fd)
            if not message:
                return
            if struct.unpack_from('<I', message)[0] == DIRTY:
                seen['screen'] = time.monotonic()
                return


def wait_filled(machine):
    """Lazily opened memory is all there when info says so; a machine without that word opened it at once."""
    while machine.control('info')[0].get('filling'):
        time.sleep(0.02)
    return time.monotonic()


def once(machine, results, name):
    seen = {}
    start = time.monotonic()
    machine.spawn()
    picture = threading.Thread(target=first_picture, args=(machine, seen), daemon=True)
    picture.start()
    machine.ear.say('x are you there')
    beat = machine.ear.wait_beat(start)
    answer = machine.ear.expect('x are you there', 60, start)[0]
    while not machine.connect():
        time.sleep(0.005)
    filled = wait_filled(machine)
    cpu = {role + '_cpu_s': cpu_seconds(pid) for role, pid in machine.pids().items()}
    picture.join(20)
    own = machine.control('info')[0].get('start_ms')
    whole = machine.ear.ask('f', '[f] (ok|BAD).*', 120)
    if whole[1] != 'ok':
        raise AssertionError(f'after opening: {whole.string}')
    if name:
        results.add(name, beat_ms=(beat - start) * 1e3, answer_ms=(answer - start) * 1e3, filled_ms=(filled - start) * 1e3,
                    screen_ms=(seen['screen'] - start) * 1e3 if 'screen' in seen else None, start_ms=own, **cpu)
    before = time.monotonic()
    machine.stop()
    if name:
        results.add('close', ms=(time.monotonic() - before) * 1e3)


def opening(bench):
    """One machine for all repetitions; the first opening warms the cache and does not count."""
    machine = Haversack(f'{bench.folder}/work', 2048, bench.guest(), bench.hva, bench.o.engine)
    try:
        machine.start()
        machine.ready()
        machine.ear.order('d 10000')
        machine.stop()
        once(machine, bench.results, None)
        end = time.monotonic() + bench.seconds('open')
        while bench.wanted('open') and time.monotonic() < end:
            once(machine, bench.results, 'open')
    except Silence as e:
        raise Silence(f'{e}; hva run said: {machine.said()}') from e
    finally:
        machine.kill()
