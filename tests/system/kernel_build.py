#!/usr/bin/env python3
"""A kernel built in a guest is the one that is built here: python3 kernel_build.py HOLON [--cpus N] [--config NAME]

Debian's linux-source, tinyconfig by default, built by Debian's compiler: here in a chroot, and in a guest
from the same tree on an ext4 disk. Both vmlinux must be equal. Wants to be root. The tree (2 GB) stays in the cache;
not part of `make test`: it takes some minutes, most of them on one compiler per vCPU. The engine is
$HOLON_TEST_ENGINE's."""

import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile
import time

from loads import cached
from shell import DISK_MODULES, Kit, Shell

PACKAGE = "linux-source-6.1"
TOOLS = ["gcc", "libc6-dev", "make", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "perl-base", "xz-utils"]
LONG = 6 * 3600
BUILD = """export KBUILD_BUILD_USER=holon KBUILD_BUILD_HOST=holon KBUILD_BUILD_TIMESTAMP=2020-01-01
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
rm -rf /out; mkdir /out; cd /linux
make -s ARCH=x86_64 O=/out CONFIG >/out/log 2>&1 && make -s ARCH=x86_64 O=/out -jCPUS vmlinux >>/out/log 2>&1 ||
	{ tail -20 /out/log; exit 1; }
sha256sum /out/vmlinux
"""


def tree():
    """A Debian with a compiler, and the kernel's source in /linux."""
    def make(work):
        def run(*words, **kw): subprocess.run(words, check=True, cwd=work, **kw)
        run("mmdebstrap", "-q", "--variant=apt", "--include=" + ",".join(TOOLS),
            "--aptopt=APT::Install-Recommends \"false\"", "bookworm", "root")
        run("apt-get", "-q", "download", PACKAGE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        run("dpkg-deb", "-x", *glob.glob(os.path.join(work, "*.deb")), "deb")
        os.mkdir(os.path.join(work, "root", "linux"))
        run("tar", "-C", "root/linux", "--strip-components=1", "-xf", f"deb/usr/src/{PACKAGE}.tar.xz")
        return os.path.join(work, "root")
    return cached("kernel-build", make)


def digest(text):
    found = re.search(r"([0-9a-f]{64})  /out/vmlinux", text)
    if not found:
        sys.exit(f"kernel_build: no vmlinux was made: {text}")
    return found[1]


def timed(what, build):
    start = time.monotonic()
    found = digest(build())
    print(f"{what:8}{time.monotonic() - start:8.0f} s  {found}", flush=True)
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("holon")
    p.add_argument("--cpus", type=int, default=1, help="vCPUs, and compilers at a time")
    p.add_argument("--config", default="tinyconfig", help="a target of the kernel's makefile")
    o = p.parse_args()
    if os.geteuid():
        sys.exit("kernel_build: it must be root, for chroot")
    root, build = tree(), BUILD.replace("CONFIG", o.config, 1).replace("CPUS", str(o.cpus))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        disk = os.path.join(work, "disk")
        with open(os.path.join(root, "build"), "w") as f:
            f.write(build)
        subprocess.run(["rm", "-rf", os.path.join(root, "out")], check=True)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk, "6G"], check=True)
        native = timed("native", lambda: subprocess.run(["chroot", root, "sh", "/build"], text=True,
                                                        stdout=subprocess.PIPE).stdout)
        kit = Kit(modules=DISK_MODULES)
        with Shell(o.holon, kit, "--cpus", str(o.cpus), "--disk", f"{disk},format=raw", memory="2G") as guest:
            guest.ready().sh("mkdir /r; mount -t ext4 /dev/vda /r; mount -t proc p /r/proc; mount --bind /dev /r/dev")
            ours = timed("guest", lambda: guest.sh("/bin/chroot /r /bin/sh /build </dev/null 2>&1", LONG))
            trouble = guest.sh("dmesg | grep -E 'BUG|WARNING|Oops|Call Trace|stall|segfault|MCE' || true")
            guest.power_off()
        kit.close()
    if trouble:
        sys.exit(f"kernel_build: the guest's kernel says: {trouble}")
    if native != ours:
        sys.exit("kernel_build: they differ")


if __name__ == "__main__":
    main()
