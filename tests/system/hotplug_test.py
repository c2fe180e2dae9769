#!/usr/bin/env python3
"""What is plugged in and out of a guest that runs: python3 hotplug_test.py HOLON [TEST...]

Debian's kernel with its modules, and a shell; ACPI tells it what comes and is to go."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import unittest

import guests
import netguest
from harness import ENGINE_WORDS, PATIENCE, Guest

HOLON = None
MIB = 1 << 20


class Hotplug(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.image = netguest.DiskImage()
        cls.addClassCleanup(cls.image.close)

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="holon-plug.")
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def holon(self, *words, **kw):
        return subprocess.run([HOLON, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE, **kw)

    def good(self, *words, **kw):
        r = self.holon(*words, **kw)
        self.assertEqual(r.returncode, 0, r)
        return r.stdout

    def bad(self, text, *words):
        r = self.holon(*words)
        self.assertEqual(r.returncode, 1, r)
        self.assertIn(text, r.stderr)

    def boot(self, *words):
        vm = netguest.NetVm(HOLON, self.image, "--name", "plug", "--net", "none", *words)
        self.addCleanup(vm.__exit__)
        vm.wait_up()
        vm.run("insmod /lib/virtio_blk.ko")
        return vm

    def end(self, vm):
        vm.say(b"poweroff -f\n")
        self.assertEqual(vm.status(), 0)

    def raw(self, name, size=8 * MIB):
        with open(self.path(name), "wb") as f:
            f.truncate(size)
        return self.path(name)

    def there(self, vm, what):
        """Waits until the guest has it."""
        vm.run(f"i=0; until [ -e {what} ] || [ $i = 600 ]; do sleep 0.1; i=$((i+1)); done")
        self.assertEqual(vm.run(f"ls -d {what}").strip(), what)

    def gone(self, vm, what):
        vm.run(f"i=0; while [ -e {what} ] && [ $i != 600 ]; do sleep 0.1; i=$((i+1)); done")
        self.assertNotEqual(vm.run(f"[ -e {what} ]; echo $?").strip(), "0")

    def devices(self):
        return {d["id"]: d for d in json.loads(self.good("inspect", "plug"))["devices"]}


class Disks(Hotplug):
    def test_disks_come_and_go(self):
        self.raw("a.raw")
        vm = self.boot("--disk", self.path("a.raw") + ",format=raw")
        # A chain, named from another directory by relative names.
        self.good("disk", "create", "-f", "qcow2", self.path("base.qcow2"), "8M")
        self.good("disk", "create", "-f", "qcow2", "--backing", "base.qcow2", self.path("top.qcow2"))
        self.assertEqual(self.good("attach", "plug", "--disk", "top.qcow2,serial=late", cwd=self.dir.name), "vdb\n")
        self.there(vm, "/sys/block/vdb")
        self.assertEqual(vm.run("cat /sys/block/vdb/serial").strip(), "late")
        d = self.devices()
        self.assertEqual((d["vdb"]["file"], d["vdb"]["size_bytes"], d["vdb"]["pci"], d["vdb"]["leaving"]),
                         (self.path("top.qcow2"), 8 * MIB, "00:11.0", False))
        # It is the VM's, alone.
        self.bad("in use", "attach", "plug", "--disk", self.path("top.qcow2"))
        self.bad("No such file", "attach", "plug", "--disk", self.path("none.raw"))
        self.bad("only virtio", "attach", "plug", "--disk", self.path("a.raw") + ",bus=ata")
        vm.run("yes holon | dd of=/dev/vdb bs=64k count=32 iflag=fullblock 2>/dev/null; sync")
        self.good("detach", "plug", "vdb")
        self.gone(vm, "/sys/block/vdb")
        self.assertNotIn("vdb", self.devices())
        self.bad("no 'vdb'", "detach", "plug", "vdb")
        self.good("disk", "check", self.path("top.qcow2"))
        self.good("disk", "convert", "-f", "qcow2", "-O", "raw", self.path("top.qcow2"), self.path("copy.raw"))
        with open(self.path("copy.raw"), "rb") as f:
            self.assertEqual(f.read(2 * MIB), (b"holon\n" * MIB)[:2 * MIB])
        # One that was there from the start goes too, and its place is used again.
        self.good("detach", "plug", "vda")
        self.gone(vm, "/sys/block/vda")
        self.assertEqual(self.good("attach", "plug", "--disk", self.path("a.raw") + ",format=raw,ro",
                                   "--disk", self.path("top.qcow2")), "vda\nvdb\n")
        self.there(vm, "/sys/block/vdb")
        self.assertEqual(vm.run("cat /sys/block/vda/ro").strip(), "1")
        events = [json.loads(line)["event"] for line in self.good("events", "plug").splitlines()]
        self.assertEqual(events.count("attached"), 3)
        self.assertEqual(events.count("detached"), 2)
        # One that nobody uses can be pulled out.
        self.good("detach", "--force", "plug", "vda")
        self.gone(vm, "/sys/block/vda")
        # What the guest itself lets go of is gone as well.
        vm.run("echo 0 >/sys/bus/pci/slots/17/power")
        deadline = time.monotonic() + PATIENCE
        while "vdb" in self.devices():
            self.assertLess(time.monotonic(), deadline)
        # A reset with a disk half out.
        vm.say(b"reboot -f\n")  # it may be gone before it says anything
        self.end_after_reset(vm)

    def end_after_reset(self, vm):
        vm.wait_up()
        self.end(vm)

    def test_disks_come_and_go_under_load(self):
        """I/O is in flight when they go."""
        for name in "ab":
            self.raw(name)
        vm = self.boot()
        vm.run("""while :; do for d in a b c; do
            [ -b /dev/vd$d ] && dd if=/dev/zero of=/dev/vd$d bs=64k count=20 oflag=direct 2>/dev/null
            [ -b /dev/vd$d ] && dd if=/dev/vd$d of=/dev/null bs=4k count=200 2>/dev/null
            done; done & echo on""")
        pick = random.Random(5)
        for i in range(25):
            ids = self.good("attach", "plug", "--disk", self.path("a") + ",format=raw",
                            "--disk", self.path("b") + ",format=raw,cache=writeback").split()
            time.sleep(pick.random() * 0.05)
            for one in pick.sample(ids, 2):
                self.good("detach", "plug", "--timeout", str(PATIENCE), one)
        self.assertEqual(self.devices(), {})
        self.assertIn("alive", vm.run("echo al''ive"))
        self.end(vm)

    def test_a_guest_that_does_not_listen(self):
        self.raw("a.raw")
        with Guest(HOLON, guests.spin, "--name", "plug", "--net", "none",
                   "--disk", self.path("a.raw") + ",format=raw"):
            deadline = time.monotonic() + PATIENCE
            while '"running"' not in self.holon("inspect", "plug").stdout:
                self.assertLess(time.monotonic(), deadline)
            self.bad("has not let go of vda in 0 seconds", "detach", "--timeout", "0", "plug", "vda")
            self.assertTrue(self.devices()["vda"]["leaving"])
            # At the next start nobody knows of it any more.
            self.good("reset", "plug")
            while self.devices():
                self.assertLess(time.monotonic(), deadline)
            self.assertEqual(self.good("attach", "plug", "--disk", self.path("a.raw") + ",format=raw"), "vda\n")
            self.good("detach", "--force", "plug", "vda")
            self.good("kill", "plug")


class Cards(Hotplug):
    def test_cards_come_and_go(self):
        vm = self.boot("--net", "user,restrict")
        self.assertEqual(self.good("attach", "plug", "--net", "user,mac=52:54:00:12:34:56"), "net4\n")
        self.there(vm, "/sys/class/net/eth1")
        self.assertEqual(vm.run("cat /sys/class/net/eth1/address").strip(), "52:54:00:12:34:56")
        self.assertIn("lease of", vm.lease("eth1"))
        self.good("detach", "plug", "net4")
        self.gone(vm, "/sys/class/net/eth1")
        for _ in range(4):
            self.good("attach", "plug", "--net", "user")
        self.bad("are taken", "attach", "plug", "--net", "user")
        self.good("detach", "plug", "net6", "--force")
        self.end(vm)

    def test_a_confined_vm_reaches_no_network_later(self):
        vm = self.boot()
        if '"confined":"no"' in self.good("inspect", "plug").replace(" ", ""):
            self.skipTest("not confined here")
        self.bad("started without a card", "attach", "plug", "--net", "user")
        self.bad("cannot join a switch", "attach", "plug", "--net", "switch=lan")
        self.assertEqual(self.devices(), {})
        self.end(vm)

    def test_a_card_of_the_start_stays(self):
        vm = self.boot("--net", "user,restrict")
        self.bad("--force", "detach", "plug", "net0")
        self.good("detach", "--force", "plug", "net0")
        self.assertEqual(self.devices(), {})
        self.end(vm)


if __name__ == "__main__":
    HOLON = os.path.abspath(sys.argv[1])
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
