#!/usr/bin/env python3
"""holon disk beside qemu-img, on the same images in both directions:
python3 disk_cmd_test.py HOLON [TEST...]"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from harness import PATIENCE

HOLON = None
KIB, MIB = 1024, 1024 * 1024
random.seed(3)


def run(*words, status=0, **kw):
    kw.setdefault("stdin", subprocess.DEVNULL)
    r = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, **kw)
    if status is not None and r.returncode != status:
        raise AssertionError(f"{' '.join(words)}: status {r.returncode}\n{r.stdout}{r.stderr}")
    return r


def disk(*words, **kw):
    return run(HOLON, "disk", *words, **kw)


def qemu_img(*words, **kw):
    return run("qemu-img", *words, **kw)


def qemu_io(image, *commands, fmt="qcow2"):
    return run("qemu-io", "-f", fmt, *[w for c in commands for w in ("-c", c)], image)


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Folder(unittest.TestCase):
    """Each test has an empty directory for its current one, so that names are short."""

    def setUp(self):
        self.before = os.getcwd()
        self.dir = tempfile.mkdtemp(prefix="holon-disk-")
        os.chdir(self.dir)

    def tearDown(self):
        os.chdir(self.before)
        shutil.rmtree(self.dir)

    def raw(self, name, size=8 * MIB, islands=6, seed=None):
        """A sparse file with islands of data that compresses, of data that does not, of zeros."""
        rng = random.Random(seed if seed is not None else name)
        with open(name, "wb") as f:
            f.truncate(size)
            for i in range(islands):
                length = min(rng.choice((1, 512, 4096, 70000, 300000)), size)
                f.seek(rng.randrange(size - length + 1))
                f.write((rng.randbytes(length), b"holon" * (length // 5 + 1), bytes(length))[i % 3]
                        [:length])
        return name

    def chain(self):
        """top.qcow2 over mid.qcow2 over base.raw, with everything a layer can have; the same as
        a guest sees it is in flat.raw."""
        self.raw("base.raw", 6 * MIB, 12)
        qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", "7M")
        qemu_io("mid.qcow2", "write -P 1 64k 256k", "write -z 1M 512k", "write -P 2 6900k 100k",
                "write -z -u 2M 64k")
        qemu_img("create", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", "8M")
        qemu_io("top.qcow2", "write -P 3 100k 10k", "write -z 3M 1M", "write -P 4 7800k 200k",
                "write -P 5 1100k 64k", "discard 192k 64k")
        qemu_img("convert", "-O", "raw", "top.qcow2", "flat.raw")

    def same(self, a, b):
        qemu_img("compare", a, b)
        disk("compare", a, b)


class Create(Folder):
    def same_as_qemu(self, *words, size="10M"):
        sizes = [size] if size else []
        for program, where in (disk, "ours"), (qemu_img, "theirs"):
            os.mkdir(where)
            if os.path.exists("back.raw"):
                shutil.copy("back.raw", where)
            said = program("create", *words, "x.img", *sizes, cwd=where).stdout
            info = json.loads(qemu_img("info", "--output", "json", f"{where}/x.img").stdout)
            del info["filename"], info["actual-size"]
            info.pop("full-backing-filename", 0)
            if where == "ours":
                ours = info, said
        self.assertEqual(ours[0], info)
        self.assertEqual(ours[1], said)
        if info["format"] == "qcow2":
            qemu_img("check", "ours/x.img")
        # The disk is empty, and can be written.
        qemu_img("compare", "ours/x.img", "theirs/x.img")
        qemu_io("ours/x.img", "write -P 7 4M 1M", fmt=info["format"])
        disk("compare", "theirs/x.img", "ours/x.img", status=1)
        for where in "ours", "theirs":
            shutil.rmtree(where)

    def test_raw(self):
        self.same_as_qemu()
        self.same_as_qemu("-f", "raw", size="10241K")

    def test_qcow2_with_options(self):
        for options in ("", "cluster_size=4k", "cluster_size=2M", "refcount_bits=1",
                        "refcount_bits=64", "lazy_refcounts=on", "extended_l2=on",
                        "compat=0.10", "compression_type=zstd"):
            with self.subTest(options):
                self.same_as_qemu("-f", "qcow2", *(["-o", options] if options else []))

    def test_backing_file(self):
        self.raw("back.raw", 9 * MIB)
        self.same_as_qemu("-f", "qcow2", "-b", "back.raw", "-F", "raw")
        self.same_as_qemu("-f", "qcow2", "-b", "back.raw", "-F", "raw", size=None)

    def test_backing_format_is_found_out(self):
        self.raw("back.raw", 9 * MIB)
        disk("create", "-f", "qcow2", "-b", "back.raw", "x.qcow2")
        info = json.loads(disk("info", "--output", "json", "x.qcow2").stdout)
        self.assertEqual(info["backing-filename-format"], "raw")
        self.assertEqual(info["virtual-size"], 9 * MIB)

    def test_preallocation(self):
        for fmt, mode in ("raw", "falloc"), ("raw", "full"), ("qcow2", "metadata"), \
                ("qcow2", "falloc"), ("qcow2", "full"):
            with self.subTest(fmt=fmt, mode=mode):
                disk("create", "-f", fmt, "-o", f"preallocation={mode}", "x", "4M")
                self.assertEqual(os.stat("x").st_blocks * 512 >= 4 * MIB, mode != "metadata")
                if fmt == "qcow2":
                    qemu_img("check", "x")

    def test_an_old_file_is_replaced_and_keeps_its_mode(self):
        self.raw("x")
        os.chmod("x", 0o640)
        disk("create", "-f", "qcow2", "x", "1M")
        self.assertEqual(os.stat("x").st_mode & 0o777, 0o640)
        self.assertEqual(os.listdir("."), ["x"])

    def test_a_link_stays_one(self):
        self.raw("real")
        os.symlink("real", "x")
        disk("create", "-f", "qcow2", "x", "1M")
        self.assertTrue(os.path.islink("x"))
        qemu_img("check", "real")


class Info(Folder):
    def same_json(self, *words):
        ours = json.loads(disk("info", "--output", "json", *words).stdout)
        theirs = json.loads(qemu_img("info", "--output", "json", *words).stdout)
        for layer in theirs if isinstance(theirs, list) else [theirs]:
            for snapshot in layer.get("snapshots", []):
                snapshot.pop("icount", 0)
        self.assertEqual(ours, theirs)

    def same_text(self, image):
        ours = disk("info", image).stdout
        theirs = qemu_img("info", image).stdout.replace("     ICOUNT\n", "\n")
        theirs = re.sub(r"(\d\d:\d\d:\d\d\.\d{3}) +\d+\n", r"\1\n", theirs)
        self.assertEqual(ours, theirs)

    def test_images(self):
        self.chain()
        qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", "old.qcow2", "1G")
        qemu_img("create", "-f", "qcow2", "-o",
                 "extended_l2=on,compression_type=zstd,lazy_refcounts=on,refcount_bits=8",
                 "new.qcow2", "1234567K")
        qemu_img("snapshot", "-c", "before lunch", "top.qcow2")
        for image in "base.raw", "mid.qcow2", "top.qcow2", "old.qcow2", "new.qcow2":
            with self.subTest(image):
                self.same_json(image)
                self.same_text(image)
        self.same_json("--backing-chain", "top.qcow2")

    def test_relative_backing_file_of_an_image_elsewhere(self):
        os.mkdir("d")
        self.raw("d/base.raw")
        qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "d/x.qcow2")
        self.same_json("--backing-chain", "d/x.qcow2")
        self.same_text("d/x.qcow2")

    def test_a_missing_backing_file_does_not_matter(self):
        qemu_img("create", "-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "x.qcow2", "1M")
        self.same_text("x.qcow2")

    def test_foreign(self):
        self.raw("x.raw")
        for fmt in "vmdk", "vpc", "vhdx", "vdi":
            with self.subTest(fmt):
                qemu_img("convert", "-O", fmt, "x.raw", "x")
                ours = json.loads(disk("info", "--output", "json", "x").stdout)
                theirs = json.loads(qemu_img("info", "--output", "json", "x").stdout)
                for info in ours, theirs:
                    info.pop("format-specific", 0)  # has names in it
                self.assertEqual(ours, theirs)
                self.assertIn(f"file format: {fmt}\n", disk("info", "x").stdout)

    def test_foreign_without_qemu_img(self):
        qemu_img("create", "-f", "vdi", "x", "1M")
        r = disk("info", "x", env={"PATH": "/nonexistent"}, status=1)
        self.assertIn("qemu-utils", r.stderr)

    def test_snapshot_list(self):
        qemu_img("create", "-f", "qcow2", "x.qcow2", "1M")
        self.assertEqual(disk("snapshot", "-l", "x.qcow2").stdout, "")
        qemu_img("snapshot", "-c", "one", "x.qcow2")
        qemu_img("snapshot", "-c", "two", "x.qcow2")
        ours = disk("snapshot", "-l", "x.qcow2").stdout.splitlines()
        theirs = qemu_img("snapshot", "-l", "x.qcow2").stdout.splitlines()
        self.assertEqual(len(ours), len(theirs))
        for mine, other in zip(ours, theirs):
            self.assertTrue(other.startswith(mine), (mine, other))


class Map(Folder):
    def same_map(self, *words):
        ours = disk("map", "--output", "json", *words).stdout
        theirs = qemu_img("map", "--output", "json", *words).stdout
        self.assertEqual(json.loads(ours), json.loads(theirs))
        self.assertEqual(ours, theirs)
        text = qemu_img("map", *words, status=None)
        if text.returncode == 0:
            self.assertEqual(disk("map", *words).stdout, text.stdout)

    def test_chain(self):
        self.chain()
        for image in "top.qcow2", "mid.qcow2":
            with self.subTest(image):
                self.same_map(image)

    def test_raw(self):
        self.raw("x.raw")
        self.same_map("-f", "raw", "x.raw")
        os.truncate("x.raw", 0)
        self.assertEqual(disk("map", "--output", "json", "x.raw").stdout, "[]\n")

    def test_part(self):
        self.chain()
        self.same_map("--start-offset", "1M", "--max-length", "2M", "top.qcow2")

    def test_compressed(self):
        self.raw("x.raw")
        qemu_img("convert", "-c", "-O", "qcow2", "x.raw", "x.qcow2")
        self.same_map("x.qcow2")
        self.assertIn("compressed", disk("map", "x.qcow2", status=1).stderr)

    def test_extended_l2(self):
        qemu_img("create", "-f", "qcow2", "-o", "extended_l2=on", "x.qcow2", "8M")
        qemu_io("x.qcow2", "write 0 2k", "write 6k 4k", "write -z 100k 16k", "write 1M 1M")
        self.same_map("x.qcow2")


class Check(Folder):
    def setUp(self):
        super().setUp()
        qemu_img("create", "-f", "qcow2", "x.qcow2", "8M")
        qemu_io("x.qcow2", "write -P 1 0 1M", "write -P 2 4M 300k")

    def poke(self, at, value, width=8):
        with open("x.qcow2", "r+b") as f:
            f.seek(at)
            f.write(value.to_bytes(width, "big"))

    def peek(self, at, width=8):
        with open("x.qcow2", "rb") as f:
            f.seek(at)
            return int.from_bytes(f.read(width), "big")

    def leak(self):
        table = self.peek(48)
        block = self.peek(table)
        self.poke(block + 2 * 200, 1, 2)  # cluster 200 is nobody's
        with open("x.qcow2", "ab") as f:
            f.truncate(max(os.path.getsize("x.qcow2"), 201 * 64 * KIB))

    def corrupt(self):
        l2 = self.peek(self.peek(40)) & ~(1 << 63)
        self.poke(l2 + 8, self.peek(l2))  # two guest clusters in one host cluster

    def same_check(self, *words, status):
        ours = json.loads(disk("check", "--output", "json", *words, status=status).stdout)
        theirs = json.loads(qemu_img("check", "--output", "json", *words, status=status).stdout)
        self.assertEqual(ours, theirs)
        return ours

    def test_clean(self):
        self.same_check("x.qcow2", status=0)
        self.assertEqual(disk("check", "x.qcow2").stdout, qemu_img("check", "x.qcow2").stdout)

    def test_leak(self):
        self.leak()
        self.assertEqual(self.same_check("x.qcow2", status=3)["leaks"], 1)
        self.assertIn("leaked", disk("check", "x.qcow2", status=3).stdout)
        r = json.loads(disk("check", "--output", "json", "-r", "leaks", "x.qcow2").stdout)
        self.assertEqual(r["leaks-fixed"], 1)
        self.same_check("x.qcow2", status=0)

    def test_corruption(self):
        self.corrupt()
        ours = json.loads(disk("check", "--output", "json", "x.qcow2", status=2).stdout)
        self.assertGreater(ours["corruptions"], 0)
        qemu_img("check", "x.qcow2", status=2)
        disk("check", "-r", "leaks", "x.qcow2", status=2)
        disk("check", "-r", "all", "x.qcow2")
        qemu_img("check", "x.qcow2")

    def test_raw_has_nothing_to_check(self):
        self.raw("x.raw")
        disk("check", "x.raw", status=63)
        qemu_img("check", "-f", "raw", "x.raw", status=63)


class Compare(Folder):
    def both(self, *words, status):
        ours = disk("compare", *words, status=status)
        theirs = qemu_img("compare", *words, status=status)
        self.assertEqual(ours.stdout, theirs.stdout)

    def test_outcomes(self):
        self.raw("a.raw")
        qemu_img("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        shutil.copy("a.raw", "b.raw")
        with open("b.raw", "r+b") as f:
            f.seek(5 * MIB + 1000)
            f.write(b"x")
        shutil.copy("a.raw", "longer.raw")
        os.truncate("longer.raw", 9 * MIB)
        self.both("a.raw", "a.qcow2", status=0)
        self.both("a.raw", "b.raw", status=1)
        self.both("a.qcow2", "b.raw", status=1)
        self.both("a.raw", "longer.raw", status=0)
        self.both("-s", "a.raw", "longer.raw", status=1)
        self.both("longer.raw", "a.qcow2", status=0)
        self.both("-s", "a.raw", "a.raw", status=0)
        with open("longer.raw", "r+b") as f:
            f.seek(8 * MIB + 512)
            f.write(b"x")
        self.both("a.raw", "longer.raw", status=1)
        self.both("a.raw", "missing", status=2)

    def test_strict_looks_at_holes(self):
        qemu_img("create", "-f", "raw", "hole.raw", "2M")
        shutil.copy("hole.raw", "zeros.raw")
        with open("zeros.raw", "r+b") as f:
            f.seek(MIB)
            f.write(bytes(64 * KIB))
        self.both("hole.raw", "zeros.raw", status=0)
        disk("compare", "-s", "hole.raw", "zeros.raw", status=1)


class Convert(Folder):
    def test_every_way(self):
        self.chain()
        ways = [("raw",), ("qcow2",), ("qcow2", "-c"), ("qcow2", "-o", "cluster_size=4k"),
                ("qcow2", "-c", "-o", "compression_type=zstd"), ("qcow2", "-o", "compat=0.10"),
                ("qcow2", "-c", "-o", "cluster_size=2M"), ("qcow2", "-o", "extended_l2=on"),
                ("raw", "-S", "0"), ("qcow2", "-S", "0"), ("raw", "-S", "64k"),
                ("qcow2", "-t", "none", "-m", "1"), ("raw", "-t", "unsafe", "-m", "16")]
        qemu_img("convert", "-c", "-O", "qcow2", "flat.raw", "packed.qcow2")
        for way in ways:
            for source in "flat.raw", "top.qcow2", "packed.qcow2":
                with self.subTest(way=way, source=source):
                    disk("convert", "-O", *way, source, "out")
                    self.same("flat.raw", "out")
                    if way[0] == "qcow2":
                        qemu_img("check", "out")

    def test_qemu_reads_ours_and_we_read_theirs(self):
        self.raw("x.raw", 20 * MIB, 30)
        disk("convert", "-c", "-O", "qcow2", "x.raw", "a.qcow2")
        qemu_img("convert", "-O", "raw", "a.qcow2", "a.raw")
        self.assertEqual(digest("x.raw"), digest("a.raw"))
        qemu_img("convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "x.raw", "b.qcow2")
        disk("convert", "b.qcow2", "b.raw")
        self.assertEqual(digest("x.raw"), digest("b.raw"))

    def test_holes_stay_holes(self):
        with open("x.raw", "wb") as f:
            f.truncate(1 << 40)
            f.seek(1 << 39)
            f.write(b"x" * 5000)
        disk("convert", "-O", "qcow2", "x.raw", "x.qcow2")
        self.assertLess(os.stat("x.qcow2").st_blocks * 512, 4 * MIB)
        disk("convert", "x.qcow2", "y.raw")
        self.assertLess(os.stat("y.raw").st_blocks * 512, MIB)
        disk("compare", "x.raw", "y.raw")

    def test_zeros_become_holes_unless_they_may_not(self):
        with open("x.raw", "wb") as f:
            f.write(bytes(MIB) + b"x" * MIB + bytes(2 * MIB))
        disk("convert", "x.raw", "y.raw")
        self.assertEqual(os.stat("y.raw").st_blocks * 512, MIB)
        disk("convert", "-S", "0", "x.raw", "y.raw")
        self.assertGreaterEqual(os.stat("y.raw").st_blocks * 512, 4 * MIB)

    def test_several_sources(self):
        self.raw("a.raw", 3 * MIB + 512)
        self.raw("b.raw", 2 * MIB + 1024)
        for fmt in "raw", "qcow2":
            disk("convert", "-O", fmt, "a.raw", "b.raw", "out")
            with open("sum.raw", "wb") as f:
                for name in "a.raw", "b.raw":
                    with open(name, "rb") as g:
                        f.write(g.read())
            self.same("sum.raw", "out")

    def test_into_an_existing_target(self):
        self.raw("x.raw")
        for fmt in "raw", "qcow2":
            qemu_img("create", "-f", fmt, "out", "8M")
            qemu_io("out", "write -P 9 0 8M", fmt=fmt)
            disk("convert", "-n", "-O", fmt, "x.raw", "out")
            self.same("x.raw", "out")
        qemu_img("create", "-f", "raw", "small", "1M")
        self.assertIn("smaller", disk("convert", "-n", "x.raw", "small", status=1).stderr)

    def test_onto_a_backing_file(self):
        self.chain()
        disk("convert", "-O", "qcow2", "-B", "mid.qcow2", "top.qcow2", "out.qcow2")
        self.same("flat.raw", "out.qcow2")
        qemu_img("check", "out.qcow2")
        self.assertLess(os.path.getsize("out.qcow2"), os.path.getsize("top.qcow2") + 256 * KIB)
        # Other contents below: what differs is written.
        self.raw("other.raw", 8 * MIB, 20)
        for words in (), ("-c",):
            disk("convert", "-O", "qcow2", *words, "-B", "other.raw", "-F", "raw", "top.qcow2",
                 "out.qcow2")
            self.same("flat.raw", "out.qcow2")

    def test_a_snapshot(self):
        self.raw("x.raw")
        qemu_img("convert", "-O", "qcow2", "x.raw", "x.qcow2")
        qemu_img("snapshot", "-c", "then", "x.qcow2")
        qemu_io("x.qcow2", "write -P 1 0 8M")
        disk("convert", "-l", "then", "x.qcow2", "out.raw")
        self.assertEqual(digest("x.raw"), digest("out.raw"))

    def test_imports(self):
        self.raw("x.raw", 8 * MIB)
        for fmt, options in (("vmdk", ()), ("vmdk", ("-o", "subformat=twoGbMaxExtentFlat")),
                             ("vpc", ("-o", "force_size")), ("vhdx", ()), ("vdi", ())):
            for target in "raw", "qcow2":
                with self.subTest(fmt=fmt, options=options, target=target):
                    qemu_img("convert", "-O", fmt, *options, "x.raw", "plain")
                    os.rename("plain", "-odd:name")
                    disk("convert", "-O", target, "--", "-odd:name", "out")
                    qemu_img("compare", "x.raw", "out")
        self.assertFalse([n for n in os.listdir(".") if n.startswith(".")])

    def test_an_import_sees_nothing_outside_of_its_folder(self):
        os.mkdir("in")
        self.raw("secret", MIB)
        with open("in/x.vmdk", "w") as f:
            f.write('# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n'
                    'createType="monolithicFlat"\n'
                    f'RW 2048 FLAT "{self.dir}/secret" 0\n')
        qemu_img("convert", "-O", "raw", "in/x.vmdk", "leak")  # this is what must not happen
        disk("convert", "in/x.vmdk", "in/out", status=1)
        self.assertEqual(os.listdir("in"), ["x.vmdk"])

    def test_progress_lines(self):
        self.raw("x.raw")
        r = disk("convert", "-p", "x.raw", "y.raw")
        self.assertRegex(r.stderr.splitlines()[-1], r"^100%  8 MiB of 8 MiB, .*/s, 0:00 left$")
        self.assertEqual(disk("convert", "x.raw", "y.raw").stderr, "")
        self.assertEqual(disk("convert", "-pq", "x.raw", "y.raw").stderr, "")


class Resize(Folder):
    def test_both_ways(self):
        for fmt in "raw", "qcow2":
            with self.subTest(fmt):
                self.raw("x.raw", 8 * MIB)
                qemu_img("convert", "-O", fmt, "x.raw", "x")
                shutil.copy("x", "y")
                for words in ("+2M",), ("20M",), ("--shrink", "-4M"), ("--shrink", "3M"), ("+1M",):
                    disk("resize", "-f", fmt, *words[:-1], "x", words[-1])
                    qemu_img("resize", "-q", "-f", fmt, *words[:-1], "y", words[-1])
                    self.same("x", "y")
                    self.assertEqual(
                        *(json.loads(qemu_img("info", "--output", "json", n).stdout)
                          ["virtual-size"] for n in "xy"))
                if fmt == "qcow2":
                    qemu_img("check", "x")

    def test_shrinking_is_asked_for(self):
        self.raw("x.raw")
        r = disk("resize", "x.raw", "1M", status=1)
        self.assertIn("--shrink", r.stderr)
        self.assertEqual(os.path.getsize("x.raw"), 8 * MIB)

    def test_a_table_longer_than_a_refcount_block_counts(self):
        qemu_img("create", "-f", "qcow2", "-o", "cluster_size=512", "x.qcow2", "1M")
        qemu_io("x.qcow2", "write -P 7 0 1M")
        disk("resize", "x.qcow2", "4G")
        self.assertLess(os.path.getsize("x.qcow2"), 8 * MIB)
        qemu_img("check", "x.qcow2")
        qemu_io("x.qcow2", "read -P 7 0 1M")
        qemu_io("x.qcow2", "read -P 0 1M 1M")

    def test_what_grows_over_a_larger_backing_file_is_zeros(self):
        self.raw("base.raw", 8 * MIB, 40)
        for program, name in (disk, "a.qcow2"), (qemu_img, "b.qcow2"):
            qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", name, "4M")
            program("resize", name, "8M")
        self.same("a.qcow2", "b.qcow2")


class Layers(Folder):
    def test_commit(self):
        self.chain()
        disk("commit", "top.qcow2")
        self.same("flat.raw", "top.qcow2")
        self.same("flat.raw", "mid.qcow2")
        for name in "top.qcow2", "mid.qcow2":
            qemu_img("check", name)
        # The top is empty now.
        self.assertTrue(all(x["depth"] or not x["present"] for x in json.loads(
            qemu_img("map", "--output", "json", "top.qcow2").stdout)))

    def test_commit_as_qemu_does(self):
        self.chain()
        os.mkdir("q")
        for name in "base.raw", "mid.qcow2", "top.qcow2":
            shutil.copy(name, "q")
        disk("commit", "top.qcow2")
        qemu_img("commit", "top.qcow2", cwd="q")
        for name in "base.raw", "mid.qcow2", "top.qcow2":
            self.same(name, "q/" + name)

    def test_commit_to_a_raw_file_which_grows(self):
        self.chain()
        disk("commit", "-b", "base.raw", "top.qcow2")
        self.same("flat.raw", "base.raw")
        self.same("flat.raw", "top.qcow2")

    def test_commit_and_keep(self):
        self.chain()
        before = digest("top.qcow2")
        disk("commit", "-d", "top.qcow2")
        self.assertEqual(digest("top.qcow2"), before)
        self.same("flat.raw", "mid.qcow2")

    def test_commit_to_what_is_no_backing_file(self):
        self.chain()
        self.raw("other.raw")
        r = disk("commit", "-b", "other.raw", "top.qcow2", status=1)
        self.assertIn("not among the backing files", r.stderr)
        self.assertIn("no backing file", disk("commit", "base.raw", status=1).stderr)

    def rebased(self, *words):
        disk("rebase", *words, "top.qcow2")
        self.same("flat.raw", "top.qcow2")
        qemu_img("check", "top.qcow2")
        return json.loads(qemu_img("info", "--output", "json", "top.qcow2").stdout)

    def test_rebase_past_a_layer(self):
        self.chain()
        info = self.rebased("-b", "base.raw", "-F", "raw")
        self.assertEqual(info["backing-filename"], "base.raw")

    def test_rebase_to_something_else(self):
        self.chain()
        self.raw("other.raw", 5 * MIB, 30)
        info = self.rebased("-b", "other.raw")
        self.assertEqual(info["backing-filename-format"], "raw")

    def test_rebase_to_nothing(self):
        self.chain()
        self.assertNotIn("backing-filename", self.rebased("-b", ""))
        os.remove("mid.qcow2")
        self.same("flat.raw", "top.qcow2")

    def test_rebase_with_extended_l2(self):
        self.raw("base.raw", 6 * MIB, 12)
        self.raw("other.raw", 6 * MIB, 12)
        qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "-o", "extended_l2=on",
                 "top.qcow2", "7M")
        qemu_io("top.qcow2", "write -P 3 100k 10k", "write -z 1M 6k", "write -P 4 3M 2k")
        qemu_img("convert", "-O", "raw", "top.qcow2", "flat.raw")
        self.rebased("-b", "other.raw", "-F", "raw")

    def test_rename_only(self):
        self.chain()
        os.rename("mid.qcow2", "moved.qcow2")
        disk("rebase", "-u", "-b", "moved.qcow2", "-F", "qcow2", "top.qcow2")
        self.same("flat.raw", "top.qcow2")


class Refusals(Folder):
    """Wrong input ends in one sentence and status 1, and touches nothing."""

    def refused(self, *words, saying, status=1):
        before = {n: os.stat(n).st_mtime_ns for n in os.listdir(".")}
        r = disk(*words, status=status)
        self.assertEqual(r.stdout, "")
        self.assertIn(saying, r.stderr)
        self.assertLessEqual(len(r.stderr.splitlines()), 2, r.stderr)
        self.assertEqual(before, {n: os.stat(n).st_mtime_ns for n in os.listdir(".")})

    def test_usage(self):
        self.refused("create", saying="FILE is missing")
        self.refused("create", "x", saying="SIZE is missing")
        self.refused("create", "-f", "vmdk", "x", "1M", saying="'vmdk' is none of raw|qcow2")
        self.refused("create", "x", "1X", saying="'1X' is not a size")
        self.refused("create", "-b", "y", "x", "1M", saying="a raw image has no backing file")
        self.refused("create", "-f", "qcow2", "-o", "cluster_sise=4k", "x", "1M",
                     saying="cluster_size")
        self.refused("create", "-f", "qcow2", "-o", "cluster_size=5000", "x", "1M",
                     saying="cluster")
        self.refused("convert", "x", saying="DST is missing")
        self.refused("convert", "-c", "x", "y", saying="-O qcow2")
        self.refused("resize", "x", saying="[+-]SIZE is missing")
        self.refused("rebase", "x", saying="--backing FILE is missing")
        self.refused("inof", "x", saying="did you mean 'info'?")
        self.refused("info", "--backing-chian", "x", saying="--backing-chain")

    def test_what_is_not_there(self):
        for verb in "info", "check", "map", "commit", "snapshot":
            self.refused(verb, "missing", saying="'missing'")
        self.refused("resize", "missing", "1M", saying="'missing'")
        self.refused("rebase", "-b", "", "missing", saying="'missing'")
        self.refused("convert", "missing", "out", saying="'missing'")
        self.refused("compare", "missing", "missing", saying="'missing'", status=2)
        self.refused("create", "-f", "qcow2", "-b", "missing", "x", "1M", saying="'missing'")
        self.refused("create", "no/such/folder/x", "1M", saying="no/such/folder")
        self.refused("create", ".", "1M", saying="directory")

    def test_wrong_formats(self):
        self.raw("x.raw")
        self.refused("info", "-f", "qcow2", "x.raw", saying="x.raw")
        self.refused("convert", "-f", "qcow2", "x.raw", "out", saying="x.raw")
        self.refused("convert", "-f", "vdi", "x.raw", "out", saying="qemu-img failed")
        self.refused("rebase", "-b", "", "x.raw", saying="only qcow2 images have backing files")
        self.refused("snapshot", "x.raw", saying="x.raw")

    def test_source_is_target(self):
        self.raw("x.raw")
        before = digest("x.raw")
        self.refused("convert", "-O", "qcow2", "x.raw", "x.raw", saying="source and target")
        self.assertEqual(digest("x.raw"), before)

    def test_damaged_images(self):
        self.raw("x.raw")
        qemu_img("convert", "-O", "qcow2", "x.raw", "good")
        with open("good", "rb") as f:
            good = bytearray(f.read())
        rng = random.Random(7)
        for _ in range(40):
            bad = bytearray(good)
            for _ in range(rng.choice((1, 3))):
                bad[rng.choice((rng.randrange(104), 65536 * rng.randrange(5) +
                                rng.randrange(64)))] = rng.randrange(256)
            with open("bad", "wb") as f:
                f.write(bad)
            for words in ("info", "bad"), ("check", "bad"), ("map", "bad"), \
                    ("convert", "-f", "qcow2", "bad", "out"):
                r = disk(*words, status=None)
                self.assertIn(r.returncode, (0, 1, 2, 3, 63), (words, r))

    def test_a_disk_in_use(self):
        qemu_img("create", "-f", "qcow2", "x.qcow2", "1M")
        self.raw("y.raw")
        user = subprocess.Popen(["qemu-io", "x.qcow2"], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE)
        try:
            user.stdin.write(b"read 0 512\n")
            user.stdin.flush()
            user.stdout.readline()
            for words in (("resize", "x.qcow2", "2M"), ("check", "-r", "all", "x.qcow2"),
                          ("rebase", "-u", "-b", "", "x.qcow2"), ("info", "x.qcow2"),
                          ("create", "-f", "qcow2", "x.qcow2", "1M"),
                          ("convert", "-n", "-O", "qcow2", "y.raw", "x.qcow2"),
                          ("convert", "y.raw", "x.qcow2")):
                with self.subTest(words):
                    self.refused(*words, saying="locked")
            for words in ("info", "-U"), ("map", "-U"), ("check", "-U"), ("snapshot", "-U"):
                disk(*words, "x.qcow2")
        finally:
            user.communicate(b"quit\n")
        disk("resize", "x.qcow2", "2M")


class Interrupted(Folder):
    SIZE = 96 * MIB

    def data(self, name, size=SIZE):
        with open(name, "wb") as f:
            for _ in range(size // MIB):
                f.write(random.randbytes(KIB) * (KIB // 2) + random.randbytes(MIB // 2))

    def stopped(self, sig, delay, *words):
        p = subprocess.Popen([HOLON, "disk", *words], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        time.sleep(delay)
        p.send_signal(sig)
        p.stderr.read()
        p.stderr.close()
        return p.wait(timeout=PATIENCE)

    def times(self, *words, n):
        """Points in time within a run, which is made once for its length."""
        start = time.monotonic()
        disk(*words)
        length = time.monotonic() - start
        return [random.uniform(0.01, length) for _ in range(n)]

    def test_convert(self):
        self.data("src.raw")
        before = digest("src.raw")
        for options in (), ("-c",):
            words = "convert", "-O", "qcow2", *options, "src.raw", "dst"
            for delay in self.times(*words, n=6):
                for sig in signal.SIGINT, signal.SIGKILL, signal.SIGTERM:
                    with open("dst", "w") as f:
                        f.write("old")
                    status = self.stopped(sig, delay, *words)
                    hidden = [n for n in os.listdir(".") if n.startswith(".")]
                    if status == 0:
                        disk("compare", "src.raw", "dst")
                    else:
                        self.assertIn(status, (128 + sig, -sig))
                        with open("dst", "rb") as f:
                            self.assertEqual(f.read(4), b"old")
                    if sig != signal.SIGKILL:
                        self.assertEqual(hidden, [])
                    for name in hidden:
                        os.remove(name)
        self.assertEqual(digest("src.raw"), before)

    def layers(self):
        self.data("base.raw", 64 * MIB)
        self.data("top.raw", 64 * MIB)
        qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
        qemu_img("convert", "-n", "-O", "qcow2", "top.raw", "top.qcow2")

    def valid(self, image):
        deadline = time.monotonic() + PATIENCE
        r = qemu_img("check", image, status=None)
        # The kernel takes a killed process's io_uring down after its end, and locks with it.
        while "lock" in r.stderr and time.monotonic() < deadline:
            time.sleep(0.02)
            r = qemu_img("check", image, status=None)
        self.assertIn(r.returncode, (0, 3), r)

    def test_commit(self):
        self.layers()
        os.mkdir("keep")
        for name in "base.raw", "top.qcow2":
            shutil.copy(name, "keep")
        for delay in self.times("commit", "top.qcow2", n=4):
            for sig in signal.SIGINT, signal.SIGKILL:
                for name in "base.raw", "top.qcow2":
                    shutil.copy("keep/" + name, name)
                self.stopped(sig, delay, "commit", "top.qcow2")
                self.valid("top.qcow2")
                qemu_img("compare", "top.raw", "top.qcow2")
        disk("commit", "top.qcow2")
        qemu_img("compare", "top.raw", "base.raw")

    def test_rebase(self):
        self.data("base.raw", 64 * MIB)
        for delay in self.rebase_times():
            for sig in signal.SIGINT, signal.SIGKILL:
                self.new_top()
                self.stopped(sig, delay, "rebase", "-b", "", "top.qcow2")
                self.valid("top.qcow2")
                qemu_img("compare", "base.raw", "top.qcow2")

    def new_top(self):
        qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")

    def rebase_times(self):
        self.new_top()
        return self.times("rebase", "-b", "", "top.qcow2", n=4)

    def test_resize(self):
        for _ in range(6):
            for sig in signal.SIGINT, signal.SIGKILL:
                qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", "x.qcow2", "8M")
                qemu_io("x.qcow2", "write -P 1 0 8M")
                self.stopped(sig, random.uniform(0.001, 0.02), "resize", "x.qcow2", "1T")
                self.valid("x.qcow2")
                qemu_io("x.qcow2", "read -P 1 0 8M")


class FullDisk(Folder):
    """On a file system of 24 MiB in a mount namespace of its own."""

    def on_small(self, script):
        r = subprocess.run(["unshare", "-Urm", "sh", "-ec",
                            "mount -t tmpfs -o size=24m none . && cd \"$PWD\"\n" + script],
                           capture_output=True, text=True, timeout=PATIENCE,
                           env=dict(os.environ, HOLON=os.path.abspath(
                               os.path.join(self.before, HOLON))))
        if "unshare" in r.stderr or "permission denied" in r.stderr:
            self.skipTest(f"no mount namespace here: {r.stderr.strip()}")
        self.assertEqual(r.returncode, 0, (r.stdout, r.stderr))
        return r

    def test_convert(self):
        r = self.on_small("""
            head -c 16M /dev/urandom >src.raw
            echo old >dst
            if $HOLON disk convert -O qcow2 src.raw dst; then exit 1; fi
            test "$(cat dst)" = old
            test "$(ls -A | wc -l)" = 2
            rm dst
            if $HOLON disk create -f raw -o preallocation=full dst 20M; then exit 1; fi
            test "$(ls -A)" = src.raw""")
        self.assertIn("No space left on device", r.stderr)

    def test_commit_and_rebase(self):
        self.on_small("""
            head -c 7M /dev/urandom >top.raw
            $HOLON disk create -q -f qcow2 base.qcow2 8M
            $HOLON disk create -q -f qcow2 -b base.qcow2 top.qcow2
            $HOLON disk convert -n -O qcow2 top.raw top.qcow2
            head -c 6M /dev/zero | tr '\\0' x >fill
            if $HOLON disk commit top.qcow2; then exit 1; fi
            $HOLON disk check -q base.qcow2 || test $? = 3
            $HOLON disk check -q top.qcow2 || test $? = 3
            $HOLON disk compare top.raw top.qcow2
            rm fill
            $HOLON disk commit top.qcow2
            $HOLON disk compare top.raw base.qcow2""")

    def test_limit_on_file_sizes(self):
        self.raw("x.raw", 2 * MIB, 20)
        r = run("bash", "-c", f"ulimit -f 1024; exec {HOLON} disk convert -S 0 x.raw out", status=1)
        self.assertIn("File too large", r.stderr)
        self.assertEqual(os.listdir("."), ["x.raw"])


if __name__ == "__main__":
    HOLON = os.path.abspath(sys.argv[1])
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
