# SPDX-License-Identifier: MIT
"""Figures of a running machine: takes, reverts and undos, the timeline, and the same of QEMU."""
import os
import shutil
import signal
import time

from machines import Haversack, Qemu, cpu_seconds
from timeline import TimelineFigures

RATE = 100000     # writes a second
DIRTY = 10000     # pages
KEPT = 3          # snapshots that are not dropped
ROOM = 12 << 30   # what one machine's files may come to before a new one is made
LIGHT_SECONDS = (1, 3, 5)
STOP_SECONDS = 0.1 # after the request: what stops the guest falls into it, what only slows it down comes later
SETTLE = 0.3      # seconds between a take and the next: a user is no loop
ALONE = 0.8       # seconds of the guest at work before a take whose slowdown is looked at

# group: {figure: method of Session}; in this order on one machine
FIGURES = {
    '2048': {'self-check': 'self_check', 'first': 'first', 'unchanged': 'unchanged', 'noise': 'noise', 'take-10k': 'take_10k',
             'take': 'take_written', 'slowdown': 'slowdown', 'busy-noise': 'busy_noise', 'busy-take': 'busy_take', 'revert': 'revert'},
    '512': {'take-512': 'take_written'},
    '4096': {'take-4096': 'take_written'},
    'timeline': {'timeline': 'timeline'},
    'qemu': {'qemu-take': 'qemu_take', 'qemu-busy-take': 'qemu_take_busy'},
}


