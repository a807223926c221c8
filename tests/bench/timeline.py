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
TIME_ERROR = 2.5           # seconds between a point's time, in whole seconds, and what the guest said then


class TimelineFigures:
    """A part of Session (live.py)."""

    def points(self):
        log = json.loads(self.machine.tool('log', '--timeline', '--json', self.machine.document))
        return [v for v in log if v.get('kind', 'auto') == 'auto']

    def timeline(self, name):
        if '--timeline' not in self.machine.tool('log', '--help') or '--at' not in self.machine.tool('revert', '--help'):
            self.results.add(name, skipped='this hva has no "log --timeline" and "revert --at"')
            return
        m, seconds = self.machine, SECONDS[self.bench.mode]
        self.under('l 1', 'h 0')  # the heartbeat costs the keeper more than the timeline does
        time.sleep(10)            # the first point holds everything
        pids, du, start = m.pids(), m.du(), time.monotonic()
        cpu = {role: cpu_seconds(pid) for role, pid in pids.items()}
        time.sleep(seconds)
        took = time.monotonic() - start
        share = {role + '_percent': 100 * (cpu_seconds(pid) - cpu[role]) / took for role, pid in pids.items()}
        points = self.points()
        self.results.add(name, seconds=took, points=len(points), bytes_per_hour=(m.du() - du) / took * 3600, du=m.du(), **share)
        self.go_to_points(points)

    def go_to_points(self, points):
        offset, counts = time.time() - time.monotonic(), self.ear.counts()
        times = [at + offset for at, _ in counts]
        changes_before = self.changes() - 25 * counts[-1][1][3]

        def light_at(moment):
            return counts[min(max(bisect.bisect(times, moment), 0), len(counts) - 1)][1][3]

        some = [random.choice(points) for _ in range(REVERTS[self.bench.mode])] if points else []
        for i, point in enumerate(some):
            try:
                start = time.monotonic()
                if i % 5:
                    answer = self.machine.revert(point['id'])
                else:
                    answer = self.at(point)
                changes = self.changes(whole=i % 10 == 9)
                most = light_at(point['time'] + TIME_ERROR) + 4 * (time.monotonic() - start) + 2
                if not light_at(point['time'] - TIME_ERROR) - 1 <= (changes - changes_before) / 25 <= most:
                    raise AssertionError(f'the point of {point["time"]} has {changes} changes')
                self.results.add('timeline-revert', pause_ms=answer.get('pause_ms'), checked=1)
            except (Refused, AssertionError) as e:
                self.results.add('timeline-revert', wrong=str(e)[:300])

    def at(self, point):
        moment = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(point['time']))
        return json.loads(self.machine.tool('revert', '--json', '--at', moment, self.machine.document))

    def changes(self, whole=False):
        return int(re.search(r'changes=(\d+)', self.content(whole=whole))[1])
