#!/usr/bin/env python3
"""A VM that is killed while its guest writes: python3 crash.py HOLON CRASH_WRITER [RUNS [SEED]]

Each run boots a guest with two disks (formats and cache modes change from run to run), lets it
write, kills Holon with SIGKILL at a random moment, and looks at the images: qemu-img check finds
at most leaked clusters, the file system is sound, and all that the guest was promised by fsync
is there. Images are used again for some runs, so that a repair would have to hold. The first
failure ends it and keeps the images. Default: 200 runs."""

import functools
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from harness import PATIENCE, read_until
from shell import Kit, Shell

BLOCK = 4096
BLOCKS = 4096  # of the disk without a file system: 16 MiB
FILES_MIB = 48
ROUND_MAX, ZEROED, ZERO_EVERY = 8, 16, 7  # as crash_writer.c has them
FILE_PIECES, FILE_PIECE = 40, 512
IN_FLIGHT = 4  # rounds that may be under way, or done and not heard of
GENERATION = 8  # runs with the same images
MASK = (1 << 64) - 1
CACHES = ["none", "writeback", "writethrough"]
ZEROS = hashlib.md5(bytes(BLOCK)).digest()


def mix(x):
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 & MASK
    x = (x ^ x >> 27) * 0x94d049bb133111eb & MASK
    return x ^ x >> 31


