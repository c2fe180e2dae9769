#!/usr/bin/env python3
"""Boots in a row: python3 boots.py HOLON [N]. Each boots Debian's kernel to a shell, uses it, and
powers off. The first failure ends it. Default: 50."""

import statistics
import sys
import time

import boot_test


class Boots(boot_test.Boot):
    def runTest(self):
        pass


def main():
    boot_test.HOLON = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    Boots.setUpClass()
    times = []
    try:
        for n in range(count):
            started = time.monotonic()
            try:
                Boots().test_bzimage_to_a_shell()
            except Exception:
                print(f"boot {n + 1} of {count} failed", flush=True)
                raise
            times.append(time.monotonic() - started)
    finally:
        Boots.tearDownClass()
    print(f"{count} boots; {min(times):.1f} to {max(times):.1f} s, median {statistics.median(times):.1f} s")


if __name__ == "__main__":
    main()
