#!/usr/bin/env python3
"""The command line as people and scripts use it: python3 cli_test.py HOLON COMPLETION [TEST...]"""

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import unittest

import guests
import harness
from harness import ENGINE, ENGINE_WORDS, PATIENCE, read_until

HOLON = COMPLETION = None


def holon(*words, **kw):
    kw.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([HOLON, *words], capture_output=True, text=True, timeout=PATIENCE, **kw)


class Words(unittest.TestCase):
    def refused(self, *words, saying):
        r = holon(*words)
        self.assertEqual(r.returncode, 1, r)
        self.assertEqual(r.stdout, "")
        self.assertIn(saying, r.stderr)

    def test_nothing_is_a_usage_error(self):
        self.refused(saying="Usage: holon")

    def test_unknown_command_suggests(self):
        self.refused("rnu", saying="did you mean 'run'?")

    def test_unknown_option_suggests(self):
        self.refused("run", "--kernle", "x", saying="did you mean '--kernel'?")

    def test_missing_kernel_option(self):
        self.refused("run", saying="or --firmware is missing")

    def test_bad_values(self):
        self.refused("run", "--kernel", "x", "--memory", "12Q", saying="--memory: '12Q'")
        self.refused("run", "--kernel", "x", "--cpus", "0", saying="--cpus")
        self.refused("run", "--kernel", "x", "--engine", "xen", saying="auto|jit|kvm")
        self.refused("version", "--log-level", "loud", saying="error|warn|info|debug")

    def test_code_cache_out_of_bounds(self):
        for size in "4K", "2G":
            self.refused("run", *ENGINE_WORDS, "--jit-cache", size, "--kernel", "x",
                         saying="code cache: between 1M and 1G")

    def test_options_without_a_command(self):
        self.refused("--json", saying="unknown option '--json'")

    def test_extra_words(self):
        self.refused("run", "--kernel", "x", "y", "z", saying="unexpected word 'z'")
        self.refused("version", "now", saying="unexpected word 'now'")

    def test_kernel_that_is_not_there(self):
        self.refused("run", *ENGINE_WORDS, "--kernel", "/nonexistent/k",
                     saying="/nonexistent/k")

    def test_kernel_without_a_name(self):
        self.refused("run", "--kernel=", saying="--kernel needs a value: FILE")

    def test_kernel_that_is_none(self):
        self.refused("run", *ENGINE_WORDS, "--kernel", __file__, saying=__file__)
        self.refused("run", *ENGINE_WORDS, "--kernel", "/", saying="'/'")

    def test_too_many_vcpus(self):
        self.refused("run", *ENGINE_WORDS, "--cpus", "256", "--kernel", "x", saying="255")

    def test_tiny_memory(self):
        self.refused("run", *ENGINE_WORDS, "--memory", "64K", "--kernel", "x", saying="1M")

    def test_help_of_everything(self):
        overview = holon("help").stdout
        self.assertEqual(holon("--help").stdout, overview)
        self.assertEqual(holon("-h").stdout, overview)
        for command in "run", "doctor", "version", "help":
            self.assertIn("  " + command + " ", overview)
            text = holon("help", command).stdout
            self.assertIn("Usage: holon " + command, text)
            self.assertEqual(holon(command, "--help").stdout, text)
            self.assertEqual(holon(command, "-h").stdout, text)
            self.assertTrue(all(len(line) <= 80 for line in text.splitlines()), text)
        self.refused("help", "dcotor", saying="did you mean 'doctor'?")
        self.refused("help", "run", "fast", saying="'run' has no commands")

    def test_groups_of_commands(self):
        overview = holon("help", "disk").stdout
        self.assertIn("Usage: holon disk COMMAND", overview)
        self.assertEqual(holon("disk", "--help").stdout, overview)
        self.refused("disk", saying="Usage: holon disk COMMAND")
        self.refused("disk", "inof", saying="holon disk: unknown command 'inof'; did you mean 'info'?")
        self.refused("disk", "--json", saying="unknown option '--json'")
        self.refused("help", "disk", "inof", saying="did you mean 'info'?")
        self.refused("disk", "info", "a", "b", saying="holon disk info: unexpected word 'b'")
        for command in "create", "info", "check", "resize", "convert", "commit", "rebase", "map", \
                "compare", "snapshot":
            self.assertIn("  " + command + " ", overview)
            text = holon("help", "disk", command).stdout
            self.assertIn("Usage: holon disk " + command, text)
            self.assertEqual(holon("disk", command, "-h").stdout, text)
            self.assertTrue(all(len(line) <= 80 for line in text.splitlines()), text)

    def test_version(self):
        r = holon("version")
        self.assertRegex(r.stdout, r"\Aholon \d+\.\d+\.\d+\n\Z")
        self.assertEqual(holon("--version").stdout, r.stdout)
        self.assertEqual("holon " + json.loads(holon("version", "--json").stdout)["version"] + "\n",
                         r.stdout)

    def test_doctor(self):
        j = json.loads(holon("doctor", "--json").stdout)
        self.assertIn(j["engine"]["name"], ("jit", "kvm"))
        self.assertTrue(j["engine"]["reason"])
        self.assertGreater(len(j["facts"]), 3)
        text = holon("doctor").stdout
        for fact in j["facts"]:
            self.assertIn(fact["name"], text)

    def test_full_disk_is_noticed(self):
        with open("/dev/full", "w") as full:
            r = subprocess.run([HOLON, "help"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(r.returncode, 1)
        self.assertTrue(r.stderr)

    def test_completion(self):
        def complete(*words):
            script = ('. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _holon; '
                      'printf "%s\\n" "${COMPREPLY[@]}"')
            return subprocess.run(["bash", "-c", script, COMPLETION, *words], check=True, text=True,
                                  stdout=subprocess.PIPE).stdout.split()

        subprocess.run(["bash", "-n", COMPLETION], check=True)
        self.assertEqual(complete("holon", "do"), ["doctor"])
        self.assertEqual(complete("holon", "run", "--ker"), ["--kernel"])
        self.assertEqual(complete("holon", "run", "--engine", ""), ["auto", "jit", "kvm"])
        self.assertEqual(complete("holon", "run", "--engine", "=", "k"), ["kvm"])
        self.assertEqual(complete("holon", "help", "ver"), ["version"])
        self.assertEqual(complete("holon", "run", "--kernel", __file__[:-1]), [__file__])
        self.assertEqual(complete("holon", "version", "-q", "--js"), ["--json"])
        self.assertEqual(complete("holon", "rnu", ""), [])
        self.assertEqual(complete("holon", "disk", "re"), ["resize", "rebase"])
        self.assertEqual(complete("holon", "help", "disk", "ch"), ["check"])
        self.assertEqual(complete("holon", "disk", "info", "--back"), ["--backing-chain"])
        self.assertEqual(complete("holon", "disk", "create", "-f", ""), ["raw", "qcow2"])
        self.assertEqual(complete("holon", "disk", "info", __file__[:-1]), [__file__])
        self.assertEqual(complete("holon", "disk", "nifo", ""), [])


class Guest(harness.Guest):
    def __init__(self, image, *words, **kw):
        super().__init__(HOLON, image, *words, **kw)

    def until_up(self):
        return self.until(b"up\r\n")


class Life(unittest.TestCase):
    def ends(self, image, *words, status):
        with Guest(image, *words) as g:
            got, out, err = g.ends()
            self.assertEqual(got, status, (out, err))
            return out, err

    def test_power_off(self):
        self.assertEqual(self.ends(guests.power_off, status=0), ("", ""))

    def test_output_arrives_before_the_end(self):
        self.assertEqual(self.ends(guests.hello, status=0)[0], "hello\r\n")

    def test_reset_with_no_reboot(self):
        _, err = self.ends(guests.reset, "--no-reboot", status=3)
        self.assertIn("reset", err)
        self.assertRegex(err.lower(), "rip")

    def test_triple_fault(self):
        _, err = self.ends(guests.triple_fault, status=3)
        self.assertIn("triple fault", err)
        self.assertIn("12345678", err)

    def test_registers_even_when_quiet(self):
        _, err = self.ends(guests.triple_fault, "--quiet", status=3)
        self.assertIn("12345678", err)

    def test_reboot_gives_fresh_memory(self):
        self.ends(guests.reboot, "--debug-exit", status=3)  # (1 << 1) | 1

    def test_debug_exit(self):
        self.ends(guests.image(guests.debug_exit(0) + guests.HALT), "--debug-exit", status=1)
        self.ends(guests.image(guests.debug_exit(0x21) + guests.HALT), "--debug-exit", status=0x43)

    def test_no_debug_exit_unless_asked(self):
        self.ends(guests.image(guests.debug_exit(5) + guests.POWER_OFF + guests.HALT), status=0)

    def test_engine_line(self):
        _, err = self.ends(guests.power_off, "--log-level", "info", status=0)
        self.assertRegex(err, "holon: .*engine " + ENGINE)

    def test_kvm_that_does_not_work_is_refused(self):
        doctor = json.loads(holon("doctor", "--json").stdout)["engine"]
        if doctor["name"] == "kvm":
            self.skipTest("KVM works here")
        r = holon("run", "--engine", "kvm", "--kernel", "x")
        self.assertEqual(r.returncode, 1)
        self.assertIn("engine kvm: ", r.stderr)
        # There is nothing to force where there is no KVM for us.
        self.assertEqual("--force" in r.stderr, os.access("/dev/kvm", os.R_OK | os.W_OK))


class Signals(unittest.TestCase):
    def test_sigterm_presses_the_power_button(self):
        with Guest(guests.power_button) as g:
            g.until_up()
            g.p.terminate()
            self.assertEqual(g.status(), 0)

    def test_sigint_too(self):
        with Guest(guests.power_button) as g:
            g.until_up()
            g.p.send_signal(signal.SIGINT)
            self.assertEqual(g.status(), 0)

    def test_second_signal_ends_a_deaf_guest(self):
        with Guest(guests.flood) as g:
            g.until_up()
            g.p.terminate()
            line = read_until(g.p.stderr.fileno(), b"\n")
            self.assertIn(b"power button", line)
            g.p.terminate()
            self.assertEqual(g.status(), 128 + signal.SIGTERM)

    def test_a_halted_guest_can_be_ended(self):
        with Guest(guests.halt_for_good) as g:
            g.until_up()
            g.p.terminate()
            read_until(g.p.stderr.fileno(), b"power button")
            g.p.terminate()
            self.assertEqual(g.status(), 128 + signal.SIGTERM)

    def test_sighup_ends(self):
        with Guest(guests.flood) as g:
            g.until_up()
            g.p.send_signal(signal.SIGHUP)
            self.assertEqual(g.status(), 128 + signal.SIGHUP)

    def test_sighup_ignored_by_our_parent_stays_so(self):
        with Guest(guests.power_button,
                   preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as g:
            g.until_up()
            g.p.send_signal(signal.SIGHUP)
            g.p.terminate()
            self.assertEqual(g.status(), 0)


class Pipes(unittest.TestCase):
    def test_input_reaches_the_guest_in_order(self):
        text = bytes(range(0x20, 0x71)) * 40
        with Guest(guests.echo) as g:
            g.until_up()
            g.say(text.replace(b"q", b""))
            got = b""
            while len(got) < len(text):
                got += os.read(g.p.stdout.fileno(), 4096)
            self.assertEqual(got, text)
            g.say(b"q")
            self.assertEqual(g.status(), 0)

    def test_end_of_input_leaves_the_guest_running(self):
        with Guest(guests.power_button) as g:
            g.until_up()
            g.p.stdin.close()
            time.sleep(0.2)
            self.assertIsNone(g.p.poll())
            g.p.terminate()
            self.assertEqual(g.status(), 0)

    def test_input_from_a_file(self):
        with tempfile.TemporaryFile() as f:
            f.write(b"abcq")
            f.seek(0)
            with Guest(guests.echo, stdin=f) as g:
                self.assertEqual(g.p.stdout.read(), b"up\r\nabc")
                self.assertEqual(g.status(), 0)

    def test_output_to_a_file(self):
        with tempfile.TemporaryFile() as f, Guest(guests.hello, stdout=f) as g:
            self.assertEqual(g.status(), 0)
            f.seek(0)
            self.assertEqual(f.read(), b"hello\r\n")

    def test_a_socket_is_as_good_as_a_pipe(self):
        ours, theirs = socket.socketpair()
        with ours, theirs, Guest(guests.echo, stdin=theirs, stdout=theirs) as g:
            read_until(ours.fileno(), b"up\r\n")
            ours.send(b"abq")
            self.assertEqual(g.status(), 0)
            self.assertEqual(ours.recv(16), b"ab")

    def test_a_reader_who_is_gone_does_not_matter(self):
        r, w = os.pipe()
        with Guest(guests.hello, stdout=w) as g:
            os.close(r)
            os.close(w)
            self.assertEqual(g.status(), 0)

    def test_closed_standard_files(self):
        with tempfile.NamedTemporaryFile() as f:
            f.write(guests.hello)
            f.flush()
            r = subprocess.run(["sh", "-c", '"$0" run "$@" <&- >&- 2>&-', HOLON, *ENGINE_WORDS,
                                "--memory", "16M", "--kernel", f.name], timeout=PATIENCE)
            self.assertEqual(r.returncode, 0)

    def test_a_reader_who_does_not_read_does_not_hang_it(self):
        with Guest(guests.flood) as g:
            g.until_up()
            time.sleep(0.5)  # the pipe and our buffer are full now
            g.p.terminate()
            read_until(g.p.stderr.fileno(), b"power button")
            g.p.terminate()
            self.assertEqual(g.status(), 128 + signal.SIGTERM)

    def test_our_flags_are_not_left_on_the_pipe(self):
        r, w = os.pipe()
        with Guest(guests.hello, stdout=w) as g:
            self.assertEqual(g.status(), 0)
            self.assertFalse(fcntl.fcntl(w, fcntl.F_GETFL) & os.O_NONBLOCK)
        os.close(r)
        os.close(w)


class Terminal(unittest.TestCase):
    """The guest on a pseudo-terminal of its own session, as on a login."""

    def setUp(self):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)

    def tearDown(self):
        os.close(self.master)
        os.close(self.slave)

    def on_terminal(self, image, *words):
        def session():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        return Guest(image, *words, stdin=self.slave, stdout=self.slave, preexec_fn=session)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ISIG | termios.ECHO)

    def assert_restored(self):
        self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def up(self):
        read_until(self.master, b"up\r")
        self.assertTrue(self.is_raw())

    def test_restored_after_power_off(self):
        with self.on_terminal(guests.echo) as g:
            self.up()
            os.write(self.master, b"q")
            self.assertEqual(g.status(), 0)
            self.assert_restored()

    def test_control_c_goes_to_the_guest(self):
        with self.on_terminal(guests.echo) as g:
            self.up()
            os.write(self.master, b"\x03\x1a\x1c.")
            read_until(self.master, b"\x03\x1a\x1c.")
            os.write(self.master, b"q")
            self.assertEqual(g.status(), 0)

    def test_quit_key(self):
        with self.on_terminal(guests.flood) as g:
            self.up()
            os.write(self.master, b"\x01x")
            self.assertEqual(g.status(), 0)
            self.assert_restored()

    def test_quit_key_when_the_guest_takes_no_input(self):
        with self.on_terminal(guests.power_button) as g:
            self.up()
            for _ in range(20):
                os.write(self.master, b"z" * 512)
                time.sleep(0.01)
            os.write(self.master, b"\x01x")
            self.assertEqual(g.status(), 0)

    def test_help_key(self):
        with self.on_terminal(guests.echo) as g:
            self.up()
            os.write(self.master, b"\x01h")
            read_until(g.p.stderr.fileno(), b"Ctrl-A x")
            os.write(self.master, b"\x01\x01.")
            read_until(self.master, b"\x01.")
            os.write(self.master, b"q")
            self.assertEqual(g.status(), 0)

    def test_restored_after_signals(self):
        for sig in signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT:
            with self.subTest(sig=sig), self.on_terminal(guests.echo) as g:
                self.up()
                g.p.send_signal(sig)
                self.assertIn(g.status(), (-sig, 128 + sig))
                self.assert_restored()

    def test_restored_after_a_failure(self):
        with self.on_terminal(b"not a kernel") as g:
            self.assertEqual(g.status(), 1)
            self.assert_restored()

    def test_stop_and_continue(self):
        with self.on_terminal(guests.echo) as g:
            self.up()
            g.p.send_signal(signal.SIGTSTP)
            self.assertTrue(os.WIFSTOPPED(os.waitpid(g.p.pid, os.WUNTRACED)[1]))
            self.assert_restored()
            g.p.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + PATIENCE
            while not self.is_raw() and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertTrue(self.is_raw())
            os.write(self.master, b"q")
            self.assertEqual(g.status(), 0)


if __name__ == "__main__":
    HOLON, COMPLETION = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
