#!/usr/bin/env python3
"""qcow2 images against qemu-img and qemu-io, both ways: python3 qcow2_test.py QCOW2_OPS [TEST...]

What one makes the other reads alike; after random operations here, qemu-img finds the image
clean and the same as a flat file that had the same operations; and the other way round.
"""

import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

OPS = None
SIZE = 3 << 20

# As qemu-img has them; each combination that makes sense is tried.
LAYOUTS = [
    {"cluster_size": 512},
    {"cluster_size": 512, "refcount_bits": 64},
    {"cluster_size": 1024, "refcount_bits": 1},
    {"cluster_size": 4096, "refcount_bits": 2, "lazy_refcounts": "on"},
    {"cluster_size": 16384, "extended_l2": "on", "refcount_bits": 8},
    {"cluster_size": 65536},
    {"cluster_size": 65536, "compat": "0.10"},
    {"cluster_size": 65536, "extended_l2": "on", "lazy_refcounts": "on"},
    {"cluster_size": 65536, "compression_type": "zstd", "refcount_bits": 32},
    {"cluster_size": 2097152, "refcount_bits": 4},
    {"cluster_size": 2097152, "extended_l2": "on"},
]
OURS = {"compat": ("version", lambda v: "2"), "compression_type": ("zstd", lambda v: "1")}


def run(*words, ok=True):
    r = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if ok and r.returncode:
        raise AssertionError(f"{' '.join(words)}: {r.returncode}\n{r.stdout}{r.stderr}")
    return r


def ops(*words, ok=True):
    return run(OPS, *map(str, words), ok=ok)


def qemu_options(layout):
    return ",".join(f"{k}={v}" for k, v in layout.items())


def our_options(layout):
    for k, v in layout.items():
        name, value = OURS.get(k, (k, str))
        yield f"{name}={value(v)}"


class Images(unittest.TestCase):
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # memory: it syncs often

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="holon-qcow2-", dir=self.where)
        self.addCleanup(shutil.rmtree, self.dir)
        self.rng = random.Random(self.id())

    def path(self, name):
        return os.path.join(self.dir, name)

    def qemu_create(self, name, layout, size=SIZE, backing=None, fmt="qcow2"):
        words = ["-b", backing, "-F", fmt] if backing else []
        options = ["-o", qemu_options(layout)] if layout else []
        run("qemu-img", "create", "-q", "-f", "qcow2", *options, *words,
            self.path(name), str(size))
        return self.path(name)

    def our_create(self, name, layout, size=SIZE, *more):
        ops("create", self.path(name), size, *our_options(layout), *more)
        return self.path(name)

    def qemu_io(self, image, size, count):
        """Random operations of qemu-io's."""
        words = []
        for _ in range(count):
            at = self.rng.randrange(size // 512) * 512
            length = min(self.rng.randrange(1, 300) * 512, size - at)
            kind = self.rng.choice(["write", "write", "write", "write -z", "write -z -u", "discard"])
            if kind == "write":
                kind += f" -P {self.rng.randrange(256)}"
            words += ["-c", f"{kind} {at} {length}"]
        run("qemu-io", "-f", "qcow2", *words, image)

    def flat(self, image, name="flat"):
        """What qemu-img reads of the image."""
        run("qemu-img", "convert", "-O", "raw", image, self.path(name))
        return self.path(name)

    def assert_reads_alike(self, image, snapshot=None):
        run("qemu-img", "convert", "-O", "raw", *(["-l", snapshot] if snapshot else []), image,
            self.path("theirs"))
        ops("read", image, self.path("ours"), *([snapshot] if snapshot else []))
        with open(self.path("ours"), "rb") as a, open(self.path("theirs"), "rb") as b:
            self.assertTrue(a.read() == b.read(), f"{image} reads differently")

    def assert_clean(self, image):
        r = run("qemu-img", "check", image, ok=False)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertEqual(ops("check", image, "none").stdout, "0 0\n")

    def assert_same(self, image, flat):
        r = run("qemu-img", "compare", "-F", "raw", image, flat, ok=False)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)


