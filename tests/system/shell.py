"""A guest that does what it is told: Debian's kernel, busybox, the modules that a test names,
and a loop that takes commands from the console. One initramfs serves many boots."""

import glob
import os
import re
import shutil
import subprocess
import tempfile

from harness import Vm, PATIENCE, read_until

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
DISK_MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
                "virtio_blk"]
READY = b"the guest is ready\n"

INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -opost
for m in MODULES; do insmod /lib/$m.ko || echo no module $m; done
echo the guest is ready
while read -r line; do eval "$line"; echo "-- status $?"; done
"""


def script(name, *words):
    return subprocess.run([os.path.join(TOP, "scripts", name), *words], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def module_files(names, root=None):
    root = root or script("fetch-kernel", "--root")
    found = {}
    for directory, _, files in os.walk(os.path.join(root, "lib", "modules")):
        for f in files:
            if f.endswith(".ko"):
                found[f[:-3].replace("-", "_")] = os.path.join(directory, f)
    return [f"{found[n]}:/lib/{n}.ko" for n in names]


def program_files(program):
    """A dynamically linked program and its libraries, where the guest looks for them."""
    path = shutil.which(program)
    files = [f"{path}:{path}"]
    for line in subprocess.run(["ldd", path], check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                files.append(f"{os.path.realpath(word)}:{word}")
    return files


class Kit:
    """Kernel and initramfs, and a directory that goes when they go."""

    def __init__(self, modules=DISK_MODULES, files=(), root=None):
        self.directory = tempfile.TemporaryDirectory(prefix="holon-test.", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.kernel = script("fetch-kernel")
        if root:  # another kernel's unpacked package
            self.kernel, = glob.glob(os.path.join(root, "boot", "vmlinuz-*"))
        self.initramfs = self.path("initramfs.gz")
        with open(self.path("init"), "w") as f:
            f.write(INIT.replace("MODULES", " ".join(modules)))
        script("mkinitramfs", "--init", self.path("init"), self.initramfs, *module_files(modules, root), *files)

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def close(self):
        self.directory.cleanup()

    def words(self, *words, memory="256M", append=""):
        return ["--memory", memory, "--kernel", self.kernel, "--initrd", self.initramfs, "--append",
                f"console=ttyS0 quiet {append}", *words]


class Shell(Vm):
    def __init__(self, holon, kit, *words, memory="256M", append="", **kw):
        super().__init__(holon, *kit.words(*words, memory=memory, append=append), **kw)

    def ready(self):
        self.until(READY)
        return self

    def answer(self, patience=PATIENCE):
        """(status, output) of the command under way"""
        got = read_until(self.p.stdout.fileno(), b"-- status ", patience)
        while not got.endswith(b"\n"):
            got += read_until(self.p.stdout.fileno(), b"\n", patience)
        text, status = re.fullmatch(r"(?s)(.*)-- status (\d+)\n", got.decode(errors="replace")).groups()
        return int(status), text

    def sh(self, command, patience=PATIENCE):
        """What the command prints; it must succeed."""
        self.say(command.encode() + b"\n")
        status, text = self.answer(patience)
        if status:
            raise AssertionError(f"{command}: status {status}: {text}")
        return text.strip()

    def fails(self, command):
        """What a command prints that must fail."""
        self.say(command.encode() + b"\n")
        status, text = self.answer()
        if not status:
            raise AssertionError(f"{command}: it did not fail, but printed {text}")
        return text.strip()

    def power_off(self):
        self.say(b"sync; poweroff -f\n")
        status = self.status()
        if status:
            raise AssertionError(f"holon ended with {status}: {self.p.stderr.read()}")
