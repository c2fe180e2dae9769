#!/usr/bin/env python3
"""VMs in the background and their control sockets: python3 manage_test.py HOLON [TEST...]"""

import concurrent.futures
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import guests
import harness
from harness import ENGINE_WORDS, PATIENCE

HOLON = None
VALIDATE = """
import json, sys
from jsonschema import Draft202012Validator as V
schema, value = json.load(sys.stdin)
V.check_schema(schema)
V(schema).validate(value)
"""


def until(what, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not (result := what()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not come about")
        time.sleep(0.01)
    return result


class UnixHttp(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("holon", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)
        self.sock.settimeout(PATIENCE)


class ManageTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.env = {**os.environ, "XDG_RUNTIME_DIR": self.dir.name, "XDG_DATA_HOME": self.dir.name + "/data"}
        self.addCleanup(self.dir.cleanup)
        self.addCleanup(self.kill_all)

    def kill_all(self):
        names = self.holon("ls", "--names").stdout.split()
        if names:
            self.holon("rm", "-f", *names)

    def holon(self, *words, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([HOLON, *words], capture_output=True, text=True, timeout=PATIENCE, env=self.env, **kw)

    def good(self, *words, **kw):
        r = self.holon(*words, **kw)
        self.assertEqual(r.returncode, 0, r)
        return r.stdout

    def file(self, image):
        path = os.path.join(self.dir.name, f"guest{len(os.listdir(self.dir.name))}")
        with open(path, "wb") as f:
            f.write(image)
        return path

    def start(self, image, *words, name="vm"):
        self.assertEqual(self.good("run", "-d", *ENGINE_WORDS, "--memory", "16M", "--kernel", self.file(image),
                                   "--name", name, *words), name + "\n")
        return name

    def state(self, name="vm"):
        return {vm["name"]: vm for vm in json.loads(self.good("ls", "--json"))}.get(name)

    def socket(self, name="vm"):
        return f"{self.dir.name}/holon/vms/{name}/control"

    def ask(self, verb, path, body=None, name="vm"):
        c = UnixHttp(self.socket(name))
        c.request(verb, path, None if body is None else json.dumps(body))
        r = c.getresponse()
        data = r.read().decode(errors="replace")
        c.close()
        if r.getheader("Content-Type") == "application/json":
            data = json.loads(data)
        return r.status, data

    def validate(self, schema, value):
        if subprocess.run(["/usr/bin/python3", "-c", "import jsonschema"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("python3-jsonschema is not installed")
        subprocess.run(["/usr/bin/python3", "-c", VALIDATE], input=json.dumps([schema, value]), text=True, check=True)

    def until_said(self, text, name="vm"):
        until(lambda: text in self.good("logs", name))


class Life(ManageTest):
    def test_from_start_to_stop(self):
        self.start(guests.power_button)
        self.until_said("up")
        self.assertEqual(self.state()["state"], "running")
        self.good("pause", "vm")
        self.assertEqual(self.state()["state"], "paused")
        self.good("resume", "vm")
        self.good("stop", "vm")
        vm = self.state()
        self.assertEqual((vm["state"], vm["ended"]["how"], vm["ended"]["status"]), ("ended", "stopped", 0))
        self.assertIn("up", self.good("logs", "vm"))
        self.good("rm", "vm")
        self.assertIsNone(self.state())
        self.assertEqual(os.listdir(f"{self.dir.name}/holon/vms"), [])

    def test_a_paused_one_can_be_stopped(self):
        self.start(guests.power_button)
        self.until_said("up")
        self.good("pause", "vm")
        self.good("stop", "vm")
        self.assertEqual(self.state()["ended"]["how"], "stopped")

    def test_a_deaf_one_is_ended_in_time(self):
        self.start(guests.spin)
        begun = time.monotonic()
        self.good("stop", "--timeout", "1", "vm")
        self.assertGreater(time.monotonic() - begun, 0.7)
        self.assertEqual(self.state()["ended"]["how"], "stopped")
        self.assertEqual(self.state()["ended"]["status"], 128 + signal.SIGTERM)

    def test_kill_and_wait(self):
        self.start(guests.spin)
        waiting = subprocess.Popen([HOLON, "wait", "vm"], env=self.env, stdout=subprocess.PIPE, text=True)
        time.sleep(0.1)  # whether it has begun to wait or not, its answer is the same
        self.good("kill", "vm")
        self.assertIn("it was ended", waiting.communicate(timeout=PATIENCE)[0])
        self.assertEqual(waiting.returncode, 128 + signal.SIGKILL)
        self.assertEqual(self.holon("wait", "vm").returncode, 128 + signal.SIGKILL)

    def test_the_guest_powers_off(self):
        self.start(guests.hello)
        until(lambda: self.state()["state"] == "ended")
        self.assertEqual(self.state()["ended"]["how"], "power-off")
        self.assertEqual(self.good("logs", "vm"), "hello\n")  # text mode made it one newline

    def test_reset(self):
        self.start(guests.echo)
        self.until_said("up")
        self.good("reset", "vm")
        until(lambda: self.good("logs", "vm").count("up") == 2)
        until(lambda: '"reset"' in self.good("events", "vm"))  # told when it is done

    def test_rename(self):
        self.start(guests.spin)
        self.start(guests.spin, name="other")
        self.assertEqual(self.holon("rename", "vm", "other").returncode, 1)
        self.good("rename", "vm", "third")
        self.assertIsNone(self.state())
        self.assertEqual(self.state("third")["state"], "running")
        self.good("pause", "third")
        self.good("kill", "third")

    def test_a_name_is_taken_once(self):
        self.start(guests.spin)
        r = self.holon("run", "-d", *ENGINE_WORDS, "--kernel", self.file(guests.spin), "--name", "vm")
        self.assertEqual(r.returncode, 1)
        self.assertIn("runs already", r.stderr)

    def test_a_start_that_fails_says_so(self):
        r = self.holon("run", "-d", *ENGINE_WORDS, "--kernel", "/nonexistent/k", "--name", "vm")
        self.assertEqual(r.returncode, 1)
        self.assertIn("/nonexistent/k", r.stderr)
        self.assertEqual(r.stdout, "")

    def test_one_on_a_terminal_is_listed_too(self):
        with harness.Guest(HOLON, guests.power_button, "--name", "front", env=self.env) as g:
            g.until(b"up")
            self.assertEqual(self.state("front")["state"], "running")
            self.assertIn("up", self.good("logs", "front"))
            self.good("stop", "front")
            self.assertEqual(g.status(), 0)
        self.assertIsNone(self.state("front"))

    def test_one_signal_is_enough(self):
        with harness.Guest(HOLON, guests.spin, "--stop-timeout", "1", env=self.env) as g:
            until(lambda: "running" in self.good("ls"))
            g.p.terminate()
            self.assertEqual(g.status(), 128 + signal.SIGTERM)

    def test_a_guest_that_listens_late_hears_the_button(self):
        slow = b"\xb9\x00\x00\x00\x60\xe2\xfe"  # mov ecx; loop
        listen = guests.outw(0x602, 0x100) + guests.wait_bit(0x600, 0x100, 2) + guests.POWER_OFF + guests.HALT
        self.start(guests.image(guests.say("up\r\n") + slow + listen))
        self.until_said("up")
        self.good("stop", "--timeout", "120", "vm")
        self.assertEqual(self.state()["ended"]["status"], 0)


class Definitions(ManageTest):
    def define(self, name, **more):
        d = {"name": name, "kernel": self.file(guests.power_button), "memory": "16M", "engine": harness.ENGINE,
             "force": harness.ENGINE == "kvm", **more}
        return self.holon("create", "-f", "-", input=json.dumps(d), stdin=None)

    def test_created_started_and_forgotten(self):
        self.assertEqual(self.define("vm").stdout, "vm\n")
        self.assertEqual(self.state()["state"], "defined")
        self.good("start", "vm")
        self.until_said("up")
        self.assertEqual(self.holon("start", "vm").returncode, 1)
        self.good("stop", "vm")
        self.good("start", "vm")
        self.until_said("up")
        self.good("rm", "-f", "vm")
        self.assertIsNone(self.state())

    def test_those_it_needs_are_started_first(self):
        self.define("db")
        self.define("web", after=["db"])
        self.assertEqual(self.good("start", "web"), "db\nweb\n")
        self.define("a", after=["b"])
        self.define("b", after=["a"])
        self.assertIn("circle", self.holon("start", "a").stderr)

    def test_all_in_order(self):
        self.define("db")
        self.define("a-web", after=["db"])
        self.define("web", after=["a-web"])
        self.assertEqual(self.good("start", "--all"), "db\na-web\nweb\n")
        for vm in "db", "a-web", "web":
            self.until_said("up", name=vm)
        self.good("stop", "--all")
        ended = [os.stat(f"{self.dir.name}/holon/vms/{vm}/state.json").st_mtime_ns for vm in ("web", "a-web", "db")]
        self.assertEqual(ended, sorted(ended))
        self.assertEqual([self.state(vm)["ended"]["how"] for vm in ("web", "a-web", "db")], ["stopped"] * 3)
        self.assertEqual(self.good("start", "a-web", "db"), "db\na-web\n")  # the second is there then
        self.assertIn("without names", self.holon("kill", "--all", "db").stderr)
        self.good("kill", "--all")
        self.good("stop", "--all")  # nobody

    def test_relative_paths_are_those_of_its_directory(self):
        kernel = self.file(guests.power_button)
        d = {"name": "vm", "kernel": os.path.basename(kernel), "memory": "16M", "engine": harness.ENGINE}
        self.good("create", "-f", "-", input=json.dumps(d), stdin=None, cwd=self.dir.name)
        self.good("start", "vm")

    def test_in_the_foreground_as_systemd_does_it(self):
        self.define("vm")
        p = subprocess.Popen([HOLON, "start", "--foreground", "vm"], env=self.env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
        until(lambda: (self.state() or {}).get("state") == "running")
        self.until_said("up")
        self.good("stop", "vm")
        self.assertEqual(p.wait(timeout=PATIENCE), 0)

    def test_wrong_ones_are_refused(self):
        for more, says in (({"memroy": "1G"}, "did you mean 'memory'"), ({"cpus": 0}, "cpus"), ({"after": "x"}, "after"),
                           ({"name": "../x"}, "letters, digits"), ({"publish": 3}, "publish"), ({"kernel": None}, "kernel")):
            r = self.define(**{"name": "vm", **more})
            self.assertEqual(r.returncode, 1, more)
            self.assertIn(says, r.stderr)
        self.assertEqual(self.good("ls", "--names"), "")

    def test_the_schema(self):
        schema = json.loads(self.good("create", "--schema"))
        self.validate(schema, {"name": "web", "image": "debian", "memory": "1.5G", "cpus": 2, "publish": ["80:80"],
                               "restart": "always", "after": ["db"]})

    def test_the_unit(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd-analyze is not installed")
        unit = os.path.join(os.path.dirname(HOLON), "src/cli/holon@.service")
        with open(unit) as f, open(f"{self.dir.name}/holon@x.service", "w") as to:
            to.write(re.sub(r"Exec(Start|Stop)=\S+/holon", f"Exec\\1={os.path.abspath(HOLON)}", f.read()))
        r = subprocess.run(["systemd-analyze", "verify", "--man=no", to.name], capture_output=True, text=True)
        self.assertNotIn("holon@x", r.stderr)


class Death(ManageTest):
    """kill -9 at any moment leaves nothing that hinders the next start."""

    def test_kill_9_is_told_and_the_name_is_free(self):
        self.start(guests.spin)
        os.kill(self.state()["pid"], signal.SIGKILL)
        until(lambda: self.state()["state"] == "died")
        self.assertIn("killed", self.state()["ended"]["text"])
        self.assertIn("died", self.good("ls"))
        self.assertEqual(self.holon("pause", "vm").returncode, 1)
        self.start(guests.echo)
        self.until_said("up")

    def test_at_random_moments(self):
        image, rng = self.file(guests.echo), random.Random(5)
        for _ in range(12):
            p = subprocess.Popen([HOLON, "run", *ENGINE_WORDS, "--memory", "16M", "--kernel", image, "--name", "vm"],
                                 env=self.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            time.sleep(rng.random() * 0.05)
            p.kill()
            p.wait()
            p.stdin.close()
        self.start(guests.echo)
        self.until_said("up")

    def test_restart_on_failure(self):
        self.start(guests.echo, "--restart", "on-failure")
        self.until_said("up")
        first = self.state()["pid"]
        os.kill(first, signal.SIGKILL)
        until(lambda: self.state()["state"] == "running" and self.state()["pid"] != first)
        self.good("stop", "--timeout", "0", "vm")
        self.assertEqual(self.state()["state"], "ended")

    def test_power_off_is_no_failure(self):
        self.start(guests.power_off, "--restart", "on-failure")
        until(lambda: self.state()["state"] == "ended")

    def test_stop_while_it_waits_for_its_next_start(self):
        self.start(guests.power_off, "--restart", "always")
        until(lambda: self.state()["state"] == "restarting")
        self.holon("stop", "vm")  # it may run just then
        until(lambda: self.holon("stop", "vm") and self.state()["state"] == "ended")
        self.good("rm", "vm")


class Console(ManageTest):
    def test_what_was_missed_and_what_is_typed(self):
        self.start(guests.echo)
        self.until_said("up")
        self.good("console", "vm", input="abc", stdin=None)
        self.until_said("abc")
        c = subprocess.Popen([HOLON, "console", "vm"], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertIn(b"up", harness.read_until(c.stdout.fileno(), b"abc"))
        c.stdin.write(b"\x00\xffd")
        c.stdin.flush()
        harness.read_until(c.stdout.fileno(), b"\x00\xffd")
        c.stdin.write(b"\x01d")
        c.stdin.flush()
        self.assertEqual(c.wait(timeout=PATIENCE), 0)
        c.stdin.close()
        c.stdout.close()
        self.assertEqual(self.state()["state"], "running")

    def test_the_end_ends_it(self):
        self.start(guests.echo)
        c = subprocess.Popen([HOLON, "console", "vm"], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        harness.read_until(c.stdout.fileno(), b"up")
        c.stdin.write(b"q")
        c.stdin.flush()
        self.assertEqual(c.wait(timeout=PATIENCE), 0)
        c.stdin.close()
        c.stdout.close()

    def test_last_lines(self):
        self.start(guests.image(guests.say("one\ntwo\nthree\n") + guests.HALT))
        self.until_said("three")
        self.assertEqual(self.good("logs", "-n", "2", "vm"), "two\nthree\n")
        self.good("kill", "vm")
        self.assertEqual(self.good("logs", "-n", "1", "vm"), "three\n")


class Api(ManageTest):
    def test_the_description_and_the_server_agree(self):
        self.start(guests.echo)
        status, doc = self.ask("GET", "/openapi.json")
        self.assertEqual((status, doc["openapi"]), (200, "3.1.0"))
        names = set()
        for path, verbs in doc["paths"].items():
            for verb, op in verbs.items():
                names.add(op["operationId"])
                # Each path is there, and refuses what it does not know.
                if verb == "get":
                    self.assertEqual(self.ask("GET", path + "?no-such=1")[0], 400, path)
                else:
                    self.assertEqual(self.ask(verb.upper(), path, {"no-such": 1})[0], 400, path)
        self.assertGreaterEqual(len(names), 15)
        for path in "/vm", "/vm/stats":
            schema = doc["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            self.validate(schema, self.ask("GET", path)[1])
        schema = doc["paths"]["/vm/events"]["get"]["responses"]["200"]["content"]["application/x-ndjson"]["schema"]
        self.validate({"type": "array", "items": schema},
                      [json.loads(line) for line in self.good("events", "vm").splitlines()])
        body = doc["paths"]["/vm"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
        self.validate(body, {"balloon": "8M", "disk": "vda", "iops": 5})

    def test_errors_have_a_reason(self):
        self.start(guests.echo)
        for verb, path, body, status in (
                ("GET", "/nix", None, 404), ("PUT", "/vm", None, 405),
                ("POST", "/vm/stop", {"timeout": -1}, 400), ("POST", "/vm/stop", {"timeout": 999999}, 400),
                ("POST", "/vm/console", {}, 400), ("POST", "/vm/console", {"hex": "0"}, 400),
                ("PATCH", "/vm", {"disk": "vdz"}, 404), ("PATCH", "/vm", {"balloon": "1G"}, 400),
                ("PUT", "/vm/name", {"name": "../x"}, 400), ("PUT", "/vm/name", {}, 400)):
            got, answer = self.ask(verb, path, body)
            self.assertEqual(got, status, (verb, path, answer))
            self.assertTrue(answer["error"])

    def test_curl(self):
        if not shutil.which("curl"):
            self.skipTest("curl is not installed")
        self.start(guests.echo)

        def curl(*words):
            return subprocess.run(["curl", "-sS", "--fail", "--unix-socket", self.socket(), *words], check=True,
                                  stdout=subprocess.PIPE, text=True, timeout=PATIENCE).stdout
        self.assertEqual(json.loads(curl("http://vm/vm"))["name"], "vm")
        curl("-X", "POST", "http://vm/vm/pause")
        self.assertEqual(json.loads(curl("http://vm/vm"))["state"], "paused")
        curl("-X", "POST", "http://vm/vm/resume", "-H", "Expect: 100-continue", "-d", "{}")
        waiting = subprocess.Popen(["curl", "-sSN", "--unix-socket", self.socket(),
                                    "http://vm/vm/events?follow=true"], stdout=subprocess.PIPE, text=True)
        first = waiting.stdout.readline()  # it is connected
        self.good("kill", "vm")
        events = [json.loads(line)["event"] for line in [first, *waiting.stdout]]
        waiting.stdout.close()
        waiting.wait(timeout=PATIENCE)
        self.assertEqual(events, ["started", "paused", "resumed", "stopping", "ended"])

    def test_metrics(self):
        self.start(guests.spin)
        status, text = self.ask("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(text.endswith("\n"))
        types = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                types[name] = kind
            elif not line.startswith("#"):
                self.assertRegex(line, r'^holon_[a-z_]+\{vm="vm"(,[a-z]+="[a-z0-9]+")?\} [0-9.e+-]+$')
                self.assertIn(line.split("{")[0], types)
        if shutil.which("promtool"):
            subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)

    def test_many_clients_at_once(self):
        self.start(guests.echo)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            def client(n):
                for _ in range(20):
                    status, answer = self.ask("GET", "/vm" if n % 2 else "/vm/stats")
                    self.assertEqual(status, 200, answer)
                return True
            self.assertTrue(all(pool.map(client, range(16))))

    def test_hostile_clients_do_not_hinder_others(self):
        self.start(guests.echo)
        rng = random.Random(7)
        for _ in range(150):
            s = socket.socket(socket.AF_UNIX)
            self.addCleanup(s.close)
            s.connect(self.socket())
            s.settimeout(PATIENCE)
            junk = rng.choice((rng.randbytes(rng.randrange(2000)), b"GET /vm/console?follow=true HTTP/1.1\r\nHost: x\r\n\r\n",
                               b"POST /vm/console HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n[[[[",
                               b"GET /vm HTTP/1.1\r\n" + b"A: b\r\n" * 3000,
                               b"POST /vm/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60000,
                               b"GET /vm HTTP/1.1\r\nHost: x\r\n\r\n" * 500))
            try:
                s.sendall(junk)
            except OSError:
                pass  # refused
        self.assertEqual(self.ask("GET", "/vm")[0], 200)
        self.good("console", "vm", input="abc", stdin=None)
        self.until_said("abc")
        self.good("stop", "--timeout", "0", "vm")

    def test_set(self):
        disk = os.path.join(self.dir.name, "disk.raw")
        with open(disk, "wb") as f:
            f.truncate(1 << 20)
        self.start(guests.echo, "--disk", disk + ",format=raw")
        self.good("set", "vm", "--disk", "vda", "--bps", "1M", "--iops", "10")
        self.good("set", "vm", "--balloon", "12M")
        stats = json.loads(self.good("stats", "vm"))
        self.assertEqual(stats["balloon"]["target_bytes"], 4 << 20)
        self.assertEqual(stats["disks"][0]["name"], "vda")

    def test_top(self):
        self.start(guests.spin)
        lines = self.good("top").splitlines()
        self.assertIn("host: ", lines[0])
        self.assertRegex(lines[2], r"^vm +running +[0-9.]+%")


if __name__ == "__main__":
    HOLON = os.path.abspath(sys.argv[1])
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
