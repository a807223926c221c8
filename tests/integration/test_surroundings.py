# SPDX-License-Identifier: MIT
"""Programs in odd surroundings: closed or full standard descriptors, folders in the environment that are none."""
import os
import subprocess

import harness
from harness import KERNEL, Running
from test_document import Document


class Surroundings(Document):
    def odd(self, *args, closed):
        """Runs hva with these standard descriptors closed; returns its exit status."""
        p = subprocess.run([harness.BIN + '/hva', *args], env=self.env, cwd=self.dir, timeout=harness.PATIENCE,
                           capture_output=True,
                           preexec_fn=lambda: [os.close(fd) for fd in closed])
        return p.returncode

    def test_a_document_is_never_written_to_as_the_terminal(self):
        """Closed descriptors are the next that open() gives."""
        for closed in (0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2):
            create = ['create', '--kernel', KERNEL, '--append', 'serve', '--disk', '8M', '--memory', '64M']
            self.assertEqual(self.odd(*create, '--force', 'doc.hva', closed=closed), 0, closed)
            self.hva('verify', 'doc.hva')
            self.assertEqual(self.odd('compact', 'doc.hva', closed=closed), 1 if 1 in closed else 0, closed)
            self.odd('sign', 'doc.hva', closed=closed)
            self.odd('log', '--timeline', 'doc.hva', closed=closed)
            self.odd('drop', 'doc.hva', 'nothing', closed=closed)
            self.hva('verify', 'doc.hva')
        args = [harness.BIN + '/hva', 'run', '--no-window', '--engine', 'soft', '--serial', 'null', 'doc.hva']
        p = subprocess.Popen(args, env=self.env, cwd=self.dir, preexec_fn=lambda: [os.close(fd) for fd in (0, 1, 2)])
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.wait_for(lambda: self.json('info', 'doc.hva')['state'] == 'running')
        self.hva('snapshot', 'doc.hva', 'first', '--wait')
        self.hva('stop', 'doc.hva')
        self.assertEqual(p.wait(), 0)
        self.hva('verify', 'doc.hva')

    def test_what_cannot_be_said_is_no_success(self):
        self.create()
        with open('/dev/full', 'w') as full:
            for command in ['verify', 'doc.hva'], ['info', '--json', 'doc.hva'], ['doctor'], ['--version']:
                p = subprocess.run([harness.BIN + '/hva', *command], env=self.env, cwd=self.dir, stdout=full,
                                   stderr=subprocess.PIPE, text=True, timeout=harness.PATIENCE)
                self.assertEqual(p.returncode, 1, command)
                self.sentence(p.stderr, 'No space left')

    def test_relative_folders_in_the_environment_do_not_count(self):
        """Or a machine would have another store in each working folder."""
        self.env.update(XDG_DATA_HOME='data', XDG_RUNTIME_DIR='run')
        doc = self.create()
        os.mkdir(self.path('elsewhere'))
        self.hva('log', '--timeline', doc)
        subprocess.run([harness.BIN + '/hva', 'log', '--timeline', doc], env=self.env, cwd=self.path('elsewhere'), check=True)
        self.assertEqual(os.listdir(self.path('elsewhere')), [])
        self.assertEqual(len(os.listdir(self.path('.local/share/haversack/instances'))), 1)


if __name__ == '__main__':
    harness.main()
