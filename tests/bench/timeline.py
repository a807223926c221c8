# SPDX-License-Identifier: MIT
"""The timeline: what it costs while a guest does light work, and whether one can go to any of its points."""
import bisect
import json
import random
import re
import time

from machines import Refused, cpu_seconds

SECONDS = (45, 600, 3600)  # of light work: quick, usual, long
REVERTS = (5, 50, 50)
FIRST_POINT = 120          # seconds
LOOK = 30                  # seconds: all points of the last minute are still there
TIME_ERROR = 2.5           # seconds between a point's time, in whole seconds, and what the guest said then
LIGHT_CHANGES = 25         # guest.c: light_step


class TimelineFigures:
    """A part of Session (live.py)."""

    def points(self):
        log = json.loads(self.machine.tool('log', self.machine.document, '--timeline', '--json'))
        return [v for v in log if v['kind'] == 'auto']

    def shares(self, seconds, look=lambda: None):
        """Percent of a core that keeper and machine take meanwhile; looks at the points now and then."""
        pids, start = self.machine.pids(), time.monotonic()
        before = {role: cpu_seconds(pid) for role, pid in pids.items()}
        while (took := time.monotonic() - start) < seconds:
            time.sleep(min(LOOK, seconds - took))
            look()
        took = time.monotonic() - start
        return took, {role: 100 * (cpu_seconds(pid) - before[role]) / took for role, pid in pids.items()}

    def timeline(self, name):
        m, seconds = self.machine, SECONDS[self.bench.mode]
        if not m.has_timeline:
            self.results.add(name, skipped='this hva has no timeline')
            return
        self.under('l 1', 'h 0')  # the heartbeat costs the keeper more than the timeline does
        _, without = self.shares(max(seconds / 10, 10))
        m.take('first')           # holds everything; the timeline pays off what its points cost, and is not to pay for this
        m.tool('timeline', m.document, 'every', '5')
        m.tool('timeline', m.document, 'on')
        end = time.monotonic() + FIRST_POINT
        while not self.points():
            if time.monotonic() > end:
                raise Refused(f'no point of the timeline came in {FIRST_POINT} s of light work')
            time.sleep(1)
        self.offset = time.time() - time.monotonic()
        du, start, began = m.du(), time.monotonic(), time.time()
        taken = set()
        took, share = self.shares(seconds, lambda: taken.update(p['time'] for p in self.points() if p['time'] >= began))
        grown, at = m.du() - du, sorted(taken)
        for gap in (b - a for a, b in zip(at, at[1:])):
            self.results.add('timeline-gap', seconds=gap)
        self.results.add(name, seconds=took, points=len(taken), stay=len(self.points()), bytes_per_hour=grown / (time.monotonic() - start) * 3600, du=du + grown,
                         keeper_percent=share['keeper'], keeper_more_percent=share['keeper'] - without['keeper'],
                         machine_percent=share['machine'], machine_more_percent=share['machine'] - without['machine'])
        self.go_to_points(began, time.time())

    def light_at(self, moment):
        counts = self.history
        return counts[min(bisect.bisect([at for at, _ in counts], moment - self.offset), len(counts) - 1)][1][3]

    def go_to_points(self, first, last):
        """Chosen anew each time: old points are thinned out meanwhile."""
        self.history = self.ear.counts()
        base = self.changes() - LIGHT_CHANGES * self.history[-1][1][3]
        for i in range(REVERTS[self.bench.mode]):
            there = [p for p in self.points() if first < p['time'] < last]
            if not there:
                self.results.add('timeline-revert', skipped='the timeline has no points')
                return
            try:
                self.go_to(random.choice(there), base, i)
            except (Refused, AssertionError) as e:
                self.results.add('timeline-revert', wrong=str(e)[:300])

    def go_to(self, point, base, i):
        """Every fifth by its time, the others by name; every tenth with all bytes compared."""
        start = time.monotonic()
        if i % 5:
            answer = self.machine.revert(point['id'])
        else:
            moment = time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(point['time']))
            answer = json.loads(self.machine.tool('revert', self.machine.document, '--at', moment, '--json'))
        steps = (self.changes(whole=i % 10 == 9) - base) / LIGHT_CHANGES
        # it has gone on working, four steps a second, until the answer came
        least = self.light_at(point['time'] - TIME_ERROR) - 1
        most = self.light_at(point['time'] + TIME_ERROR) + 4 * (time.monotonic() - start) + 2
        if not least <= steps <= most:
            raise AssertionError(f'the point of {point["time"]} is at step {steps:.0f}, not between {least} and {most:.0f}')
        self.results.add('timeline-revert', pause_ms=answer.get('pause_ms'), checked=1)

    def changes(self, whole=False):
        return int(re.search(r'changes=(\d+)', self.content(whole=whole))[1])
