#!/usr/bin/env python3
"""holon exec and holon cp, in a Linux guest with the agent: python3 agent_test.py HOLON [TEST...]"""

import filecmp
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time

import boot_test
from devices_test import DriverTest
from harness import PATIENCE

HOLON = AGENT = None
INIT = ("mkdir -p /dev/pts; mount -t devpts devpts /dev/pts\n"
        "printf 'root:x:0:0::/root:/bin/sh\\nana:x:1000:1000::/tmp:/bin/sh\\n' >/etc/passwd\n"
        "printf 'wheel:x:10:ana\\n' >/etc/group\n"
        "echo no-agent-yet\nread line\nholon-agent &\n"
        "exec setsid cttyhack sh\n")


class Agent(DriverTest):
    """One guest for all."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vm = cls().boot_with("vsock", INIT, "--name", "box",
                                 files=[f"{AGENT}:bin/holon-agent"])
        cls.vm.until(b"no-agent-yet")
        cls.alone = subprocess.run([HOLON, "exec", "box", "true"], stdin=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, check=False)
        cls.waiting = subprocess.Popen([HOLON, "exec", "--wait", "60", "box", "echo", "up"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        cls.vm.say(b"\n")

    @classmethod
    def tearDownClass(cls):
        cls.vm.say(b"poweroff -f\n")
        cls.vm.status()
        cls.vm.__exit__()
        super().tearDownClass()

    def exec(self, *words, stdin=b"", options=()):
        """(exit status, standard output, standard error)"""
        p = subprocess.run([HOLON, "exec", "--wait", "60", *options, "box", *words],
                           input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                           timeout=PATIENCE)
        return p.returncode, p.stdout, p.stderr

    def cp(self, *words):
        return subprocess.run([HOLON, "cp", "--wait", "60", *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)

    def test_before_the_agent_is_there_and_waiting_for_it(self):
        self.assertEqual(self.alone.returncode, 125)
        self.assertIn(b"no agent answers", self.alone.stderr)
        self.assertEqual(self.waiting.communicate(timeout=PATIENCE)[0], b"up\n")

    def test_output_status_and_input(self):
        self.assertEqual(self.exec("sh", "-c", "echo out; echo err >&2; exit 7"), (7, b"out\n", b"err\n"))
        self.assertEqual(self.exec("sh", "-c", "kill -9 $$")[0], 137)
        self.assertEqual(self.exec("tr", "a-z", "A-Z", stdin=b"word\n"), (0, b"WORD\n", b""))
        self.assertEqual(self.exec(stdin=b"id -u; exit 4\n"), (4, b"0\n", b""))  # a shell
        self.assertEqual(self.exec("echo", "-n", "--help")[1], b"--help")

    def test_what_does_not_run(self):
        self.assertEqual(self.exec("no-such-program")[0], 127)
        status, _, told = self.exec("/etc/passwd")
        self.assertEqual(status, 126)
        self.assertIn(b"in the guest: '/etc/passwd'", told)
        self.assertEqual(self.exec("id", options=["-u", "nobody-there"])[0], 125)
        self.assertEqual(self.exec("id", options=["-w", "/no/such/place"])[0], 125)

    def test_user_directory_and_variables(self):
        got = self.exec("sh", "-c", "id -u; id -G; pwd; echo $HOME $X $Y",
                        options=["-u", "ana", "-w", "/etc", "-e", "X=1 2", "-e", "Y"])[1]
        self.assertEqual(got, b"1000\n1000 10\n/etc\n/tmp 1 2\n")

    def test_eight_mebibytes_there_and_back(self):
        data = os.urandom(8 << 20)
        status, out, _ = self.exec("cat", stdin=data)
        self.assertEqual((status, out == data), (0, True))

    def test_by_the_path_of_its_socket(self):
        socket = os.environ["XDG_RUNTIME_DIR"] + "/holon/vms/box/vsock"
        p = subprocess.run([HOLON, "exec", "--wait", "60", socket, "echo", "here"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        self.assertEqual((p.returncode, p.stdout), (0, b"here\n"))
        self.assertEqual(self.cp(f"{socket}:/etc/passwd", self.path("passwd")).returncode, 0)
        p = self.cp("nobox:/etc/passwd", self.path("x"))
        self.assertEqual(p.returncode, 1)
        self.assertIn("nobox", p.stderr)

    def test_twenty_at_a_time(self):
        problems = []

        def one(n):
            if self.exec("sh", "-c", f"sleep 0.2; echo {n}") != (0, f"{n}\n".encode(), b""):
                problems.append(n)
        threads = [threading.Thread(target=one, args=[n]) for n in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(problems, [])

    def test_signals(self):
        p = subprocess.Popen([HOLON, "exec", "--wait", "60", "box", "sh", "-c",
                              "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.1; done"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.assertEqual(p.stdout.readline(), b"ready\n")
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.communicate(timeout=PATIENCE)[0], b"told\n")
        self.assertEqual(p.returncode, 3)

    def test_killed_client_takes_its_command_along(self):
        p = subprocess.Popen([HOLON, "exec", "--wait", "60", "box", "sh", "-c", "echo $$; exec sleep 1000"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        pid = p.stdout.readline().decode().strip()
        p.kill()
        p.communicate()
        deadline = time.monotonic() + PATIENCE
        while self.exec("test", "-d", f"/proc/{pid}")[0] == 0:
            self.assertLess(time.monotonic(), deadline)

    def test_a_terminal(self):
        child, fd = pty.fork()
        if child == 0:
            os.execv(HOLON, [HOLON, "exec", "--wait", "60", "box"])

        def until(what):
            got, deadline = b"", time.monotonic() + PATIENCE
            while not re.search(what, got):
                self.assertLess(time.monotonic(), deadline, got)
                if select.select([fd], [], [], 1)[0]:
                    got += os.read(fd, 65536)
            return got
        until(rb"# ")
        os.write(fd, b"sh -c 'tty; exec sleep 1000'\n")
        until(rb"/dev/pts/\d+")
        os.write(fd, b"\x03")  # the guest's sleep, not us
        until(rb"# ")
        os.write(fd, b"exit 9\n")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 9)
        os.close(fd)

    def test_cp(self):
        tree = self.path("tree")
        os.makedirs(f"{tree}/sub/empty")
        with open(f"{tree}/sub/big", "wb") as f:
            f.write(os.urandom(1 << 20))
        with open(f"{tree}/script", "w") as f:
            f.write("#!/bin/sh\necho ran\n")
        os.chmod(f"{tree}/script", 0o750)
        os.symlink("script", f"{tree}/link")
        self.assertEqual(self.cp(tree, "box:/tmp").returncode, 0)
        self.assertEqual(self.exec("/tmp/tree/link")[1], b"ran\n")
        p = self.cp("box:/tmp/tree", self.path("back"))
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        compared = filecmp.dircmp(tree, self.path("back"))
        self.assertEqual((compared.left_only, compared.right_only, compared.diff_files), ([], [], []))
        self.assertTrue(filecmp.cmp(f"{tree}/sub/big", self.path("back/sub/big"), shallow=False))
        self.assertEqual(os.stat(self.path("back/script")).st_mode & 0o777, 0o750)
        self.assertEqual(os.readlink(self.path("back/link")), "script")
        self.assertEqual(self.cp(f"{tree}/script", f"{tree}/link", "box:").returncode, 0)
        self.assertEqual(self.exec("/root/script")[1], b"ran\n")  # at home, not in the root
        p = self.cp("box:/tmp/missing", self.path("x"))
        self.assertEqual(p.returncode, 1)
        self.assertIn("in the guest: '/tmp/missing'", p.stderr)
        self.assertEqual(self.cp(tree, self.path("x")).returncode, 1)


if __name__ == "__main__":
    boot_test.HOLON = HOLON = os.path.abspath(sys.argv.pop(1))
    AGENT = subprocess.run([HOLON, "agent"], stdout=subprocess.PIPE, check=True,
                           text=True).stdout.strip()
    boot_test.unittest.main()
