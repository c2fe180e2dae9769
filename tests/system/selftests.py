#!/usr/bin/env python3
"""Linux's own selftests for x86, and that of protection keys, in a guest and on the host: selftests.py [--linux DIR] HOLON [TEST...]

They come out of Debian's linux-source package, are kept and built in the user's cache (with 32-bit ones
where gcc-multilib is there), and run in the guest as root. The table has both ends; what passes on the
host and not in the guest is a failure. Not part of 'make test': it needs a download of 140 MB."""

import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile

import boot_test
from boot_test import MOUNTS, GuestKernel, script
from harness import Vm

PACKAGE = "linux-source-6.1"
TESTS = "tools/testing/selftests"
PARTS = [f"{TESTS}/x86", f"{TESTS}/vm", f"{TESTS}/lib.mk", f"{TESTS}/kselftest.h", "tools/include",
         "arch/x86/include/asm/desc_defs.h"]
EACH = 60  # seconds
MEANS = {0: "pass", 4: "skip", 124: "hangs", 143: "hangs"}


def run(*words, **kw):
    return subprocess.run(words, check=True, **kw)


def fetch():
    """The directory of the sources that are needed."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    linux = os.path.join(cache, "holon", PACKAGE)
    if all(os.path.exists(os.path.join(linux, part)) for part in PARTS):
        return linux
    os.makedirs(linux, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=linux) as tmp:
        run("apt-get", "-q", "download", PACKAGE, cwd=tmp, stdout=subprocess.DEVNULL)
        run("dpkg-deb", "-x", *glob.glob(f"{tmp}/*.deb"), f"{tmp}/root")
        run("tar", "-C", linux, "--strip-components=1", "-xf", f"{tmp}/root/usr/src/{PACKAGE}.tar.xz",
            *(f"{PACKAGE}/{part}" for part in PARTS))
    return linux


def build(linux):
    """Paths of the programs; what cannot be built here is told and left out."""
    out = os.path.join(linux, TESTS, "x86")
    made = subprocess.run(["make", "-k", "-s", f"-j{os.cpu_count()}", "-C", out], text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if made.returncode:
        print("\n".join(line for line in made.stderr.splitlines() if "rror" in line))
    keys = os.path.join(linux, TESTS, "vm", "protection_keys.c")
    for bits in ("64", "32"):
        subprocess.run(["gcc", f"-m{bits}", "-mxsave", "-O2", "-std=gnu99", "-w", keys, "-o", f"{out}/protection_keys_{bits}"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    programs = sorted(glob.glob(f"{out}/*_64") + glob.glob(f"{out}/*_32"))
    if not any(p.endswith("_32") for p in programs):
        print("no 32-bit programs: 'apt-get install gcc-multilib' makes them possible")
    return programs


def libraries(programs):
    """mkinitramfs's words for the shared libraries that they load."""
    files = set()
    for program in programs:
        told = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True).stdout
        files.update(re.findall(r"(/\S+\.so\S*)", told))
    return [f"{os.path.realpath(f)}:{f.lstrip('/')}" for f in sorted(files)]


def on_host(programs):
    ends = {}
    for p in programs:
        r = subprocess.run(["timeout", "-k", "1", str(EACH), p], stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends[os.path.basename(p)] = r.returncode & 0xff
    return ends


def in_guest(holon, programs):
    init = MOUNTS + "mkdir -p /tmp /etc; echo root:x:0:0::/:/bin/sh > /etc/passwd; echo 1 > /proc/sys/kernel/printk\ncd /t\nfor t in *; do\n" \
        f"echo \"begin $t\"; timeout {EACH} ./$t </dev/null 2>&1; echo \"end $t $?\"; done\n" \
        "poweroff -f\n"
    GuestKernel.setUpClass()
    guest = GuestKernel()
    image = guest.initramfs(init, *(f"{p}:t/{os.path.basename(p)}" for p in programs),
                            *libraries(programs))
    vm = Vm(holon, "--memory", "512M", "--kernel", guest.kernel, "--initrd", image, "--append",
            "console=ttyS0 quiet")
    with vm:
        out = vm.p.communicate(timeout=len(programs) * EACH)[0].decode(errors="replace")
    GuestKernel.tearDownClass()
    text = {}
    for m in re.finditer(r"begin (\S+)\r?\n(.*?)end \1 (\d+)\r?\n", out, re.S):
        text[m.group(1)] = (int(m.group(3)), m.group(2))
    return text


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("holon")
    args.add_argument("test", nargs="*", help="e.g. fsgsbase_64; all without")
    args.add_argument("--linux", help="a kernel source tree to take the tests from")
    args = args.parse_args()
    programs = [p for p in build(args.linux or fetch())
                if not args.test or os.path.basename(p) in args.test]
    if not programs:
        sys.exit("no such test")
    boot_test.HOLON = args.holon
    host, guest, bad = on_host(programs), in_guest(args.holon, programs), 0
    print(f"{'test':32}{'host':>8}{'guest':>8}")
    for p in programs:
        name = os.path.basename(p)
        got, text = guest.get(name, (None, ""))
        mean = "lost" if got is None else MEANS.get(got, "fail")
        worse = host[name] == 0 and got not in (0, 4)
        bad += worse
        print(f"{name:32}{MEANS.get(host[name], 'fail'):>8}{mean:>8}{'  <--' if worse else ''}")
        if worse or (args.test and got):
            print("\t" + "\n\t".join(text.splitlines()[-60:]))
    print(f"{bad} of {len(programs)} pass on the host and not in the guest")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
