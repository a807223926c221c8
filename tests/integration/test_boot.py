# SPDX-License-Identifier: MIT
"""hva boot: the ends of a machine as exit statuses, the serial line, and what it refuses."""
import os
import select
import signal
import subprocess
import termios
import time

import harness
from harness import KERNEL


class Ends(harness.Case):
    def test_power_off_is_0(self):
        self.assertEqual(self.boot('poweroff')[0], 'hello\n')

    def test_power_off_is_0_in_strict_mode(self):
        self.assertEqual(self.boot('poweroff', '--strict')[0], 'hello\n')

    def test_reset_ends_with_0(self):
        self.boot('reset', '--on-reset', 'exit')

    def test_triple_fault_is_a_reset(self):
        self.boot('triple')

    def test_reset_boots_again_if_told_so(self):
        out, _ = self.boot('triple', '--on-reset', 'reset', '--exit-on', r'(hello\s+){3}')
        self.assertGreaterEqual(out.count('hello'), 3)

    def test_debug_exit_status_is_value_twice_plus_one(self):
        for value in (0, 3):
            self.boot(f'exit={value}', '--debug-exit', status=value * 2 + 1)

    def test_debug_exit_port_is_not_there_unless_asked_for(self):
        self.boot('exit=3 poweroff')

    def test_timeout_is_124(self):
        started = time.time()
        self.hva('boot', '--engine', 'soft', '--no-window', '--kernel', KERNEL, '--append', 'hang', '--timeout', '0.5', status=124)
        self.assertLess(time.time() - started, 20)

    def test_pattern_seen_is_0(self):
        self.boot('serve', '--exit-on', '^read[y]')

    def test_json_tells_the_end(self):
        out, _ = self.boot('poweroff', '--json', '--serial', 'null')
        self.assertRegex(out, r'"reason": "poweroff", "exit": 0, "engine": "soft"')

    def test_killed_machine_is_one_sentence_and_1(self):
        p = self.start('hang')
        os.kill(self.child(p), signal.SIGKILL)
        _, err = p.communicate(timeout=harness.PATIENCE)
        self.assertEqual(p.returncode, 1)
        self.sentence(err, 'killed by signal 9')

    def test_killed_keeper_takes_its_machine_along(self):
        p = self.start('hang')
        child = self.child(p)
        p.kill()
        p.communicate()
        for _ in range(200):
            if not os.path.exists(f'/proc/{child}') or harness.read(f'/proc/{child}/stat').split(') ')[1][0] == 'Z':
                return
            time.sleep(0.02)
        self.fail('the machine process lives on')

    def start(self, append):
        p = subprocess.Popen([harness.BIN + '/hva', 'boot', '--engine', 'soft', '--no-window', '--kernel', KERNEL, '--append', append],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env)
        self.assertEqual(p.stdout.readline(), 'hello\n')
        return p

    @staticmethod
    def child(p):
        return int(harness.read(f'/proc/{p.pid}/task/{p.pid}/children').split()[0])


class Lockdown(harness.Case):
    def test_machine_is_filtered_before_it_runs(self):
        p = Ends.start(self, 'hang')
        status = harness.read(f'/proc/{Ends.child(p)}/status')
        p.kill()
        p.communicate()
        self.assertRegex(status, r'Seccomp:\s+2')
        self.assertRegex(status, r'NoNewPrivs:\s+1')


