#!/usr/bin/env python3
"""Real loads on an engine, with results equal to native: python3 loads.py HOLON [TEST...]

Not part of `make test`: it takes a quarter of an hour, and some 300 MB of Debian packages, which stay unpacked
in the cache. Debian's stock and real-time kernels boot; a Debian guest runs stress-ng, which verifies its
results, memtester, and a compile whose objects must be those that the same compiler makes here. The
engine is $HOLON_TEST_ENGINE's; LOADS_CPUS says how many vCPUs the loads have (1), LOADS_SECONDS how
long each stressor runs (3)."""

import os
import re
import subprocess
import sys
import tempfile
import unittest

from shell import DISK_MODULES, Kit, Shell, TOP

HOLON = None
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "holon", "loads")
CPUS = int(os.environ.get("LOADS_CPUS", "1"))
PACKAGES = ["stress-ng", "gcc", "libc6-dev", "memtester"]
LONG = 900

# Each by itself, with what else it takes.
STRESSORS = ["cpu --cpu-method all", "matrix --matrix-method all", "matrix-3d --matrix-3d-method all",
             "vm --vm-bytes 64M --vm-method all", "str --str-method all", "wcs --wcs-method all", "memcpy --memcpy-method all",
             "memrate --memrate-bytes 16M", "qsort", "bsearch", "hsearch", "tsearch", "lsearch", "heapsort", "mergesort",
             "radixsort", "hash --hash-method all", "fp --fp-method all", "vecmath", "vecwide", "rotate",
             "zlib", "atomic", "fork", "mmap --mmap-bytes 32M", "switch",
             "jpeg", "funccall", "sparsematrix --sparsematrix-method all", "mcontend"]
SECONDS = int(os.environ.get("LOADS_SECONDS", "3"))  # for each

# A sizeable piece of C that needs nothing but the C library: ours.
ROOMS = ["base", "state", "mem", "bus", "chipset", "gdb", "virtio", "boot"]
COMPILE = ("cd %s && for f in $(cat list); do gcc -std=gnu11 -O2 -D_GNU_SOURCE -Isrc -c -o ${f%%.c}.o $f || exit 1; done; "
           "for f in $(cat list); do sha256sum ${f%%.c}.o; done")


def cached(name, make):
    """A file or directory of the cache, made once."""
    path = os.path.join(CACHE, name)
    if not os.path.exists(path):
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            made = make(work)
            os.rename(made, path)
    return path


def depends(meta):
    out = subprocess.run(["apt-cache", "depends", meta], check=True, text=True, stdout=subprocess.PIPE).stdout
    return [w.split()[1] for w in out.splitlines() if "Depends: linux-image-" in w][0]


