#!/usr/bin/env python3
"""Several vCPUs on the JIT: python3 smp_test.py HOLON SMP_PROGRAM [TEST...]

Linux on as many vCPUs as the host has, more, and very many; and programs/smp.c, which tries what
processors owe each other."""

import os
import sys
import unittest

import boot_test
from boot_test import MOUNTS

PROGRAM = None
TROUBLE = "stall|hung_task|BUG:|WARNING:|unstable|lockup"
# A loop per vCPU, pinned to it.
ALL_RUN = MOUNTS + """
echo "online $(cat /sys/devices/system/cpu/online),"
for cpu in $(ls -d /sys/devices/system/cpu/cpu[0-9]*); do
	taskset -c ${cpu##*/cpu} sh -c 'i=0; while [ $i -lt 200 ]; do i=$((i + 1)); done' &
	jobs="$jobs $!"
done
for job in $jobs; do wait $job && ran=$((ran + 1)); done
echo "ran on $ran,"
dmesg | grep -oE "PV spinlocks enabled|PV IPIs|pv remote TLB flush"
echo "clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource),"
dmesg | grep -E "%s"
""" % TROUBLE
PROGRAMS = 21  # lines that programs/smp.c prints


class Smp(boot_test.GuestKernel):
    def all_run(self, cpus):
        with self.boot(ALL_RUN + "poweroff -f\n", "--engine", "jit", "--cpus", str(cpus)) as vm:
            status, out, err = vm.ends()
            self.assertEqual(status, 0, err)
            self.assertIn(f"online 0-{cpus - 1},", out)
            self.assertIn(f"ran on {cpus},", out)
            self.assertIn("clock tsc,", out)
            for pv in "PV spinlocks enabled", "PV IPIs", "pv remote TLB flush":
                self.assertIn(pv, out)
            self.assertNotRegex(out, TROUBLE)

    def test_many_vcpus(self):
        for cpus in 8, 64:
            with self.subTest(cpus):
                self.all_run(cpus)

    def test_two_vcpus_again_and_again(self):
        for n in range(10):
            with self.subTest(n):
                self.all_run(2)

    def test_reboot(self):
        with self.boot(ALL_RUN + "reboot -f\n", "--engine", "jit", "--cpus", "3") as vm:
            for _ in range(3):
                vm.until(b"ran on 3,")

    def programs(self, *words):
        init = MOUNTS + "echo 1 > /proc/sys/kernel/printk\nsmp 4 0.4\npoweroff -f\n"
        with self.boot(init, "--engine", "jit", *words, files=[f"{PROGRAM}:bin/smp"]) as vm:
            status, out, err = vm.ends()
        self.assertEqual(status, 0, err)
        self.assertEqual(out.count(": ok"), PROGRAMS, out)

    def test_memory_order_atomics_code_and_mappings(self):
        self.programs("--cpus", "4")

    def test_with_a_code_cache_that_is_full_all_the_time(self):
        self.programs("--cpus", "2", "--jit-cache", "2M")


if __name__ == "__main__":
    boot_test.HOLON = os.path.abspath(sys.argv[1])
    PROGRAM = os.path.abspath(sys.argv[2])
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
