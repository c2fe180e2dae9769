"""Runs tests of bench/cpu in a guest of Holon's JIT engine under perf (cpu-clock; no hardware counters are
needed) and prints where the time went: by kind, by C function, and by translated block, with the guest's
code and what became of it. Needs to be root, or to be allowed to use perf and to read the process's memory."""

import bisect
import collections
import os
import re
import select
import signal
import subprocess
import time

import common
import cpu

SYMBOLS = "HOLON-PROFILE-SYMBOLS"
END = "HOLON-PROFILE-END"
INIT = f"""#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev
/bin/cpu SECONDS NAMES
echo {SYMBOLS}
grep -i ' t ' /proc/kallsyms | cut -d' ' -f1,3
echo {END}
sleep 60
poweroff -f
"""


class Code:
    """The engine's code memory: its bytes, and what each piece was made from."""

    def __init__(self, pid, path):
        lines = open(f"/proc/{pid}/maps").read().splitlines()
        found = [l for l in lines if "memfd:holon-code" in l and " r-xs " in l]
        if not found:
            common.fail("the process has no code memory: is the engine jit?")
        self.start, self.end = (int(a, 16) for a in found[0].split()[0].split("-"))
        with open(f"/proc/{pid}/mem", "rb") as f:
            f.seek(self.start)
            self.bytes = f.read(self.end - self.start)
        pieces = {}
        for line in open(path):
            start, length, name = line.split()
            pieces[int(start, 16)] = (int(length, 16), name)  # the last one is the right one
        self.pieces = [(a, *pieces[a]) for a in sorted(pieces)]
        self.starts = [p[0] for p in self.pieces]

    def piece(self, ip):
        n = bisect.bisect_right(self.starts, ip) - 1
        if n >= 0 and ip < self.pieces[n][0] + self.pieces[n][1]:
            return self.pieces[n]
        return None


class Guest:
    """The guest's symbols and code."""

    def __init__(self, text, program, directory, kernel):
        self.program, self.kernel = program, os.path.join(directory, "vmlinux")
        subprocess.run([os.path.join(common.SCRIPTS, "extract-vmlinux"), kernel, self.kernel], check=True)
        symbols = [(int(a, 16), n) for a, n in re.findall(r"^([0-9a-f]{16}) (\S+)\s*$", text.split(SYMBOLS)[-1], re.M)]
        nm = subprocess.run(["nm", program], stdout=subprocess.PIPE, text=True, check=True).stdout
        symbols += [(int(a, 16), n) for a, n in re.findall(r"^([0-9a-f]{16}) [tTiWw] (\S+)$", nm, re.M)]
        self.symbols = sorted(symbols)

    def name(self, gva):
        n = bisect.bisect_right(self.symbols, (gva, "\x7f")) - 1
        return f"{self.symbols[n][1]}+{gva - self.symbols[n][0]:#x}" if n >= 0 else "?"

    def code(self, gva, length):
        """Lines of disassembly; of the kernel as it is in its file, before it patches itself."""
        return disassemble(self.kernel if gva >> 63 else self.program, gva, gva + length)


def disassemble(path, start, end, *more):
    out = subprocess.run(["objdump", "-D" if "binary" in more else "-d", "--no-show-raw-insn", "-M", "intel", *more, f"--start-address={start:#x}",
                          f"--stop-address={end:#x}", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = re.findall(r"^\s*([0-9a-f]+):\s+(.*)$", out.stdout, re.M)
    return [(int(a, 16), re.sub(r"\s+", " ", text).strip()) for a, text in found]


def record(options, directory, ramdisk, perf_map):
    """(console text, Code, samples): runs the guest; perf looks on from the first test to the last."""
    append = options.append + " quiet nokaslr"
    command = common.holon_command(options, "--kernel", options.kernel, "--initrd", ramdisk, "--append", append)
    data = os.path.join(directory, "perf.data")
    guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env={**os.environ, "HOLON_PERF_MAP": perf_map})
    perf, seen, code, end = None, b"", None, time.monotonic() + options.limit
    try:
        while END.encode() not in seen.split(SYMBOLS.encode())[-1]:
            if time.monotonic() > end or not select.select([guest.stdout], [], [], 60)[0]:
                common.fail("the guest takes too long; it wrote:\n" + seen.decode(errors="replace")[-2000:])
            piece = os.read(guest.stdout.fileno(), 65536)
            if not piece:
                common.fail("the guest ended early:\n" + seen.decode(errors="replace")[-2000:])
            seen += piece
            if not perf and cpu.BEGIN.encode() in seen:
                perf = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(options.rate), "-p",
                                         str(guest.pid), "-o", data], stderr=subprocess.DEVNULL)
            if perf and not code and cpu.END.encode() in seen:
                perf.send_signal(signal.SIGINT)
                perf.wait()
                code = Code(guest.pid, perf_map)
    finally:
        guest.kill()
        guest.wait()
        if perf:
            perf.kill()
            perf.wait()
    if not cpu.LINE.findall(seen.decode(errors="replace")):
        common.fail(f"no test ran: bench/cpu knows none by the name of {' or '.join(options.tests)}")
    out = subprocess.run(["perf", "script", "-i", data, "-F", "comm,ip,sym,dso"], stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.DEVNULL, check=True).stdout
    return seen.decode(errors="replace"), code, out


