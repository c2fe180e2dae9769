#!/usr/bin/env python3
"""Machines that firmware starts, with real boot loaders: python3 firmware_test.py HOLON [TEST...]"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from harness import Vm, read_until

HOLON = None
SEABIOS = "/usr/share/seabios/bios-256k.bin"
# What the tables say of the system: its serial number and manufacturer.
SMBIOS = ("smbios --type 1 --get-string 7 --set serial\nsmbios --type 1 --get-string 4 --set maker\n"
          "echo \"named <$serial> made by <$maker>\"\n")
GRUB_BIOS = "/usr/lib/grub/i386-pc"
MIB = 1 << 20
SECTOR = 512


def need(*files):
    missing = [f for f in files if not os.path.exists(f) and not shutil.which(f)]
    if missing:
        raise unittest.SkipTest("needs " + ", ".join(missing) + " (packages seabios, ovmf, grub-pc-bin, "
                                "grub-efi-amd64-bin, grub-common, xorriso, mtools)")


def run(*words):
    p = subprocess.run(list(map(str, words)), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode:
        raise AssertionError(f"{words}: {p.stdout}")


def grub_core(directory, script, form="i386-pc"):
    """GRUB for a BIOS, with a script built in; the path of what follows the boot sector."""
    cfg, core = os.path.join(directory, "cfg"), os.path.join(directory, "core")
    with open(cfg, "w") as f:  # a BIOS's serial console shows a text when the next one comes
        f.write(script.replace("\nhalt", "\necho .............\nhalt"))
    run("grub-mkimage", "-O", form, "-o", core, "-p", "/", "-c", cfg, "biosdisk", "part_msdos", "iso9660", "echo",
        "halt", "reboot", "ls", "cat", "smbios")
    return core


def grub_disk(path, script, size=4 * MIB):
    """A disk whose first sector is GRUB's, with all of GRUB in the sectors after it."""
    with tempfile.TemporaryDirectory() as d:
        with open(grub_core(d, script), "rb") as f:
            core = f.read()
    with open(os.path.join(GRUB_BIOS, "boot.img"), "rb") as f:
        image = f.read()[:SECTOR] + core
    with open(path, "wb") as f:
        f.write(image)
        f.truncate(size)


def grub_cd(path, script):
    """A CD with GRUB, and a file /hello."""
    with tempfile.TemporaryDirectory() as d:
        grub_core(d, script, "i386-pc-eltorito")
        with open(os.path.join(d, "hello"), "w") as f:
            f.write("hello-from-the-cd\n")
        run("xorriso", "-as", "mkisofs", "-quiet", "-o", path, "-b", "core", "-no-emul-boot", "-boot-load-size", 4,
            "-boot-info-table", "-graft-points", f"core={d}/core", f"hello={d}/hello")


OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
GRUB_EFI = "/usr/lib/grub/x86_64-efi"
FAT_AT = 2048 * SECTOR


