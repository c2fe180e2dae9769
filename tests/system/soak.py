#!/usr/bin/env python3
"""A guest under mixed load for minutes or hours: python3 soak.py HOLON SYSTEM RAM [--minutes N] [--cpus N]
[--memory MIB] [--jit-cache MIB]

SYSTEM and RAM are tests/system/programs/system and ram, built. Every load runs in a loop of its own,
prints a line per round with a digest of what it computed, and must come round within QUIET seconds. RAM
holds a third of the guest's memory all the time and looks whether every word is still what it wrote.
Holon's memory beyond guest RAM is sampled all the time. The soak fails when a load stops or computes
something else, when memory is above LIMIT, or when its peak in the last third of the time is more than
GROWTH above that of the third before."""

import argparse
import os
import re
import select
import subprocess
import sys
import time

import boot_test
from boot_test import MOUNTS, GuestKernel, script

QUIET = 120          # seconds
GROWTH = 4 << 20     # bytes
FIXED = 24 << 20     # the program, its libraries, vCPU, devices
FIXED_A_CPU = 4 << 20

LOADS = {
    "fork": "for i in 1 2 3 4 5 6 7 8 9 10; do sh -c 'exec cat /proc/self/comm' | cat; done | md5sum",
    "sha256": "head -c 8000000 /dev/zero | sha256sum",
    "gzip": "seq 1 40000 | gzip -9 | gunzip | sha1sum",
    "sort": "seq 1 20000 | sort -r | md5sum",
    "awk": "seq 1 3000 | awk '{ s += sqrt($1) * $1 } END { printf \"%.9f\", s }' | md5sum",
    "files": "dd if=/dev/zero of=/tmp/f bs=64k count=64 2>/dev/null; md5sum < /tmp/f; rm /tmp/f",
    "system": "system | md5sum",
    "module": "insmod /lib/evdev.ko && rmmod evdev; echo $? | md5sum",
}
RAM = "ram"  # prints its own rounds


def init_script(memory):
    text = MOUNTS + "mkdir -p /tmp; echo 1 > /proc/sys/kernel/printk\n"
    for name, command in LOADS.items():
        text += f"(while :; do s=$({command}); echo \"round {name} $s\"; done) &\n"
    return text + f"ram {memory // 3} &\nwait\n"


def sizes(pid):
    """(bytes resident beyond guest RAM, of them translated code), each page counted once."""
    total = code = 0
    counted = name = None
    for line in open(f"/proc/{pid}/smaps"):
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            name = line.split(None, 5)[5].strip() if len(line.split(None, 5)) > 5 else ""
            counted = "memfd:" not in name or "holon-code" in name
        elif line.startswith("Pss:") and counted:
            size = int(line.split()[1]) << 10
            total += size
            code += size if "holon-code" in name else 0
    return total, code


class Soak:
    def __init__(self, vm, limit):
        self.vm, self.limit = vm, limit
        self.rounds = dict.fromkeys([*LOADS, RAM], 0)
        self.digest, self.samples, self.rest = {}, [], b""
        self.start = time.monotonic()
        self.last = dict.fromkeys([*LOADS, RAM], self.start)

    def now(self):
        return time.monotonic() - self.start

    def line(self, text):
        words = text.split()
        if words[:1] != ["round"] or len(words) < 3:
            return
        name, digest = words[1], words[2]
        if name == RAM and digest != "ok":
            raise AssertionError(text)
        if self.digest.setdefault(name, digest) != digest:
            raise AssertionError(f"{name}: {digest} instead of {self.digest[name]} in round "
                                 f"{self.rounds[name] + 1}")
        self.rounds[name] += 1
        self.last[name] = time.monotonic()

    def read(self, seconds):
        fd = self.vm.p.stdout.fileno()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not select.select([fd], [], [], left)[0]:
                return
            piece = os.read(fd, 65536)
            if not piece:
                raise AssertionError(f"the VM ended: {self.vm.p.wait()}, {self.rest[-2000:]!r}")
            *lines, self.rest = (self.rest + piece).split(b"\n")
            for one in lines:
                self.line(one.decode(errors="replace"))

    def check(self):
        for name, when in self.last.items():
            if time.monotonic() - when > QUIET:
                raise AssertionError(f"{name} stands still after {self.rounds[name]} rounds")
        size, code = sizes(self.vm.p.pid)
        self.samples.append((self.now(), size))
        print(f"{self.now():6.0f} s  {size / 2**20:6.1f} MiB beyond guest RAM, code {code / 2**20:6.1f}, "
              f"{sum(self.rounds.values())} rounds", flush=True)
        if size > self.limit:
            raise AssertionError(f"{size} bytes are above the limit of {self.limit}")

    def growth(self):
        end = self.now()
        def peak(a, b): return max((s for t, s in self.samples if a * end <= t <= b * end), default=0)
        return peak(2 / 3, 1) - peak(1 / 3, 2 / 3)

    def run(self, seconds):
        while self.now() < seconds:
            self.read(min(5, seconds / 20))
            self.check()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("holon")
    p.add_argument("system")
    p.add_argument("ram")
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--cpus", type=int, default=1, help="vCPUs")
    p.add_argument("--memory", type=int, default=512, metavar="MIB")
    p.add_argument("--jit-cache", type=int, default=16, metavar="MIB")
    o = p.parse_args()
    boot_test.HOLON = o.holon
    GuestKernel.setUpClass()
    modules = os.path.join(script("fetch-kernel", "--root"), "lib/modules")
    evdev = subprocess.check_output(["find", modules, "-name", "evdev.ko"], text=True).strip()
    limit = FIXED_A_CPU * (o.cpus - 1) + (o.jit_cache << 20) * 2 + (o.jit_cache << 15) + FIXED
    try:
        with GuestKernel().boot(init_script(o.memory), "--jit-cache", f"{o.jit_cache}M", "--log-level", "debug",
                                "--cpus", str(o.cpus), memory=f"{o.memory}M",
                                files=[f"{evdev}:lib/evdev.ko", f"{o.system}:bin/system",
                                       f"{o.ram}:bin/ram"]) as vm:
            soak = Soak(vm, limit)
            soak.run(o.minutes * 60)
            for _ in range(2):  # the power button, to which nobody listens; the end
                vm.p.terminate()
                time.sleep(0.5)
            print(vm.ends()[2], end="")
    finally:
        GuestKernel.tearDownClass()
    grown = soak.growth()
    print("rounds:", ", ".join(f"{n} {r}" for n, r in soak.rounds.items()))
    print(f"growth {grown / 2**20:.1f} MiB of at most {GROWTH >> 20}; peak "
          f"{max(s for _, s in soak.samples) / 2**20:.1f} MiB of at most {limit >> 20}")
    if grown > GROWTH:
        sys.exit("soak: memory grew")
    if not all(soak.rounds.values()):
        sys.exit("soak: a load never came round")


if __name__ == "__main__":
    main()