class Peer(Images):
    def test_images_of_qemu_read_alike_here(self):
        for layout in LAYOUTS:
            with self.subTest(layout):
                image = self.qemu_create("a.qcow2", layout)
                self.qemu_io(image, SIZE, 60)
                self.assert_reads_alike(image)
                self.assertEqual(ops("check", image, "none").stdout, "0 0\n")

    def test_after_random_operations_qemu_finds_the_same_and_no_fault(self):
        for layout in LAYOUTS:
            with self.subTest(layout):
                image = self.our_create("a.qcow2", layout)
                self.assert_clean(image)
                flat = self.flat(image)
                for seed in range(3):
                    ops("ops", image, flat, self.rng.randrange(1 << 30), 150)
                    self.assert_clean(image)
                    self.assert_same(image, flat)
                    self.qemu_io(image, SIZE, 20)
                    flat = self.flat(image)

    def test_the_same_over_a_backing_image_of_either_format(self):
        for layout, (fmt, size) in itertools.product(
                LAYOUTS, [("qcow2", SIZE + 65536), ("raw", 1 << 20)]):
            with self.subTest((layout, fmt)):
                under = self.qemu_create("under", {"cluster_size": 4096}, size)
                self.qemu_io(under, size, 30)
                if fmt == "raw":
                    under = self.flat(under, "under.raw")
                image = self.our_create("a.qcow2", layout, SIZE,
                                        f"backing_file={os.path.basename(under)}",
                                        f"backing_format={fmt}")
                self.assert_reads_alike(image)
                flat = self.flat(image)
                ops("ops", image, flat, self.rng.randrange(1 << 30), 120)
                self.assert_clean(image)
                self.assert_same(image, flat)
                self.qemu_io(image, SIZE, 20)
                self.assert_reads_alike(image)

    def test_a_version_2_image_may_not_name_its_backing_format(self):
        under = self.qemu_create("under.qcow2", {})
        self.qemu_io(under, SIZE, 20)
        image = self.our_create("a.qcow2", {"compat": "0.10"}, SIZE, "backing_file=under.qcow2")
        ops("read", image, self.path("ours"))
        self.assert_same(under, self.path("ours"))

    def test_compressed_clusters_both_ways(self):
        for layout in LAYOUTS:
            with self.subTest(layout):
                source = self.qemu_create("source.qcow2", {})
                self.qemu_io(source, SIZE, 60)
                flat = self.flat(source)
                image = self.path("theirs.qcow2")
                run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", qemu_options(layout), source,
                    image)
                self.assert_reads_alike(image)
                image = self.our_create("packed.qcow2", layout)
                ops("pack", image, flat)
                self.assert_clean(image)
                self.assert_same(image, flat)
                ops("ops", image, flat, 7, 100)
                self.assert_clean(image)
                self.assert_same(image, flat)

    def test_internal_snapshots_are_listed_and_read_and_survive_writes(self):
        for layout in LAYOUTS:
            if layout.get("refcount_bits") == 1:
                continue  # has none
            with self.subTest(layout):
                image = self.qemu_create("a.qcow2", layout)
                self.qemu_io(image, SIZE, 30)
                run("qemu-img", "snapshot", "-c", "first", image)
                self.qemu_io(image, SIZE, 30)
                run("qemu-img", "snapshot", "-c", "second one", image)
                first = self.path("first")
                run("qemu-img", "convert", "-l", "first", "-O", "raw", image, first)
                self.assertEqual(ops("snapshots", image).stdout,
                                 f"1 first {SIZE}\n2 second one {SIZE}\n")
                flat = self.flat(image)
                ops("ops", image, flat, self.rng.randrange(1 << 30), 150)
                self.assert_clean(image)
                self.assert_same(image, flat)
                self.assert_reads_alike(image, "first")
                self.assert_reads_alike(image, "second one")
                run("qemu-img", "snapshot", "-a", "first", image)
                self.assert_same(image, first)
                self.assert_reads_alike(image)
                run("qemu-img", "snapshot", "-d", "first", image)
                ops("ops", image, self.flat(image), 3, 60)
                self.assert_clean(image)

    def test_other_sizes(self):
        for layout in LAYOUTS:
            with self.subTest(layout):
                image = self.our_create("a.qcow2", layout)
                flat = self.flat(image)
                for size in [SIZE // 2 + 512, 5 * SIZE, 1 << 20, 20 << 20]:
                    ops("ops", image, flat, self.rng.randrange(1 << 30), 40)
                    ops("resize", image, size)
                    os.truncate(flat, size)
                    self.assert_clean(image)
                    self.assert_same(image, flat)

    def test_an_l1_table_longer_than_what_a_refcount_block_counts(self):
        for options, size in [({"cluster_size": 512, "refcount_bits": 64}, 8 << 30),
                              ({"cluster_size": 512}, 64 << 30), ({"cluster_size": 4096}, 4 << 40)]:
            with self.subTest(options):
                image = self.qemu_create("a.qcow2", options)
                self.qemu_io(image, SIZE, 60)
                same = shutil.copy(image, self.path("b.qcow2"))
                ops("resize", image, size)
                run("qemu-img", "resize", "-q", same, str(size))
                self.assert_clean(image)
                run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", image, same)
                self.assertLess(os.stat(image).st_blocks, os.stat(same).st_blocks + (2 << 20 >> 9))
                for made in image, same:
                    run("qemu-io", "-f", "qcow2", "-c", f"write -P 7 {size - 65536} 65536", made)
                self.assert_clean(image)
                run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", image, same)

    def test_preallocated_images(self):
        for layout, how in itertools.product(LAYOUTS, [1, 2, 3]):
            with self.subTest((layout, how)):
                image = self.our_create("a.qcow2", layout, SIZE, f"prealloc={how}")
                self.assert_clean(image)
                blocks = os.stat(image).st_blocks * 512
                self.assertTrue(blocks < SIZE if how == 1 else blocks >= SIZE, blocks)
                flat = self.flat(image)
                ops("ops", image, flat, 1, 60)
                self.assert_clean(image)
                self.assert_same(image, flat)

    def test_damage_is_found_and_repaired_as_qemu_would(self):
        for layout in LAYOUTS:
            with self.subTest(layout):
                image = self.our_create("a.qcow2", layout)
                flat = self.flat(image)
                ops("ops", image, flat, 5, 100)
                with open(image, "r+b") as f:
                    f.seek(48)
                    table = int.from_bytes(f.read(8), "big")
                    f.seek(table)
                    block = int.from_bytes(f.read(8), "big")
                    f.seek(block + 6)
                    f.write(bytes([0, 1, 0, 3, 1, 0, 0xff]))
                theirs = run("qemu-img", "check", image, ok=False).returncode
                ours = ops("check", image, "none").stdout.split()
                self.assertEqual(theirs, 2 if ours[0] != "0" else 3 if ours[1] != "0" else 0)
                ops("check", image, "all")
                self.assert_clean(image)
                self.assert_same(image, flat)

    def test_bitmaps_are_left_alone_until_a_write(self):
        image = self.qemu_create("a.qcow2", {})
        self.qemu_io(image, SIZE, 10)
        run("qemu-img", "bitmap", "--add", image, "b0")
        self.qemu_io(image, SIZE, 10)
        self.assert_clean(image)
        flat = self.flat(image)
        ops("ops", image, flat, 1, 50)
        self.assert_same(image, flat)
        r = run("qemu-img", "check", image, ok=False)
        self.assertIn(r.returncode, (0, 3), r.stdout + r.stderr)  # at most leaks: the bitmap

    def test_what_is_not_supported_is_refused_in_words(self):
        image = self.path("a.qcow2")
        self.our_create("a.qcow2", {})
        with open(image, "r+b") as f:
            f.seek(32)
            f.write((2).to_bytes(4, "big"))  # LUKS
        self.assertIn("encrypted", ops("read", image, "/dev/null", ok=False).stderr)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={self.path('data')}",
            image, "1M")
        self.assertIn("external data file", ops("read", image, "/dev/null", ok=False).stderr)


if __name__ == "__main__":
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        print("skipped: no qemu-img (package qemu-utils)")
        sys.exit(77)
    OPS = sys.argv.pop(1)
    unittest.main(verbosity=2)