class Session(TimelineFigures):
    def __init__(self, bench, memory, qemu=False):
        self.bench, self.results, self.memory, self.qemu = bench, bench.results, memory, qemu
        self.machine, self.base = None, (None, None, None)
        self.fresh()

    def fresh(self):
        """A new machine with its data read; the old one and its files are gone."""
        b = self.bench
        if self.machine:
            self.machine.kill()
        b.guest()
        work = f'{b.folder}/work'
        if self.qemu:
            self.machine = Qemu(work, self.memory, b.guest())
        else:
            self.machine = Haversack(work, self.memory, b.guest(), b.hva, b.o.engine)
        try:
            self.machine.start()
            self.machine.ready()
            self.ear = self.machine.ear
            self.load, self.prepared_for, self.taken = None, None, []
        except Exception:
            self.machine.kill()
            raise

    def under(self, *orders):
        """The guest does just this from now on."""
        if self.load != orders:
            self.prepared_for = None
            for order in ('w 0', 's 0', 'b 0', 'l 0', *orders):
                self.ear.order(order)
            self.load = orders
            time.sleep(2.5)  # until it runs evenly, and for compiling: past what the last load left behind

    def room(self):
        if self.machine.du() > ROOM or shutil.disk_usage(self.bench.folder).free < ROOM:
            self.fresh()

    # ---- the instrument ----

    def self_check(self, name):
        """20 ms of SIGSTOP are a gap of 20 ms. The smallest error of five counts: a busy computer only adds."""
        self.under()
        errors = []
        for _ in range(5):
            time.sleep(0.2)
            pid = self.machine.pids()['machine']
            start = time.monotonic()
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.02)
            os.kill(pid, signal.SIGCONT)
            end = time.monotonic()
            errors.append(self.ear.gap(start, end) - (end - start) * 1e3)
        best = min(errors, key=abs)
        if abs(best) > 4:
            raise AssertionError(f'a stop of 20 ms was measured wrong by {best:.1f} ms')
        self.results.add(name, error_ms=best)

    def quiet_window(self, name):
        """The same measure without a snapshot."""
        start = time.monotonic()
        time.sleep(0.7)
        end = time.monotonic()
        self.results.add(name, gap_ms=self.ear.gap(start, end), stop_ms=self.ear.gap(start, start + STOP_SECONDS))

    def noise(self, name):
        self.under(f'w {RATE}')
        self.quiet_window(name)

    def busy_noise(self, name):
        self.under('b 1')
        self.quiet_window(name)

    # ---- takes ----

    def take(self, name, **more):
        m = self.machine
        before = m.cpu()
        s = m.take(f'{name}{len(self.taken)}')
        cpu = m.cpu() - before
        gap, stop = self.ear.gap(s['start'], s['end'] + 0.05), self.ear.gap(s['start'], s['start'] + STOP_SECONDS)
        self.results.add(name, gap_ms=gap, stop_ms=stop, pause_ms=s.get('pause_ms'), durable_ms=s['durable_ms'],
                         bytes_added=s['bytes_added'], cpu_s=cpu, answer_ms=(s['end'] - s['start']) * 1e3, **more)
        self.taken.append(s['id'])
        self.tidy()
        return s

    def tidy(self):
        while len(self.taken) > KEPT:
            self.machine.drop(self.taken.pop(0))

    def first(self, name):
        """The first snapshot of a fresh machine; then nine more with light work before each."""
        if self.taken:
            self.fresh()
        self.under()
        s = self.take(name)
        added = [s['bytes_added']]
        # It takes long: the same measure for as long without it.
        time.sleep(SETTLE)
        start, end = time.monotonic(), time.monotonic() + s['end'] - s['start']
        time.sleep(end - start)
        self.results.add('first-noise', gap_ms=self.ear.gap(start, end))
        document, instance = self.machine.sizes()
        self.results.add('first-du', document=document, instance=instance)
        for _ in range(9):
            self.under('l 1')
            time.sleep(LIGHT_SECONDS[self.bench.mode])
            added.append(self.take('light')['bytes_added'])
        self.under()
        self.results.add('light-ten', ratio=sum(added) / added[0], du_ratio=self.machine.du() / (document + instance), added=added)

    def prepared(self, *orders):
        """Under this load, and what another one or a window without snapshots left behind is taken already."""
        self.under(*orders)
        if self.prepared_for != orders:
            self.take('prepared')
            self.prepared_for = orders

    def unchanged(self, name):
        self.prepared()
        time.sleep(SETTLE)
        self.take(name)

    def take_10k(self, name):
        self.room()
        self.prepared()
        self.ear.order(f'd {DIRTY}')
        self.take(name)
        time.sleep(SETTLE)

    def take_written(self, name):
        self.room()
        self.prepared(f'w {RATE}')
        time.sleep(SETTLE)
        self.take(name, memory=self.memory)
        if len(self.results.of(name)) % 50 == 0:
            document, instance = self.machine.sizes()
            self.results.add(name + '-du', document=document, instance=instance)

    def slowdown(self, name):
        """How much less a program of the lowest priority gets done while a snapshot is saved: in a second, and in a second of
        the machine's CPU time (which a busy host does not shorten)."""
        self.prepared(f'w {RATE}', 's 1')
        pid = self.machine.pids()['machine']
        start, cpu = time.monotonic(), [cpu_seconds(pid)]
        time.sleep(ALONE)
        cpu.append(cpu_seconds(pid))
        s = self.machine.take('slowdown')
        cpu.append(cpu_seconds(pid))
        self.taken.append(s['id'])
        self.ear.wait_count(s['end'])
        before = self.ear.progress(start, s['start'])
        saving = self.ear.progress(s['start'], s['end'])
        if before and saving and before['counted']:
            percent = {k: 100 * (1 - saving[k] / before[k]) for k in ('counted', 'writes')}
            each = [what['counted'] * took / used for what, took, used in
                    ((before, s['start'] - start, cpu[1] - cpu[0]), (saving, s['end'] - s['start'], cpu[2] - cpu[1]))]
            self.results.add(name, percent=percent['counted'], writes_percent=percent['writes'], cpu_percent=100 * (1 - each[1] / each[0]))
        else:
            self.results.add(name, skipped='the guest did not tell what it did')
        self.tidy()
        self.room()

    def busy_take(self, name):
        self.room()
        self.prepared('b 1')
        time.sleep(SETTLE)
        self.take(name)

    # ---- going back ----

    def content(self, expected=None, whole=False):
        """What the guest says of its data; it must be whole, and what it was."""
        answer = self.ear.ask('f' if whole else 'c', '[cf] (ok|BAD) .*', 120)
        text = answer.string[2:]
        if answer[1] != 'ok':
            raise AssertionError(f'the data is not of one instant: {text}')
        if expected and text != expected:
            raise AssertionError(f'the data is {text}, not {expected}')
        return text

    def go(self, name, action, expected, **more):
        before = self.machine.cpu()
        r = action()
        cpu = self.machine.cpu() - before
        gap = self.ear.gap(r['start'], r['end'])
        self.content(expected, **more)
        self.results.add(name, gap_ms=gap, pause_ms=r.get('pause_ms'), answer_ms=(r['end'] - r['start']) * 1e3,
                         cpu_s=cpu, checked=1)

    def revert(self, name):
        """Change 10,000 pages and revert; change them again and undo. Both times all marks are compared, every 50th time all bytes."""
        self.room()
        self.under()
        m, n = self.machine, self.results.count(name)
        if self.base[0] is not m:
            self.base = m, m.take('base')['id'], self.content()
        self.ear.order(f'd {DIRTY}')
        present = self.content()
        time.sleep(0.05)
        self.go(name, lambda: m.revert(self.base[1]), self.base[2], whole=n % 50 == 49)
        self.ear.order(f'd {DIRTY}')
        time.sleep(0.05)
        self.go('undo', m.undo, present, whole=n % 50 == 49)

    # ---- QEMU ----

    def qemu_take_under(self, name, *orders):
        self.under(*orders)
        start = time.monotonic()
        time.sleep(1)
        self.results.add(name + '-noise', gap_ms=self.ear.gap(start, time.monotonic()))
        self.take(name)

    def qemu_take(self, name):
        """savevm, loadvm and delvm; its file grows by each one, so the size is taken before the old one goes."""
        m = self.machine
        self.qemu_take_under(name, f'w {RATE}')
        self.under()
        self.take('qemu-unchanged')
        base, content = self.taken[-1], self.content()
        self.ear.order(f'd {DIRTY}')
        self.go('qemu-revert', lambda: m.revert(base), content)
        self.results.add('qemu-du', bytes=m.du())
        start, end = m.monitor(f'delvm {self.taken.pop(0)}')
        self.results.add('qemu-delete', ms=(end - start) * 1e3)

    def qemu_take_busy(self, name):
        self.qemu_take_under(name, 'b 1')
