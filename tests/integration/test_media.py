# SPDX-License-Identifier: MIT
"""Documents and instances on the file systems of sticks and cards, and on a stick that is pulled out while it is used.

Needs root and loop devices; what has no mkfs or mount program here (exfat-fuse, exfatprogs, ntfs-3g, bindfs) is skipped.
"""
import fcntl
import os
import shutil
import struct
import subprocess
import unittest

import harness
from harness import Running
from test_document import Document

FS_IOC_SHUTDOWN = 0x8004587d  # ext4, XFS: from now on every access is an error, as when a stick was pulled out


def quiet(*command):
    return subprocess.run(command, capture_output=True).returncode == 0


@unittest.skipIf(os.geteuid(), 'only root can mount')
class Media(Document):
    def stick(self, make, mount='mount', megabytes=100):
        """A folder on a file system of its own in a file."""
        for program in make[0], mount:
            if not shutil.which(program, path=os.environ['PATH'] + ':/sbin:/usr/sbin'):
                self.skipTest(f'there is no {program} here')
        image, place = self.path('image'), self.path('stick')
        with open(image, 'wb') as f:
            f.truncate(megabytes << 20)
        self.assertTrue(quiet(*make, image))
        os.makedirs(place)
        p = subprocess.run(['losetup', '-f', '--show', image], capture_output=True, text=True)
        if p.returncode:
            self.skipTest('there are no loop devices here')
        self.device = p.stdout.strip()
        self.addCleanup(quiet, 'losetup', '-d', self.device)
        self.mount(mount)
        return place

    def mount(self, program='mount'):
        if not quiet(program, self.device, self.path('stick')):
            self.skipTest('mounting is not allowed here')
        self.addCleanup(quiet, 'umount', '-l', self.path('stick'))

    def pull_out(self, place):
        folder = os.open(place, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, FS_IOC_SHUTDOWN, struct.pack('I', 2))
        except OSError as e:
            self.skipTest(f'this kernel cannot shut a file system down: {e}')
        finally:
            os.close(folder)

    def life(self, place):
        """A document there, with its instance there, too."""
        doc, new, clone = (os.path.join(place, name) for name in ('doc.hva', 'new.hva', 'clone.hva'))
        self.env['XDG_DATA_HOME'] = os.path.join(place, 'data')
        self.create(doc)
        m = Running(self, doc)
        first = self.change(m, 'FIRSTONE')
        self.json('snapshot', doc, 'first', '--wait')
        second = self.change(m, 'SECONDON')
        self.json('revert', doc)
        self.assertEqual(self.state(m), first)
        self.json('undo', doc)
        self.assertEqual(self.state(m), second)
        self.hva('clone', doc, clone)
        self.hva('save-as', doc, new)
        self.hva('stop', new)
        self.assertEqual(m.wait(), (0, ''))
        for name in doc, clone, new:
            self.hva('verify', name)
        self.hva('sign', new)
        self.hva('drop', new, 'first')
        self.hva('compact', new)
        m = Running(self, new)
        self.assertEqual(self.state(m), second)
        third = self.change(m, 'THIRDONE')
        m.kill()
        m = Running(self, new)
        self.assertEqual(self.state(m)[2:], third[2:])
        self.hva('stop', new)
        self.assertEqual(m.wait()[0], 0)
        self.hva('verify', new)
        self.assertEqual(sorted(os.listdir(place)), ['clone.hva', 'data', 'doc.hva', 'new.hva'])

    def test_exfat(self):
        """No hard links, no owners, no modes."""
        self.life(self.stick(['mkfs.exfat'], 'mount.exfat-fuse'))

    def test_ntfs(self):
        self.life(self.stick(['mkfs.ntfs', '-F', '-q'], 'ntfs-3g'))

    def test_a_folder_of_another_computer(self):
        """Through FUSE, without a trace of the real file's device and inode."""
        if not shutil.which('bindfs'):
            self.skipTest('there is no bindfs here')
        os.makedirs(self.path('far'))
        os.makedirs(self.path('near'))
        if not quiet('bindfs', '--no-allow-other', self.path('far'), self.path('near')):
            self.skipTest('there is no FUSE here')
        self.addCleanup(quiet, 'umount', '-l', self.path('near'))
        self.life(self.path('near'))

    def test_pulled_out_while_it_runs(self):
        place = self.stick(['mkfs.ext4', '-q'])
        doc = os.path.join(place, 'doc.hva')
        self.create(doc)
        m = Running(self, doc)
        self.change(m, 'FIRSTONE')
        self.json('snapshot', doc, 'first', '--wait')
        second = self.change(m, 'SECONDON')
        self.pull_out(place)
        self.sentence(self.hva('snapshot', doc, 'second', '--wait', status=1)[1], doc, 'kept on this computer', 'not in the document')
        self.sentence(self.hva('verify', doc, status=1)[1], doc)
        self.sentence(self.hva('save-as', 'doc', self.path('new.hva'), status=1)[1], doc)
        self.assertEqual(self.state(m), second)
        self.sentence(self.hva('stop', doc, status=1)[1], doc, 'not in the document')
        self.assertEqual(m.wait()[0], 0)
        # It is put in again.
        self.assertTrue(quiet('umount', place))
        self.mount()
        self.hva('verify', doc)
        m = Running(self, doc)
        self.assertEqual(self.state(m), second)
        self.json('revert', doc, 'second')
        self.assertEqual(self.state(m), second)
        self.hva('stop', doc)
        self.assertEqual(m.wait(), (0, ''))
        self.hva('verify', doc)
        self.assertIn('second', [v['title'] for v in self.json('log', doc)])


if __name__ == '__main__':
    harness.main()
