#!/usr/bin/env python3
"""Network cards in a guest of Debian's kernel: python3 net_test.py HOLON [TEST...]

All traffic stays on this host's loopback, or in network namespaces that the tests make. What
cannot run here (no tap device, no iperf3) is skipped and says why. NET_TEST_LONG=1: also what
takes minutes."""

import ctypes
import hashlib
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import netguest
from netguest import Image, NetVm

HOLON = None
MIB = 1 << 20
LONG = bool(os.environ.get("NET_TEST_LONG"))
CLONE_NEWNET = 0x40000000


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def in_own_network():
    """For preexec_fn: a network namespace with nothing but what is made in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


def retry(action, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            return action()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Server:
    """Serves each TCP connection on loopback by a function, in a thread."""

    def __init__(self, serve):
        self.s = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.s.getsockname()[1]
        self.serve, self.count = serve, 0
        threading.Thread(target=self.loop, daemon=True).start()

    def loop(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            self.count += 1
            with c:
                self.serve(c)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.s.close()


def receive_all(s):
    got = b""
    while True:
        piece = s.recv(65536)
        if not piece:
            return got
        got += piece


def md5(data):
    return hashlib.md5(data).hexdigest()


class NetTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.image = Image(netguest.iperf3() or ())

    @classmethod
    def tearDownClass(cls):
        cls.image.close()

    def vm(self, *words, **kw):
        vm = NetVm(HOLON, self.image, *words, **kw)
        self.addCleanup(vm.__exit__)
        return vm

    def up(self, *words, **kw):
        vm = self.vm(*words, **kw)
        vm.wait_up()
        return vm

    def leased(self, *words, **kw):
        return self.lease(self.up(*words, **kw))

    def lease(self, vm):
        self.assertIn("lease of 10.0.2.15", vm.lease())
        return vm

    def at_once(self, option, values):
        """VMs that boot at the same time; each one ends when the next is asked for."""
        for value, vm in [(v, self.vm(option, v)) for v in values]:
            vm.wait_up()
            yield value, self.lease(vm)
            vm.__exit__()


class User(NetTest):
    def test_lease_ping_and_address_that_stays(self):
        macs = []
        for _, vm in itertools.chain(self.at_once("--name", ["one", "two"]),
                                     self.at_once("--name", ["one"])):
            self.assertIn("router 10.0.2.2 dns 10.0.2.3", vm.lease())
            macs.append(vm.run("cat /sys/class/net/eth0/address").split()[0])
            self.assertIn("2 packets received", vm.run("ping -c 2 -i 0.2 10.0.2.2"))
        self.assertEqual(macs[0], macs[2])
        self.assertNotEqual(macs[0], macs[1])

    def test_no_card(self):
        self.assertNotIn("eth0", self.up("--net", "none").run("ls /sys/class/net"))

    def test_from_the_guest_megabytes_arrive_whole(self):
        data = os.urandom(8 * MIB)
        got = []
        with Server(lambda c: c.sendall(data)) as down, \
                Server(lambda c: got.append(md5(receive_all(c)))) as up:
            vm = self.leased()
            text = vm.run(f"nc 10.0.2.2 {down.port} </dev/null >/tmp/f; md5sum /tmp/f")
            self.assertIn(md5(data), text)
            vm.run(f"nc 10.0.2.2 {up.port} </tmp/f")
            retry(lambda: got or (_ for _ in ()).throw(OSError()))
            self.assertEqual(got, [md5(data)])

    def connect_to_echo(self, port):
        """A forward accepts before anybody in the guest does; then it ends the connection."""
        def attempt():
            s = socket.create_connection(("127.0.0.1", port))
            s.sendall(b"?")
            if s.recv(1) != b"?":
                s.close()
                raise OSError("not yet")
            return s
        return retry(attempt)

    def test_through_a_forward_megabytes_go_and_come_whole(self):
        data, port = os.urandom(8 * MIB), free_port()
        vm = self.leased("-p", f"{port}:7000")
        vm.run("nc -ll -p 7000 -e cat &")
        with self.connect_to_echo(port) as s:
            def send():
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
            threading.Thread(target=send, daemon=True).start()
            self.assertEqual(md5(receive_all(s)), md5(data))

    @unittest.skipUnless(shutil.which("iperf3"), "needs iperf3")
    def test_udp_forward(self):
        port = free_port()
        vm = self.leased("-p", f"{port}:5201", "-p", f"{port}:5201/udp")
        vm.run("iperf3 -s -D; sleep 0.5")
        text = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", str(port), "-u", "-b", "5M", "-t", "1"],
                              stdout=subprocess.PIPE, text=True, timeout=30).stdout
        lost, total = re.search(r"(\d+)/(\d+) \([\d.e+-]+%\)  receiver", text).groups()
        self.assertGreater(int(total), 10, text)
        self.assertLess(int(lost), int(total) // 2, text)

    def test_port_that_is_taken_is_an_error_of_the_start(self):
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
            with self.vm("-p", f"{port}:22") as vm:
                status, _, err = vm.ends()
        self.assertEqual(status, 1)
        self.assertIn(f"127.0.0.1:{port}", err)
        self.assertIn("in use", err)

    def test_restrict_restricts_but_for_forwards(self):
        port = free_port()
        with Server(lambda c: c.sendall(b"secret")) as server:
            vm = self.leased("--net", "user,restrict", "-p", f"{port}:7000")
            self.assertNotIn("secret", vm.run(f"nc -w 3 10.0.2.2 {server.port} </dev/null"))
            self.assertEqual(server.count, 0)
            vm.run("nc -ll -p 7000 -e cat &")
            self.connect_to_echo(port).close()

    def test_many_short_connections(self):
        n = 10000 if LONG else 300
        with Server(lambda c: c.sendall(b"x")) as server:
            vm = self.leased()
            text = vm.run(f"i=0; while [ $i -lt {n} ]; do nc 10.0.2.2 {server.port} </dev/null; "
                          "i=$((i+1)); done | wc -c", 600)
            self.assertEqual(int(text.split()[-1]), n)

    def test_dns_is_the_hosts_resolver(self):
        """In a mount namespace where the resolver is a responder of ours on loopback."""
        if os.geteuid() or subprocess.run(["unshare", "-m", "true"]).returncode:
            self.skipTest("needs root, for a resolv.conf of its own")
        try:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind(("127.0.0.9", 53))
        except OSError as e:
            self.skipTest(f"port 53 of loopback: {e}")

        def answer():
            while True:
                try:
                    q, peer = s.recvfrom(2000)
                except OSError:
                    return
                kind = struct.unpack(">H", q[-4:-2])[0]
                rest = (b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + socket.inet_aton("192.0.2.77")) if kind == 1 else b""
                s.sendto(q[:2] + b"\x81\x80" + q[4:6] + (b"\0\1" if rest else b"\0\0") + b"\0\0\0\0" +
                         q[12:] + rest, peer)

        threading.Thread(target=answer, daemon=True).start()
        self.addCleanup(s.close)
        conf = self.image.path("resolv.conf")
        with open(conf, "w") as f:
            f.write("nameserver 127.0.0.9\n")
        wrapper = self.image.path("holon-with-resolver")
        with open(wrapper, "w") as f:
            f.write(f"#!/bin/sh\nexec unshare -m sh -c 'mount --bind {conf} /etc/resolv.conf && "
                    f"exec {os.path.realpath(HOLON)} \"$@\"' sh \"$@\"\n")
        os.chmod(wrapper, 0o755)
        vm = NetVm(wrapper, self.image)
        self.addCleanup(vm.__exit__)
        vm.wait_up()
        vm.lease()
        self.assertIn("192.0.2.77", vm.run("nslookup name.example"))

    def test_each_feature_off(self):
        data = os.urandom(2 * MIB)
        with Server(lambda c: c.sendall(data)) as down:
            for off, vm in self.at_once("--virtio-off", ["packed", "event-idx", "indirect",
                                                         "packed,event-idx,indirect"]):
                text = vm.run(f"nc 10.0.2.2 {down.port} </dev/null | md5sum")
                self.assertIn(md5(data), text, off)

    def test_capture_can_be_read(self):
        with tempfile.TemporaryDirectory() as d:
            file = os.path.join(d, "c.pcapng")
            vm = self.leased("--capture", file)
            vm.run("ping -c 3 -i 0.2 10.0.2.2")
            vm.p.send_signal(signal.SIGTERM)
            vm.p.send_signal(signal.SIGINT)
            vm.status()
            with open(file, "rb") as f:
                self.assertEqual(f.read(4), b"\x0a\x0d\x0d\x0a")
            self.assertEqual(os.stat(file).st_mode & 0o777, 0o600)
            if not shutil.which("tshark"):
                self.skipTest("tshark is not installed: only the file's head was looked at")
            text = subprocess.run(["tshark", "-r", file, "-Y", "icmp || dhcp"], check=True, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            self.assertEqual(text.count("Echo (ping) request"), 3, text)
            self.assertEqual(text.count("Echo (ping) reply"), 3, text)
            self.assertIn("DHCP ACK", text)

    def test_rate_limits(self):
        """One way after the other, by what the card counts once the burst at the start is over. Not
        both at once: then acknowledgements of one wait behind the other's bytes."""
        rate, seconds = 2 * MIB, 3

        def push(c):
            try:
                while True:
                    c.sendall(bytes(65536))
            except OSError:
                pass

        def look(vm):
            text = vm.run("cat /proc/uptime /sys/class/net/eth0/statistics/[rt]x_bytes")
            uptime, _, *counts = re.findall(r"[\d.]+", text)
            return [float(uptime), *map(int, counts)]

        with Server(push) as down, Server(receive_all) as up:
            vm = self.leased("--net", f"user,rx={rate},tx={rate}")
            for way, talk in enumerate([f"nc 10.0.2.2 {down.port} </dev/null >/dev/null",
                                        f"nc 10.0.2.2 {up.port} </dev/zero"]):
                vm.run(f"timeout 5 {talk} & sleep 1")
                before = look(vm)
                time.sleep(seconds)
                passed, *counts = (now - then for now, then in zip(look(vm), before))
                vm.run("wait")
                self.assertLess(abs(counts[way] / passed / rate - 1), 0.1, (way, passed, counts))


