"""What the measurements share: the two hypervisors' command lines, the guest's kernel and
initramfs, and how results are shown."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
SCRIPTS = os.path.join(TOP, "scripts")


def fail(text):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {text}")


def arguments(description):
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--holon", default=os.path.join(TOP, "build", "holon"), help="the program to measure")
    p.add_argument("--engine", default="jit", help="Holon's engine (default: jit)")
    p.add_argument("--qemu", default="qemu-system-x86_64", help="the peer")
    p.add_argument("--no-qemu", action="store_true", help="measure Holon alone")
    p.add_argument("--kernel", help="a bzImage (default: what scripts/fetch-kernel has)")
    p.add_argument("--memory", type=int, default=512, metavar="MIB", help="guest RAM (default: 512)")
    p.add_argument("--append", default="console=ttyS0", help="kernel command line")
    p.add_argument("--json", action="store_true", help="print all samples as JSON")
    return p


def parse(parser):
    """The options, once the programs that they name are there."""
    options = parser.parse_args()
    options.holon = shutil.which(options.holon) or fail(f"no program {options.holon}: run `make` first")
    if not options.no_qemu:
        options.qemu = shutil.which(options.qemu) or fail(f"no program {options.qemu}")
    return options


def kernel_of(options):
    if options.kernel:
        return options.kernel
    r = subprocess.run([os.path.join(SCRIPTS, "fetch-kernel")], stdout=subprocess.PIPE, text=True)
    if r.returncode:
        fail("no kernel to boot")
    return r.stdout.strip()


def initramfs(directory, init, *files):
    """An initramfs whose /init is the given shell script; files: "FROM:TO"."""
    script = os.path.join(directory, "init")
    output = os.path.join(directory, "initramfs.gz")
    with open(script, "w") as f:
        f.write(init)
    if subprocess.run([os.path.join(SCRIPTS, "mkinitramfs"), "--init", script, output, *files]).returncode:
        fail("no initramfs")
    return output


def scratch(where=None):
    return tempfile.TemporaryDirectory(prefix="holon-bench.", dir=where)


def holon_command(options, *more):
    return [options.holon, "run", f"--engine={options.engine}", "--memory", f"{options.memory}M", *more]


def qemu_command(options, *more):
    return [options.qemu, "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", f"{options.memory}M",
            "-no-reboot", *more]


def median(samples):
    return statistics.median(samples) if samples else None


def show(title, unit, digits, rows, peer="QEMU TCG"):
    """rows: (what, Holon's samples, the peer's samples). Medians, ranges and their ratio."""

    def cell(samples):
        if not samples:
            return "-"
        return f"{median(samples):.{digits}f} ({min(samples):.{digits}f}..{max(samples):.{digits}f})"

    width = max(24, *(len(r[0]) for r in rows))
    print(f"{title}, {unit}: median (range)")
    print(f"  {'':{width}}  {'Holon':>26}  {peer:>26}  {'ratio':>6}")
    for what, ours, theirs in rows:
        ratio = f"{median(ours) / median(theirs):.2f}" if ours and theirs else "-"
        print(f"  {what:{width}}  {cell(ours):>26}  {cell(theirs):>26}  {ratio:>6}")


def show_json(**results):
    json.dump(results, sys.stdout, indent=2)
    print()
