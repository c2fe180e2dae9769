#!/usr/bin/env python3
"""GDB at a guest: python3 gdb_test.py HOLON [TEST...]

Debian's gdb debugs Debian's kernel and small guests; a client of our own looks at what gdb does not
do. The engine is $HOLON_TEST_ENGINE's."""

import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import guests
from harness import ENGINE, Guest, PATIENCE, Vm
from shell import Kit, Shell, script

HOLON = None
COUNTER, OTHER = 0x200000, 0x200010
EAX = 0x2BADB002  # as multiboot kernels find it

# 32-bit: counts in memory for ever, by a function.
LOOP = bytes.fromhex("bc00003000"      # mov esp, 0x300000
                     "e802000000"      # loop: call count
                     "ebf9"            # jmp loop
                     "40"              # count: inc eax
                     "a300002000"      # mov [COUNTER], eax
                     "8b1d10002000"    # mov ebx, [OTHER]
                     "c3")
LOOPS, COUNT = guests.CODE + 5, guests.CODE + 12
TICKS = guests.say("tick\n") + b"\xb9\x00\x00\x10\x00\x49\x75\xfd"  # mov ecx, n; dec ecx; jnz
TRIPLE = b"\x0f\x01\x1d" + struct.pack("<I", 0x200000) + b"\xcc"  # lidt [zeros]; int3


def forever(code):
    return code + b"\xe9" + struct.pack("<i", -len(code) - 5)


class Client:
    """A client of the protocol."""

    def __init__(self, where):
        deadline = time.monotonic() + PATIENCE
        while True:
            self.s = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
            try:
                self.s.connect(where)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                self.s.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.s.settimeout(PATIENCE)
        self.got = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.s.close()

    def send(self, payload):
        payload = payload.encode()
        self.s.sendall(b"$%s#%02x" % (payload, sum(payload) & 255))

    def answer(self):
        while True:
            found = re.match(rb"(?s)\+*\$([^#]*)#..", self.got)
            if found:
                self.got = self.got[found.end():]
                self.s.sendall(b"+")
                return found[1].decode()
            piece = self.s.recv(65536)
            if not piece:
                raise EOFError(self.got)
            self.got += piece

    def ask(self, payload):
        self.send(payload)
        return self.answer()


class Debugged(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="holon-test.")
        self.addCleanup(self.dir.cleanup)
        self.socket = os.path.join(self.dir.name, "gdb")

    def start_gdb(self, *commands, file=None, where=None):
        words = ["gdb", "-batch", "-nx", "-ex", "set pagination off", "-ex", "set confirm off"]
        if file:
            words += ["-ex", f"file {file}"]
        for c in f"target remote {where or self.socket}", *commands:
            words += ["-ex", f"echo \\n>> {c}\\n", "-ex", c]
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(self.socket) and not where and time.monotonic() < deadline:
            time.sleep(0.05)
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def end_gdb(self, p):
        try:
            out = p.communicate(timeout=PATIENCE)[0]
        except subprocess.TimeoutExpired:
            p.kill()
            self.fail(p.communicate()[0])
        # What each command printed, by the command; of one that is given twice, both.
        said = {}
        for part in out.split("\n>> ")[1:]:
            command, _, text = part.partition("\n")
            said[command] = said.get(command, "") + text
        self.out = out
        return said