def efi_disk(path, files, size=40 * MIB):
    """A disk with one partition, of UEFI's type, with files {path: bytes} in a FAT."""
    entry = bytes([0, 0, 2, 0, 0xef, 0xff, 0xff, 0xff]) + (2048).to_bytes(4, "little") + \
        (size // SECTOR - 2048).to_bytes(4, "little")
    with open(path, "wb") as f:
        f.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
        f.truncate(size)
    fat = f"{path}@@{FAT_AT}"
    run("mformat", "-i", fat, "-T", size // SECTOR - 2048, "-h", 16, "-s", 63, "::")
    with tempfile.TemporaryDirectory() as d:
        for name, content in files.items():
            at = ""
            for part in name.split("/")[:-1]:
                at += "/" + part
                subprocess.run(["mmd", "-i", fat, "-D", "s", "::" + at], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            with open(os.path.join(d, "x"), "wb") as f:
                f.write(content)
            run("mcopy", "-i", fat, os.path.join(d, "x"), "::/" + name)


def grub_efi(directory, script):
    cfg, out = os.path.join(directory, "cfg"), os.path.join(directory, "grub.efi")
    with open(cfg, "w") as f:
        f.write(script)
    run("grub-mkimage", "-O", "x86_64-efi", "-o", out, "-p", "/", "-c", cfg, "echo", "halt", "reboot", "smbios")
    with open(out, "rb") as f:
        return f.read()


class Firmware(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="holon-firmware-")
        self.addCleanup(self.dir.cleanup)
        os.environ["XDG_DATA_HOME"] = self.path("data")

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def vm(self, *words, **kw):
        return Vm(HOLON, "--net", "none", *map(str, words), **kw)


class Bios(Firmware):
    def setUp(self):
        super().setUp()
        need(SEABIOS, GRUB_BIOS, "grub-mkimage")

    def test_a_disk_with_a_boot_loader_starts_by_itself_and_powers_off(self):
        grub_disk(self.path("grub.img"), SMBIOS + "echo loader-is-up\nls\nhalt\n")
        with self.vm(self.path("grub.img"), "--name", "by-bios") as vm:
            got = read_until(vm.p.stdout.fileno(), b"loader-is-up")
            self.assertIn(b"SeaBIOS", got)
            self.assertIn(b"named <by-bios> made by <Holon>", got)
            self.assertEqual(vm.status(), 0)

    def test_an_ata_disk_starts_and_disks_are_tried_in_their_order(self):
        grub_disk(self.path("ata.img"), "echo loader-on-ata\nhalt\n")
        grub_disk(self.path("virtio.img"), "echo loader-on-virtio\nhalt\n")
        disks = {"ata": self.path("ata.img") + ",bus=ata", "virtio": self.path("virtio.img")}
        for first, second in ("ata", "virtio"), ("virtio", "ata"):
            with self.vm("--firmware", "bios", "--disk", disks[first], "--disk", disks[second]) as vm:
                self.assertIn(b"loader-on-" + first.encode(), vm.p.stdout.read())
                self.assertEqual(vm.status(), 0)

    def test_a_reboot_runs_the_firmware_again(self):
        grub_disk(self.path("grub.img"), "echo loader-is-up\nreboot\n")
        with self.vm("--firmware", "bios", self.path("grub.img")) as vm:
            read_until(vm.p.stdout.fileno(), b"loader-is-up")
            read_until(vm.p.stdout.fileno(), b"loader-is-up")
        with self.vm("--firmware", "bios", "--no-reboot", self.path("grub.img")) as vm:
            self.assertEqual(vm.status(), 3)

    def test_more_memory_than_fits_below_4_gib(self):
        grub_disk(self.path("grub.img"), "echo loader-is-up\nhalt\n")
        with self.vm(self.path("grub.img"), "--memory", "6G", "--log-level", "debug", stderr=subprocess.STDOUT) as vm:
            got = read_until(vm.p.stdout.fileno(), b"Booting from Hard Disk")
            self.assertIn(b"0000000100000000 - 00000001d0000000 = 1 RAM", got)


class Cd(Firmware):
    def setUp(self):
        super().setUp()
        need(SEABIOS, GRUB_BIOS, "grub-mkimage", "xorriso")

    def test_a_cd_starts_by_itself_and_is_read(self):
        grub_cd(self.path("cd.iso"), "cat (cd0)/hello\ncat (cd)/hello\necho loader-is-up\nhalt\n")
        with self.vm("--cdrom", self.path("cd.iso")) as vm:
            got = read_until(vm.p.stdout.fileno(), b"loader-is-up")
            # The screen may have been drawn in the middle of a word.
            self.assertIn(b"hello-from-the-cd", re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", got))
            self.assertEqual(vm.status(), 0)

    def test_the_order_says_what_is_tried_first(self):
        grub_cd(self.path("cd.iso"), "echo loader-on-cd\nhalt\n")
        grub_disk(self.path("grub.img"), "echo loader-on-disk\nhalt\n")
        for words, first in ([], b"disk"), (["--boot", "cdrom,disk"], b"cd"):
            with self.vm(self.path("grub.img"), "--cdrom", self.path("cd.iso"), *words) as vm:
                self.assertIn(b"loader-on-" + first, vm.p.stdout.read())
                self.assertEqual(vm.status(), 0)

    def test_an_empty_disk_is_passed_over(self):
        grub_cd(self.path("cd.iso"), "echo loader-on-cd\nreboot\n")
        with open(self.path("empty.img"), "wb") as f:
            f.truncate(MIB)
        with self.vm(self.path("empty.img"), "--cdrom", self.path("cd.iso")) as vm:
            for _ in range(2):
                read_until(vm.p.stdout.fileno(), b"loader-on-cd")


class Net(Firmware):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("tftp"))
        with open(self.path("tftp/boot.ipxe"), "w") as f:
            f.write("#!ipxe\necho script-from-the-net\nshell\n")

    def test_a_bios_boots_from_the_network(self):
        need(SEABIOS, "/usr/lib/ipxe/qemu/pxe-virtio.rom")
        with Vm(HOLON, "--firmware", "bios", "--boot", "net", "--net",
                f"user,tftp={self.path('tftp')},bootfile=boot.ipxe") as vm:
            read_until(vm.p.stdout.fileno(), b"script-from-the-net")

    def test_uefi_boots_from_the_network(self):
        need(OVMF, GRUB_EFI, "grub-mkimage")
        with open(self.path("tftp/boot.efi"), "wb") as f:
            f.write(grub_efi(self.dir.name, "echo loader-is-up\nhalt\n"))
        with Vm(HOLON, "--firmware", "uefi", "--boot", "net", "--net",
                f"user,tftp={self.path('tftp')},bootfile=boot.efi") as vm:
            self.assertIn(b"PXE", read_until(vm.p.stdout.fileno(), b"loader-is-up"))
            self.assertEqual(vm.status(), 0)


class Uefi(Firmware):
    def setUp(self):
        super().setUp()
        need(OVMF, "mformat")

    def test_a_disk_with_an_efi_partition_starts_by_itself(self):
        need(GRUB_EFI, "grub-mkimage")
        loader = grub_efi(self.dir.name, SMBIOS + "echo loader-is-up\nhalt\n")
        efi_disk(self.path("efi.img"), {"EFI/BOOT/BOOTX64.EFI": loader})
        with self.vm(self.path("efi.img"), "--name", "by-uefi") as vm:
            got = read_until(vm.p.stdout.fileno(), b"loader-is-up")
            self.assertIn(b"BdsDxe", got)
            self.assertIn(b"named <by-uefi> made by <Holon>", got)
            self.assertEqual(vm.status(), 0)

    def test_an_ata_disk_starts(self):
        need(GRUB_EFI, "grub-mkimage")
        efi_disk(self.path("efi.img"), {"EFI/BOOT/BOOTX64.EFI": grub_efi(self.dir.name, "echo loader-is-up\nhalt\n")})
        with self.vm("--firmware", "uefi", "--disk", self.path("efi.img") + ",bus=ata") as vm:
            read_until(vm.p.stdout.fileno(), b"loader-is-up")
            self.assertEqual(vm.status(), 0)

    def test_variables_outlive_the_machine(self):
        var = "HOLON -guid 2a1b0c9d-0000-1111-2222-333344445555"
        script = f"setvar {var}\r\nsetvar {var} -nv -bs =0x4e4f4c4f48\r\nreset -s\r\n"
        efi_disk(self.path("shell.img"), {"startup.nsh": script.encode()})
        for first in True, False:
            with self.vm("--firmware", "uefi", self.path("shell.img")) as vm:
                got = vm.p.stdout.read()
                self.assertEqual(vm.status(), 0)
                self.assertEqual(b"48 4F 4C 4F 4E" in got, not first, got[-2000:])
        with self.vm("--firmware", "uefi", "--ephemeral", self.path("shell.img")) as vm:
            self.assertNotIn(b"48 4F 4C 4F 4E", vm.p.stdout.read())

    def test_two_machines_do_not_share_variables(self):
        efi_disk(self.path("none.img"), {})
        with self.vm("--firmware", "uefi", self.path("none.img"), "--name", "twice") as vm:
            read_until(vm.p.stdout.fileno(), b"Shell")
            os.mkdir(self.path("elsewhere"), 0o700)
            env = {**os.environ, "XDG_RUNTIME_DIR": self.path("elsewhere")}  # where the first is not seen
            with self.vm("--firmware", "uefi", "--name", "twice", env=env, stderr=subprocess.STDOUT) as other:
                self.assertIn(b"another VM of this name", other.p.stdout.read())
                self.assertEqual(other.status(), 1)


class Errors(Firmware):
    def error(self, *words):
        p = subprocess.run([HOLON, "run", *words], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=60)
        self.assertEqual(p.returncode, 1, p.stdout)
        return p.stdout

    def test_what_is_wrong_is_said(self):
        self.assertIn("No such file", self.error("--firmware", "/no/such"))
        self.assertIn("64 KiB to 16 MiB", self.error("--firmware", "/bin/true"))
        self.assertIn("without --kernel", self.error("--firmware", "bios", "--kernel", "/bin/true"))
        self.assertIn("disk, cdrom, net", self.error("--firmware", "bios", "--boot", "floppy"))


if __name__ == "__main__":
    HOLON = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
