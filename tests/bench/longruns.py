# SPDX-License-Identifier: MIT
"""The runs that must find nothing: power cuts, kills, mutants. Their programs are tests of ctest and print what they did as
"N power cuts", "N kills", "N mutants"; with --long they do as much as was promised."""
import os
import re
import subprocess

# figure: (ctest's names, what is printed, the build folders in order of preference)
RUNS = {
    'power-cuts': ('snapshots_test_power', r'(\d+) (?:simulated )?power cuts', ('build',)),
    'kills': ('test_kills', r"(\d+) (?:times kill|kills|processes killed)", ('build',)),
    'mutants': ('mutat', r'(\d+) mutants', ('build-debug', 'build')),
}


def run(bench, figure):
    names, printed, folders = RUNS[figure]
    top = os.path.dirname(os.path.dirname(bench.bin))
    for folder in folders:
        if os.path.exists(f'{top}/{folder}/CTestTestfile.cmake'):
            env = dict(os.environ, **({'HSK_LONG': '1'} if bench.o.long else {}))
            p = subprocess.run(['ctest', '--test-dir', f'{top}/{folder}', '-V', '-R', names, '--timeout', '14400'], capture_output=True,
                               text=True, errors='replace', env=env)
            done = max((int(m) for m in re.findall(printed, p.stdout)), default=0)  # earlier ones are progress
            if done:
                failed = re.findall(r'^\s*\d+ - (\S+) \(.*\)$', p.stdout, re.M)
                bench.results.add(figure, done=done, wrong=len(failed), which=failed, build_folder=folder)
                return
    bench.results.add(figure, skipped=f'no built test {names} prints its count')


def all_of_them(bench):
    if bench.o.quick:
        bench.results.add('longruns', skipped='not in a quick run')
    else:
        for figure in RUNS:
            run(bench, figure)
        bench.results.add('longruns', done=1)
