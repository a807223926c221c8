# SPDX-License-Identifier: MIT
"""The instrument of the snapshot figures without a machine: a hole between heartbeats is measured as long as it is."""
import os
import socket
import tempfile
import threading
import time
import unittest

from ear import Ear, Silence
from results import Results, Table, quantile


class Heartbeats(unittest.TestCase):
    def setUp(self):
        self.near, self.far = socket.socketpair()
        self.ear = Ear(self.near.fileno(), self.near.sendall)
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.addCleanup(self.ear.close)

    def beat(self, milliseconds):
        end, number = time.monotonic() + milliseconds / 1e3, 0
        while time.monotonic() < end:
            self.far.send(bytes([0x80 | number & 0x7f]))
            number += 1
            time.sleep(0.002)

    def test_a_stop_shows_as_long_as_it_was(self):
        errors = []
        for _ in range(10):  # a busy computer only adds to one of them
            self.beat(20)
            start = time.monotonic()
            time.sleep(0.02)
            end = time.monotonic()
            beats = threading.Thread(target=self.beat, args=(20,))
            beats.start()
            errors.append(self.ear.gap(start, end) - (end - start) * 1e3)
            beats.join()
        self.assertLess(abs(min(errors, key=abs)), 3, errors)

    def test_lines_between_heartbeats_are_heard_whole(self):
        for piece in (b'\x81ok\x82 d 10', b'\x83000\r\n\x84', b't 1 2 3 4\nt 101 2 3 4\n'):
            self.far.send(piece)
        self.assertEqual(self.ear.expect('ok d (.*)', 10)[1][1], '10000')
        self.ear.expect('t 101', 10)
        self.assertEqual([c for _, c in self.ear.counts()], [[1, 2, 3, 4], [101, 2, 3, 4]])
        self.assertGreaterEqual(self.ear.count(), 4)

    def test_silence_is_told(self):
        with self.assertRaises(Silence):
            self.ear.expect('never', 0.05)
        with self.assertRaises(Silence):
            self.ear.wait_beat(time.monotonic(), 0.05)
        self.far.send(b'died: no memory\n')
        with self.assertRaisesRegex(Silence, 'no memory'):
            self.ear.expect('ready', 10)


class Samples(unittest.TestCase):
    def test_a_run_goes_on_where_it_was_broken_off(self):
        with tempfile.TemporaryDirectory() as folder:
            path = folder + '/r.jsonl'
            r = Results(path, 'A')
            r.add('take', gap_ms=1.0)
            r.add('take', error='it was gone')
            Results(path, 'B').add('take', gap_ms=9.0)
            with open(path, 'a') as f:
                f.write('{"figure": "ta')
            again = Results(path, 'A')
            again.add('take', gap_ms=2.0)
            self.assertEqual(Results(path, 'A').values('take', 'gap_ms'), [1.0, 2.0])
            self.assertEqual(Results(path, 'A').count('take'), 2)
            again.forget()
            self.assertEqual((again.count('take'), os.path.exists(path)), (0, False))

    def test_quantiles_and_goals(self):
        self.assertEqual((quantile([3, 1, 2], 0.5), quantile([1, 2], 0.95)), (2, 1.95))
        with tempfile.TemporaryDirectory() as folder:
            table = Table(Results(folder + '/r', 'A'))
            table.row('good', [1, 2, 3], goals={'p50': 2})
            table.row('bad', [1, 2, 3], goals={'p50': 2, 'worst': 2.9})
            table.row('nothing', [])
            table.count('wrong', 10, 1)
            table.count('few', 10, 0, 11)
        self.assertEqual([row[-1] for row in table.rows], ['met', 'MISSED', 'MISSED', 'too few'])


if __name__ == '__main__':
    unittest.main()