def kind_of(piece):
    if not piece:
        return "translated: unknown"
    name = piece[2]
    return f"translated: {name.split('_')[0]}{', slow paths and exits' if name.endswith('_cold') else ''}"


class Profile:
    def __init__(self, script, code):
        self.kinds, self.functions, self.blocks = (collections.Counter() for _ in range(3))
        self.at = collections.Counter()
        for line in script.splitlines():
            m = re.match(r"\s*(\S+)\s+([0-9a-f]+)\s+(.*?) \((.*)\)$", line)
            if not m or not m[1].startswith("vcpu"):
                continue
            ip, symbol = int(m[2], 16), m[3].split("+")[0]
            if code.start <= ip < code.end:
                piece = code.piece(ip)
                self.kinds[kind_of(piece)] += 1
                self.at[ip] += 1
                if piece:
                    self.blocks[piece] += 1
            elif ip >> 63:
                self.kinds["host's kernel"] += 1
                self.functions[symbol + " [kernel]"] += 1
            else:
                self.kinds["C helpers"] += 1
                self.functions[symbol] += 1
        self.total = sum(self.kinds.values()) or common.fail("perf took no samples: may it be used here?")

    def share(self, n):
        return f"{100 * n / self.total:5.1f}%"


def guest_range(name):
    _, gva, length = name.replace("_cold", "").split("_")
    return int(gva, 16), int(length, 16)


def show(profile, code, guest, options, directory):
    print(f"{profile.total} samples")
    for title, counter in (("by kind", profile.kinds), ("in C", profile.functions)):
        print(f"\n{title}:")
        for name, n in counter.most_common(options.top):
            print(f"  {profile.share(n)}  {name}")
    raw = os.path.join(directory, "code.bin")
    with open(raw, "wb") as f:
        f.write(code.bytes)
    print("\nby block (host instructions on the fast path for guest instructions):")
    for n, (piece, samples) in enumerate(profile.blocks.most_common(options.top)):
        start, length, name = piece
        if name.startswith("thunks"):
            print(f"  {profile.share(samples)}  {name}")
            hot = disassemble(raw, start, start + length, "-b", "binary", "-m", "i386:x86-64",
                              f"--adjust-vma={code.start:#x}") if n < options.code else []
            hot = [h for h in hot if profile.at[h[0]]]
            ours = []
        else:
            gva, guest_length = guest_range(name)
            ours = guest.code(gva, guest_length)
            hot = disassemble(raw, start, start + length, "-b", "binary", "-m", "i386:x86-64",
                              f"--adjust-vma={code.start:#x}")
            print(f"  {profile.share(samples)}  {name}  {guest.name(gva)}  {len(hot)} for {len(ours)}")
        if n >= options.code:
            continue
        for a, text in ours:
            print(f"             guest {a:x}: {text}")
        for a, text in hot:
            print(f"    {profile.share(profile.at[a]) if profile.at[a] else '':6}   host +{a - start:x}: {text}")


def main():
    p = common.arguments(__doc__)
    p.add_argument("tests", nargs="+", metavar="GROUP|TEST", help="what bench/cpu knows by that name")
    p.add_argument("--seconds", type=float, default=2, metavar="S", help="length of one test (default: 2)")
    p.add_argument("--rate", type=int, default=5000, help="samples a second (default: 5000)")
    p.add_argument("--top", type=int, default=12, metavar="N", help="lines of each list (default: 12)")
    p.add_argument("--code", type=int, default=3, metavar="N", help="blocks of which the code is shown (default: 3)")
    p.add_argument("--limit", type=float, default=300, metavar="S", help="longest time for the guest")
    p.set_defaults(no_qemu=True)
    options = common.parse(p)
    options.tests = [t.split("/")[-1] for t in options.tests]  # as the table of bench/cpu has them
    options.kernel = common.kernel_of(options)
    with common.scratch() as directory:
        program = cpu.build(directory)
        init = INIT.replace("SECONDS", str(options.seconds)).replace("NAMES", " ".join(options.tests))
        ramdisk = common.initramfs(directory, init, f"{program}:/bin/cpu")
        text, code, script = record(options, directory, ramdisk, os.path.join(directory, "perf.map"))
        show(Profile(script, code), code, Guest(text, program, directory, options.kernel), options, directory)
        for line in cpu.LINE.findall(text):
            print(f"\n{line[0]}/{line[1]}: {float(line[4]) / int(line[2]) / int(line[3]) * 1e9:.3g} ns for one {line[6]}")


main()
