# SPDX-License-Identifier: MIT
"""Listens to the guest's serial line from outside: when each heartbeat came, and what was said between them.

A process of its own with a high priority, so that what the bench does meanwhile (and Python's lock) does not delay it. Heartbeats
are written into shared memory as nanoseconds of CLOCK_MONOTONIC; lines go to the parent through a pipe.
"""
import bisect
import collections
import mmap
import os
import re
import select
import threading
import time

BEAT_MS = 2.0
CAPACITY = 1 << 23


class Silence(Exception):
    pass


def hurry():
    """Real time if we may, else what a user may."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except OSError:
        try:
            os.nice(-15)
        except OSError:
            pass


class Ear:
    def __init__(self, fd, send=None):
        """fd: the serial line; send: takes bytes for it (default: written to fd)."""
        self.fd = fd
        self.send_bytes = send or (lambda data: os.write(fd, data))
        self.shared = mmap.mmap(-1, 8 * (CAPACITY + 1))
        self.beats = memoryview(self.shared).cast('Q')
        self.lines = collections.deque(maxlen=6000)  # (seconds, text)
        self.news = threading.Condition()
        self.eof = False
        pipe_out, pipe_in = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(pipe_out)
            try:
                self.listen(pipe_in)
            finally:
                os._exit(0)
        os.close(pipe_in)
        self.thread = threading.Thread(target=self.collect, args=(pipe_out,), daemon=True)
        self.thread.start()

    # ---- in the child ----

    def listen(self, pipe):
        hurry()
        n, text, beats = 0, b'', self.beats
        parent = os.getppid()
        while True:
            if not select.select([self.fd], [], [], 5)[0]:
                if os.getppid() != parent:
                    return
                continue
            piece = os.read(self.fd, 65536)
            now = time.monotonic_ns()
            if not piece:
                return
            for byte in piece:
                if byte >= 0x80:
                    if n < CAPACITY:
                        n += 1
                        beats[n] = now
                        beats[0] = n
                elif byte == 10:
                    os.write(pipe, b'%d %s\n' % (now, text.replace(b'\r', b'')))
                    text = b''
                else:
                    text += bytes((byte,))

    # ---- in the parent ----

    def collect(self, pipe):
        with os.fdopen(pipe, 'rb') as f:
            for line in f:
                at, _, text = line.partition(b' ')
                with self.news:
                    self.lines.append((int(at) / 1e9, text.decode(errors='replace').strip()))
                    self.news.notify_all()
        with self.news:
            self.eof = True
            self.news.notify_all()

    def say(self, text):
        self.send_bytes(text.encode() + b'\n')

    def expect(self, pattern, timeout=60, since=0.0):
        """The first line since then that matches from its start: (seconds, match)."""
        end = time.monotonic() + timeout
        with self.news:
            while True:
                for at, text in list(self.lines):
                    m = at >= since and re.match(pattern, text)
                    if m:
                        return at, m
                    if at >= since and text.startswith('died'):
                        raise Silence(f'the guest {text}')
                if self.eof or not self.news.wait(max(end - time.monotonic(), 0)):
                    last = [text for _, text in list(self.lines)[-3:]]
                    raise Silence(f'no {pattern!r} on the serial line{" (closed)" if self.eof else ""}; last lines {last}')

    def ask(self, text, pattern, timeout=60):
        since = time.monotonic()
        self.say(text)
        return self.expect(pattern, timeout, since)[1]

    def order(self, text):
        self.ask(text, 'ok ' + re.escape(text) + '$')

    def count(self):
        return self.beats[0]

    def wait_beat(self, since, timeout=60):
        """When the first heartbeat after that moment came."""
        end = time.monotonic() + timeout
        since_ns = int(since * 1e9)
        while True:
            n = self.count()
            i = bisect.bisect_right(self.beats, since_ns, 1, n + 1)
            if i <= n:
                return self.beats[i] / 1e9
            if time.monotonic() > end or self.eof:
                raise Silence(f'no heartbeat for {timeout} s')
            time.sleep(0.002)

    def gap(self, start, end):
        """The longest time without a heartbeat, in ms and without the usual 2 ms, that touches start..end (seconds)."""
        self.wait_beat(end)
        lo = max(bisect.bisect_right(self.beats, int(start * 1e9), 1, self.count() + 1) - 1, 1)
        longest, n = 0, self.count()
        for i in range(lo, n):
            longest = max(longest, self.beats[i + 1] - self.beats[i])
            if self.beats[i + 1] > end * 1e9:
                break
        return max(longest / 1e6 - BEAT_MS, 0.0)

    def counts(self):
        """What the guest said it had done: [(seconds, [writes, counted, compiled, light])]."""
        return [(at, [int(w) for w in text.split()[1:]]) for at, text in list(self.lines) if re.fullmatch(r't( \d+){4}', text)]

    def wait_count(self, since, timeout=5):
        """Until the guest has said what it had done by that moment; without an error if it does not."""
        end = time.monotonic() + timeout
        with self.news:
            while not any(at > since for at, _ in self.counts()[-1:]) and self.news.wait(max(end - time.monotonic(), 0)):
                pass

    def progress(self, start, end):
        """What was done between, per second: {name: rate}, by the guest's counts with straight lines between them.
        None if they do not reach."""
        counts = self.counts()
        times = [at for at, _ in counts]
        rates = {}
        for i, name in enumerate(('writes', 'counted', 'compiled', 'light')):
            done = []
            for t in start, end:
                k = bisect.bisect_right(times, t)
                if k == 0 or k == len(times):
                    return None
                (t0, before), (t1, after) = counts[k - 1], counts[k]
                done.append(before[i] + (after[i] - before[i]) * (t - t0) / (t1 - t0))
            rates[name] = (done[1] - done[0]) / (end - start)
        return rates

    def close(self):
        try:
            os.kill(self.pid, 9)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        self.thread.join(5)
