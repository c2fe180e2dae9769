"""The network half: iperf3 both ways and one-byte round trips between the guest and this host's
loopback, through user-mode NAT (libslirp, in both hypervisors)."""

import os
import re
import shutil
import socket
import subprocess

import common
import guest
import io_disk

MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover",
           "net_failover", "virtio_net"]
INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in MODULES; do insmod /lib/$m.ko; done
ip link set lo up; ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
echo
sleep 1; /bin/rr client 10.0.2.2 RRPORT 1 >/dev/null
echo HOLON-OUT $(iperf3 -c 10.0.2.2 -p IPPORT -t SECONDS -f k | grep receiver)
echo HOLON-IN $(iperf3 -c 10.0.2.2 -p IPPORT -t SECONDS -f k -R | grep receiver)
echo HOLON-RR $(/bin/rr client 10.0.2.2 RRPORT SECONDS)
echo HOLON-BENCH-END
poweroff -f
"""
ROWS = [("TCP, guest to host", "MiB/s", 0), ("TCP, host to guest", "MiB/s", 0),
        ("TCP round trips of one byte", "requests/s", 0)]
KBIT_A_MIB = (1 << 20) * 8 / 1000


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Net:
    title = "Network"
    rows = ROWS

    def __init__(self, options, directory):
        self.options = options
        self.title = f"Network, user-mode NAT, engine {options.engine}"
        self.iperf3 = shutil.which("iperf3") or common.fail("no iperf3")
        self.rr = os.path.join(directory, "rr")
        source = os.path.join(os.path.dirname(os.path.realpath(__file__)), "rr.c")
        subprocess.run(["cc", "-O2", "-static", "-o", self.rr, source], check=True)
        self.ports = free_port(), free_port()
        init = (INIT.replace("MODULES", " ".join(MODULES)).replace("IPPORT", str(self.ports[0]))
                .replace("RRPORT", str(self.ports[1])).replace("SECONDS", str(options.seconds)))
        files = [f"{path}:{to}" for to, path in io_disk.libraries(self.iperf3).items()]
        os.mkdir(os.path.join(directory, "net"))
        self.initramfs = common.initramfs(os.path.join(directory, "net"), init, f"{self.rr}:/bin/rr", *files,
                                          *io_disk.module_files(MODULES))

    def command(self, which):
        o = self.options
        boot = ["--kernel", o.kernel, "--initrd", self.initramfs, "--append", o.append + " quiet"]
        if which == "holon":
            return common.holon_command(o, *boot, "--net", "user")
        return common.qemu_command(o, "-nographic", *(w.replace("--", "-", 1) if w.startswith("--") else w for w in boot),
                                   "-nic", "none", "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0")

    def run(self, which):
        servers = [subprocess.Popen([self.iperf3, "-s", "-B", "127.0.0.1", "-p", str(self.ports[0])],
                                    stdout=subprocess.DEVNULL),
                   subprocess.Popen([self.rr, "server", str(self.ports[1])])]
        try:
            command = self.command(which)
            return self.rates(command, guest.output(command, self.options.limit)[0])
        finally:
            for s in servers:
                s.kill()
                s.wait()

    def rates(self, command, text):
        figures = [re.search(r"HOLON-OUT .* ([\d.]+) Kbits/sec", text), re.search(r"HOLON-IN .* ([\d.]+) Kbits/sec", text),
                   re.search(r"HOLON-RR rr (\d+)", text)]
        if not all(figures):
            guest.failed(command, text, "figures are missing")
        out, back, rr = (float(f[1]) for f in figures)
        return {ROWS[0][0]: out / KBIT_A_MIB, ROWS[1][0]: back / KBIT_A_MIB, ROWS[2][0]: rr}


half = Net
