"""A guest of Debian's kernel with a network card and a shell on its console, for tests and
measurements of the network."""

import os
import re
import shutil
import subprocess
import tempfile

from harness import PATIENCE, Vm, read_until

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
MODULES = ["drivers/virtio/virtio_ring.ko", "drivers/virtio/virtio.ko",
           "drivers/virtio/virtio_pci_modern_dev.ko", "drivers/virtio/virtio_pci_legacy_dev.ko",
           "drivers/virtio/virtio_pci.ko", "net/core/failover.ko", "drivers/net/net_failover.ko",
           "drivers/net/virtio_net.ko"]
INIT = """#!/bin/sh
export PATH=/bin PS1=
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
for m in {modules}; do insmod /lib/$m; done
ip link set lo up
echo guest-is-up
stty -echo </dev/console
while :; do setsid cttyhack sh; done
"""
UDHCPC = """#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface
ip addr add $ip/$mask dev $interface
[ -z "$router" ] || ip route add default via $router
: >/etc/resolv.conf
for d in $dns; do echo nameserver $d >>/etc/resolv.conf; done
echo lease of $ip router $router dns $dns
"""


def script(name, *words):
    return subprocess.run([os.path.join(TOP, "scripts", name), *words], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def with_libraries(program, to):
    """SOURCE:DESTINATION of a program and the shared libraries that it needs."""
    files = [f"{program}:{to}"]
    for line in subprocess.check_output(["ldd", program], text=True).splitlines():
        path = re.search(r"(/\S+) \(0x", line)
        if path:
            files.append(f"{path[1]}:{path[1].lstrip('/')}")
    return files


class Image:
    """A kernel, and an initramfs with the network's modules, busybox, and files."""

    def __init__(self, files=()):
        self.dir = tempfile.TemporaryDirectory(prefix="holon-net.")
        self.kernel = script("fetch-kernel")
        modules = os.path.join(script("fetch-kernel", "--root"), "lib/modules")
        release, = os.listdir(modules)
        init, udhcpc = self.path("init"), self.path("udhcpc.sh")
        with open(init, "w") as f:
            f.write(INIT.format(modules=" ".join(os.path.basename(m) for m in MODULES)))
        with open(udhcpc, "w") as f:
            f.write(UDHCPC)
        os.chmod(udhcpc, 0o755)
        self.initrd = self.path("initramfs.gz")
        script("mkinitramfs", "--init", init, self.initrd, f"{udhcpc}:etc/udhcpc.sh", *files,
               *(f"{modules}/{release}/kernel/{m}:lib/{os.path.basename(m)}" for m in MODULES))

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def close(self):
        self.dir.cleanup()


class DiskImage(Image):
    """With the disks' module, for who loads it."""

    def __init__(self):
        modules = os.path.join(script("fetch-kernel", "--root"), "lib/modules")
        release, = os.listdir(modules)
        super().__init__([f"{modules}/{release}/kernel/drivers/block/virtio_blk.ko:lib/virtio_blk.ko"])


def iperf3():
    """Files of iperf3, or None where it is not installed."""
    program = shutil.which("iperf3")
    return with_libraries(program, "bin/iperf3") if program else None


class Shell:
    """Commands for a guest's shell, typed one after another, and what they print."""

    count = 0

    def wait_up(self):
        self.until(b"guest-is-up")

    def send(self, command):
        """Starts a command; finish() has what it printed."""
        self.count += 1
        self.say(f"{command}\necho end-of''-{self.count}- $?\n".encode())

    def finish(self, patience=PATIENCE):
        got = b""
        mark = f"end-of-{self.count}- ".encode()
        out = self.p.stdout.fileno()
        got = read_until(out, mark, patience)
        text, rest = got.split(mark, 1)
        while b"\n" not in rest:
            rest += os.read(out, 100)
        self.code = int(rest.split()[0])
        return text.decode(errors="replace").replace("\r", "")

    def run(self, command, patience=PATIENCE):
        self.send(command)
        return self.finish(patience)

    def lease(self, card="eth0"):
        self.run(f"ip link set {card} up")
        return self.run(f"udhcpc -q -n -i {card} -s /etc/udhcpc.sh 2>&1")


class NetVm(Shell, Vm):
    """holon run of an Image."""

    def __init__(self, holon, image, *words, **kw):
        append = "console=ttyS0 quiet " + kw.pop("append", "")
        super().__init__(holon, "--memory", "256M", "--kernel", image.kernel, "--initrd",
                         image.initrd, "--append", append, *words, **kw)
