#!/usr/bin/env python3
"""SATA disks and CDs with Linux's own driver: python3 ata.py HOLON [TEST...]

Not part of `make test`: Debian's cloud kernel has no ahci, and the stock one is a package of 70 MB, which stays
unpacked in the cache. Needs fio, e2fsprogs and qemu-utils."""

import os
import shutil
import subprocess
import sys
import unittest

import disk_test
from disk_test import MIB, host_bytes, qemu_img
from harness import PATIENCE
from loads import cached, depends
from shell import Kit, Shell

HOLON = None


def stock():
    """Debian's stock kernel with its modules."""
    package = depends("linux-image-amd64")

    def make(work):
        subprocess.run(["apt-get", "-q", "download", package], cwd=work, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        deb, = os.listdir(work)
        subprocess.run(["dpkg-deb", "-x", deb, "root"], cwd=work, check=True)
        return os.path.join(work, "root")
    return cached(package + ".root", make)


def with_dependencies(root, names):
    """The modules of a kernel in an order in which they can be loaded."""
    files, order = {}, []
    for directory, _, found in os.walk(os.path.join(root, "lib", "modules")):
        files.update({f[:-3].replace("-", "_"): os.path.join(directory, f) for f in found if f.endswith(".ko")})

    def add(name):
        if name in order or name not in files:
            return
        with open(files[name], "rb") as f:
            needed = [t for t in f.read().split(b"\0") if t.startswith(b"depends=")][0].decode()
        for other in needed.removeprefix("depends=").split(","):
            add(other.replace("-", "_"))
        order.append(name)
    for n in names:
        add(n)
    return order


MODULES = ["ahci", "sd_mod", "sr_mod", "isofs", "ext4", "crc32c_generic", "virtio_pci", "virtio_blk"]


def kit():
    return Kit(modules=with_dependencies(stock(), MODULES), root=stock())


class Ata(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kit = kit()

    @classmethod
    def tearDownClass(cls):
        cls.kit.close()

    image = disk_test.Disks.image
    path = disk_test.Disks.path

    def boot(self, *words, **kw):
        return Shell(HOLON, self.kit, *words, memory="512M", **kw)

    def test_disks_and_cds_are_where_they_belong(self):
        with open(self.path("cd.iso"), "wb") as f:
            f.write(b"on-the-cd".ljust(2048, b"\0") * 100)
        with self.boot("--disk", self.image("a") + ",bus=ata,serial=HOLON-1", "--disk", self.image("b") + ",bus=virtio",
                       "--disk", self.image("c", 8 << 30, "qcow2") + ",bus=ata,cache=writethrough,discard=off",
                       "--cdrom", self.path("cd.iso")) as vm:
            vm.ready()
            log = vm.sh("dmesg | grep -E 'ata[0-9]'")
            self.assertEqual(vm.sh("cat /sys/block/sd[ab]/size /sys/block/vda/size").split(),
                             ["131072", str(8 << 21), "131072"], log)
            self.assertIn("ATA-8: Holon disk, 1.0", log)
            self.assertIn("NCQ (depth 32)", log)
            self.assertIn("Holon CD-ROM", log)
            self.assertNotIn("failed", log)
            self.assertEqual(vm.sh("cat /sys/block/sda/device/vpd_pg80 | tr -dc A-Z0-9-"), "HOLON-1")
            self.assertEqual(vm.sh("cat /sys/block/sd[ab]/queue/write_cache").splitlines(),
                             ["write back", "write through"])
            self.assertEqual(vm.sh("cat /sys/block/sd[ab]/queue/discard_max_bytes | head -n 2").split()[1], "0")
            self.assertEqual(vm.sh("cat /sys/block/sda/queue/physical_block_size"), "4096")
            self.assertEqual(vm.sh("head -c 9 /dev/sr0"), "on-the-cd")
            vm.power_off()

    def test_file_systems_keep_what_is_written(self):
        raw, qcow2 = self.image("raw"), self.image("qcow2", form="qcow2")
        with self.boot("--disk", raw + ",bus=ata", "--disk", qcow2 + ",bus=ata") as vm:
            vm.ready()
            vm.sh("mkdir -p /mnt; dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null")
            for n in "ab":
                vm.sh(f"mke2fs -F /dev/sd{n} >/dev/null 2>&1 && mount -t ext4 /dev/sd{n} /mnt && "
                      "for i in 1 2 3; do cp /tmp/data /mnt/$i; done && rm /mnt/1 && fstrim /mnt && umount /mnt")
                vm.sh("echo 3 >/proc/sys/vm/drop_caches")
                vm.sh(f"mount -t ext4 /dev/sd{n} /mnt && cmp /tmp/data /mnt/2 && umount /mnt")
            self.assertEqual(vm.sh("dmesg | grep -E 'ata[0-9].*(error|exception|failed)|I/O error' || true"), "")
            vm.power_off()
        self.assertIn("No errors", qemu_img("check", qcow2))
        subprocess.run(["e2fsck", "-fn", raw], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def test_discard_frees_space_on_the_host(self):
        raw = self.image("r")
        with self.boot("--disk", raw + ",bus=ata") as vm:
            vm.ready()
            vm.sh("dd if=/dev/urandom of=/dev/sda bs=1M count=32 conv=fsync 2>/dev/null")
            full = host_bytes(raw)
            vm.sh("blkdiscard -o 0 -l $((24 << 20)) /dev/sda")
            self.assertLess(host_bytes(raw), full - 20 * MIB)
            vm.power_off()

    def test_an_error_of_the_host_is_the_guests(self):
        """Linux's error handling: it asks the log of the queue, tries again, gives up; the disk goes on."""
        raw = self.image("r", 8 * MIB)
        with self.boot("--disk", raw + ",bus=ata,cache=writeback", stderr=subprocess.STDOUT) as vm:
            vm.ready()
            os.truncate(raw, 4 * MIB)  # beyond this the host has nothing
            vm.fails("dd if=/dev/sda of=/dev/null bs=1M skip=5 count=1 iflag=direct 2>/dev/null")
            log = vm.sh("dmesg | grep ata1")
            self.assertIn("READ FPDMA QUEUED", log)
            self.assertIn("{ UNC }", log)
            vm.sh("dd if=/dev/sda of=/dev/null bs=1M count=2 iflag=direct 2>/dev/null")
            vm.power_off()

    def test_fio_finds_what_it_wrote(self):
        tools = disk_test.Verify.tools(self)
        job = "[global]\nioengine=libaio\ndirect=1\niodepth=32\nrw=randwrite\nbsrange=4k-128k\nverify=crc32c\n" \
              "verify_fatal=1\nthread\nsize=48M\nfsync=100\n[a]\nfilename=/dev/sda\n[b]\nfilename=/dev/sdb\n"
        qcow2 = self.image("q", form="qcow2")
        with self.boot("--disk", self.image("r") + ",bus=ata", "--disk", qcow2 + ",bus=ata", "--disk",
                       tools + ",format=raw,ro") as vm:
            vm.ready()
            vm.sh("mkdir /tools; mount -t ext4 -o ro /dev/vda /tools; mount -t tmpfs tmp /tools/tmp; "
                  "for d in dev proc sys; do mount --bind /$d /tools/$d; done")
            for line in job.splitlines():
                vm.sh(f"echo '{line}' >>/tools/tmp/job")
            out = vm.sh(f"chroot /tools {shutil.which('fio')} --minimal /tmp/job", patience=3 * PATIENCE)
            self.assertEqual([line.split(";")[4] for line in out.splitlines() if line.startswith("3;")], ["0", "0"], out)
            vm.power_off()
        self.assertIn("No errors", qemu_img("check", qcow2))


if __name__ == "__main__":
    HOLON = disk_test.HOLON = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
