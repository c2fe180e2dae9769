#!/usr/bin/env python3
"""A VM's process that an attacker has taken over can do nothing: python3 confine_test.py HOLON INJECT [TEST...]

INJECT (programs/inject.c) makes system calls in each of its threads, as an intruder's code would. That needs the
right to trace, which the process denies to its own user: root alone can play the part."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import guests
from harness import ENGINE_WORDS, PATIENCE

HOLON = INJECT = None
NOBODY = 65534
ROLES = {"vcpu0": "vcpu", "io": "devices", "vda": "disk", "net0": "net", "api": "api", "worker": "worker"}
# x86-64
NR = {"open": 2, "mmap": 9, "mprotect": 10, "socket": 41, "connect": 42, "clone": 56, "fork": 57, "execve": 59, "kill": 62,
      "ptrace": 101, "setuid": 105, "mount": 165, "tgkill": 234, "openat": 257, "unshare": 272, "bpf": 321,
      "io_uring_setup": 425, "openat2": 437, "pidfd_open": 434, "process_vm_readv": 310, "open_by_handle_at": 304,
      "io_uring_register": 427, "rename": 82, "unlink": 87, "memfd_create": 319, "chroot": 161, "setns": 308}
AT_FDCWD = -100 & (1 << 64) - 1
RWX, PRIVATE_ANONYMOUS, SHARED = 7, 0x22, 1


def until(what, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not (result := what()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not come about")
        time.sleep(0.01)
    return result


class ConfineTest(unittest.TestCase):
    user = None  # that of the test

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.env = {**os.environ, "XDG_RUNTIME_DIR": self.dir.name, "XDG_DATA_HOME": self.dir.name + "/data"}
        self.holon_path = HOLON
        self.as_user = {}
        if self.user:
            self.holon_path = shutil.copy(HOLON, self.path("program"))
            os.chown(self.dir.name, self.user, self.user)
            self.as_user = {"user": self.user, "group": self.user, "extra_groups": []}
            self.env["HOME"] = self.dir.name
        self.addCleanup(self.kill_all)

    def kill_all(self):
        names = self.holon("ls", "--names").stdout.split()
        if names:
            self.holon("rm", "-f", *names)

    def holon(self, *words):
        return subprocess.run([self.holon_path, *words], capture_output=True, text=True, timeout=PATIENCE, env=self.env,
                              stdin=subprocess.DEVNULL, cwd=self.dir.name, **self.as_user)

    def good(self, *words):
        r = self.holon(*words)
        self.assertEqual(r.returncode, 0, r)
        return r.stdout

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def start(self, name, *words, image=guests.spin, confine="strict"):
        with open(self.path(name + ".img"), "wb") as f:
            f.write(image)
        with open(self.path(name + ".raw"), "wb") as f:
            f.truncate(1 << 20)
        for file in (f.name, self.path(name + ".img")):
            os.chown(file, self.user or -1, -1)
        r = self.holon("run", "-d", *ENGINE_WORDS, "--memory", "16M", "--kernel", self.path(name + ".img"), "--name", name,
                       "--confine", confine, "--disk", self.path(name + ".raw") + ",format=raw", *words)
        if "does not allow all of the confinement" in r.stderr:
            self.skipTest("this host does not allow it: " + r.stderr.strip())
        self.assertEqual(r.returncode, 0, r)
        return self.pid(name)

    def pid(self, name):
        return self.state(name)["pid"]

    def state(self, name):
        return {vm["name"]: vm for vm in json.loads(self.good("ls", "--json"))}[name]

    def threads(self, pid):
        """By role."""
        found = {}
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/comm") as f:
                comm = f.read().strip()
            found["main" if int(tid) == pid else ROLES.get(comm, comm)] = int(tid)
        return found

    def inject(self, pid, lines):
        r = subprocess.run([INJECT, str(pid)], input="".join(" ".join(map(str, line)) + "\n" for line in lines), text=True,
                           capture_output=True, timeout=PATIENCE)
        if "Operation not permitted" in r.stderr and os.geteuid():
            self.skipTest("only root may trace a confined process")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        return r.stdout.split()


@unittest.skipIf(os.geteuid(), "only root may trace a confined process")
class Attack(ConfineTest):
    def attacks(self, pid, other, tid):
        secret = self.path(f"holon/vms/{other}/console.log")
        other_pid = self.pid(other)
        return [("openat", AT_FDCWD, "s:/etc/passwd", os.O_RDONLY),
                ("openat", AT_FDCWD, "s:/etc/shadow", os.O_RDONLY),
                ("openat", AT_FDCWD, "s:/proc/1/environ", os.O_RDONLY),
                ("openat", AT_FDCWD, "s:/proc/self/mem", os.O_RDWR),
                ("openat", AT_FDCWD, "s:" + secret, os.O_RDONLY),
                ("openat", AT_FDCWD, "s:" + secret, os.O_RDWR),
                ("openat", AT_FDCWD, "s:" + self.path(other + ".raw"), os.O_RDONLY),
                ("openat", AT_FDCWD, "s:../../../../../../../etc/passwd", os.O_RDONLY),
                ("openat", AT_FDCWD, "s:/tmp/made-by-an-intruder", os.O_WRONLY | os.O_CREAT, 0o600),
                ("open", "s:/etc/passwd", os.O_RDONLY),
                ("rename", "s:" + self.path(f"holon/vms/{other}"), "s:" + self.path("holon/vms/stolen")),
                ("unlink", "s:" + secret),
                ("unlink", "s:" + self.path(other + ".raw")),
                ("execve", "s:/bin/sh", 0, 0), ("fork",), ("clone", signal.SIGCHLD, 0, 0, 0, 0),
                ("ptrace", 0x4206, other_pid, 0, 0), ("process_vm_readv", other_pid, 0, 0, 0, 0),
                ("kill", other_pid, 0), ("tgkill", other_pid, other_pid, 0), ("kill", 1, 0), ("pidfd_open", other_pid, 0),
                ("mmap", 0, 4096, RWX, PRIVATE_ANONYMOUS, (1 << 64) - 1, 0),
                ("unshare", 0x10000000), ("setns", 0, 0), ("mount", 0, 0, 0, 0, 0), ("chroot", "s:/"), ("setuid", 0),
                ("bpf", 0, 0, 0), ("open_by_handle_at", 0, 0, 0), ("io_uring_setup", 8, "x:" + "00" * 120),
                ("io_uring_register", 0, 20, 0, 0)]

    def walk(self, *words, roles, network):
        other = "other"
        self.start(other)
        pid = self.start("vm", *words)
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        address = "x:0200%04x7f000001" % server.getsockname()[1] + "00" * 8
        until(lambda: roles <= self.threads(pid).keys())
        threads = self.threads(pid)
        for role, tid in threads.items():
            attacks = self.attacks(pid, other, tid)
            got = self.inject(pid, [(tid, NR[name], *args) for name, *args in attacks])
            self.assertEqual(len(got), len(attacks))
            for attack, result in zip(attacks, got):
                with self.subTest(role=role, attack=attack):
                    self.assertTrue(result == "SIGSYS" or -4096 < int(result) < 0, result)
            if not network or role not in ("net", "main"):
                with self.subTest(role=role, attack="connect out"):
                    fd = self.inject(pid, [(tid, NR["socket"], socket.AF_INET, socket.SOCK_STREAM, 0)])[0]
                    if fd != "SIGSYS" and int(fd) >= 0:
                        out = self.inject(pid, [(tid, NR["connect"], fd, address, 16)])[0]
                        self.assertTrue(out == "SIGSYS" or int(out) < 0, out)
            # What is its work it still can do.
            self.assertEqual(self.inject(pid, [(tid, 39)]), [str(pid)])
        self.assertEqual(self.state("vm")["state"], "running")
        self.assertEqual(self.state(other)["state"], "running")

    def test_each_role_without_a_network(self):
        self.walk("--net", "none", roles={"main", "vcpu", "devices", "disk", "api"}, network=False)

    def test_each_role_with_user_network(self):
        self.walk(roles={"main", "vcpu", "devices", "disk", "net", "api"}, network=True)

    @unittest.skipUnless(os.path.exists("/usr/share/seabios/bios-256k.bin"), "needs SeaBIOS (package seabios)")
    def test_a_worker(self):
        """The BIOS reads the disk, and for that there is one, for some seconds."""
        self.start("other")
        with open(self.path("boot.raw"), "wb") as f:
            f.write(bytes.fromhex("ebfe").ljust(510, b"\0") + b"\x55\xaa")
            f.truncate(1 << 20)
        os.chown(f.name, self.user or -1, -1)
        self.good("run", "-d", "--engine", "jit", "--memory", "16M", "--firmware", "bios", "--name", "vm", "--confine", "strict",
                  "--disk", f.name + ",format=raw,aio=threads")
        pid = self.pid("vm")
        tid = until(lambda: self.threads(pid).get("worker"))
        attacks = self.attacks(pid, "other", tid)
        for attack, result in zip(attacks, self.inject(pid, [(tid, NR[name], *args) for name, *args in attacks])):
            with self.subTest(attack=attack):
                self.assertTrue(result == "SIGSYS" or -4096 < int(result) < 0, result)

    def test_a_forbidden_call_ends_it_with_a_word(self):
        pid = self.start("vm")
        tid = self.threads(pid)["vcpu"]
        subprocess.run([INJECT, str(pid), "--let-die"], input=f"{tid} {NR['execve']} s:/bin/sh 0 0\n", text=True, check=True,
                       timeout=PATIENCE, stdout=subprocess.DEVNULL)
        word = "forbidden call: execve by a thread of role vcpu"
        until(lambda: self.state("vm")["state"] == "died")
        self.assertEqual(self.state("vm")["ended"]["text"], word)
        with open(self.path("holon/vms/vm/holon.log")) as f:
            self.assertIn(word, f.read())
        self.start("vm")  # nothing hinders the next one
        self.assertEqual(self.state("vm")["state"], "running")


class AttackAsUser(Attack):
    user = NOBODY


class Choice(ConfineTest):
    def status(self, pid):
        with open(f"/proc/{pid}/status") as f:
            return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)

    def test_on_by_default_and_shown(self):
        with open(self.path("k.img"), "wb") as f:
            f.write(guests.spin)
        self.good("run", "-d", *ENGINE_WORDS, "--memory", "16M", "--kernel", f.name, "--name", "vm")
        vm = json.loads(self.good("inspect", "vm"))
        self.assertIn(vm["confined"], ("yes", "partly"))
        self.assertEqual("unconfined" in vm, vm["confined"] == "partly")
        status = self.status(vm["pid"])
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(int(status["CapPrm"], 16), 0)
        self.good("rename", "vm", "vm2")
        self.assertEqual(self.state("vm2")["state"], "running")
        self.good("kill", "vm2")
        until(lambda: self.state("vm2")["state"] == "ended")
        self.good("rm", "vm2")
        self.assertEqual(os.listdir(self.path("holon/vms")), [])

    def test_off(self):
        self.start("vm", confine="off")
        vm = json.loads(self.good("inspect", "vm"))
        self.assertEqual(vm["confined"], "no")
        self.assertEqual(self.status(vm["pid"])["Seccomp"], "0")

    def test_its_sockets_go_with_it(self):
        os.mkdir(self.path("sockets"))
        for place in ("sockets/vsock", "sockets/gdb", "sockets/port"):
            self.assertFalse(os.path.exists(self.path(place)))
        self.start("vm", "--vsock", self.path("sockets/vsock"), "--gdb", self.path("sockets/gdb"),
                   "--port", "p=unix:" + self.path("sockets/port"))
        self.assertEqual(sorted(os.listdir(self.path("sockets"))), ["gdb", "port", "vsock"])
        self.good("kill", "vm")
        until(lambda: not os.listdir(self.path("sockets")))

    def test_a_reset_finds_its_files_again(self):
        self.start("vm", image=guests.image(guests.say("up\r\n") + guests.HALT))
        until(lambda: self.good("logs", "vm").count("up") == 1)
        self.good("reset", "vm")
        until(lambda: self.good("logs", "vm").count("up") == 2)


if __name__ == "__main__":
    HOLON, INJECT = (os.path.abspath(p) for p in sys.argv[1:3])
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
