#!/usr/bin/env python3
"""Small devices and Debian's drivers for them: python3 devices_test.py HOLON GENERATION SOCKETS
[TEST...]

$HOLON_VMGENID_KERNEL may name a kernel that has the VMGenID driver (Debian's
linux-image-amd64 has it, linux-image-cloud-amd64 has not)."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import boot_test
from boot_test import MOUNTS, UP, script
from harness import PATIENCE, read_until

GENERATION = SOCKETS = None
MODULES = {
    "virtio": ["drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
               "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci"],
    "console": ["drivers/char/virtio_console"],
    "balloon": ["drivers/virtio/virtio_balloon"],
    "vsock": ["net/vmw_vsock/vsock", "net/vmw_vsock/vmw_vsock_virtio_transport_common",
              "net/vmw_vsock/vmw_vsock_virtio_transport"],
}


class DriverTest(boot_test.GuestKernel):
    """Tests that load modules of Debian's kernel."""

    def boot_with(self, modules, init, *words, files=(), **kw):
        names = MODULES["virtio"] + MODULES[modules]
        tree = os.path.join(script("fetch-kernel", "--root"), "lib/modules")
        release, = os.listdir(tree)
        wanted = [f"{tree}/{release}/kernel/{n}.ko:lib/{os.path.basename(n)}.ko" for n in names]
        load = "".join(f"insmod /lib/{os.path.basename(n)}.ko\n" for n in names)
        return self.boot(MOUNTS + load + init, *words, files=wanted + list(files), **kw)


def receive_all(s):
    got = b""
    while piece := s.recv(65536):
        got += piece
    return got


class Vsock(DriverTest):
    """Sockets between guest and host, with real data in both directions."""

    def connect(self, port):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(PATIENCE)
        s.connect(self.path("vsock"))
        s.sendall(f"CONNECT {port}\n".encode())
        line = b""
        while not line.endswith(b"\n"):
            c = s.recv(1)
            if not c:
                return None
            line += c
        self.assertRegex(line, rb"^OK \d+\n$")
        return s

    def echo(self, bytes_each, problems):
        """One connection to the guest's echo, there and back."""
        data = os.urandom(bytes_each)
        s = self.connect(5000)

        def send():
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        if receive_all(s) != data:
            problems.append(bytes_each)
        sender.join()
        s.close()

    def serve_echo(self, path):
        def one(s):
            with s:
                while piece := s.recv(65536):
                    s.sendall(piece)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(128)

        def serve():
            while True:
                try:
                    threading.Thread(target=one, args=[listener.accept()[0]], daemon=True).start()
                except OSError:
                    return
        threading.Thread(target=serve, daemon=True).start()
        return listener

    def test_host_to_guest(self):
        init = "sockets echo 5000 &\nexec setsid cttyhack sh\n"
        with self.boot_with("vsock", init, "--vsock", self.path("vsock"), files=[f"{SOCKETS}:bin/sockets"]) as vm:
            vm.until(b"listening")
            self.assertEqual(os.stat(self.path("vsock")).st_mode & 0o777, 0o600)
            self.assertIsNone(self.connect(5001))  # nobody listens there
            problems = []
            self.echo(8 << 20, problems)
            many = [threading.Thread(target=self.echo, args=[100_000 + n, problems]) for n in range(40)]
            for t in many:
                t.start()
            for t in many:
                t.join()
            self.assertEqual(problems, [])
            vm.say(b"poweroff -f\n")
            self.assertEqual(vm.status(), 0)
        self.assertFalse(os.path.exists(self.path("vsock")))

    def test_guest_to_host(self):
        init = ("sockets send 7000 1 8000000; sockets send 7000 40 100000; sockets send 7001 1 1\n"
                "poweroff -f\n")
        listener = self.serve_echo(self.path("vsock2_7000"))
        with self.boot_with("vsock", init, "--vsock", self.path("vsock2") + ",cid=42",
                            files=[f"{SOCKETS}:bin/sockets"]) as vm:
            status, out, err = vm.ends()
        listener.close()
        self.assertEqual(status, 0, err)
        self.assertEqual(re.findall(r"good=(\d+)", out), ["1", "40", "0"], out)


