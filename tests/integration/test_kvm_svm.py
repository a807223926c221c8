# SPDX-License-Identifier: MIT
"""A second opinion on the tables of processor modes (tests/cpu/test_modes_*.c): KVM on the SVM that QEMU's translator emulates.

QEMU boots a Debian kernel with an initramfs that holds those programs and test_engines.c; they run on the KVM engine. What KVM, AMD's
processors or QEMU do otherwise than the manual is left out, each row with its reason in the table; the last line here is the count.
The clock follows the instructions (-icount), so the load of the computer changes nothing.
Environment: HVA_BIN.
"""
import os
import re
import shutil
import subprocess
import sys

import harness
import packages

MODULES = ('irqbypass', 'ccp', 'kvm', 'kvm-amd')  # in the order of loading
PROGRAMS = ['cpu_test_modes_' + name for name in ('real', 'gates', 'paging', 'long', 'v86', 'events')] + ['cpu_test_engines']
LIMIT = 300  # seconds; some 20 on an idle core

INIT = """#!/bin/busybox sh
export PATH=/bin HSK_LANE=kvm
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox dmesg -n 1
for m in %s; do busybox insmod /$m.ko; done
for p in %s; do
    if busybox timeout 5 /test/$p; then echo "PASS $p"; else echo "FAIL $p"; fi
done
busybox poweroff -f
"""


class KvmOnSvm(harness.Case):
    def libraries(self, program):
        """The shared libraries and the loader, as ldd tells."""
        told = subprocess.run(['ldd', program], capture_output=True, text=True, check=True).stdout
        if 'libasan' in told:
            self.skipTest('the programs are built with sanitizers: too slow in a machine in a machine')
        return re.findall(r'(/\S+) \(0x', told)

    def initramfs(self):
        root = self.path('root')
        for name in ('bin', 'dev', 'proc', 'sys', 'test', 'tmp'):
            os.makedirs(f'{root}/{name}')
        for program in PROGRAMS:
            built = f'{harness.BIN}/{program}'
            for library in self.libraries(built):
                os.makedirs(root + os.path.dirname(library), exist_ok=True)
                shutil.copy(library, root + library)
            shutil.copy(built, f'{root}/test/{program}')
        try:
            deb = packages.fetch('linux-image-[0-9]*-amd64', meta='linux-image-amd64')
            busybox = packages.fetch('busybox-static')
        except packages.Missing as e:
            self.skipTest(str(e))
        packages.unpack_all(deb, {'boot/vmlinuz': self.path('vmlinuz'), **{f'/{m}[.]ko$': f'{root}/{m}.ko' for m in MODULES}})
        packages.unpack(busybox, 'bin/busybox$', root + '/bin/busybox')
        os.chmod(root + '/bin/busybox', 0o755)
        with open(root + '/init', 'w') as f:
            f.write(INIT % (' '.join(MODULES), ' '.join(PROGRAMS)))
        os.chmod(root + '/init', 0o755)
        with open(self.path('initramfs'), 'wb') as out:
            subprocess.run('find . | cpio -o -H newc --quiet', shell=True, cwd=root, stdout=out, check=True)
        return self.path('initramfs')

    def test_tables_hold_on_kvm(self):
        initramfs = self.initramfs()
        out = subprocess.run(['timeout', str(LIMIT), 'qemu-system-x86_64', '-accel', 'tcg', '-icount', 'shift=2,sleep=off', '-cpu', 'EPYC,+svm,+npt',
                              '-m', '1024', '-nographic', '-no-reboot', '-nic', 'none', '-kernel', self.path('vmlinuz'), '-initrd', initramfs,
                              '-append', 'console=ttyS0 quiet panic=-1'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             errors='replace', env=self.env).stdout
        for program in PROGRAMS:
            self.assertRegex(out, f'(?m)^PASS {program}\\r?$', out)
        counts = [(int(a), int(b)) for a, b in re.findall(r'on KVM: (\d+) rows compared, (\d+) left out', out)]
        compared, left_out = (sum(column) for column in zip(*counts))
        print(f'{compared} rows compared on KVM, {left_out} left out')
        self.assertGreater(compared, 200)


if __name__ == '__main__':
    for tool in ('qemu-system-x86_64', 'cpio', 'apt-get', 'dpkg-deb', 'ldd'):
        if not shutil.which(tool):
            print(f'skipped: {tool} is not installed')
            sys.exit(77)
    harness.main()
