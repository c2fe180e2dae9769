#!/usr/bin/env python3
"""Debian's installer, from a CD and from the network: python3 installer.py HOLON [TEST...]

Not part of `make test`: the installer is a package of 130 MB, which stays unpacked in the cache, and each start takes
a minute or two. Needs seabios, ovmf, ipxe-qemu, grub-common, grub-pc-bin, grub-efi-amd64-bin, xorriso and mtools."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from harness import Vm, read_until
from loads import cached

HOLON = None
PACKAGE = "debian-installer-12-netboot-amd64"
TREE = "usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"
FIRST_DIALOG = b"Select a language"
LONG = 900

GRUB = """set timeout=0
menuentry installer {
  linux /linux console=ttyS0 --- console=ttyS0
  initrd /initrd.gz
}
"""
IPXE = """#!ipxe
kernel linux console=ttyS0 --- console=ttyS0
initrd initrd.gz
boot
"""


def tree():
    """The installer's kernel and initrd, in a directory."""
    def make(work):
        subprocess.run(["apt-get", "-q", "download", PACKAGE], cwd=work, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        deb, = os.listdir(work)
        subprocess.run(["dpkg-deb", "-x", deb, "root"], cwd=work, check=True)
        return os.path.join(work, "root", TREE)
    return cached(PACKAGE, make)


class Installer(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="holon-installer-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.addCleanup(self.dir.cleanup)
        os.environ["XDG_DATA_HOME"] = self.path("data")

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def files(self, directory):
        os.makedirs(directory)
        for name in "linux", "initrd.gz":
            shutil.copy(os.path.join(tree(), name), directory)

    def cd(self):
        """A CD that starts by BIOS and by UEFI."""
        self.files(self.path("cd"))
        os.makedirs(self.path("cd/boot/grub"))
        with open(self.path("cd/boot/grub/grub.cfg"), "w") as f:
            f.write(GRUB)
        subprocess.run(["grub-mkrescue", "-o", self.path("cd.iso"), self.path("cd")], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.path("cd.iso")


    def asks(self, *words):
        with Vm(HOLON, "--memory", "1G", *words) as vm:
            read_until(vm.p.stdout.fileno(), FIRST_DIALOG, LONG)

    def test_from_a_cd_by_a_bios(self):
        self.asks("--firmware", "bios", "--net", "none", "--cdrom", self.cd())

    def test_from_a_cd_by_uefi(self):
        self.asks("--firmware", "uefi", "--net", "none", "--cdrom", self.cd())

    def test_from_the_network_by_a_bios(self):
        self.files(self.path("tftp"))
        with open(self.path("tftp/boot.ipxe"), "w") as f:
            f.write(IPXE)
        self.asks("--firmware", "bios", "--boot", "net", "--net", f"user,tftp={self.path('tftp')},bootfile=boot.ipxe")


if __name__ == "__main__":
    HOLON = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