def kernel(meta):
    def make(work):
        subprocess.run(["apt-get", "-q", "download", package], cwd=work, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        deb, = os.listdir(work)
        subprocess.run(["dpkg-deb", "-x", deb, "root"], cwd=work, check=True)
        return os.path.join(work, "root", "boot", "vmlinuz-" + package.removeprefix("linux-image-"))
    package = depends(meta)
    return cached(package, make)


def system():
    def make(work):
        tar = os.path.join(work, "system.tar")
        subprocess.run(["mmdebstrap", "-q", "--variant=apt", "--include=" + ",".join(PACKAGES),
                        "--aptopt=APT::Install-Recommends \"false\"", "bookworm", tar], check=True)
        return tar
    return cached("system.tar", make)


class Kernels(unittest.TestCase):
    def boots(self, meta, words):
        kit = Kit(modules=[])
        self.addCleanup(kit.close)
        kit.kernel = kernel(meta)
        for cpus in "1", "2":
            with Shell(HOLON, kit, "--cpus", cpus, memory="512M") as guest:
                guest.ready()
                self.assertIn(words, guest.sh("uname -v"))
                self.assertEqual(guest.sh("nproc"), cpus)
                self.assertEqual(guest.sh("dmesg | grep -E 'BUG:|WARNING:|Oops|Call Trace|stall' || true"), "")
                guest.power_off()

    def test_stock(self):
        self.boots("linux-image-amd64", "PREEMPT_DYNAMIC")

    def test_real_time(self):
        self.boots("linux-image-rt-amd64", "PREEMPT_RT")


class Loads(unittest.TestCase):
    """One guest, with Debian unpacked into its memory from a disk that is a tar file."""

    @classmethod
    def setUpClass(cls):
        tar = system()
        cls.kit = Kit(modules=DISK_MODULES)
        cls.sources()
        cls.guest = Shell(HOLON, cls.kit, "--cpus", str(CPUS), "--disk", tar + ",format=raw,ro",
                          "--disk", cls.kit.path("sources.tar") + ",format=raw,ro", memory="2G")
        cls.guest.ready()
        cls.guest.sh("mkdir /r; mount -t tmpfs -o size=90% r /r; tar xf /dev/vda -C /r 2>/dev/null; "
                     "mkdir /r/s; tar xf /dev/vdb -C /r/s; mount -t proc p /r/proc; mount -t sysfs s /r/sys; "
                     "mount --bind /dev /r/dev; mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm", LONG)

    @classmethod
    def tearDownClass(cls):
        cls.guest.power_off()
        cls.guest.__exit__()
        cls.kit.close()

    @classmethod
    def sources(cls):
        """src/ and a list of what to compile, as a disk, and here."""
        cls.here = cls.kit.path("s")
        os.mkdir(cls.here)
        subprocess.run(["cp", "-r", os.path.join(TOP, "src"), cls.here], check=True)
        names = []
        for room in ROOMS:
            for name in sorted(os.listdir(os.path.join(cls.here, "src", room))):
                if re.fullmatch(r"(?!fake_|test_board|acpi).*(?<!_test)(?<!_fixture)\.c", name):
                    names.append(f"src/{room}/{name}")
        with open(os.path.join(cls.here, "list"), "w") as f:
            f.write("\n".join(names) + "\n")
        subprocess.run(["tar", "cf", cls.kit.path("sources.tar"), "-C", cls.here, "."], check=True)

    def chroot(self, command, patience=LONG):
        return self.guest.sh(f"PATH=/usr/sbin:/usr/bin:/bin /bin/chroot /r /bin/sh -c '{command}' </dev/null", patience)

    def test_compile(self):
        version = "dpkg-query -W gcc-12 binutils libc6-dev"
        theirs, ours = self.chroot(version), subprocess.run(version.split(), text=True, stdout=subprocess.PIPE).stdout
        if theirs.split() != ours.split():
            self.skipTest(f"another compiler here: {ours!r}, there: {theirs!r}")
        native = subprocess.run(["sh", "-c", COMPILE % self.here], check=True, text=True, stdout=subprocess.PIPE).stdout
        self.assertEqual(self.chroot(COMPILE % "/s").split(), native.split())

    def test_stress(self):
        for stressor in STRESSORS:
            name = stressor.split()[0]
            with self.subTest(name):
                out = self.chroot(f"stress-ng --verify --oomable -t {SECONDS} --{stressor.replace(name, f'{name} {CPUS}', 1)}"
                                  " 2>&1; echo status $?", 300)
                self.assertRegex(out, r"status (0|3|4)$", out)  # 3, 4: cannot or need not run here
                self.assertNotIn("fail:", out)

    def test_memory(self):
        self.assertIn("Done.", self.chroot("memtester 32M 1"))

    def test_zz_nothing_went_wrong_below(self):
        self.assertEqual(self.guest.sh("dmesg | grep -E 'BUG|WARNING|Oops|Call Trace|stall|segfault|MCE' || true"), "")


if __name__ == "__main__":
    HOLON = sys.argv.pop(1)
    unittest.main(verbosity=2)