class Switch(NetTest):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="holon-run.")
        self.addCleanup(self.dir.cleanup)
        os.chmod(self.dir.name, 0o700)

    def member(self, n, *words, net="switch=lab"):
        vm = self.up("--net", net, "--name", f"vm{n}", *words,
                     env={**os.environ, "XDG_RUNTIME_DIR": self.dir.name})
        vm.run(f"ip link set eth0 up; ip addr add 192.0.2.{n}/24 dev eth0")
        return vm

    def pings(self, vm, n):
        return "1 packets received" in vm.run(f"ping -c 1 -W 2 192.0.2.{n}")

    def test_three_vms_and_a_takeover(self):
        data = os.urandom(MIB)
        one, two, three = (self.member(n) for n in (1, 2, 3))
        for vm, n in (one, 2), (one, 3), (two, 3), (two, 1):
            self.assertTrue(self.pings(vm, n))
        two.send("nc -l -p 7000 -e sh -c 'md5sum >/tmp/sum'; cat /tmp/sum")
        with open(self.image.path("data"), "wb") as f:
            f.write(data)
        three.run("dd if=/dev/zero bs=64k count=64 2>/dev/null | tee /tmp/z | md5sum; sleep 0.5; "
                  "nc 192.0.2.2 7000 </tmp/z")
        self.assertIn(md5(bytes(4 * MIB)), two.finish())
        one.p.kill()
        one.p.wait()
        start = time.monotonic()
        while not self.pings(two, 3):
            self.assertLess(time.monotonic() - start, 10)
        self.assertTrue(self.pings(three, 2))
        self.assertEqual(two.run("cat /sys/class/net/eth0/carrier_changes"),
                         two.run("cat /sys/class/net/eth0/carrier_changes"))
        again = self.member(4)
        self.assertTrue(self.pings(again, 3))

    def test_uplink_leads_to_the_host(self):
        with Server(lambda c: c.sendall(b"from the host")) as server:
            one = self.member(1)
            two = self.member(2, net="switch=lab,uplink")
            for vm in one, two:
                self.assertIn("lease of 10.0.2.1", vm.lease())
                self.assertIn("from the host", vm.run(f"nc 10.0.2.2 {server.port} </dev/null"))


@unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/net/tun"), "needs root and /dev/net/tun")
@unittest.skipUnless(shutil.which("ip"), "needs ip (package iproute2)")
class Tap(NetTest):
    def host(self, vm, command):
        """In the network namespace where a VM was started; its process is confined to one of its own."""
        return subprocess.run(["nsenter", "-t", str(vm.keeps_namespace), "-n", "sh", "-c", command], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def up_apart(self, *words, before=""):
        """A VM in a network namespace of its own, in which before has run."""
        wrapper = self.image.path("holon-apart")
        with open(wrapper, "w") as f:
            f.write(f"#!/bin/sh\nip link set lo up\nsleep 3600 </dev/null >/dev/null 2>&1 &\n"
                    f"echo $! >{wrapper}.pid\n{before}\nexec {os.path.realpath(HOLON)} \"$@\"\n")
        os.chmod(wrapper, 0o755)
        try:
            vm = NetVm(wrapper, self.image, *words, preexec_fn=in_own_network)
        except subprocess.SubprocessError:
            self.skipTest("no network namespace can be made here")
        self.addCleanup(vm.__exit__)
        vm.wait_up()
        with open(wrapper + ".pid") as f:
            vm.keeps_namespace = int(f.read())
        self.addCleanup(os.kill, vm.keeps_namespace, signal.SIGKILL)
        return vm

    def test_tap_both_ways_and_its_link(self):
        vm = self.up_apart("--net", "tap=tap7")
        self.host(vm, "ip addr add 192.0.2.1/24 dev tap7")
        vm.run("ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0")
        self.assertIn("1 packets received", vm.run("ping -c 1 -W 5 192.0.2.1"))
        vm.send("nc -l -p 7000 -e sh -c 'md5sum >/tmp/sum'; cat /tmp/sum")
        time.sleep(0.5)
        text = self.host(vm, "head -c 20000000 /dev/zero | busybox nc 192.0.2.2 7000; "
                             "ip -s link show tap7")
        self.assertIn(md5(bytes(20000000)), vm.finish(), text)
        self.assertEqual(vm.run("cat /sys/class/net/eth0/carrier").strip(), "1")
        self.host(vm, "ip link set tap7 down")
        time.sleep(0.5)
        self.assertEqual(vm.run("cat /sys/class/net/eth0/carrier").strip(), "0")
        self.host(vm, "ip link set tap7 up")
        time.sleep(0.5)
        self.assertEqual(vm.run("cat /sys/class/net/eth0/carrier").strip(), "1")

    def test_tap_made_before_with_several_queues(self):
        vm = self.up_apart("--net", "tap=tap8", before="ip tuntap add tap8 mode tap multi_queue; "
                           "ip link set tap8 up; ip addr add 192.0.2.1/24 dev tap8")
        vm.run("ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0")
        self.assertIn("1 packets received", vm.run("ping -c 1 -W 5 192.0.2.1"))

    def test_bridge(self):
        vm = self.up_apart("--net", "bridge=br7", before="ip link add br7 type bridge; ip link set br7 up; "
                           "ip addr add 192.0.2.1/24 dev br7")
        vm.run("ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0")
        self.assertIn("1 packets received", vm.run("ping -c 1 -W 5 192.0.2.1"))
        self.assertIn("master br7", self.host(vm, "ip link show holon0"))

    def test_bridge_that_is_not_there(self):
        with self.vm("--net", "bridge=nobr9") as vm:
            status, _, err = vm.ends()
        self.assertEqual(status, 1)
        self.assertIn("bridge 'nobr9'", err)


if __name__ == "__main__":
    HOLON = sys.argv[1]
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
