#!/usr/bin/env python3
"""User-space programs print the same in a guest as on the host: python3 programs_test.py HOLON
PROGRAM...

The programs (tests/system/programs) are static, and print nothing that depends on the machine
beyond the processor's features, which a guest shares with its host."""

import os
import re
import subprocess
import sys
import unittest

import boot_test
from boot_test import MOUNTS
from harness import ENGINE

PROGRAMS = []


class Programs(boot_test.GuestKernel):
    def same_output(self, *words):
        files = [f"{p}:bin/{os.path.basename(p)}" for p in PROGRAMS]
        commands = "".join(f"echo begin-{n}; {n}; echo end-{n}\n"
                           for n in map(os.path.basename, PROGRAMS))
        init = MOUNTS + "echo 1 > /proc/sys/kernel/printk\n" + commands + "poweroff -f\n"
        with self.boot(init, *words, files=files) as vm:
            status, out, err = vm.ends()
        self.assertEqual(status, 0, err)
        out = out.replace("\r\n", "\n")
        for p in PROGRAMS:
            name = os.path.basename(p)
            host = subprocess.run([p], check=True, text=True, stdout=subprocess.PIPE).stdout
            guest = out.split(f"begin-{name}\n")[1].split(f"end-{name}\n")[0]
            with self.subTest(name):
                self.assertEqual(guest, host)
        return err

    def test_same_output_as_on_the_host(self):
        self.same_output()

    def test_with_a_code_cache_that_is_full_all_the_time(self):
        err = self.same_output("--jit-cache", "2M", "--log-level", "debug")
        if ENGINE == "jit":
            full = int(re.search(r"cache was full (\d+) times", err)[1])
            self.assertGreater(full, 50, err)

    def test_busybox(self):
        script = ("seq 1 20000 | sha256sum; seq 1 5000 | sort -r | md5sum; "
                  "yes holon | head -c 300000 | gzip -9 | gunzip | sha1sum; "
                  "seq 1 300 | awk '{ s += $1 / 7 } END { printf \"%.12f\\n\", s }'; "
                  "echo '2^200 / 3^50' | bc; expr 123456789 \\* 987654321; "
                  "seq 1 1000 | tr 0-9 a-j | sed 's/a/zz/g' | grep -c z; "
                  "dd if=/dev/zero bs=64k count=16 2>/dev/null | od | md5sum\n")
        init = MOUNTS + "echo 1 > /proc/sys/kernel/printk\necho begin\n" + script + "echo end\npoweroff -f\n"
        with self.boot(init) as vm:
            status, out, err = vm.ends()
        self.assertEqual(status, 0, err)
        host = subprocess.run(["busybox", "sh", "-c", script], check=True, text=True, stdout=subprocess.PIPE,
                              env={"PATH": self.applets()}).stdout
        self.assertEqual(out.replace("\r\n", "\n").split("begin\n")[1].split("end\n")[0], host)

    def applets(self):
        """A folder with a link for each of busybox's commands, so that both sides run the same."""
        busybox = subprocess.check_output(["sh", "-c", "command -v busybox"], text=True).strip()
        folder = self.path("applets")
        os.makedirs(folder, exist_ok=True)
        subprocess.run([busybox, "--install", "-s", folder], check=True)
        return folder


if __name__ == "__main__":
    boot_test.HOLON = sys.argv[1]
    PROGRAMS = sys.argv[2:]
    unittest.main(argv=sys.argv[:1])
