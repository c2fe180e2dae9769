#!/usr/bin/env python3
"""A VGA's screen and keyboard, and what needs them: python3 vga_test.py HOLON [TEST...]

HOLON_TEST_DOS names a CD (or disk) image that starts a DOS: then that is tested, too."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import unittest

import firmware_test
from boot_test import MOUNTS, TOP, GuestKernel
from firmware_test import GRUB_BIOS, SEABIOS, grub_disk, need
from harness import PATIENCE, Vm, read_until

HOLON = None
VGABIOS = "/usr/share/seabios/vgabios.bin"
MEMTEST = "/usr/lib/memtest86+/memtest86+x64.iso"
QUIT = b"\x01x"
VIEW = b"\x01s"
F1, F2, F10 = b"\x1bOP", b"\x1bOQ", b"\x1b[21~"
ENTER_SCREEN, LEAVE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """holon run on a terminal of its own."""

    def __init__(self, *words, rows=25, columns=80):
        self.fd, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.slave, self.mode = slave, termios.tcgetattr(slave)
        self.vm = Vm(HOLON, "--net", "none", *map(str, words), stdin=slave, stdout=slave)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.vm.__exit__(*exc)
        os.close(self.fd)
        os.close(self.slave)

    def until(self, what):
        return read_until(self.fd, what)

    def say(self, text):
        os.write(self.fd, text)


class Screen(firmware_test.Firmware):
    def setUp(self):
        super().setUp()
        need(SEABIOS, VGABIOS, GRUB_BIOS, "grub-mkimage")

    def grub(self, script):
        grub_disk(self.path("grub.img"), script)
        return self.path("grub.img")

    def vm(self, *words, **kw):
        return Vm(HOLON, "--net", "none", *map(str, words), **kw)

    def test_it_fills_a_terminal_and_leaves_it_as_it_was(self):
        with Terminal(self.grub("ls\n")) as t:
            got = t.until(b"grub>")
            self.assertIn(ENTER_SCREEN, got)
            self.assertNotIn(LEAVE_SCREEN, got)
            self.assertFalse(termios.tcgetattr(t.slave)[3] & termios.ICANON)
            t.say(QUIT)
            got = t.until(b"grub>")  # once more, to stay
            self.assertIn(LEAVE_SCREEN, got)
            self.assertEqual(t.vm.status(), 0)
            self.assertEqual(termios.tcgetattr(t.slave), t.mode)

    def test_a_signal_that_kills_restores_the_terminal(self):
        with Terminal(self.grub("ls\n")) as t:
            t.until(b"grub>")
            t.vm.p.send_signal(signal.SIGABRT)
            t.until(LEAVE_SCREEN)
            self.assertEqual(t.vm.status(), -signal.SIGABRT)
            self.assertEqual(termios.tcgetattr(t.slave), t.mode)

    def test_a_small_terminal_shows_where_the_cursor_is(self):
        with Terminal(self.grub("ls\n"), rows=10, columns=40) as t:
            t.until(b"grub>")
            t.say(b"\r" * 15)
            t.until(b"\x1b[10;1H\x1b[0;37;40mgrub>")
            t.say(QUIT)
            self.assertEqual(t.vm.status(), 0)

    def test_in_a_pipe_it_is_lines(self):
        with self.vm("--vga", "on", self.grub("echo loader-is-up\nhalt\n")) as vm:
            got = vm.until(b"loader-is-up")
            self.assertIn(b"SeaBIOS", got)
            self.assertNotIn(b"\x1b", got)
            self.assertEqual(vm.status(), 0)

    def test_a_pipe_alone_gets_the_serial_port(self):
        with self.vm(self.grub("echo loader-is-up\nhalt\n")) as vm:
            self.assertIn(b"\x1b", vm.until(b"loader-is-up"))  # SeaBIOS's own drawing


class Linux(GuestKernel):
    """Its vgacon and atkbd: a second opinion on both devices."""

    def init(self, tty):
        return MOUNTS + f"exec <{tty} >{tty} 2>&1\necho guest-is-up\nexec setsid cttyhack sh\n"

    def test_a_shell_on_the_screen(self):
        with self.boot(self.init("/dev/tty1"), "--vga", "on", append="console=tty0") as vm:
            vm.until(b"guest-is-up")
            vm.say(b"dmesg | grep -c 'Console: colour VGA.*80x25'; "
                   b"dmesg | grep -c 'AT Translated Set 2 keyboard'\n")
            vm.until(b"\n1\n1\n")
            vm.say(b"X=Holon~`uname`; echo \"screen-of [$X] {$((6*7))}\" | tr a-y b-z\n")
            vm.until(b"tdsffo-pg [Hpmpo~Ljovy] {42}")
            vm.say(b"poweroff -f\n")
            self.assertEqual(vm.status(), 0)

    def test_the_serial_port_takes_the_terminal(self):
        with self.boot(self.init("/dev/ttyS0"), "--vga", "on") as vm:
            vm.until(b"guest-is-up")
            vm.say(b"echo one-$((1+1)); sleep 1; echo on-the-screen >/dev/tty1\n")
            vm.until(b"one-2")
            vm.say(VIEW)
            vm.until(b"on-the-screen")
            vm.say(VIEW)
            vm.say(b"cat /sys/firmware/acpi/tables/FACP | wc -c\n")
            vm.until(b"276")
            vm.say(b"poweroff -f\n")
            self.assertEqual(vm.status(), 0)

    def test_keys_that_are_no_letters(self):
        init = MOUNTS + "exec </dev/tty1 >/dev/tty1 2>&1\nstty raw -echo\necho guest-is-up; dd bs=1 count=12 2>/dev/null | hexdump -C >/k\n" \
            "stty sane; cat /k; read x; poweroff -f\n"
        with self.boot(init, "--vga", "on", append="console=tty0") as vm:
            vm.until(b"guest-is-up")
            vm.say(b"\x1b[A\x1b[3~\x03\x1bx\x7f\r")
            vm.until(b"1b 5b 41 1b 5b 33 7e 03  1b 78 7f 0d")
            vm.say(b"\n")
            self.assertEqual(vm.status(), 0)


class Memtest(unittest.TestCase):
    def test_a_pass_over_all_memory_without_errors(self):
        need(SEABIOS, VGABIOS, MEMTEST)
        with Vm(HOLON, "--net", "none", "--vga", "on", "--memory", "8M", "--cdrom", MEMTEST) as vm:
            vm.until(b"<F1> to configure")
            for key, answer in ((F1, b"Test selection"), (F1, b"Remove one test"), (F2, b"Enter test #"),
                                (b"10\r", b"*.********."),  # it only waits for minutes
                                (F10, b"CPU sequencing"), (F10, b"Testing:")):
                vm.say(key)
                vm.until(answer)
            read_until(vm.p.stdout.fileno(), b"Pass:  1        Errors: 0", 10 * PATIENCE)
            vm.say(QUIT)
            self.assertEqual(vm.status(), 0)


def elf32(code, base=0x8048000):
    """A static program for i386 that is this code."""
    head = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    size = 84 + len(code)
    return head + struct.pack("<8I", 1, 0, base, base, size, size, 7, 4096) + code


class Mach(unittest.TestCase):
    """GNU Mach, a kernel with its own ways: segments with a base, call gates for system calls."""

    def test_a_task_runs_and_makes_system_calls(self):
        with tempfile.TemporaryDirectory(prefix="holon-vga-") as d:
            got = subprocess.run([os.path.join(TOP, "scripts", "fetch-mach")], text=True, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
            if got.returncode:
                self.skipTest(got.stderr)
            said = b"a task of Mach says 6 * 7 = 42\n\0"
            # The digits are made by the task: imul eax, eax, 7; aam; add ax, '00'; xchg ah, al
            code = bytes.fromhex("b806000000 6bc007 d40a 660d3030 86e0")
            at = 0x8048000 + 84 + len(code) + 32
            code += b"\x66\xa3" + struct.pack("<I", at + said.index(b"42"))  # into the text
            # mach_print: push text; push 0; mov eax, -30; lcall 7, 0
            code += b"\x68" + struct.pack("<I", at) + bytes.fromhex("6a00 b8e2ffffff 9a000000000700")
            code = code.ljust(at - 0x8048000 - 84 - 2, b"\x90") + b"\xeb\xfe"
            with open(os.path.join(d, "task"), "wb") as f:
                f.write(elf32(code + said.replace(b"42", b"??")))
            with Vm(HOLON, "--net", "none", "--vga", "on", "--memory", "64M", "--kernel", got.stdout.strip(),
                    "--initrd", os.path.join(d, "task") + " $(task-create) $(task-resume)") as vm:
                seen = vm.until(b"a task of Mach says 6 * 7 = 42")
                self.assertIn(b"RTC time is 20", seen)
                vm.say(QUIT)
                self.assertEqual(vm.status(), 0)


class Dos(unittest.TestCase):
    def test_a_shell(self):
        disk = os.environ.get("HOLON_TEST_DOS")
        if not disk:
            self.skipTest("HOLON_TEST_DOS names no image")
        with Vm(HOLON, "--net", "none", "--vga", "on", "--memory", "32M", "--cdrom", disk) as vm:
            vm.until(b"A:\\>")
            vm.say(b"ver /r\r")  # more than 15 keys at once are more than a BIOS keeps
            vm.until(b"DOS version")
            vm.say(b"dir\r")
            vm.until(b"bytes free")
            vm.say(QUIT)
            self.assertEqual(vm.status(), 0)


if __name__ == "__main__":
    import boot_test
    HOLON = firmware_test.HOLON = boot_test.HOLON = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
