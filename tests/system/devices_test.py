#!/usr/bin/env python3
"""Small devices and Debian's drivers for them: python3 devices_test.py HOLON GENERATION
[TEST...]

$HOLON_VMGENID_KERNEL may name a kernel that has the VMGenID driver (Debian's
linux-image-amd64 has it, linux-image-cloud-amd64 has not)."""

import os
import subprocess
import sys
import unittest

import boot_test
from boot_test import MOUNTS
from harness import PATIENCE

GENERATION = None


class Generation(boot_test.GuestKernel):
    """The identifier that tells a clone from its original."""

    def run_guest(self, init, kernel):
        p = subprocess.run([GENERATION, kernel, self.initramfs(init)], text=True,
                           stdout=subprocess.PIPE, timeout=PATIENCE)
        self.assertEqual(p.returncode, 0, p.stdout)
        return p.stdout

    def test_a_new_one_reaches_the_acpi_device(self):
        init = MOUNTS + """grep . /sys/bus/acpi/devices/HOLN0001:00/hid
ged() { echo "$1=$(grep ACPI:Ged /proc/interrupts | awk '{ print $2 }')"; }
ged before; echo new-generation; sleep 0.5; ged after; poweroff -f
"""
        out = self.run_guest(init, self.kernel)
        self.assertIn("HOLN0001", out)
        self.assertIn("before=0", out)
        self.assertIn("after=1", out)

    @unittest.skipUnless("HOLON_VMGENID_KERNEL" in os.environ, "needs a kernel with the driver")
    def test_linux_reseeds_its_random_numbers(self):
        init = MOUNTS + """readlink /sys/bus/acpi/devices/HOLN0001:00/driver
for n in 1 2; do echo new-generation; sleep 0.5; done; poweroff -f
"""
        out = self.run_guest(init, os.environ["HOLON_VMGENID_KERNEL"])
        self.assertIn("drivers/vmgenid", out)
        self.assertEqual(out.count("crng reseeded due to virtual machine fork"), 2)


if __name__ == "__main__":
    boot_test.HOLON, GENERATION = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