class Ports(DriverTest):
    """Named ports and the virtio console."""

    def connected(self, name):
        end = time.monotonic() + PATIENCE
        while True:
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(self.path(name))
                return s
            except OSError:
                s.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def test_ports(self):
        init = """mkdir -p /dev/virtio-ports
until [ "$(cat /sys/class/virtio-ports/*/name 2>/dev/null | wc -l)" = 2 ]; do sleep 0.1; done
for p in /sys/class/virtio-ports/*/name; do
    ln -s /dev/$(basename $(dirname $p)) /dev/virtio-ports/$(cat $p)
done
ls /dev/virtio-ports
exec 3<>/dev/virtio-ports/org.holon.a
head -c 3000000 <&3 | sha256sum
head -c 3000000 /dev/urandom >/tmp/data; sha256sum </tmp/data >/tmp/sum
cat /tmp/data >&3; cat /tmp/sum >/dev/virtio-ports/b; head -c 1 <&3; poweroff -f
"""
        with self.boot_with("console", init, "--port", f"org.holon.a=unix:{self.path('a')}", "--port",
                            f"b=unix:{self.path('b')}") as vm:
            # Before the guest opens the ports: with nobody at the other end it would read their end.
            a, b = self.connected("a"), self.connected("b")
            vm.until(b"org.holon.a")
            a.settimeout(PATIENCE)
            data = os.urandom(3_000_000)
            a.sendall(data)
            digest = subprocess.run(["sha256sum"], input=data, stdout=subprocess.PIPE).stdout.split()[0]
            vm.until(digest)
            time.sleep(1)  # the guest fills what there is, and waits
            got = b""
            while len(got) < 3_000_000:
                piece = a.recv(10_000)
                self.assertTrue(piece, f"only {len(got)} bytes came")
                got += piece
            digest = subprocess.run(["sha256sum"], input=got, stdout=subprocess.PIPE).stdout.split()[0]
            b.settimeout(PATIENCE)
            self.assertEqual(b.recv(64), digest)
            a.sendall(b".")  # a guest that ends takes with it what nobody has read
            a.close()
            b.close()
            self.assertEqual(vm.status(), 0)

    def test_console(self):
        init = "echo hvc-is-up >/dev/hvc0\nexec setsid sh -c 'exec sh </dev/hvc0 >/dev/hvc0 2>&1'\n"
        with self.boot_with("console", init, "--console", "virtio") as vm:
            vm.until(b"hvc-is-up")
            vm.until(b"/ # ")  # a shell throws away what was typed before
            vm.say(b"seq 1 30000 | md5sum; echo six times seven is $((6 * 7))\n")
            vm.until(b"six times seven is 42")
            vm.say(b"poweroff -f\n")
            self.assertEqual(vm.status(), 0)


class Balloon(DriverTest):
    """Memory that goes back to the host."""

    def resident_mib(self, vm):
        with open(f"/proc/{vm.p.pid}/status") as f:
            return int(re.search(r"RssShmem:\s+(\d+) kB", f.read())[1]) // 1024

    def wait_below(self, vm, mib):
        deadline = time.monotonic() + PATIENCE
        while self.resident_mib(vm) >= mib:
            self.assertLess(time.monotonic(), deadline, f"{self.resident_mib(vm)} MiB")
            time.sleep(0.1)

    def fill(self, mib):
        return f"mount -t tmpfs t /tmp; head -c {mib << 20} /dev/zero >/tmp/big\n"

    def test_free_pages_are_given_back(self):
        init = self.fill(240) + "echo filled; read x; rm /tmp/big; echo removed; read x; poweroff -f\n"
        with self.boot_with("balloon", init) as vm:
            vm.until(b"filled")
            self.assertGreater(self.resident_mib(vm), 250)
            vm.say(b"\n")
            self.wait_below(vm, 150)
            vm.p.send_signal(signal.SIGUSR1)
            told = read_until(vm.p.stderr.fileno(), b"given back so far")
            self.assertIn(b"512.0 MiB", told)
            vm.say(b"\n")
            self.assertEqual(vm.status(), 0)

    def test_the_guest_leaves_memory_to_the_host(self):
        init = self.fill(100) + """rm /tmp/big
until [ $(awk '/balloon_inflate/ { print $2 }' /proc/vmstat) = 65536 ]; do sleep 0.1; done
echo inflated; head -c 40000000 /dev/zero | md5sum; poweroff -f
"""
        with self.boot_with("balloon", init, "--balloon", "256M") as vm:
            vm.until(b"inflated")
            self.assertLess(self.resident_mib(vm), 256)
            self.assertEqual(vm.status(), 0)

    def test_without(self):
        init = "ls /sys/bus/virtio/drivers/virtio_balloon; poweroff -f\n"
        with self.boot_with("balloon", init, "--balloon", "off") as vm:
            status, out, err = vm.ends()
            self.assertEqual(status, 0, err)
            self.assertNotIn("virtio0", out.split("uevent")[0].replace("module", ""))


class Generation(boot_test.GuestKernel):
    """The identifier that tells a clone from its original."""

    def run_guest(self, init, kernel):
        p = subprocess.run([GENERATION, kernel, self.initramfs(init)], text=True,
                           stdout=subprocess.PIPE, timeout=PATIENCE)
        self.assertEqual(p.returncode, 0, p.stdout)
        return p.stdout

    def test_a_new_one_reaches_the_acpi_device(self):
        init = MOUNTS + """grep . /sys/bus/acpi/devices/HOLN0001:00/hid
ged() { echo "$1=$(grep ACPI:Ged /proc/interrupts | awk '{ print $2 }')"; }
ged before; echo new-generation; sleep 0.5; ged after; poweroff -f
"""
        out = self.run_guest(init, self.kernel)
        self.assertIn("HOLN0001", out)
        self.assertIn("before=0", out)
        self.assertIn("after=1", out)

    @unittest.skipUnless("HOLON_VMGENID_KERNEL" in os.environ, "needs a kernel with the driver")
    def test_linux_reseeds_its_random_numbers(self):
        init = MOUNTS + """readlink /sys/bus/acpi/devices/HOLN0001:00/driver
for n in 1 2; do echo new-generation; sleep 0.5; done; poweroff -f
"""
        out = self.run_guest(init, os.environ["HOLON_VMGENID_KERNEL"])
        self.assertIn("drivers/vmgenid", out)
        self.assertEqual(out.count("crng reseeded due to virtual machine fork"), 2)


if __name__ == "__main__":
    boot_test.HOLON, GENERATION, SOCKETS = sys.argv[1:4]
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
