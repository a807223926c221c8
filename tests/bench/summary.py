# SPDX-License-Identifier: MIT
"""The table: each figure, its goal, and QEMU's beside it."""
from results import Table

MB = 10 ** 6
PAUSE = {'p50': 5, 'p95': 20}


def pauses(t, v, what, figure):
    t.row(f'{what}: the stop, outside', v(figure, 'stop_ms'), goals=PAUSE)
    t.row('  product\'s figure', v(figure, 'pause_ms'), goals=PAUSE)
    t.row('  longest until durable, outside', v(figure, 'gap_ms'))


def takes(t, v):
    t.head('Take, 2 GiB with 1 GiB of data: the guest\'s pause as the longest gap between heartbeats, and by the product')
    t.row('100,000 writes/s, no snapshot: any 0.1 s of this host', v('noise', 'stop_ms'))
    t.row('  any 0.7 s', v('noise', 'gap_ms'))
    pauses(t, v, '100,000 writes/s', 'take')
    t.row('  until durable', v('take', 'durable_ms'))
    t.row('  bytes added', v('take', 'bytes_added'), 'bytes')
    t.row('  CPU of keeper and machine while saving', v('take', 'cpu_s'), 's')
    t.row('compiling in a loop, no snapshot: any 0.1 s', v('busy-noise', 'stop_ms'))
    t.row('  any 0.7 s', v('busy-noise', 'gap_ms'))
    pauses(t, v, 'compiling in a loop', 'busy-take')
    t.row('  until durable', v('busy-take', 'durable_ms'))
    for memory in '512', '4096':
        pauses(t, v, f'{memory} MiB, 100,000 writes/s', f'take-{memory}')
    pauses(t, v, '10,000 dirty pages (41 MB)', 'take-10k')
    t.row('  until durable', v('take-10k', 'durable_ms'), goals={'worst': 2000})
    t.row('  bytes added', v('take-10k', 'bytes_added'), 'bytes')
    t.row('slowdown of the guest while saving', v('slowdown', 'percent'), '%', {'p50': 10})
    t.row('  per second of the machine\'s CPU time', v('slowdown', 'cpu_percent'), '%', {'p50': 10})
    t.row('  writes not done', v('slowdown', 'writes_percent'), '%', {'p50': 10})


def sizes(t, v):
    t.head('Size')
    pauses(t, v, 'first snapshot', 'first')
    t.row('  for as long without one', v('first-noise', 'gap_ms'))
    t.row('  bytes added', v('first', 'bytes_added'), 'bytes')
    t.row('  until durable', v('first', 'durable_ms'))
    t.row('  du of document', v('first-du', 'document'), 'bytes')
    t.row('  du of instance', v('first-du', 'instance'), 'bytes')
    t.row('next of an unchanged machine, bytes added', v('unchanged', 'bytes_added'), 'bytes', {'worst': 0.005 * 2 * 1024 ** 3})
    t.row('ten snapshots of light work / the first, bytes added', v('light-ten', 'ratio'), '', {'worst': 1.3})
    t.row('  by du of document and instance', v('light-ten', 'du_ratio'), '', {'worst': 1.3})
    for name in 'take', 'busy-take':
        t.row(f'du of document along {name}', v(f'{name}-du', 'document'), 'bytes')
        t.row('  of instance', v(f'{name}-du', 'instance'), 'bytes')


def going_back(t, v):
    t.head('Revert in place, 10,000 dirty pages each time: last heartbeat before to first after')
    for name in 'revert', 'undo':
        t.row(f'{name}, outside', v(name, 'gap_ms'), goals={'p95': 50})
        t.row('  product\'s figure', v(name, 'pause_ms'), goals={'p95': 50})
        t.row('  answered', v(name, 'answer_ms'))
        t.row('  CPU of keeper and machine until then', v(name, 'cpu_s'), 's')
    t.count('contents checked, wrong', len(v('revert', 'checked')) + len(v('undo', 'checked')), failures(t, 'revert', 'undo'), 1000)
    t.head('Open in a new process, warm, from exec of hva run')
    t.row('picture on the display socket', v('open', 'screen_ms'), goals={'p50': 300})
    t.row('first heartbeat', v('open', 'beat_ms'), goals={'p50': 300})
    t.row('  product\'s figure', v('open', 'start_ms'))
    t.row('command typed ahead, answered', v('open', 'answer_ms'))
    t.row('all memory there', v('open', 'filled_ms'))
    t.row('closing (hva stop, saved)', v('close', 'ms'))


