# SPDX-License-Identifier: MIT
"""Samples in a file of JSON lines, so that a run that was broken off goes on; and the table of what they say.

Each line: figure, the build it was measured on, its values, the time, and the load of the computer. Samples of other builds stay in
the file and do not count.
"""
import json
import os
import time


class Results:
    def __init__(self, path, build):
        self.path, self.build, self.samples = path, build, []
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        if os.path.exists(path):
            with open(path) as f:
                lines = f.read().split('\n')
            for line in lines:
                try:
                    sample = json.loads(line)
                except ValueError:
                    continue  # broken off in the middle of a line
                if sample['build'] == build:
                    self.samples.append(sample)
            if lines[-1]:
                with open(path, 'a') as f:
                    f.write('\n')

    def add(self, figure, **values):
        sample = dict(figure=figure, build=self.build, at=round(time.time(), 1), load=round(os.getloadavg()[0], 2),
                      **{k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()})
        self.samples.append(sample)
        with open(self.path, 'a') as f:
            f.write(json.dumps(sample) + '\n')

    def forget(self):
        """Earlier samples stay in a file beside this one."""
        self.samples = []
        if os.path.exists(self.path):
            os.rename(self.path, f'{self.path}.{time.strftime("%Y%m%d-%H%M%S")}')

    def of(self, figure):
        return [s for s in self.samples if s['figure'] == figure]

    def count(self, figure):
        return sum(1 for s in self.samples if s['figure'] == figure and 'error' not in s and 'skipped' not in s)

    def values(self, figure, name):
        return [s[name] for s in self.of(figure) if s.get(name) is not None]


def quantile(values, q):
    """Linear between neighbours; of few values the highest ones say little, so n stands beside."""
    values = sorted(values)
    at = (len(values) - 1) * q
    low = int(at)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (at - low)


def human(value, unit):
    if unit == 'bytes':
        for name, size in ('GB', 1e9), ('MB', 1e6), ('kB', 1e3):
            if abs(value) >= size:
                return f'{value / size:.3g} {name}'
        return f'{value:.0f} B'
    if unit == '%':
        return f'{value:.1f} %'
    number = f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'
    return f'{number} {unit}'.strip()


class Table:
    """Rows: what, p50, p95, worst, n, the goal and whether it is met."""

    def __init__(self, results):
        self.results, self.rows = results, []

    def head(self, title):
        self.rows.append((title,))

    def row(self, what, values, unit='ms', goals=None):
        """goals: {'p50' | 'p95' | 'worst': at most}."""
        values = [v for v in values if v is not None]
        if not values:
            return
        figures = {'p50': quantile(values, 0.5), 'p95': quantile(values, 0.95), 'worst': max(values)}
        goal = ', '.join(f'{name} <= {human(limit, unit)}' for name, limit in (goals or {}).items())
        verdict = '' if not goals else 'met' if all(figures[n] <= limit for n, limit in goals.items()) else 'MISSED'
        self.rows.append((what, *(human(figures[n], unit) for n in ('p50', 'p95', 'worst')), str(len(values)), goal, verdict))

    def count(self, what, number, wrong, goal=None):
        """Something that must not happen: how often it was tried and how often it happened."""
        if number:
            verdict = 'MISSED' if wrong else 'met' if goal is None or number >= goal else 'too few'
            self.rows.append((what, str(wrong), '', '', str(number), f'0 of {goal}' if goal else '0', verdict))

    def notes(self):
        seen = {}
        for s in self.results.samples:
            why = s.get('skipped') or s.get('error')
            if why:
                seen[s['figure']] = ('skipped: ' if s.get('skipped') else 'FAILED: ') + why
            else:
                seen.pop(s['figure'], None)
        return seen

    def print(self):
        head = ('', 'p50', 'p95', 'worst', 'n', 'goal', '')
        rows = [head] + [row for row, after in zip(self.rows, self.rows[1:] + [('',)]) if len(row) > 1 or len(after) > 1]
        widths = [max(len(r[i]) for r in rows if len(r) == len(head)) for i in range(len(head))]
        for row in rows:
            if len(row) == 1:
                print('\n' + row[0])
            else:
                cells = [cell.ljust(w) if i in (0, 5, 6) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
                print('  ' + '  '.join(cells).rstrip())
        for figure, why in self.notes().items():
            print(f'{figure}: {why}')
