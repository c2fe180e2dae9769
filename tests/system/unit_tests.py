#!/usr/bin/env python3
"""kvm-unit-tests on an engine: python3 unit_tests.py HOLON DIR [TEST...]

DIR is a tree of kvm-unit-tests (gitlab.com/kvm-unit-tests), built: ./configure && make, with --arch=i386 for the
32-bit ones. What its x86/unittests.cfg lists is run, but for groups that want another hypervisor's devices or nested
virtualization. The engine is $HOLON_TEST_ENGINE's; UNIT_SECONDS says how long a test may take (600). Not part of
'make test'."""

import argparse
import os
import re
import subprocess
import sys
import time

from harness import ENGINE

SECONDS = int(os.environ.get("UNIT_SECONDS", "600"))
NOT_OURS = {"vmx", "svm", "hyperv", "nodefault"}
# What each needs that no x86 guest of Holon has.
WANTS = {"vmware_backdoors": "VMware's ports", "intel_iommu": "an IOMMU", "s3": "a BIOS that suspends",
         "realmode": "a BIOS's interrupt vectors", "asyncpf": "KVM's asynchronous page faults",
         "svm_npt": "nested virtualization", "svm_unsupported_instruction_intercept_test": "nested virtualization",
         "pmu": "performance counters that count", "access-reduced-maxphyaddr": "an Intel processor's option of KVM"}
CPU = {"la57": "host+la57"}
PASS, SKIP = 1, 77  # exit statuses


def tests(directory):
    """(name, {key: value}) of the list, in its order."""
    found, here = [], None
    for line in open(os.path.join(directory, "x86", "unittests.cfg")):
        if m := re.match(r"\[(.*)\]", line):
            here = {"file": m[1] + ".flat"}
            found.append((m[1], here))
        elif here is not None and (m := re.match(r"(\w+)\s*=\s*(.*)", line)):
            here[m[1]] = m[2]
    return found


def arguments(text):
    """As the list's shell has them: there are quotes, and `date`."""
    return subprocess.run(["sh", "-c", f"echo {text}"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def run(holon, directory, name, t):
    """(how it ended, its output)"""
    kernel = os.path.join(directory, "x86", t["file"])
    if not os.path.exists(kernel):
        return "not built", ""
    words = [holon, "run", "--engine", ENGINE, "--debug-exit", "--memory", "2G", "--cpus", t.get("smp", "1"),
             "--kernel", kernel, "--cpu", CPU.get(name, "host")]
    if args := t.get("test_args") or t.get("extra_params"):
        words += ["--append", arguments(args)]
    p = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        out = p.communicate(timeout=SECONDS)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        p.kill()
        return "hangs", p.communicate()[0].decode(errors="replace")
    return {PASS: "pass", SKIP: "skip"}.get(p.returncode, f"fail {p.returncode}"), out


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("holon")
    args.add_argument("directory")
    args.add_argument("test", nargs="*", help="e.g. xapic; all without")
    o = args.parse_args()
    count = {}
    for name, t in tests(o.directory):
        groups = set(t.get("groups", "").split())
        if o.test and name not in o.test or not o.test and (groups & NOT_OURS):
            continue
        start = time.monotonic()
        how, text = (f"skip: wants {WANTS[name]}", "") if name in WANTS and not o.test else \
            run(o.holon, o.directory, name, t)
        if how == "not built":
            continue
        kind = how.split()[0].rstrip(":")
        count[kind] = count.get(kind, 0) + 1
        print(f"{name:32}{time.monotonic() - start:7.1f} s  {how}", flush=True)
        if kind in ("fail", "hangs"):
            lines = [line for line in text.splitlines() if "FAIL" in line][:20] or text.splitlines()[-5:]
            print("\t" + "\n\t".join(lines))
    print(", ".join(f"{n} {kind}" for kind, n in count.items()))
    sys.exit(1 if count.get("fail") or count.get("hangs") else 0)


if __name__ == "__main__":
    main()
