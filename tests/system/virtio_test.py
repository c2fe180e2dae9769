#!/usr/bin/env python3
"""Linux's virtio drivers against our rings, with each ring feature on and off, with MSI-X and with
the interrupt wire: python3 virtio_test.py HOLON [TEST...]

The guest takes entropy and works on a disk, whose bytes are compared here. The kernel and its
modules are scripts/fetch-kernel's."""

import hashlib
import os
import subprocess
import sys
import unittest

import boot_test
from boot_test import MOUNTS, GuestKernel, script

MODULES = ["virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev",
           "virtio/virtio_pci", "char/hw_random/virtio-rng", "block/virtio_blk"]
INIT = MOUNTS + "".join(f"insmod /lib/{os.path.basename(m)}.ko\n" for m in MODULES) + """
for d in /sys/bus/virtio/devices/*; do echo "features $(cat $d/device) $(cat $d/features)"; done
dd if=/dev/hwrng bs=16 count=500 of=/dev/null 2>/dev/null && echo entropy-is-there
# Sequential and scattered, in pieces larger and smaller than a ring has room for.
sha256sum /dev/vda
dd if=/dev/vda bs=1M of=/tmp/copy 2>/dev/null
dd if=/tmp/copy of=/dev/vdb bs=64k 2>/dev/null
for i in 7 3 12 1 9; do dd if=/tmp/copy of=/dev/vdb bs=4k skip=$i seek=$i count=5 conv=fsync 2>/dev/null; done
sync; echo 3 >/proc/sys/vm/drop_caches
sha256sum /dev/vdb
grep virtio /proc/interrupts
%s
"""
DISK = 6 << 20
FEATURES = {"indirect": 28, "event-idx": 29, "packed": 34}
VERSION_1 = 32


class Virtio(GuestKernel):
    def setUp(self):
        self.bytes = os.urandom(DISK)
        with open(self.path("a.raw"), "wb") as f:
            f.write(self.bytes)
        with open(self.path("b.raw"), "wb") as f:
            f.truncate(DISK)

    def guest(self, *words, end="poweroff -f", **boot):
        modules = os.path.join(script("fetch-kernel", "--root"), "lib/modules")
        release, = os.listdir(modules)
        files = [f"{modules}/{release}/kernel/drivers/{m}.ko:lib/{os.path.basename(m)}.ko" for m in MODULES]
        return self.boot(INIT % end, "--disk", self.path("a.raw") + ",format=raw,ro",
                         "--disk", self.path("b.raw") + ",format=raw", *words, files=files, **boot)

    def check(self, out):
        digest = hashlib.sha256(self.bytes).hexdigest()
        self.assertIn("entropy-is-there", out)
        self.assertIn(digest + "  /dev/vda", out)
        self.assertIn(digest + "  /dev/vdb", out)
        with open(self.path("b.raw"), "rb") as f:
            self.assertEqual(f.read(), self.bytes)

    def run_with(self, off=(), append=""):
        words = ["--virtio-off", ",".join(off)] if off else []
        with self.guest(*words, append=append) as vm:
            status, out, err = vm.ends()
        self.assertEqual(status, 0, (out, err))
        self.check(out)
        # The others have no driver in this guest.
        agreed = [line.split()[2] for line in out.splitlines() if line.startswith(("features 0x0004", "features 0x0002"))]
        self.assertEqual(len(agreed), 3, out)
        for bits in agreed:
            self.assertEqual(bits[VERSION_1], "1")
            for name, bit in FEATURES.items():
                self.assertEqual(bits[bit], "0" if name in off else "1", (name, bits))
        return out

    def test_all_features_and_a_vector_for_each_queue(self):
        self.assertRegex(self.run_with(), r"PCI-MSI.*virtio\d+-req.0")

    def test_all_features_and_the_interrupt_wire(self):
        out = self.run_with(append="pci=nomsi")
        self.assertIn("IO-APIC", [line for line in out.splitlines() if "virtio" in line and ":" in line][-1])

    def test_split_rings(self):
        self.run_with(["packed"])

    def test_split_rings_without_event_index(self):
        self.run_with(["packed", "event-idx"])

    def test_split_rings_without_indirect_tables(self):
        self.run_with(["packed", "indirect"])

    def test_split_rings_alone_and_the_interrupt_wire(self):
        self.run_with(["packed", "event-idx", "indirect"], append="pci=nomsi")

    def test_packed_rings_without_event_index(self):
        self.run_with(["event-idx"])

    def test_packed_rings_alone(self):
        self.run_with(["event-idx", "indirect"])

    def test_devices_work_again_after_each_reset(self):
        with self.guest(end="echo once-more; reboot -f") as vm:
            for _ in range(3):
                vm.until(b"once-more")

    def test_a_reset_and_an_end_with_requests_under_way(self):
        """The guest resets itself while both devices work."""
        work = """while :; do dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; done &
while :; do cat /dev/hwrng >/dev/null; done &
sleep 0.3; echo busy; reboot -f"""
        with self.guest(end=work) as vm:
            for _ in range(3):
                vm.until(b"busy")

    def test_unknown_features_are_named(self):
        r = subprocess.run([boot_test.HOLON, "run", "--kernel", "/dev/null", "--virtio-off", "packed,turbo"],
                           capture_output=True, text=True)
        self.assertEqual(r.returncode, 1, r)
        self.assertIn("'turbo'", r.stderr)


if __name__ == "__main__":
    boot_test.HOLON = sys.argv[1]
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
