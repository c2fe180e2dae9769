"""The disk half: fio in the guest on a raw block device, all loads in one boot. fio and its
libraries lie on a second, read-only disk."""

import os
import shutil
import subprocess

import common
import guest

MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"]
INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in MODULES; do insmod /lib/$m.ko; done
mkdir /tools; mount -t ext4 -o ro /dev/vdb /tools
mount --bind /dev /tools/dev; mount --bind /proc /tools/proc; mount --bind /sys /tools/sys; mount -t tmpfs tmp /tools/tmp
echo; chroot /tools /bin/fio /job --minimal --terse-version=3
echo; echo HOLON-BENCH-END
poweroff -f
"""
ROWS = [("sequential read, 1 MiB", "MiB/s", 0, "rw=read bs=1m iodepth=8"),
        ("sequential write, 1 MiB", "MiB/s", 0, "rw=write bs=1m iodepth=8"),
        ("random 4k read, depth 1", "requests/s", 0, "rw=randread bs=4k iodepth=1"),
        ("random 4k read, depth 32", "requests/s", 0, "rw=randread bs=4k iodepth=32"),
        ("random 4k write, depth 1", "requests/s", 0, "rw=randwrite bs=4k iodepth=1"),
        ("random 4k write, depth 32", "requests/s", 0, "rw=randwrite bs=4k iodepth=32")]
# Of a line of fio's terse output, version 3: bandwidth in KiB/s and requests per second.
READ_KIB, READ_IOPS, WRITE_KIB, WRITE_IOPS = 6, 7, 47, 48


def libraries(program):
    """{path in the guest: path here} of a program and all that it is linked with"""
    found = {"/bin/" + os.path.basename(program): program}
    lines = subprocess.run(["ldd", program], check=True, text=True, stdout=subprocess.PIPE).stdout
    for line in lines.splitlines():
        for word in line.split():
            if word.startswith("/"):
                found[word] = os.path.realpath(word)
    return found


def job(options):
    lines = ["[global]", "filename=/dev/vda", "ioengine=libaio", "direct=1", "time_based", f"runtime={options.seconds}",
             "ramp_time=1", "norandommap", "randrepeat=0", "thread"]
    for name, _, _, load in ROWS:
        lines += [f"[{name}]", "stonewall", *load.split()]
    return "\n".join(lines) + "\n"


def make_tools(options, directory):
    tree, image = os.path.join(directory, "tools"), os.path.join(directory, "tools.img")
    for to, path in libraries(shutil.which("fio") or common.fail("no fio")).items():
        os.makedirs(tree + os.path.dirname(to), exist_ok=True)
        shutil.copy(path, tree + to)
    for d in "dev", "proc", "sys", "tmp":
        os.mkdir(os.path.join(tree, d))
    with open(os.path.join(tree, "job"), "w") as f:
        f.write(job(options))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, "256M"], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return image


def module_files(modules):
    root = subprocess.run([os.path.join(common.SCRIPTS, "fetch-kernel"), "--root"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()
    found = {}
    for d, _, files in os.walk(os.path.join(root, "lib", "modules")):
        found.update({f[:-3]: os.path.join(d, f) for f in files if f.endswith(".ko")})
    return [f"{found[m]}:/lib/{m}.ko" for m in modules]


class Disk:
    title = "Disk"
    rows = [r[:3] for r in ROWS]

    def __init__(self, options, directory):
        self.options = options
        self.title = f"Disk, {options.format}, cache={options.cache}, engine {options.engine}"
        self.tools = make_tools(options, directory)
        self.initramfs = common.initramfs(directory, INIT.replace("MODULES", " ".join(MODULES)), *module_files(MODULES))
        self.disk = options.disk or os.path.join(directory, "disk.img")
        self.make_disk()

    def make_disk(self):
        """Full of data that is no zeros, so that nothing has to be allocated while it is measured."""
        size = self.options.disk_size << 20
        raw = self.disk if self.options.format == "raw" else self.disk + ".raw"
        with open(raw, "wb") as f:
            piece = os.urandom(1 << 20)
            for _ in range(size >> 20):
                f.write(piece)
        if raw != self.disk:
            subprocess.run(["qemu-img", "convert", "-O", self.options.format, raw, self.disk], check=True)
            os.unlink(raw)
        os.sync()

    def command(self, which):
        o = self.options
        boot = ["--kernel", o.kernel, "--initrd", self.initramfs, "--append", o.append + " quiet"]
        if which == "holon":
            return common.holon_command(o, *boot, "--disk", f"{self.disk},format={o.format},cache={o.cache}",
                                        "--disk", f"{self.tools},format=raw,ro")
        return common.qemu_command(
            o, "-nographic", *(w.replace("--", "-", 1) if w.startswith("--") else w for w in boot),
            "-object", "iothread,id=io0", "-object", "iothread,id=io1",
            "-drive", f"if=none,id=d0,file={self.disk},format={o.format},cache={o.cache},aio=io_uring,discard=unmap",
            "-device", "virtio-blk-pci,drive=d0,iothread=io0",
            "-drive", f"if=none,id=d1,file={self.tools},format=raw,readonly=on,cache=none,aio=io_uring",
            "-device", "virtio-blk-pci,drive=d1,iothread=io1")

    def run(self, which):
        command = self.command(which)
        return self.rates(command, guest.output(command, self.options.limit)[0])

    def rates(self, command, text):
        lines = {f[2]: f for f in (line.strip().split(";") for line in text.splitlines()) if len(f) > WRITE_IOPS}
        found = {}
        for name, unit, _, load in ROWS:
            if name not in lines or "HOLON-BENCH-END" not in text:
                guest.failed(command, text, f"no figure for {name}")
            is_read, f = "read" in load.split()[0], lines[name]
            found[name] = (float(f[READ_KIB if is_read else WRITE_KIB]) / 1024 if unit == "MiB/s" else
                           float(f[READ_IOPS if is_read else WRITE_IOPS]))
        return found


def half(options, directory):
    return Disk(options, directory)
