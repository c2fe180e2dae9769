"""The share half: fio in the guest on a folder of the host, by virtio-fs; QEMU's is served by virtiofsd. All loads
in one boot; fio and its libraries lie in the folder too. A load that writes and then verifies comes first."""

import os
import shutil
import subprocess
import time

import common
import guest
from io_disk import READ_IOPS, READ_KIB, WRITE_IOPS, WRITE_KIB, libraries, module_files

MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "fuse", "virtiofs"]
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in MODULES; do insmod /lib/$m.ko; done
mkdir /tools; mount -t virtiofs data /tools
mount --bind /dev /tools/dev; mount --bind /proc /tools/proc; mount --bind /sys /tools/sys; mount -t tmpfs tmp /tools/tmp
echo; chroot /tools /bin/fio /verify --minimal --terse-version=3 >/dev/null && echo HOLON-VERIFIED
chroot /tools /bin/fio /job --minimal --terse-version=3
echo; echo HOLON-BENCH-END
poweroff -f
"""
ROWS = [("share: sequential read, 1 MiB", "MiB/s", 0, "rw=read bs=1m iodepth=8"),
        ("share: sequential write, 1 MiB", "MiB/s", 0, "rw=write bs=1m iodepth=8"),
        ("share: random 4k read, depth 1", "requests/s", 0, "rw=randread bs=4k iodepth=1"),
        ("share: random 4k read, depth 16", "requests/s", 0, "rw=randread bs=4k iodepth=16"),
        ("share: random 4k write, depth 1", "requests/s", 0, "rw=randwrite bs=4k iodepth=1"),
        ("share: random 4k write, depth 16", "requests/s", 0, "rw=randwrite bs=4k iodepth=16"),
        ("share: 4k writes through the cache", "requests/s", 0, "rw=write bs=4k direct=0 ioengine=psync")]
VERIFY = """[global]
directory=/data
ioengine=libaio
thread
[verify]
rw=randwrite
bsrange=1k-256k
size=48m
iodepth=8
direct=0
verify=crc32c
verify_fatal=1
"""
# Names: counted by the loads' own clock, because the files are few.
NAMES = """
cd /tools/data; mkdir names; cd names
t() { cut -d' ' -f1 /proc/uptime; }
A=$(t); seq 1 3000 | xargs touch; B=$(t); ls -l >/dev/null; C=$(t); sleep 2; D=$(t); ls -l >/dev/null; E=$(t); rm -r ../names; F=$(t)
echo; echo "HOLON-NAMES $A $B $C $D $E $F"
"""
NAME_ROWS = [("share: files made", "files/s", 0), ("share: files listed with attributes", "files/s", 0),
             ("share: files removed", "files/s", 0)]
COUNT = 3000


def job(options):
    lines = ["[global]", "filename=/data/file", "size=256m", "ioengine=libaio", "direct=1", "time_based",
             f"runtime={options.seconds}", "ramp_time=1", "norandommap", "randrepeat=0", "thread"]
    for name, _, _, load in ROWS:
        lines += [f"[{name.replace(':', '')}]", "stonewall", *load.split()]
    return "\n".join(lines) + "\n"


class Share:
    title = "Share"
    rows = [r[:3] for r in ROWS] + NAME_ROWS

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.folder = os.path.join(directory, "folder")
        self.title = f"Folder of the host, engine {options.engine}, against QEMU with virtiofsd"
        for to, path in libraries(shutil.which("fio") or common.fail("no fio")).items():
            os.makedirs(self.folder + os.path.dirname(to), exist_ok=True)
            shutil.copy(path, self.folder + to)
        for d in "dev", "proc", "sys", "tmp", "data":
            os.mkdir(os.path.join(self.folder, d))
        for name, text in ("job", job(options)), ("verify", VERIFY):
            with open(os.path.join(self.folder, name), "w") as f:
                f.write(text)
        init = INIT.replace("MODULES", " ".join(MODULES)).replace("\necho; echo HOLON-BENCH", NAMES + "\necho; echo HOLON-BENCH")
        self.initramfs = common.initramfs(directory, init, *module_files(MODULES))
        if not options.no_qemu and not os.path.exists(VIRTIOFSD):
            common.fail(f"no {VIRTIOFSD} (Debian: qemu-system-common)")

    def holon(self):
        o = self.options
        return guest.output(common.holon_command(o, "--kernel", o.kernel, "--initrd", self.initramfs, "--append",
                                                 o.append + " quiet", "--net", "none", "--share",
                                                 f"{self.folder}:data"), o.limit)

    def qemu(self):
        o, socket = self.options, os.path.join(self.directory, "virtiofsd")
        server = subprocess.Popen([VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={self.folder}"],
                                  stderr=subprocess.DEVNULL)
        try:
            while not os.path.exists(socket) and server.poll() is None:
                time.sleep(0.05)
            return guest.output(common.qemu_command(
                o, "-nographic", "-nic", "none", "-kernel", o.kernel, "-initrd", self.initramfs, "-append",
                o.append + " quiet", "-object", f"memory-backend-memfd,id=mem,size={o.memory}M,share=on",
                "-numa", "node,memdev=mem", "-chardev", f"socket,id=fs,path={socket}",
                "-device", "vhost-user-fs-pci,chardev=fs,tag=data"), o.limit)
        finally:
            server.terminate()
            server.wait()
            if os.path.exists(socket):
                os.unlink(socket)

    def run(self, which):
        text, _, _, _ = getattr(self, which)()
        lines = [line.split(";") for line in text.splitlines() if line.startswith("3;fio")]
        names = [line.split()[1:] for line in text.splitlines() if line.startswith("HOLON-NAMES")]
        if "HOLON-VERIFIED" not in text or len(lines) != len(ROWS) or not names:
            guest.failed([which], text, "not all loads ended well")
        rates = {}
        for (name, unit, _, load), line in zip(ROWS, lines):
            read = "read" in load.split()[0]
            rates[name] = (float(line[READ_KIB if read else WRITE_KIB]) / 1024 if unit == "MiB/s"
                           else float(line[READ_IOPS if read else WRITE_IOPS]))
        a, b, c, d, e, f = map(float, names[0])
        for (name, _, _), seconds in zip(NAME_ROWS, (b - a, e - d, f - e)):
            rates[name] = COUNT / max(seconds, 0.01)
        return rates


def half(options, directory):
    return Share(options, directory)
