#!/usr/bin/env python3
"""Firecracker's API, asked as its clients ask: python3 firecracker_test.py HOLON [TEST...]"""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import netguest
from harness import ENGINE_WORDS, PATIENCE, read_until

HOLON = None
MIB = 1 << 20


class Client(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


class Firecracker(netguest.Shell):
    def __init__(self, *words):
        self.p = subprocess.Popen([HOLON, "firecracker", *ENGINE_WORDS, *words], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def until(self, what):
        return read_until(self.p.stdout.fileno(), what)

    def say(self, text):
        self.p.stdin.write(text)
        self.p.stdin.flush()

    def wait_up(self):
        super().wait_up()
        self.until(b"built-in commands")
        self.run("true")

    def done(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.communicate(timeout=PATIENCE)


class FirecrackerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.image = netguest.DiskImage()
        cls.addClassCleanup(cls.image.close)

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="holon-fc.")
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def start(self, *words):
        vm = Firecracker(*words)
        self.addCleanup(vm.done)
        return vm

    def serve(self, *words):
        vm = self.start("--api-sock", self.path("api"), *words)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(self.path("api")):
            self.assertIsNone(vm.p.poll())
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        return vm

    def ask(self, verb, path, body=None, status=None, text=None):
        """One connection for each request, as curl has it."""
        c = Client(self.path("api"))
        if text is None and body is not None:
            text = json.dumps(body)
        c.request(verb, path, text, {"Content-Type": "application/json"} if text else {})
        r = c.getresponse()
        got = r.read()
        c.close()
        if status is None:
            status = 200 if verb == "GET" else 204
        self.assertEqual(r.status, status, got)
        return json.loads(got) if got else None

    def refused(self, verb, path, body=None, why="", **kw):
        got = self.ask(verb, path, body, 400, **kw)
        self.assertEqual(list(got), ["fault_message"])
        self.assertIn(why, got["fault_message"])

    def holon(self, *words):
        """Its own commands, which work on such a VM, too."""
        return subprocess.run([HOLON, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              check=True, timeout=PATIENCE).stdout

    def boot_source(self):
        return {"kernel_image_path": self.image.kernel, "initrd_path": self.image.initrd,
                "boot_args": "console=ttyS0 quiet"}

    def state(self):
        return self.ask("GET", "/")["state"]

    def ends(self, vm):
        vm.say(b"poweroff -f\n")
        self.assertEqual(vm.p.wait(timeout=PATIENCE), 0)
        self.assertFalse(os.path.exists(self.path("api")))

    # --- what a client of Firecracker does ---

    def test_from_configuration_to_shutdown(self):
        vm = self.serve("--id", "one")
        self.assertEqual(self.ask("GET", "/")["id"], "one")
        self.assertEqual(self.state(), "Not started")
        self.assertRegex(self.ask("GET", "/version")["firecracker_version"], r"^\d+\.\d+\.\d+$")
        self.ask("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 192})
        self.ask("PATCH", "/machine-config", {"vcpu_count": 2})
        config = self.ask("GET", "/machine-config")
        self.assertEqual((config["vcpu_count"], config["mem_size_mib"], config["smt"]), (2, 192, False))
        self.ask("PUT", "/boot-source", self.boot_source())
        with open(self.path("disk"), "wb") as f:
            f.write(b"first words".ljust(MIB, b"\0"))
        drive = {"drive_id": "data", "path_on_host": self.path("disk"), "is_root_device": False,
                 "is_read_only": False, "rate_limiter": {"ops": {"size": 100000, "refill_time": 100}}}
        self.ask("PUT", "/drives/data", drive)
        self.ask("PUT", "/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": "user:",
                                                     "guest_mac": "06:00:AC:10:00:02"})
        self.ask("PUT", "/mmds/config", {"network_interfaces": ["eth0"], "version": "V2"})
        self.ask("PUT", "/mmds", {"latest": {"meta-data": {"ami-id": "ami-1", "n": {"x": "y"}}}})
        self.ask("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1})
        self.ask("PUT", "/entropy", {})
        self.ask("PUT", "/vsock", {"guest_cid": 3, "uds_path": self.path("v.sock")})
        self.ask("PUT", "/metrics", {"metrics_path": self.path("metrics")})
        self.refused("PATCH", "/vm", {"state": "Paused"})
        self.refused("PATCH", "/balloon", {"amount_mib": 1})
        self.ask("PUT", "/actions", {"action_type": "InstanceStart"})
        self.assertEqual(self.state(), "Running")
        vm.wait_up()
        self.refused("PUT", "/actions", {"action_type": "InstanceStart"})
        self.refused("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 192})
        self.assertEqual(vm.run("nproc").strip(), "2")
        self.assertEqual(vm.run("cat /sys/class/net/eth0/address").strip(), "06:00:ac:10:00:02")
        self.the_drive(vm)
        self.the_metadata(vm)
        self.ask("PATCH", "/network-interfaces/eth0", {"iface_id": "eth0", "rx_rate_limiter": {
            "bandwidth": {"size": MIB, "refill_time": 100}}})
        self.refused("PATCH", "/network-interfaces/eth9", {"iface_id": "eth9"})
        self.ask("PATCH", "/balloon", {"amount_mib": 16})
        self.assertEqual(self.ask("GET", "/balloon")["amount_mib"], 16)
        self.ask("PATCH", "/vm", {"state": "Paused"})
        self.assertEqual(self.state(), "Paused")
        self.ask("PATCH", "/vm", {"state": "Resumed"})
        self.assertEqual(self.state(), "Running")
        self.assertIn("alive", vm.run("echo al''ive"))
        self.assertEqual(self.holon("ls", "--names"), "one\n")
        self.holon("pause", "one")
        self.assertEqual(self.state(), "Paused")
        self.holon("resume", "one")
        self.ask("PUT", "/actions", {"action_type": "FlushMetrics"})
        with open(self.path("metrics")) as f:
            self.assertIn("utc_timestamp_ms", json.loads(f.readline()))
        whole = self.ask("GET", "/vm/config")
        self.assertEqual(whole["drives"][0]["drive_id"], "data")
        self.assertEqual(whole["network-interfaces"][0]["iface_id"], "eth0")
        self.ends(vm)

    def the_drive(self, vm):
        vm.run("insmod /lib/virtio_blk.ko")
        self.assertEqual(vm.run("head -c 11 /dev/vda").strip(), "first words")
        self.assertEqual(vm.run("cat /sys/block/vda/size").strip(), str(MIB // 512))
        with open(self.path("other"), "wb") as f:
            f.write(b"other words".ljust(2 * MIB, b"\0"))
        self.ask("PATCH", "/drives/data", {"drive_id": "data", "path_on_host": self.path("other")})
        vm.run("until [ $(cat /sys/block/vda/size) = 4096 ]; do sleep 0.1; done")
        self.assertEqual(vm.run("echo 3 >/proc/sys/vm/drop_caches; head -c 11 /dev/vda").strip(), "other words")
        self.refused("PATCH", "/drives/data", {"drive_id": "data", "path_on_host": self.path("no")}, "no")
        self.assertEqual(vm.run("echo 3 >/proc/sys/vm/drop_caches; head -c 11 /dev/vda").strip(), "other words")
        self.refused("PATCH", "/drives/none", {"drive_id": "none", "path_on_host": self.path("other")})

    def http(self, vm, *lines):
        text = "\\r\\n".join([*lines, "Connection: close", "", ""])
        got = vm.run(f"printf '{text}' | nc 169.254.169.254 80")
        head, _, body = got.partition("\n\n")
        return int(head.split()[1]), body.strip()

    def the_metadata(self, vm):
        vm.run("ip link set eth0 up; ip addr add 169.254.1.1/16 dev eth0")
        host = "Host: 169.254.169.254"
        self.assertEqual(self.http(vm, "GET /latest HTTP/1.1", host)[0], 401)
        status, token = self.http(vm, "PUT /latest/api/token HTTP/1.1", host,
                                  "X-metadata-token-ttl-seconds: 60", "Content-Length: 0")
        self.assertEqual(status, 200, token)
        words = host, f"X-metadata-token: {token}"
        self.assertEqual(self.http(vm, "GET /latest/meta-data/ami-id HTTP/1.1", *words), (200, "ami-1"))
        status, text = self.http(vm, "GET /latest/meta-data HTTP/1.1", *words, "Accept: application/json")
        self.assertEqual((status, json.loads(text)), (200, {"ami-id": "ami-1", "n": {"x": "y"}}))
        self.assertEqual(self.http(vm, "GET /none HTTP/1.1", *words)[0], 404)
        self.ask("PATCH", "/mmds", {"latest": {"meta-data": {"ami-id": "ami-2", "n": None}}})
        self.assertEqual(self.ask("GET", "/mmds"), {"latest": {"meta-data": {"ami-id": "ami-2"}}})
        self.assertEqual(self.http(vm, "GET /latest/meta-data/ami-id HTTP/1.1", *words), (200, "ami-2"))

    def test_a_file_has_it_all(self):
        with open(self.path("config"), "w") as f:
            json.dump({"boot-source": self.boot_source(), "drives": [],
                       "machine-config": {"vcpu_count": 1, "mem_size_mib": 192}}, f)
        vm = self.start("--config-file", self.path("config"), "--no-api")
        vm.wait_up()
        self.assertEqual(vm.run("nproc").strip(), "1")
        self.ends(vm)

    def test_a_file_that_is_wrong(self):
        for text, why in (("{", "config"), ('{"boot-source": {"boot_args": "x"}}', "kernel_image_path"),
                          ('{"drivers": []}', "drivers")):
            with open(self.path("config"), "w") as f:
                f.write(text)
            vm = self.start("--config-file", self.path("config"), "--no-api")
            err = vm.p.communicate(timeout=PATIENCE)[1].decode()
            self.assertNotEqual(vm.p.returncode, 0)
            self.assertIn(why, err)

    def test_what_is_refused(self):
        self.serve()
        self.refused("PUT", "/machine-config", text="{")
        self.refused("PUT", "/machine-config", {"vcpu_count": 1})
        self.refused("PUT", "/machine-config", {"vcpu_count": 0, "mem_size_mib": 128})
        self.refused("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128, "colour": "red"}, "colour")
        self.refused("PUT", "/drives/a", {"drive_id": "b", "path_on_host": "/dev/null", "is_root_device": False})
        self.refused("PUT", "/boot-source", {"kernel_image_path": self.path("none")}, "none")
        self.refused("PUT", "/actions", {"action_type": "InstanceStart"})
        self.refused("PUT", "/actions", {"action_type": "Fly"})
        self.refused("PUT", "/snapshot/load", {})
        self.refused("GET", "/nowhere")
        self.assertEqual(self.state(), "Not started")

    def test_a_socket_that_is_there(self):
        self.serve()
        other = self.start("--api-sock", self.path("api"))
        self.assertNotEqual(other.p.wait(timeout=PATIENCE), 0)
        self.assertEqual(self.state(), "Not started")


if __name__ == "__main__":
    HOLON = os.path.abspath(sys.argv[1])
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
