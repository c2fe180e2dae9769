"""Times 'holon disk' and qemu-img on the same images: conversions between raw and qcow2, with
compression, comparing, and making an image. Runs alternate, and which of the two begins a pair
alternates too. Sources are in the page cache; targets are flushed to the disk by both
(-t writeback)."""

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import time

import common

MIB = 1024 * 1024


def make_source(path, size_mib):
    """Half holes; of the data, half does not compress and half does."""
    rng = random.Random(1)
    with open(path, "wb") as f:
        f.truncate(size_mib * MIB)
        for at in range(0, size_mib, 2):
            f.seek(at * MIB)
            text = b"".join(b"%d line of a log file\n" % rng.randrange(10000) for _ in range(1000))
            f.write(rng.randbytes(MIB // 2) + (text * (MIB // 2 // len(text) + 1))[:MIB // 2])


def cases(directory):
    raw, qcow2, packed, out = (os.path.join(directory, n)
                               for n in ("src.raw", "src.qcow2", "packed.qcow2", "out"))
    flush = ["-t", "writeback"]
    return [
        ("raw -> qcow2", ["convert", *flush, "-O", "qcow2", raw, out]),
        ("qcow2 -> raw", ["convert", *flush, "-O", "raw", qcow2, out]),
        ("qcow2 -> qcow2", ["convert", *flush, "-O", "qcow2", qcow2, out]),
        ("raw -> qcow2, unsafe", ["convert", "-t", "unsafe", "-O", "qcow2", raw, out]),
        ("qcow2 -> raw, unsafe", ["convert", "-t", "unsafe", "-O", "raw", qcow2, out]),
        ("raw -> qcow2 -c", ["convert", *flush, "-c", "-O", "qcow2", raw, out]),
        ("raw -> qcow2 -c zstd", ["convert", *flush, "-c", "-o", "compression_type=zstd", "-O",
                                  "qcow2", raw, out]),
        ("qcow2 -c -> raw", ["convert", *flush, "-O", "raw", packed, out]),
        ("compare raw qcow2", ["compare", raw, qcow2]),
        ("check qcow2", ["check", qcow2]),
        ("create qcow2 1T", ["create", "-f", "qcow2", out, "1T"]),
    ]


def timed(program, words, out):
    if os.path.exists(out):
        os.remove(out)
    os.sync()
    start = time.perf_counter()
    r = subprocess.run([*program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = time.perf_counter() - start
    if r.returncode:
        common.fail(f"{' '.join([*program, *words])}: {r.stderr.decode()}")
    return seconds


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--holon", default=os.path.join(common.TOP, "build", "holon"))
    p.add_argument("--runs", type=int, default=5, help="counted pairs (default: 5)")
    p.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the disk")
    p.add_argument("--directory", help="where the images are made (default: a temporary one)")
    p.add_argument("--only", default="", help="cases that have this in their name")
    p.add_argument("--json", action="store_true", help="print all samples as JSON")
    options = p.parse_args()
    programs = {"holon": [options.holon, "disk"], "qemu": [shutil.which("qemu-img")]}
    rows = []
    with tempfile.TemporaryDirectory(prefix="holon-bench.", dir=options.directory) as directory:
        source, out = os.path.join(directory, "src.raw"), os.path.join(directory, "out")
        make_source(source, options.size)
        for name, words in ("src.qcow2", []), ("packed.qcow2", ["-c"]):
            subprocess.run(["qemu-img", "convert", *words, "-O", "qcow2", source,
                            os.path.join(directory, name)], check=True)
        for what, words in cases(directory):
            if options.only not in what:
                continue
            samples = {"holon": [], "qemu": []}
            for i in range(options.runs + 1):  # the first pair is not counted
                for name in list(programs)[::1 if i % 2 else -1]:
                    seconds = timed(programs[name], words, out)
                    if i:
                        samples[name].append(seconds)
            rows.append((what, samples["holon"], samples["qemu"]))
    if options.json:
        common.show_json(**{what: {"holon": a, "qemu": b} for what, a, b in rows})
    else:
        common.show(f"disk commands on {options.size} MiB, half of it data", "seconds", 3, rows,
                    "qemu-img")


main()
