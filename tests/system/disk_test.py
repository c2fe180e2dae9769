#!/usr/bin/env python3
"""Disks as Debian's kernel sees them: python3 disk_test.py HOLON [TEST...]"""

import ctypes
import hashlib
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
import unittest

from harness import PATIENCE
from shell import Kit, Shell, program_files

HOLON = None
CACHES = ["none", "writeback", "writethrough", "unsafe"]
MIB = 1 << 20


def qemu_img(*words):
    p = subprocess.run(["qemu-img", *map(str, words)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode:
        raise AssertionError(f"qemu-img {words}: {p.stdout}")
    return p.stdout


def holon_disk(*words):
    """(exit status, all that it printed)"""
    p = subprocess.run([HOLON, "disk", *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return p.returncode, p.stdout


def first_bytes(path, n):
    with open(path, "rb") as f:
        return f.read(n)


def host_bytes(path):
    return os.stat(path).st_blocks * 512


def forbid_io_uring():
    """In the child: io_uring_setup fails with EPERM from here on."""

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    io_uring_setup, errno_eperm = 425, 0x00050001
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, io_uring_setup), (0x06, 0, 0, errno_eperm), (0x06, 0, 0, 0x7fff0000)]
    code = b"".join(struct.pack("HBBI", *s) for s in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(Program(len(steps), code)), 0, 0):
        os._exit(99)


class Disks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kit = Kit()

    @classmethod
    def tearDownClass(cls):
        cls.kit.close()

    def path(self, name):
        return self.kit.path(name)

    def image(self, name, size=64 * MIB, form="raw"):
        path = self.path(name)
        qemu_img("create", "-q", "-f", form, path, size)
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return path

    def boot(self, *disks, words=(), **kw):
        for d in disks:
            words = [*words, "--disk", d]
        return Shell(HOLON, self.kit, *words, **kw)


class Data(Disks):
    def test_every_format_and_cache_mode_keeps_what_is_written(self):
        images = [(f, c, self.image(f"{f}-{c}.img", form=f)) for f in ("raw", "qcow2") for c in CACHES]
        names = ["vd" + chr(ord("a") + i) for i in range(len(images))]
        sums = {}
        with self.boot(*[f"{p},format={f},cache={c}" for f, c, p in images]) as vm:
            vm.ready()
            vm.sh("mkdir -p /mnt; dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null")
            for n in names:
                vm.sh(f"mke2fs -F /dev/{n} >/dev/null 2>&1 && mount -t ext4 /dev/{n} /mnt && "
                      f"for i in 1 2 3; do cp /tmp/data /mnt/$i; done && echo {n} >/mnt/name && umount /mnt")
            for n in names:
                vm.sh("echo 3 >/proc/sys/vm/drop_caches")
                vm.sh(f"mount -t ext4 /dev/{n} /mnt && cmp /tmp/data /mnt/2 && umount /mnt")
                sums[n] = vm.sh(f"md5sum </dev/{n}").split()[0]
            vm.power_off()
        for n, (form, cache, path) in zip(names, images):
            if form == "qcow2":
                self.assertIn("No errors", qemu_img("check", path))
            raw = self.path("copy.raw")
            qemu_img("convert", "-O", "raw", path, raw)
            fsck = subprocess.run(["e2fsck", "-fn", raw], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(fsck.returncode, 0, fsck.stdout)
            md5 = subprocess.run(["md5sum", raw], stdout=subprocess.PIPE, text=True).stdout.split()[0]
            self.assertEqual(md5, sums[n], f"{form} {cache}")

    def test_they_are_there_in_order_with_size_serial_and_cache_mode(self):
        a, b, c = self.image("a,b.img", 10 * MIB), self.image("b", 20 * MIB, "qcow2"), self.image("c", 30 * MIB)
        with self.boot(a.replace(",", ",,") + ",serial=HOLON-1", b + ",cache=writethrough", c + ",ro") as vm:
            vm.ready()
            self.assertEqual(vm.sh("cat /sys/block/vd?/size").split(), ["20480", "40960", "61440"])
            self.assertEqual(vm.sh("cat /sys/block/vda/serial"), "HOLON-1")
            self.assertEqual(vm.sh("cat /sys/block/vd?/ro").split(), ["0", "0", "1"])
            self.assertEqual(vm.sh("cat /sys/block/vd?/cache_type").splitlines(),
                             ["write back", "write through", "write back"])
            self.assertEqual(vm.sh("cat /sys/block/vda/queue/physical_block_size"), "4096")
            vm.fails("dd if=/dev/zero of=/dev/vdc bs=4k count=1 conv=fsync 2>/dev/null")
            vm.sh("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync 2>/dev/null")
            vm.sh("echo write through >/sys/block/vda/cache_type")
            vm.sh("dd if=/dev/urandom of=/dev/vda bs=4k count=16 conv=fsync 2>/dev/null")
            vm.power_off()
        self.assertNotEqual(first_bytes(a, 65536), bytes(65536))
        self.assertEqual(first_bytes(c, 4096), bytes(4096))

    def test_several_vcpus_worth_of_queues(self):
        with self.boot(self.image("a") + ",queues=4") as vm:
            vm.ready()
            self.assertEqual(vm.sh("ls /sys/block/vda/mq"), "0")  # one vCPU has use for one
            vm.sh("dd if=/dev/zero of=/dev/vda bs=1M count=8 conv=fsync 2>/dev/null")
            vm.power_off()

    def test_a_backing_image_is_read_and_left_alone(self):
        base = self.image("base.img", 8 * MIB)
        with open(base, "r+b") as f:
            f.write(b"from the base" + bytes(500))
        top = self.path("top.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
        with self.boot(top) as vm:
            vm.ready()
            self.assertEqual(vm.sh("dd if=/dev/vda bs=13 count=1 2>/dev/null"), "from the base")
            vm.sh("echo from the guest >/dev/vda; sync")
            vm.power_off()
        self.assertEqual(first_bytes(base, 13), b"from the base")
        self.assertIn("No errors", qemu_img("check", top))
        with self.boot(top + ",ro") as vm:
            self.assertEqual(vm.ready().sh("head -c 14 /dev/vda"), "from the guest")

    def test_a_limit_slows_down(self):
        with self.boot(self.image("a") + ",bps=4M", self.image("b") + ",iops=50") as vm:
            vm.ready()
            vm.sh("cat /dev/zero | dd of=/dev/vda bs=4k count=128 2>/dev/null; sync")  # the burst
            for work, least in (("dd if=/dev/zero of=/dev/vda bs=1M count=6 conv=fsync", 1.0),
                                ("for i in `seq 60`; do dd if=/dev/vdb of=/dev/null bs=4k count=1 "
                                 "skip=$((i * 99)) iflag=direct; done", 0.8)):
                began = time.monotonic()
                vm.sh(work + " 2>/dev/null")
                self.assertGreater(time.monotonic() - began, least, work)


class Nbd(Disks):
    """A disk on an NBD server, behind a Unix socket."""

    def serve(self, program, *words):
        if not shutil.which(program):
            self.skipTest(f"{program} is not installed")
        socket = self.path("nbd.sock")
        if os.path.exists(socket):
            os.unlink(socket)
        server = subprocess.Popen([program, *(w.replace("SOCKET", socket) for w in words)])
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(socket):
            self.assertIsNone(server.poll(), "the server ended")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        return server, f"nbd+unix:///?socket={socket}"

    def write_and_read(self, uri, path):
        with self.boot(uri) as vm:
            vm.ready()
            self.assertEqual(vm.sh("cat /sys/block/vda/size"), str(64 * MIB // 512))
            vm.sh("dd if=/dev/urandom of=/tmp/d bs=1M count=8 2>/dev/null; "
                  "dd if=/tmp/d of=/dev/vda bs=1M seek=3 conv=fsync 2>/dev/null")
            digest = vm.sh("md5sum </tmp/d").split()[0]
            self.assertEqual(hashlib.md5(first_bytes(path, 11 * MIB)[3 * MIB:]).hexdigest(), digest)
            vm.power_off()
        with self.boot(uri) as vm:
            vm.ready()
            self.assertIn(digest, vm.sh("dd if=/dev/vda bs=1M skip=3 count=8 2>/dev/null | md5sum"))
            vm.power_off()

    def test_a_vm_runs_on_what_nbdkit_serves(self):
        path = self.image("a")
        _, uri = self.serve("nbdkit", "-f", "-U", "SOCKET", "file", path)
        self.write_and_read(uri, path)

    def test_a_vm_runs_on_what_qemu_nbd_serves(self):
        path = self.image("a")
        _, uri = self.serve("qemu-nbd", "--persistent", "--shared=4", "-f", "raw", "--socket=SOCKET", path)
        self.write_and_read(uri, path)

    def test_a_server_that_ends_is_an_error_of_the_disk(self):
        server, uri = self.serve("nbdkit", "-f", "-U", "SOCKET", "memory", "64M")
        with self.boot(uri) as vm:
            vm.ready()
            vm.sh("dd if=/dev/zero of=/dev/vda bs=1M count=4 conv=fsync 2>/dev/null")
            server.kill()
            server.wait()
            vm.fails("dd if=/dev/urandom of=/dev/vda bs=1M count=4 conv=fsync 2>/dev/null")
            vm.sh("true")
        with self.boot(uri) as vm:
            status, _, err = vm.ends()
        self.assertEqual(status, 1)
        self.assertIn("nbd", err)


class Verify(Disks):
    """fio writes at random places and reads all of it back, on every format and cache mode."""

    def tools(self):
        """A disk with fio and its libraries."""
        tree, image = self.path("tools"), self.path("tools.img")
        for f in program_files("fio"):
            source, to = f.split(":")
            os.makedirs(tree + os.path.dirname(to), exist_ok=True)
            shutil.copy(source, tree + to)
        for d in "dev", "proc", "sys", "tmp":
            os.mkdir(os.path.join(tree, d))
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, "256M"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(tree)
        return image

    def test_fio_finds_what_it_wrote(self):
        images = [(f, c, self.image(f"{f}-{c}.img", 32 * MIB, f)) for f in ("raw", "qcow2") for c in CACHES]
        job = "[global]\nioengine=libaio\ndirect=1\niodepth=16\nrw=randwrite\nbsrange=4k-64k\nverify=crc32c\n" \
              "verify_fatal=1\nthread\nsize=12M\nfsync=100\n"
        for i, (form, cache, _) in enumerate(images):
            job += f"[{form}-{cache}]\nstonewall\nfilename=/dev/vd{chr(ord('b') + i)}\n"
        with self.boot(self.tools() + ",format=raw,ro", *[f"{p},format={f},cache={c}" for f, c, p in images],
                       memory="512M") as vm:
            vm.ready()
            vm.sh("mkdir /tools; mount -t ext4 -o ro /dev/vda /tools; mount -t tmpfs tmp /tools/tmp; "
                  "for d in dev proc sys; do mount --bind /$d /tools/$d; done")
            for line in job.splitlines():
                vm.sh(f"echo '{line}' >>/tools/tmp/job")
            fio = shutil.which("fio")
            out = vm.sh(f"chroot /tools {fio} --minimal /tmp/job", patience=3 * PATIENCE)
            self.assertEqual(out.count(";" + "raw-") + out.count(";" + "qcow2-"), len(images), out)
            vm.power_off()
        for form, _, path in images:
            if form == "qcow2":
                self.assertIn("No errors", qemu_img("check", path))


class Space(Disks):
    def test_discard_frees_space_on_the_host(self):
        raw, qcow2, kept = self.image("r"), self.image("q", form="qcow2"), self.image("k")
        with self.boot(raw, qcow2, kept + ",discard=off") as vm:
            vm.ready()
            for n in "abc":
                vm.sh(f"dd if=/dev/urandom of=/dev/vd{n} bs=1M count=32 conv=fsync 2>/dev/null")
            full = [host_bytes(p) for p in (raw, qcow2, kept)]
            self.assertGreater(min(full), 32 * MIB - 1)
            vm.sh("blkdiscard -o 0 -l $((24 << 20)) /dev/vda; blkdiscard -o 0 -l $((24 << 20)) /dev/vdb")
            # A qcow2 image gives clusters back after flushes, beside other work.
            end = time.monotonic() + PATIENCE
            while host_bytes(qcow2) >= full[1] - 20 * MIB and time.monotonic() < end:
                vm.sh("dd if=/dev/zero of=/dev/vdb bs=64k seek=500 count=1 conv=fsync 2>/dev/null")
            vm.fails("blkdiscard /dev/vdc 2>/dev/null")
            self.assertLess(host_bytes(raw), full[0] - 20 * MIB)
            self.assertLess(host_bytes(qcow2), full[1] - 20 * MIB)
            self.assertEqual(host_bytes(kept), full[2])
            vm.sh("cmp -n $((24 << 20)) /dev/vda /dev/zero && cmp -n $((24 << 20)) /dev/vdb /dev/zero")
            # And what a file system no longer needs.
            vm.sh("mkdir -p /mnt; mke2fs -F /dev/vda >/dev/null 2>&1; mount -t ext4 /dev/vda /mnt; "
                  "dd if=/dev/urandom of=/mnt/f bs=1M count=40 2>/dev/null; sync")
            full = host_bytes(raw)
            vm.sh("rm /mnt/f; sync; fstrim /mnt; umount /mnt")
            self.assertLess(host_bytes(raw), full - 30 * MIB)
            vm.power_off()
        self.assertIn("No errors", qemu_img("check", qcow2))


class Full(Disks):
    """The host's disk is full: on a small tmpfs in a mount namespace of the VM's own."""

    def boot_in_tmpfs(self, size, setup, *disks):
        inside = self.path("tmpfs")
        os.makedirs(inside, exist_ok=True)
        words = []
        for d in disks:
            words += ["--disk", f"{inside}/{d}"]
        # A process that keeps the mounts: the VM's own root has but its own files, and cannot be written to.
        stay = f"sleep 3600 </dev/null >/dev/null 2>&1 & echo $! >{inside}.pid"
        shell = f"{stay}; mount -t tmpfs -o size={size} tmpfs {inside} && cd {inside} && {setup} && exec \"$@\""
        wrap = ["unshare", "-m", "sh", "-c", shell, "sh", HOLON]
        if os.geteuid():
            wrap.insert(1, "-rU")
        vm = Shell.__new__(Shell)
        vm.p = subprocess.Popen([*wrap, "run", *self.kit.words(*words)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.seen = lambda name: f"/proc/{self.keeper(inside)}/root{inside}/{name}"
        self.addCleanup(lambda: os.kill(self.keeper(inside), signal.SIGKILL))
        return vm

    def keeper(self, inside):
        with open(inside + ".pid") as f:
            return int(f.read())

    def wait_for_text(self, vm, text):
        got, end = b"", time.monotonic() + PATIENCE
        while text not in got:
            if not select.select([vm.p.stderr], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} did not come, but {got!r}")
            piece = os.read(vm.p.stderr.fileno(), 4096)
            self.assertTrue(piece, f"ended after {got!r}")
            got += piece
        return got.decode()

    def test_the_vm_waits_and_goes_on_when_there_is_space(self):
        create = "qemu-img create -q -f {0} d.{0} 64M"
        setup = f"head -c 24M /dev/zero >filler && {create.format('raw')} && {create.format('qcow2')}"
        for name, form in (("vda", "raw"), ("vdb", "qcow2")):
            with self.subTest(form), self.boot_in_tmpfs("40M", setup, "d.raw", "d.qcow2") as vm:
                vm.ready()
                vm.sh("dd if=/dev/urandom of=/tmp/data bs=1M count=30 2>/dev/null")
                before = float(vm.sh("cat /proc/uptime").split()[0])
                vm.say(f"dd if=/tmp/data of=/dev/{name} bs=1M conv=fsync 2>/dev/null\n".encode())
                told = self.wait_for_text(vm, b"paused")
                self.assertRegex(told, rf"disk {name}: the host has no space left for '\S*/d.{form}'")
                paused = time.monotonic()
                time.sleep(2.5)  # at least two attempts that fail again
                self.assertFalse(select.select([vm.p.stdout], [], [], 0)[0])
                os.unlink(self.seen("filler"))
                self.wait_for_text(vm, b"there was space again")
                lasted = time.monotonic() - paused
                self.assertEqual(vm.answer()[0], 0)
                after = float(vm.sh("cat /proc/uptime").split()[0])
                self.assertLess(after - before, lasted + 20)
                vm.sh("echo 3 >/proc/sys/vm/drop_caches")
                vm.sh(f"cmp -n $((30 << 20)) /tmp/data /dev/{name}")
                self.assertNotIn("I/O error", vm.sh("dmesg"))
                vm.power_off()

    def test_a_paused_vm_can_be_ended(self):
        setup = "head -c 6M /dev/zero >filler && qemu-img create -q -f raw d.raw 64M"
        with self.boot_in_tmpfs("8M", setup, "d.raw") as vm:
            vm.ready()
            vm.say(b"dd if=/dev/urandom of=/dev/vda bs=1M count=16 conv=fsync\n")
            self.wait_for_text(vm, b"paused")
            vm.p.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            vm.p.send_signal(signal.SIGTERM)
            self.assertEqual(vm.status(), 128 + signal.SIGTERM)


class Faults(Disks):
    def test_an_error_of_the_host_is_the_guests(self):
        """nbdkit's error filter: writes fail while a file is there."""
        trigger, sock = self.path("fail"), self.path("nbd.sock")
        nbd = subprocess.Popen(["nbdkit", "-f", "-U", sock, "--filter=error", "memory", "64M", "error-pwrite=EIO",
                                "error-pwrite-rate=100%", f"error-file={trigger}"])
        try:
            while not os.path.exists(sock):
                time.sleep(0.05)
            with self.boot(f"nbd+unix:///?socket={sock}") as vm:
                vm.ready()
                vm.sh("dd if=/dev/urandom of=/tmp/d bs=1M count=2 2>/dev/null; "
                      "dd if=/tmp/d of=/dev/vda bs=1M conv=fsync 2>/dev/null")
                open(trigger, "w").close()
                vm.fails("dd if=/tmp/d of=/dev/vda bs=1M seek=4 oflag=direct 2>/dev/null")
                vm.sh("echo 3 >/proc/sys/vm/drop_caches; cmp -n 2000000 /tmp/d /dev/vda")
                os.unlink(trigger)
                vm.sh("dd if=/tmp/d of=/dev/vda bs=1M seek=4 oflag=direct 2>/dev/null")
                vm.power_off()
                self.assertIn(b"disk vda: write 'nbd+unix:", vm.p.stderr.read())
        finally:
            nbd.terminate()
            nbd.wait()

    def test_a_backing_file_that_is_cut_is_an_error_not_a_crash(self):
        base, top = self.image("base.img", 32 * MIB), self.path("top.qcow2")
        with open(base, "r+b") as f:
            f.write(os.urandom(32 * MIB))
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
        for cache in CACHES[:2]:
            with self.boot(f"{top},cache={cache}") as vm:
                vm.ready()
                vm.sh("dd if=/dev/vda of=/dev/null bs=1M count=1 2>/dev/null")
                os.truncate(base, MIB)
                vm.fails("dd if=/dev/vda of=/dev/null bs=1M skip=16 count=1 iflag=direct 2>/dev/null")
                vm.sh("dd if=/dev/zero of=/dev/vda bs=64k seek=9 count=1 oflag=direct 2>/dev/null")
                os.truncate(base, 32 * MIB)
                vm.power_off()

    def test_a_backing_file_that_is_missing_is_named(self):
        base, top = self.image("base.img", MIB), self.path("top.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
        os.unlink(base)
        with self.boot(top) as vm:
            status, _, err = vm.ends()
        self.assertEqual(status, 1)
        self.assertIn("base.img", err)
        self.assertIn("No such file", err)

    def test_a_file_that_is_removed_while_it_is_used_stays_usable(self):
        path = self.image("a")
        with self.boot(path) as vm:
            vm.ready()
            os.unlink(path)
            vm.sh("dd if=/dev/urandom of=/dev/vda bs=1M count=4 conv=fsync 2>/dev/null")
            vm.power_off()

    def test_a_second_writer_is_refused(self):
        for form in "raw", "qcow2":
            path = self.image("a." + form, form=form)
            with self.boot(path) as vm:
                vm.ready()
                for more in "", ",ro":
                    with self.boot(path + more) as second:
                        status, _, err = second.ends()
                    self.assertEqual(status, 1, form + more)
                    self.assertIn(path, err)
                vm.power_off()
            with self.boot(path + ",ro") as one, self.boot(path + ",ro") as two:
                one.ready(), two.ready()

    def test_the_disk_of_a_running_vm_is_not_for_the_disk_commands(self):
        for form in "raw", "qcow2":
            path = self.image("a." + form, form=form)
            with self.boot(path) as vm:
                vm.ready()
                vm.sh("echo it lives >/dev/vda; sync")
                for words in ["resize", path, "128M"], ["check", "--repair", "all", path], ["info", path]:
                    if words[0] == "check" and form == "raw":
                        continue
                    status, text = holon_disk(*words)
                    self.assertEqual(status, 1, words)
                    self.assertIn(path, text)
                    self.assertRegex(text, "in use|lock|another")
                status, text = holon_disk("info", "-U", path)
                self.assertEqual(status, 0, text)
                self.assertIn("64 MiB", text)
                self.assertEqual(vm.sh("head -n 1 /dev/vda"), "it lives")
                vm.power_off()
            status, text = holon_disk("resize", path, "128M")
            self.assertEqual(status, 0, text)

    def test_without_io_uring_there_are_threads(self):
        with self.boot(self.image("a"), preexec_fn=forbid_io_uring) as vm:
            vm.ready()
            vm.sh("dd if=/dev/urandom of=/tmp/d bs=1M count=8 2>/dev/null; "
                  "dd if=/tmp/d of=/dev/vda bs=1M conv=fsync 2>/dev/null; "
                  "echo 3 >/proc/sys/vm/drop_caches; cmp -n 8388608 /tmp/d /dev/vda")
            fds = [os.readlink(f"/proc/{vm.p.pid}/fd/{n}") for n in os.listdir(f"/proc/{vm.p.pid}/fd")]
            self.assertNotIn("anon_inode:[io_uring]", fds)
            vm.power_off()
        with self.boot(self.path("none") + ",aio=io_uring") as vm:
            self.assertEqual(vm.ends()[0], 1)

    def test_wrong_options_say_what_is_possible(self):
        for words, text in ((["a,format=vmdk"], "none of raw|qcow2"), (["a,cahce=none"], "did you mean 'cache'?"),
                            ([""], "--disk"), ([self.path("nothing")], "No such file"),
                            ([self.image("s") + ",serial=" + "x" * 21], "longer than 20")):
            with self.boot(*words) as vm:
                status, _, err = vm.ends()
            self.assertEqual(status, 1, words)
            self.assertIn(text, err)


if __name__ == "__main__":
    HOLON = os.path.realpath(sys.argv[1])
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