def failures(t, *figures):
    return sum(1 for f in figures for s in t.results.of(f) if 'data is' in s.get('error', ''))


def timeline(t, v):
    t.head('Timeline, 5 s steps, light work')
    t.row('keeper\'s share of a core', v('timeline', 'keeper_percent'), '%', {'worst': 5})
    t.row('  more than without it', v('timeline', 'keeper_more_percent'), '%')
    t.row('  machine\'s, more than without it', v('timeline', 'machine_more_percent'), '%')
    hour = [s['bytes_per_hour'] for s in t.results.of('timeline') if s.get('seconds', 0) >= 3600]
    t.row('bytes of an hour', hour, 'bytes', {'worst': 10 ** 9})
    t.row('bytes an hour at the rate of the beginning', [b for b in v('timeline', 'bytes_per_hour') if b not in hour], 'bytes')
    t.row('from point to point (more on a busy host)', v('timeline-gap', 'seconds'), 's')
    tried = t.results.of('timeline-revert')
    t.count('reverts to random points, wrong', len(tried), sum('wrong' in s for s in tried), 50)


def qemu(t, v):
    t.head('QEMU TCG, same guest, same run')
    t.row('no snapshot (noise)', v('qemu-take-noise', 'gap_ms'))
    t.row('savevm under 100,000 writes/s, outside', v('qemu-take', 'gap_ms'))
    t.row('  answered', v('qemu-take', 'answer_ms'))
    t.row('  bytes added', v('qemu-take', 'bytes_added'), 'bytes')
    t.row('  CPU', v('qemu-take', 'cpu_s'), 's')
    t.row('compiling, no snapshot (noise)', v('qemu-busy-take-noise', 'gap_ms'))
    t.row('savevm while compiling, outside', v('qemu-busy-take', 'gap_ms'))
    t.row('savevm again, unchanged, bytes added', v('qemu-unchanged', 'bytes_added'), 'bytes')
    t.row('loadvm, outside', v('qemu-revert', 'gap_ms'))
    t.row('  CPU', v('qemu-revert', 'cpu_s'), 's')
    t.row('delvm', v('qemu-delete', 'ms'))
    t.row('du with two snapshots', v('qemu-du', 'bytes'), 'bytes')


def file_figures(t, v):
    t.head('The file')
    for name, what in ('sparse', 'of files'), ('sparse-noise', 'of noise (does not compress)'):
        t.row(f'100 GB sparse disk, 60 MB {what}: size', v(name, 'bytes'), 'bytes', {'worst': 64 * MB})
        t.row('  CPU', v(name, 'cpu_s'), 's', {'worst': 2})
    t.row('hva info of a 2 GB bundle, whole process', v('info', 'wall_ms'), goals={'p50': 20})
    t.row('  CPU', v('info', 'cpu_ms'))
    t.row('  a process that only prints its help', v('info', 'empty_ms'))
    t.row('  product\'s figure', v('info', 'verified_ms'), goals={'p95': 20})
    for way in ('ours', 'qemu-img -c zlib', 'qemu-img -c zstd', 'tar.zst of the disk', 'zstd of its files as tar'):
        name = 'root' if way == 'ours' else 'root-' + way
        t.row(f'a Debian root, {way}: size', v(name, 'bytes'), 'bytes')
        t.row('  CPU', v(name, 'cpu_s'), 's')


def runs(t, v):
    t.head('Runs that must find nothing')
    for name, what, goal in ('power-cuts', 'power cuts', 10000), ('kills', 'kill -9', 1000), ('mutants', 'mutants', 100000):
        t.count(what + ', failed tests', sum(v(name, 'done')), sum(v(name, 'wrong')), goal)


def table(results):
    t = Table(results)
    v = results.values
    loads = [s['load'] for s in results.samples]
    if loads:
        print(f'build {results.build}, {len(loads)} samples, load average {min(loads)} to {max(loads)}')
        errors = v('self-check', 'error_ms')
        if errors:
            print(f'self-check: stops of 20 ms measured with an error of {min(errors):.2f} to {max(errors):.2f} ms')
    for part in takes, sizes, going_back, timeline, qemu, file_figures, runs:
        part(t, v)
    return t