class Serial(harness.Case):
    def test_a_pipe_is_transparent_and_its_end_is_no_exit(self):
        # The x after Ctrl-A would leave a terminal.
        out, _ = self.boot('serve', '--exit-on', 'nonce=\x01xCDEFGH', input='w\x01xCDEFGHp')
        self.assertIn('nonce=\x01xCDEFGH', out)

    def test_a_terminal_is_raw_and_ctrl_a_x_leaves(self):
        try:
            master, slave = os.openpty()
        except OSError as e:
            self.skipTest(f'no terminals here ({e}): is /dev/pts mounted?')
        self.addCleanup(os.close, master)
        before = termios.tcgetattr(slave)
        p = subprocess.Popen([harness.BIN + '/hva', 'boot', '--engine', 'soft', '--no-window', '--kernel', KERNEL, '--append', 'serve'],
                             stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, env=self.env)
        self.addCleanup(p.kill)
        out = b''

        def expect(word):
            nonlocal out
            while word not in out:
                self.assertTrue(select.select([master], [], [], harness.PATIENCE)[0], out)
                out += os.read(master, 1000)

        expect(b'ready')
        self.assertFalse(termios.tcgetattr(slave)[3] & termios.ICANON)
        os.write(master, b'w\x01cBCD\x03FGHp')
        expect(b'nonce=\x01BCD\x03FGH')
        os.write(master, b'\x01x')
        self.assertEqual(p.wait(harness.PATIENCE), 0)
        self.assertEqual(termios.tcgetattr(slave), before)
        os.close(slave)

    def test_output_to_a_file(self):
        self.boot('poweroff', '--serial', self.path('serial.log'))
        self.assertEqual(harness.read(self.path('serial.log')), 'hello\n')

    def test_screenshot_at_the_end(self):
        self.boot('poweroff', '--screenshot-at-exit', self.path('s.png'))
        with open(self.path('s.png'), 'rb') as f:
            self.assertEqual(f.read(8), b'\x89PNG\r\n\x1a\n')


class Refusals(harness.Case):
    def refuse(self, status, words, *args):
        _, err = self.hva('boot', '--no-window', *args, status=status)
        self.sentence(err, *words)

    def test_wrong_usage_is_2(self):
        self.refuse(2, ['--kernel'])
        self.refuse(2, ['bogus'], '--bogus')
        self.refuse(2, ['--memory', '12x'], '--kernel', KERNEL, '--memory', '12x')
        self.refuse(2, ['--memory', '16M to 64G'], '--kernel', KERNEL, '--memory', '1M')
        self.refuse(2, ['--cpus'], '--kernel', KERNEL, '--cpus', '9')
        self.refuse(2, ['--engine', 'warp'], '--kernel', KERNEL, '--engine', 'warp')
        self.refuse(2, ['regular expression'], '--kernel', KERNEL, '--exit-on', '(')
        self.refuse(2, ['extra'], '--kernel', KERNEL, 'extra')

    def test_what_is_not_there_yet_says_so(self):
        for args in (['--cdrom', 'x.iso'], ['--floppy', 'x'], ['--firmware', 'bios'], ['--net', 'user'],
                     ['--disk', KERNEL + ',if=ide'], ['--disk', KERNEL + ',if=nvme']):
            self.refuse(2, ['this version'], '--kernel', KERNEL, *args)

    def test_missing_kernel_file(self):
        self.refuse(1, ['no-such-file', 'No such file'], '--kernel', 'no-such-file')

    def test_folder_as_kernel(self):
        self.refuse(1, [self.dir, 'neither a file nor a disk'], '--kernel', self.dir)

    def test_kernel_that_is_none(self):
        with open(self.path('text'), 'w') as f:
            f.write('this is no kernel\n' * 100)
        self.refuse(1, ['text'], '--engine', 'soft', '--kernel', self.path('text'))

    def test_empty_kernel(self):
        open(self.path('empty'), 'w').close()
        self.refuse(1, ['empty'], '--engine', 'soft', '--kernel', self.path('empty'))

    def test_missing_disk(self):
        self.refuse(1, ['no-disk'], '--engine', 'soft', '--kernel', KERNEL, '--disk', 'no-disk')

    def test_disk_in_use(self):
        with open(self.path('disk'), 'wb') as f:
            f.truncate(1 << 20)
        p = subprocess.Popen([harness.BIN + '/hva', 'boot', '--engine', 'soft', '--no-window', '--kernel', KERNEL, '--append', 'hang',
                              '--disk', self.path('disk')], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=self.env)
        p.stdout.readline()
        try:
            self.refuse(1, ['disk', 'another running machine'], '--engine', 'soft', '--kernel', KERNEL, '--disk', self.path('disk'))
        finally:
            p.kill()
            p.communicate()

    def test_unknown_command(self):
        self.sentence(self.hva('fly', status=2)[1], 'fly')
        self.sentence(self.hva('export', 'a', 'b', status=2)[1], 'export')


if __name__ == '__main__':
    harness.main()