@unittest.skipUnless(shutil.which("gdb"), "no gdb here")
class Small(Debugged):
    """32-bit guests, which gdb is told of."""

    def said(self, code, *commands):
        with Guest(HOLON, guests.image(forever(code)), "--gdb", self.socket + ",arch=i386", "--gdb-wait") as vm:
            said = self.end_gdb(self.start_gdb(*commands, "kill"))
            self.assertEqual(vm.status(), 0, self.out)
        return said

    def test_breakpoints_and_steps(self):
        said = self.said(LOOP, "p $pc", f"break *{COUNT}", "c", "p $eax", "x/i $pc", "stepi", "stepi", "p $pc",
                         f"p *(int *){COUNTER}", "c", "c 5", "p/x $eax", "info registers eflags cs")
        self.assertIn(hex(guests.CODE), said["p $pc"])
        self.assertIn("Breakpoint 1, ", said["c"])
        self.assertIn("inc    %eax", said["x/i $pc"])
        self.assertIn(hex(COUNT + 6), said["p $pc"])
        self.assertIn(f"= {EAX + 1}\n", said[f"p *(int *){COUNTER}"])
        self.assertIn(f"= {EAX + 6:#x}\n", said["p/x $eax"])

    def test_watchpoints(self):
        kinds = ["watch", "awatch"] + (["rwatch"] if ENGINE == "jit" else [])
        for kind in kinds:
            address = COUNTER if kind == "watch" else OTHER
            said = self.said(LOOP, f"{kind} *(int *){address}", "c", "p/x $pc")
            self.assertIn("ardware", said["c"])
            self.assertIn(hex(COUNT + (6 if kind == "watch" else 12)), said["p/x $pc"], self.out)

    def test_state_can_be_changed(self):
        said = self.said(LOOP, f"break *{COUNT}", "c", "set $eax = 0x1000", "set $xmm3.v4_int32[1] = 77",
                         f"set *(int *){OTHER} = 0x4711", "stepi", "stepi", "stepi", f"p/x *(int *){COUNTER}",
                         "p/x $ebx", "p $xmm3.v4_int32", f"jump *{LOOPS}", "p/x $eax")
        self.assertIn("= 0x1001\n", said[f"p/x *(int *){COUNTER}"])
        self.assertIn("= 0x4711\n", said["p/x $ebx"])
        self.assertIn("{0, 77, 0, 0}", said["p $xmm3.v4_int32"])
        self.assertIn("= 0x1001\n", said["p/x $eax"])

    def test_many_breakpoints_and_monitor(self):
        where = [LOOPS, LOOPS + 5, COUNT, COUNT + 1, COUNT + 6, COUNT + 12]
        said = self.said(LOOP, *[f"break *{w}" for w in where], "c 7", "monitor walk 200000", "monitor regs",
                         "monitor nonsense", "info threads")
        self.assertIn("Breakpoint 1", said["c 7"])
        self.assertIn("is at physical 200000", said["monitor walk 200000"])
        self.assertIn("rflags", said["monitor regs"])
        self.assertIn("monitor help", said["monitor nonsense"])
        self.assertIn("vCPU 0: running, 32-bit, ring 0", said["info threads"])