@functools.lru_cache(None)
def pattern(length, seed, head=b""):
    """The digest of what crash_writer's fill() makes, its first bytes replaced by head."""
    whole = b"".join(mix(seed + i & MASK).to_bytes(8, "little") for i in range(length // 8))
    return hashlib.md5(head + whole[len(head):]).digest()


class Wrong(Exception):
    pass


class RawBlocks:
    """What a round wrote where, and what must be there."""

    def __init__(self, seed):
        self.seed = seed
        self.next = 1  # round
        self.promised = 0
        self.last = {}  # block -> (round, content's seed or None for zeros) as promised
        self.maybe = {}  # block -> all that rounds not promised may have left there

    def writes(self, n):
        """[(block, content's seed or None)] of a round"""
        if n % ZERO_EVERY == 0:
            at = mix(self.seed ^ mix(n)) % (BLOCKS // ZEROED) * ZEROED
            return [(at + i, None) for i in range(ZEROED)]
        r = mix(self.seed ^ mix(n))
        return [(mix(r + i & MASK) % BLOCKS, mix(self.seed ^ mix(n * ROUND_MAX + i & MASK)))
                for i in range(1 + r % ROUND_MAX)]

    def content(self, n, block, seed):
        if seed is None:
            return ZEROS
        return pattern(BLOCK, seed, n.to_bytes(8, "little") + block.to_bytes(8, "little"))

    def after_run(self, promised):
        for n in range(self.next, promised + 1):
            for block, seed in self.writes(n):
                self.last[block] = (n, seed)
                self.maybe.pop(block, None)
        for n in range(promised + 1, promised + 1 + IN_FLIGHT):
            for block, seed in self.writes(n):
                self.maybe.setdefault(block, []).append((n, seed))
        self.promised = promised
        self.next = promised + 1 + IN_FLIGHT

    def check(self, path):
        with open(path, "rb") as f:
            for block in sorted(set(self.last) | set(self.maybe)):
                f.seek(block * BLOCK)
                got = f.read(BLOCK)
                may = [self.last.get(block, (0, None))] + self.maybe.get(block, [])
                digest = hashlib.md5(got).digest()
                if not any(digest == self.content(n, block, seed) for n, seed in may):
                    raise Wrong(f"block {block} holds {got[:16].hex()}..., not what rounds "
                                f"{[n for n, _ in may]} wrote; promised up to round {self.promised}")


class Files:
    def __init__(self):
        self.next = 1
        self.promised = []

    def after_run(self, last):
        self.promised += range(self.next, last + 1)
        self.next = max(self.next, last + 1) + IN_FLIGHT

    def check(self, path, directory):
        fsck = subprocess.run(["e2fsck", "-fy", path], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # 0: sound; 1: corrected, which replaying the journal counts as. The sums of free blocks and
        # inodes in the superblock are not in the journal.
        lines = fsck.stdout.splitlines()
        unsound = [line for before, line in zip(lines, lines[1:])
                   if line.rstrip().endswith(("? yes", "FIXED.")) and not re.match("Free (blocks|inodes) count wrong", before)]
        if fsck.returncode not in (0, 1) or unsound:
            raise Wrong(f"e2fsck: {fsck.stdout}")
        out = os.path.join(directory, "files")
        shutil.rmtree(out, ignore_errors=True)
        os.mkdir(out)
        subprocess.run(["debugfs", "-R", f"rdump / {out}", path], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        for n in self.promised:
            length = (mix(n) % FILE_PIECES + 1) * FILE_PIECE
            try:
                with open(os.path.join(out, str(n)), "rb") as f:
                    got = f.read()
            except FileNotFoundError:
                raise Wrong(f"file {n} is missing; promised: up to {self.promised[-1]}") from None
            if hashlib.md5(got).digest() != pattern(length, mix(~n & MASK)):
                raise Wrong(f"file {n} is not as it was written")
        shutil.rmtree(out)


class Crash:
    def __init__(self, holon, writer, seed):
        self.holon = holon
        self.random = random.Random(seed)
        self.kit = Kit(files=[f"{writer}:/bin/crash_writer"])
        self.template = self.kit.path("template.raw")
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", self.template, f"{FILES_MIB}M"], check=True,
                       stdout=subprocess.DEVNULL)

    def new_images(self):
        self.format = self.random.choice(["raw", "qcow2", "qcow2", "qcow2"])
        self.lazy = self.random.choice(["on", "off"]) if self.format == "qcow2" else ""
        options = ["-o", f"lazy_refcounts={self.lazy},compat=1.1"] if self.lazy else []
        self.disk = [self.kit.path("files.img"), self.kit.path("blocks.img")]
        subprocess.run(["qemu-img", "convert", "-O", self.format, *options, self.template, self.disk[0]], check=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", self.format, *options, self.disk[1],
                        str(BLOCKS * BLOCK)], check=True)
        self.files, self.blocks = Files(), RawBlocks(self.random.getrandbits(63))

    def run_guest(self, cache):
        """Until the kill: the last file and round that were promised."""
        disks = []
        for path in self.disk:
            disks += ["--disk", f"{path},format={self.format},cache={cache}"]
        with Shell(self.holon, self.kit, *disks) as vm:
            vm.ready()
            vm.sh("mkdir /mnt; mount -t ext4 /dev/vda /mnt")
            vm.say(f"crash_writer files /mnt {self.files.next} & crash_writer blocks /dev/vdb "
                   f"{self.blocks.seed} {BLOCKS} {self.blocks.next}\n".encode())
            out = read_until(vm.p.stdout.fileno(), b"round ")
            time.sleep(self.random.random() ** 2 * 2)
            vm.p.kill()
            vm.p.wait()
            out += vm.p.stdout.read()
        last = {b"file": self.files.next - 1, b"round": self.blocks.next - 1}
        for line in out.splitlines(keepends=True):
            words = line.split()
            if not line.endswith(b"\n"):
                break
            if len(words) == 2 and words[0] in last and words[1].isdigit():
                last[words[0]] = max(last[words[0]], int(words[1]))
            elif words:
                raise Wrong(f"the guest said {line!r}")
        self.files.after_run(last[b"file"])
        self.blocks.after_run(last[b"round"])

    def check_image(self, path):
        if self.format == "raw":
            return path
        # Refcounts that are written lazily are wrong after a crash by design; the next opening
        # for writing makes them good, which qemu-img check -r all would do too.
        dirty = self.lazy == "on"
        check = subprocess.run(["qemu-img", "check", *(["-r", "all"] if dirty else []), path], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check.returncode not in (0, 3):  # 3: leaked clusters only
            raise Wrong(f"qemu-img check {path}: {check.stdout}")
        raw = path + ".raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], check=True)
        return raw

    def one(self, n):
        if n % GENERATION == 0:
            self.new_images()
        cache = self.random.choice(CACHES)
        self.what = f"{self.format}{' lazy' if self.lazy == 'on' else ''} {cache}"
        self.run_guest(cache)
        copy = self.kit.path("copy.img")
        for path, check in ((self.disk[0], lambda p: self.files.check(p, self.kit.directory.name)),
                            (self.disk[1], self.blocks.check)):
            # The next run finds the images as the crash left them, repaired by nobody but Holon.
            shutil.copyfile(path, copy)
            check(self.check_image(copy))


def main():
    holon, writer = sys.argv[1:3]
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else random.SystemRandom().getrandbits(32)
    crash = Crash(holon, writer, seed)
    print(f"seed {seed}", flush=True)
    started = time.monotonic()
    for n in range(runs):
        try:
            crash.one(n)
        except Exception:
            kept = tempfile.mkdtemp(prefix="holon-crash.", dir=os.path.dirname(crash.kit.directory.name))
            shutil.copytree(crash.kit.directory.name, kept, dirs_exist_ok=True)
            print(f"run {n + 1} of {runs} ({crash.what}) failed; the images are in {kept}", flush=True)
            raise
        print(f"run {n + 1}: {crash.what}: {len(crash.files.promised)} files, {crash.blocks.promised} rounds",
              flush=True)
    crash.kit.close()
    print(f"{runs} crashes in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
