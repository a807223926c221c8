# SPDX-License-Identifier: MIT
"""docs/format.md is enough: a reader that was written from it alone finds in a document and in its instance what a guest put
there, through snapshots, reverts, a compaction, a signature and a kill."""
import os
import shutil
import struct
import sys

import format_reader
import harness
from harness import KERNEL, Running

FILL, FILL_BYTES = 0x800000, 4 << 20            # kernel.c: in memory
BIG, BIG_BYTES, BIG_AT = 0x1000000, 1 << 19, 1 << 20  # in memory, and where it is on the disk
NONCE_AT = 100 * 512


def rising(data):
    first = struct.unpack_from('<I', data)[0]
    return first and data == struct.pack(f'<{len(data) // 4}I', *range(first, first + len(data) // 4))


class Format(harness.Case):
    def setUp(self):
        super().setUp()
        self.doc = self.path('doc.hva')
        self.raw = os.urandom(300000).ljust(9 << 20, b'\0')
        with open(self.path('raw'), 'wb') as f:
            f.write(self.raw)
        self.hva('create', self.doc, '--kernel', KERNEL, '--append', 'serve', '--disk', self.path('raw'), '--disk', '1M',
                 '--memory', '64M')
        self.hva('timeline', self.doc, 'off')

    def change(self, m, nonce):
        with m.console() as c:
            for command in ('w' + nonce, 'f', 'b', 'D' + nonce):
                c.ask(command, 'ok')

    def snapshot(self, title):
        return self.json('snapshot', self.doc, title, '--wait')['id']

    def disk(self, data, nonce):
        self.assertEqual(data[NONCE_AT:NONCE_AT + 8], nonce.encode())
        self.assertTrue(rising(data[BIG_AT:BIG_AT + BIG_BYTES]))
        self.assertEqual(data[NONCE_AT + 4096:300000], self.raw[NONCE_AT + 4096:300000])

    def version(self, store, id_, nonce):
        disk = store.manifest['disks'][0]['id']
        ram = bytes(store.object(id_, 'ram'))
        self.assertEqual(len(ram), 64 << 20)
        self.assertIn(nonce.encode(), ram)
        self.assertTrue(rising(ram[FILL:FILL + FILL_BYTES]))
        self.disk(bytes(store.object(id_, 'disk.' + disk)), nonce)
        v = store.versions[id_]
        self.assertTrue(v['hasState'] and len(store.blob(v['state'])) == v['state']['bytes'])
        return ram

    def test_a_document(self):
        fresh = format_reader.open_document(self.doc)
        self.assertEqual(fresh.disk_now(0), self.raw)
        self.assertEqual(fresh.disk_now(1), bytes(1 << 20))
        m = Running(self, self.doc)
        self.change(m, 'FIRSTONE')
        first = self.snapshot('first')
        self.change(m, 'SECONDON')
        second = self.snapshot('second')
        self.json('revert', self.doc, 'first')
        self.hva('stop', self.doc)
        m.wait()
        store = format_reader.open_document(self.doc)
        one, two = self.version(store, first, 'FIRSTONE'), self.version(store, second, 'SECONDON')
        self.assertNotEqual(one, two)
        self.disk(store.disk_now(0), 'FIRSTONE')
        self.assertEqual(store.versions[second]['ancestors'][0], first)
        self.assertEqual({v['title'] for v in store.versions.values() if v['kind'] == 'user'}, {'first', 'second'})
        self.hva('rename', self.doc, 'second', 'The second')
        self.hva('drop', self.doc, 'first')
        self.hva('compact', self.doc)
        store = format_reader.open_document(self.doc)
        self.assertNotIn(first, store.versions)
        self.assertEqual(store.versions[second]['title'], 'The second')
        self.assertEqual(self.version(store, second, 'SECONDON'), two)
        self.disk(store.disk_now(0), 'FIRSTONE')

    def kill_after_revert(self, parked):
        """parked: what was before the revert is stored; else the log may still hold the way there."""
        m = Running(self, self.doc)
        self.change(m, 'FIRSTONE')
        first = self.snapshot('first')
        self.change(m, 'SECONDON')
        self.json('revert', self.doc, 'first')
        with m.console() as c:
            c.ask('DTHIRDONE', 'ok')  # flushed
        if parked:
            self.wait_for(lambda: any(v['kind'] == 'before-revert' for v in self.json('log', self.doc)))
        m.kill()
        folder = self.path('data/haversack/instances')
        store = format_reader.open_instance(os.path.join(folder, os.listdir(folder)[0]), self.doc)
        self.disk(store.disk_now(0), 'THIRDONE')
        self.version(store, first, 'FIRSTONE')
        return store

    def test_an_instance_after_a_kill(self):
        self.kill_after_revert(parked=False)

    def test_an_instance_with_what_was_before_a_revert(self):
        store = self.kill_after_revert(parked=True)
        parked = [v['id'] for v in store.versions.values() if v['kind'] == 'before-revert']
        self.assertEqual(len(parked), 1)
        self.version(store, parked[0], 'SECONDON')


if __name__ == '__main__':
    for tool in ('zstd', 'xxhsum'):
        if not shutil.which(tool):
            print(f'skipped: there is no {tool}')
            sys.exit(77)
    harness.main()