class Protocol(Debugged):
    def guest(self, code, *words):
        return Guest(HOLON, guests.image(code), "--gdb", self.socket, *words)

    @staticmethod
    def drain(vm):
        """Takes what the guest, which stands still, had printed."""
        while select.select([vm.p.stdout], [], [], 0.1)[0]:
            os.read(vm.p.stdout.fileno(), 65536)

    def test_waits_until_it_is_let_go(self):
        with self.guest(guests.say("here") + guests.POWER_OFF, "--gdb-wait") as vm:
            with Client(self.socket) as c:
                self.assertEqual(c.ask("?"), "T05thread:1;")
                self.assertEqual(c.ask("mfff0"), "E16")
                self.assertEqual(c.ask(f"Z0,{guests.CODE:x},1"), "OK")
                self.assertIn(c.ask("vCont;c"), ["T05thread:1;", "T05thread:1;hwbreak:;"])
                c.ask(f"z0,{guests.CODE:x},1")
                c.send("c")
                self.assertEqual(c.answer(), "W00")
            self.assertEqual(vm.ends()[:2], (0, "here"))

    def test_a_client_stops_it_and_its_loss_lets_it_go(self):
        with self.guest(forever(TICKS)) as vm:
            for end in "close", "detach", "interrupt":
                vm.until(b"tick\n")
                with Client(self.socket) as c:
                    self.assertEqual(c.ask("?"), "T05thread:1;")
                    if end == "interrupt":
                        c.send("c")
                        vm.until(b"tick\n")
                        c.s.sendall(b"\x03")
                        self.assertEqual(c.answer(), "T02thread:1;")
                    before = c.ask("g")
                    time.sleep(0.2)
                    self.assertEqual(c.ask("g"), before)
                    self.drain(vm)
                    if end == "detach":
                        self.assertEqual(c.ask("D"), "OK")
            vm.until(b"tick\n")
            with Client(self.socket) as c:
                c.send("k")
                self.assertEqual(vm.status(), 0)

    def test_a_triple_fault_can_be_looked_at(self):
        with self.guest(TRIPLE, "--gdb-wait") as vm:
            with Client(self.socket) as c:
                c.send("c")
                self.assertEqual(c.answer(), "T0bthread:1;")
                pc = c.ask("p10")
                self.assertEqual(struct.unpack("<Q", bytes.fromhex(pc))[0], guests.CODE + len(TRIPLE) - 1)
                c.send("c")
                self.assertEqual(c.answer(), "W03")
            self.assertEqual(vm.status(), 3)

    def test_reset_keeps_the_debugger(self):
        with self.guest(guests.say("x") + guests.RESET + guests.HALT, "--gdb-wait") as vm:
            with Client(self.socket) as c:
                c.ask(f"Z1,{guests.CODE + 4:x},1")
                for _ in range(2):  # by the guest's own reset
                    c.send("c")
                    self.assertTrue(c.answer().startswith("T05"))
                    c.ask(f"z1,{guests.CODE + 4:x},1")
                    c.send("vCont;s:1")
                    c.answer()
                    c.ask(f"Z1,{guests.CODE + 4:x},1")
                c.send("R00")
                self.assertEqual(c.ask("p10")[:8], struct.pack("<I", guests.CODE).hex())
                self.assertTrue(c.ask("vRun;").startswith("T"))
                c.send("vKill;1")
            self.assertEqual(vm.ends()[0], 0)

    def test_tcp(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        with Guest(HOLON, guests.image(guests.HALT), "--gdb", f"tcp:{port}") as vm:
            with Client(("127.0.0.1", port)) as c:
                self.assertEqual(c.ask("qAttached"), "1")
                c.send("k")
            self.assertEqual(vm.status(), 0)

    def test_what_is_wrong_is_said(self):
        for words, text in (["--gdb-wait"], "--gdb"), (["--gdb", "tcp:x"], "PORT"), \
                (["--gdb", "tcp:[::1:5"], "PORT"), (["--gdb", "/nowhere/x"], "/nowhere/x"), \
                (["--gdb", "/tmp/x,arch=arm"], "arch"):
            with Guest(HOLON, guests.image(guests.HALT), *words) as vm:
                status, _, err = vm.ends()
                self.assertEqual(status, 1, words)
                self.assertIn(text, err)

    def test_garbage_harms_nobody(self):
        with self.guest(guests.HALT) as vm:
            for garbage in os.urandom(100000), b"$" * 100000, b"$g#67" * 5000, b"\x03" * 1000, b"$m0,fff#00" * 999:
                with Client(self.socket) as c:
                    c.s.settimeout(0.2)
                    try:
                        c.s.sendall(garbage)
                    except (TimeoutError, socket.timeout, OSError):
                        pass
            with Client(self.socket) as c:
                self.assertEqual(c.ask("?"), "T05thread:1;")
                c.send("k")
            self.assertEqual(vm.status(), 0)


@unittest.skipUnless(shutil.which("gdb"), "no gdb here")
class Kernel(Debugged):
    """gdb vmlinux, which is Debian's, with symbols from a guest's /proc/kallsyms."""

    SYMBOLS = {"start_kernel": ".init.text", "__x64_sys_sethostname": ".text", "init_uts_ns": ".data",
               "proc_sys_call_handler": ".text"}
    HOSTNAME = "(char *)&init_uts_ns + 65"

    @classmethod
    def setUpClass(cls):
        cls.kit = Kit(modules=[])
        with Shell(HOLON, cls.kit, append="nokaslr") as guest:
            lines = guest.ready().sh("grep -E ' (%s)$' /proc/kallsyms" % "|".join(cls.SYMBOLS))
            guest.power_off()
        raw, cls.vmlinux = cls.kit.path("raw"), cls.kit.path("vmlinux")
        script("extract-vmlinux", cls.kit.kernel, raw)
        sections = {w[1]: int(w[3], 16) for w in map(str.split, subprocess.run(
            ["readelf", "-SW", raw], check=True, text=True, stdout=subprocess.PIPE).stdout.replace(
                "[ ", "[").splitlines()) if len(w) > 5 and w[0][1:-1].isdigit()}
        add = []
        for line in lines.splitlines():
            address, _, name = line.split()[:3]
            section = cls.SYMBOLS[name]
            kind = "function" if "text" in section else "object"
            add += ["--add-symbol", f"{name}={section}:{int(address, 16) - sections[section]:#x},{kind},global"]
        subprocess.run(["objcopy", *add, raw, cls.vmlinux], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.kit.close()

    def debug(self, *commands, say, words=()):
        with Shell(HOLON, self.kit, "--gdb", self.socket, "--gdb-wait", *words, append="nokaslr") as guest:
            p = self.start_gdb(*commands, "delete", "detach", file=self.vmlinux)
            guest.ready()
            guest.say(say + b"\n")
            said = self.end_gdb(p)
            guest.answer()
            guest.power_off()
        return said

    def test_from_the_first_instruction_to_user_space(self):
        said = self.debug(
            "info threads", "hbreak start_kernel", "c", "bt", "stepi", "stepi", "p/x $cr3 != 0", "p/x $gs_base",
            "delete", "break __x64_sys_sethostname", "c", "p/x $rip == &__x64_sys_sethostname",
            "p $up = *(long *)$rsp", "finish", "p $rip == $up", "c", "delete 2",
            f"watch *({self.HOSTNAME})", "c", f"x/s {self.HOSTNAME}", "c", "monitor walk ffffffff81000000", say=b"hostname zero; hostname first; hostname other")
        self.assertIn("vCPU 0: running, 64-bit, ring 0", said["info threads"])
        self.assertIn("Breakpoint 1, 0xffffffff", said["c"])
        self.assertIn("#0  0xffffffff", said["bt"])
        self.assertIn("in start_kernel", said["bt"])
        self.assertIn("= 0x1\n", said["p/x $cr3 != 0"])
        self.assertIn("= 0xffffffff", said["p/x $gs_base"])
        self.assertIn("Breakpoint 2, ", said["c"])
        self.assertIn("= 0x1\n", said["p/x $rip == &__x64_sys_sethostname"])
        self.assertIn("= 1\n", said["p $rip == $up"])
        self.assertIn("New value = 102 'f'", said["c"])
        self.assertIn("New value = 111 'o'", said["c"])
        self.assertIn("is at physical", said["monitor walk ffffffff81000000"])

    def test_several_vcpus(self):
        said = self.debug("hbreak __x64_sys_sethostname", "c", "info threads", "thread apply all p/x $cs", "stepi",
                          "thread 2", "p/x $rip", words=["--cpus", "2"], say=b"hostname first")
        self.assertIn("in __x64_sys_sethostname", said["c"])
        self.assertRegex(said["info threads"], r"(?s)Thread 1 \(vCPU 0.*Thread 2 \(vCPU 1")
        self.assertEqual(said["thread apply all p/x $cs"].count("= 0x10\n"), 2)

    def test_a_stop_holds_all_vcpus(self):
        cpus = 4
        busy = " ".join(["(i=0; while [ ! -e /done ]; do i=$((i + 1)); done; echo ran $i) &"] * cpus)
        with Shell(HOLON, self.kit, "--gdb", self.socket, "--cpus", str(cpus), append="nokaslr") as guest:
            guest.ready().sh(busy)
            seen = set()
            with Client(self.socket) as c:
                for _ in range(10):
                    registers = [self.registers(c, n) for n in range(1, cpus + 1)]
                    seen.update(enumerate(registers))
                    time.sleep(0.05)
                    self.assertEqual([self.registers(c, n) for n in range(1, cpus + 1)], registers)
                    c.send("c")
                    time.sleep(0.1)
                    c.s.sendall(b"\x03")
                    self.assertTrue(c.answer().startswith("T02"))
                c.ask("D")
            self.assertGreater(len(seen), 2 * cpus)  # they went on in between
            self.assertEqual(guest.sh("touch /done; wait").count("ran "), cpus)
            self.assertEqual(guest.sh("dmesg | grep -E 'stall|lockup|BUG:|WARNING:' || true"), "")
            guest.power_off()

    def registers(self, c, thread):
        self.assertEqual(c.ask(f"Hg{thread}"), "OK")
        return c.ask("g")


if __name__ == "__main__":
    HOLON = sys.argv.pop(1)
    unittest.main(verbosity=2)
