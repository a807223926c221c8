#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""./dev bench snapshots: what taking, reverting, opening and the timeline cost, seen from outside, and beside them QEMU.

Resumable: every sample goes into build/bench/snapshots.jsonl at once; a run that was broken off goes on where it stopped, another build
begins anew. See docs/bench.md for what each figure is.
"""
import argparse
import os
import signal
import sys
import time
import traceback

import files
import longruns
import summary
from ear import Silence
from guest import Guest, key
from live import FIGURES, Session
from machines import Refused
from opening import opening
from results import Results

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))

# figure: (quick, usual, long) repetitions, and seconds after which the usual run leaves it (also the long one: ten times that)
PLAN = {
    'self-check': (3, 5, 5, 60),
    'first': (1, 3, 5, 240),
    'unchanged': (3, 10, 20, 60),
    'noise': (10, 80, 300, 150),
    'take-10k': (3, 50, 100, 120),
    'take': (8, 500, 500, 600),
    'slowdown': (4, 500, 500, 1500),
    'busy-noise': (6, 60, 200, 90),
    'busy-take': (4, 150, 500, 400),
    'revert': (5, 500, 500, 500),
    'take-512': (4, 500, 500, 800),
    'take-4096': (3, 500, 500, 900),
    'open': (3, 20, 50, 150),
    'timeline': (1, 1, 1, 0),
    'qemu-take': (1, 5, 10, 120),
    'qemu-busy-take': (1, 3, 10, 60),
    'sparse': (1, 3, 5, 60),
    'info': (5, 100, 200, 60),
    'root': (1, 2, 3, 240),
    'longruns': (1, 1, 1, 0),
}


class Bench:
    def __init__(self, o):
        self.o = o
        self.bin = os.path.abspath(o.bin)
        self.hva = self.bin + '/hva'
        self.folder = os.path.abspath(o.folder)
        self.build = key(*(f'{self.bin}/{p}' for p in ('hva', 'hva-keeper', 'hva-machine')), o.engine)
        self.results = Results(f'{self.folder}/snapshots.jsonl', self.build)
        self.mode = 0 if o.quick else 2 if o.long else 1
        self.guest_parts = None

    def wanted(self, figure):
        """How many repetitions are still missing."""
        if self.o.only and not any(figure.startswith(name) for name in self.o.only.split(',')):
            return 0
        return max((self.o.reps or PLAN[figure][self.mode]) - self.results.count(figure), 0)

    def seconds(self, figure):
        return PLAN[figure][3] * (1, 1, 10)[self.mode] or float('inf')

    def guest(self):
        if not self.guest_parts:
            say('parts of the guest')
            self.guest_parts = Guest(f'{self.folder}/cache', self.o.tiny)
        return self.guest_parts

    def figure(self, name, function, *args):
        """Repeats a figure until it has enough samples or has used up its time; its failure is a result, not the end."""
        left, end = self.wanted(name), None
        if not left:
            return True
        say(f'{name}: {left} to go')
        try:
            vain = 0
            while left and vain < 3 and (end is None or time.monotonic() < end):
                function(*args)
                end = end or time.monotonic() + self.seconds(name)  # the first may have had to make something
                before, left = left, self.wanted(name)
                vain = 0 if left < before else 3 if 'skipped' in self.results.samples[-1] else vain + 1
            return True
        except (Refused, Silence, OSError, AssertionError, KeyError, TimeoutError) as e:
            if self.o.traceback:
                traceback.print_exc()
            self.results.add(name, error=f'{type(e).__name__}: {e}'[:500])
            say(f'{name}: {type(e).__name__}: {e}')
            return False

    def live(self, prefix, memory, qemu=False):
        """All figures of one machine; after a failure the rest on a new one."""
        names = [n for n in FIGURES[prefix] if self.wanted(n)]
        while names:
            session = None
            try:
                session = Session(self, memory, qemu)
                while names:
                    name = names.pop(0)
                    if not self.figure(name, getattr(session, FIGURES[prefix][name]), name):
                        break
            except (Refused, Silence, OSError) as e:
                failed = names.pop(0) if names else prefix
                self.results.add(failed, error=f'the machine did not start: {e}'[:500])
                say(f'{failed}: the machine did not start: {e}')
            finally:
                if session:
                    session.machine.kill()

    def run(self):
        self.live('2048', 2048)
        self.live('512', 512)
        self.live('4096', 4096)
        self.figure('open', opening, self)
        self.live('timeline', 2048)
        if not self.o.no_qemu:
            self.live('qemu', 2048, qemu=True)
        self.figure('sparse', files.sparse, self)
        self.figure('info', files.info, self)
        self.figure('root', files.root, self)
        self.figure('longruns', longruns.all_of_them, self)


def say(text):
    print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


def options():
    ap = argparse.ArgumentParser(prog='./dev bench snapshots', description=__doc__.split('\n')[0])
    ap.add_argument('--quick', action='store_true', help='every figure with few repetitions (about three minutes)')
    ap.add_argument('--long', action='store_true', help='500 repetitions of all that is live, an hour of timeline')
    ap.add_argument('--only', help='figures, by the beginning of their names: ' + ', '.join(PLAN))
    ap.add_argument('--reps', type=int, help='another number of repetitions')
    ap.add_argument('--summary', action='store_true', help='only print the table of what there is')
    ap.add_argument('--fresh', action='store_true', help='do not count earlier samples of this build')
    ap.add_argument('--engine', default='soft', help='soft (default) or kvm')
    ap.add_argument('--no-qemu', action='store_true')
    ap.add_argument('--nice', type=int, default=0, help='priority of all machines on a busy computer, as root: for instance -10')
    ap.add_argument('--bin', default=TOP + '/build/bin')
    ap.add_argument('--tiny', default=TOP + '/build/tiny.hva')
    ap.add_argument('--folder', default=TOP + '/build/bench')
    ap.add_argument('--traceback', action='store_true', help=argparse.SUPPRESS)
    return ap.parse_args()


def main():
    o = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(o)
    if o.fresh:
        bench.results.forget()
    if not o.summary:
        try:
            os.nice(o.nice)
        except PermissionError:
            sys.exit('bench: only root may use a negative --nice')
        try:
            bench.run()
        except KeyboardInterrupt:
            say('broken off; the same command goes on from here')
    summary.table(bench.results).print()


if __name__ == '__main__':
    main()
