#!/usr/bin/env python3
"""Debian's own kernel in a VM: python3 boot_test.py HOLON [TEST...]

The kernel is scripts/fetch-kernel's, or $HOLON_KERNEL."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest

from harness import Vm

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
HOLON = None

MOUNTS = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
"""
SHELL = MOUNTS + "echo guest-is-up\nexec setsid cttyhack sh\n"
REBOOT = MOUNTS + "echo guest-is-up\nreboot -f\n"
BUTTON = MOUNTS + """insmod /lib/evdev.ko; insmod /lib/button.ko
acpid -c /etc/acpi -l /dev/null -p /tmp/acpid.pid
# It listens only some time after it has become a daemon.
until ls -l /proc/*/fd 2>/dev/null | grep -q /dev/input/event; do sleep 0.1; done
echo guest-is-up
while :; do sleep 1; done
"""
UP = b"guest-is-up"


def script(name, *words):
    return subprocess.run([os.path.join(TOP, "scripts", name), *words], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


class GuestKernel(unittest.TestCase):
    """Tests that boot Debian's kernel with an /init of their own."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory(prefix="holon-test.")
        cls.kernel = script("fetch-kernel")

    @classmethod
    def tearDownClass(cls):
        cls.dir.cleanup()

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def initramfs(self, init, *files):
        with open(self.path("init"), "w") as f:
            f.write(init)
        output = self.path("initramfs.gz")
        script("mkinitramfs", "--init", self.path("init"), output, *files)
        return output

    def boot(self, init, *words, files=(), kernel=None, append="", memory="512M"):
        return Vm(HOLON, "--memory", memory, "--kernel", kernel or self.kernel, "--initrd",
                  self.initramfs(init, *files), "--append", "console=ttyS0 quiet " + append, *words)


class Boot(GuestKernel):
    def use_shell(self, vm):
        vm.until(UP)
        vm.say(b"echo six times seven is $((6 * 7)) on $(uname -m)\n")
        vm.until(b"six times seven is 42 on x86_64")
        vm.say(b"poweroff -f\n")
        self.assertEqual(vm.status(), 0)

    def test_bzimage_to_a_shell(self):
        with self.boot(SHELL) as vm:
            self.use_shell(vm)

    def test_vmlinux_to_a_shell(self):
        script("extract-vmlinux", self.kernel, self.path("vmlinux"))
        with self.boot(SHELL, kernel=self.path("vmlinux")) as vm:
            self.use_shell(vm)

    def test_cpu_models(self):
        init = MOUNTS + "grep ^flags /proc/cpuinfo; grep ^model.name /proc/cpuinfo; poweroff -f\n"
        has = {"x86-64-v1": "sse2", "x86-64-v2": "sse4_2", "x86-64-v3": "avx2"}
        hasnt = {"x86-64-v1": "pni", "x86-64-v2": "xsave", "x86-64-v3": "avx512f"}
        for model in has:
            with self.subTest(model), self.boot(init, "--cpu", model) as vm:
                status, out, err = vm.ends()
                if status == 1 and "lacks" in err:
                    self.skipTest(err)
                self.assertEqual(status, 0, err)
                flags = out.split("flags")[1].split("\n")[0].split()
                self.assertIn(has[model], flags)
                for flag in hasnt[model], "smep", "rdtscp", "fsgsbase":
                    self.assertNotIn(flag, flags)

    def test_five_level_paging(self):
        init = MOUNTS + "echo la57 $(grep -c la57 /proc/cpuinfo); poweroff -f\n"
        for append, count in ("", "1"), ("no5lvl", "0"):
            with self.subTest(append), self.boot(init, "--engine", "jit", "--cpu", "host+la57",
                                                 append=append) as vm:
                status, out, err = vm.ends()
                self.assertEqual(status, 0, err)
                self.assertIn("la57 " + count, out)

    def test_memory_above_the_hole(self):
        with self.boot(MOUNTS + "free -m; poweroff -f\n", memory="5G") as vm:
            status, out, err = vm.ends()
            self.assertEqual(status, 0, err)
            total = int(out.split("Mem:")[1].split()[0])
            self.assertGreater(total, 4800)

    def test_reboot(self):
        with self.boot(REBOOT) as vm:
            for _ in range(3):
                vm.until(UP)

    def test_no_reboot(self):
        with self.boot(REBOOT, "--no-reboot") as vm:
            status, out, err = vm.ends()
            self.assertEqual(status, 3, (out, err))
            self.assertEqual(out.count(UP.decode()), 1)
            self.assertIn("reset", err)

    def test_triple_fault(self):
        with self.boot(REBOOT, append="reboot=t") as vm:
            status, out, err = vm.ends()
            self.assertEqual(status, 3, (out, err))
            self.assertIn("triple fault", err)
            self.assertIn("rip", err)

    def test_power_button(self):
        modules = os.path.join(script("fetch-kernel", "--root"), "lib/modules")
        release, = os.listdir(modules)
        drivers = os.path.join(modules, release, "kernel/drivers")
        files = [f"{drivers}/acpi/button.ko:lib/button.ko", f"{drivers}/input/evdev.ko:lib/evdev.ko",
                 f"{TOP}/scripts/guest/power-button:etc/acpi/PWRF/00000080"]
        with self.boot(BUTTON, files=files) as vm:
            vm.until(UP)
            vm.p.send_signal(signal.SIGTERM)
            self.assertEqual(vm.status(), 0)

    def test_smbios_names_the_machine_and_the_vm(self):
        show = "cd /sys/class/dmi/id; for f in sys_vendor product_name product_serial product_uuid; do echo $f=$(cat $f)=; done\n"
        seen = []
        for name in "first", "second", "first":
            with self.boot(MOUNTS + show + "poweroff -f\n", "--name", name) as vm:
                status, out, err = vm.ends()
                self.assertEqual(status, 0, err)
                self.assertIn("sys_vendor=Holon=", out)
                self.assertIn("product_name=Holon=", out)
                self.assertIn(f"product_serial={name}=", out)
                seen.append(re.search("product_uuid=([0-9a-f-]{36})=", out).group(1))
        self.assertEqual(seen[0], seen[2])
        self.assertNotEqual(seen[0], seen[1])

    def test_date_is_the_hosts(self):
        with self.boot(MOUNTS + "echo date=$(date +%s)=; poweroff -f\n") as vm:
            status, out, err = vm.ends()
            self.assertEqual(status, 0, err)
            host = int(subprocess.check_output(["date", "+%s"]))
            self.assertLess(abs(int(out.split("date=")[1].split("=")[0]) - host), 5)


if __name__ == "__main__":
    HOLON = sys.argv[1]
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
