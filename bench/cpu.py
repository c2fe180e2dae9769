"""Measures the same programs (programs/cpu_*.c, linked statically) natively, in a guest of Holon and in one
of QEMU TCG. One run of a hypervisor is one boot of a stock kernel whose /init runs all tests; the order of
the three changes from run to run. A test does a fixed piece of work again and again, with the guest's
monotonic clock around it, which is checked against the host's. Its checksum must be the same everywhere.
Prints for each test the time of one operation as the median of all runs, the slowdowns against native, and
their geometric mean for each group."""

import argparse
import math
import os
import re
import subprocess
import time

import chart
import common
import guest

GROUPS = ["integer", "memory", "float", "os"]
# Geometric means of a group, and any test outside the group os; a hypervisor may be slower than TCG only
# where TCG is less than this times slower than native.
GOAL = "integer=1.8,memory=1.6,float=1.4,os=4,test=3,tcg=1.5"
INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev
/bin/cpu SECONDS NAMES
poweroff -f
"""
BEGIN, END = "HOLON-CPU begin ", "HOLON-CPU end "
LINE = re.compile(r"HOLON-CPU (\S+)/(\S+) units=(\d+) ops=(\d+) seconds=([\d.]+) best=([\d.]+) per=(\S+) sum=(\w+)")
BOOT = "boot to /init"
NAMES = {"native": "native", "holon": "Holon", "qemu": "QEMU TCG"}


def build(directory):
    here = os.path.join(os.path.dirname(os.path.realpath(__file__)), "programs")
    program = os.path.join(directory, "cpu")
    sources = sorted(os.path.join(here, f) for f in os.listdir(here) if f.startswith("cpu_") and f.endswith(".c"))
    if subprocess.run(["cc", "-O2", "-static", "-ffp-contract=off", "-fno-math-errno", "-o", program, *sources,
                       "-lz"]).returncode:
        common.fail("the test programs do not build")
    return program


def check_clock(command, text, at):
    """The guest's clock went on as the host's did while the tests ran."""
    begin, end = (re.search(re.escape(mark) + r"([\d.]+)", text) for mark in (BEGIN, END))
    if not begin or not end:
        guest.failed(command, text, "the tests did not come to their end")
    theirs, ours = float(end[1]) - float(begin[1]), at[END] - at[BEGIN]
    if abs(theirs - ours) > 0.25 + 0.02 * ours:
        common.fail(f"{command[0]}: {theirs:.2f} s went by on the guest's clock, {ours:.2f} s on the host's")


class Tests:
    """What has been found out about each test, by all runs: {(group, name): ...}"""

    def __init__(self, options):
        self.options = options
        self.per, self.sums, self.times = {}, {}, {}

    def add(self, which, key, per, ns):
        self.per[key] = per
        self.times.setdefault(key, {w: [] for w in options_places(self.options)})[which].append(ns)

    def take(self, which, command, text, at):
        check_clock(command, text, at)
        for wrong in re.findall(r"HOLON-CPU wrong .*", text):
            common.fail(f"{NAMES[which]}: {wrong}")
        for group, name, units, ops, seconds, best, per, total in LINE.findall(text):
            first = self.sums.setdefault((group, name), (which, total))
            if first[1] != total:
                common.fail(f"{group}/{name}: {NAMES[which]} computes {total}, {NAMES[first[0]]} {first[1]}")
            unit = float(best) if self.options.best else float(seconds) / int(units)
            self.add(which, (group, name), per, unit / int(ops) * 1e9)
        if which != "native" and not self.options.only:
            self.add(which, ("os", BOOT), "boot", at[BEGIN] * 1e9)

    def median(self, key, which):
        return common.median(self.times[key].get(which))

    def slowdown(self, key, which, base="native"):
        ours, theirs = self.median(key, which), self.median(key, base)
        return ours / theirs if ours and theirs else None

    def mean(self, group, which, base="native"):
        found = [self.slowdown(k, which, base) for k in self.times if k[0] == group]
        found = [f for f in found if f]
        return math.exp(sum(map(math.log, found)) / len(found)) if found else None


def options_places(options):
    return ([] if options.no_native else ["native"]) + ["holon"] + ([] if options.no_qemu else ["qemu"])


def measure(options, directory):
    program = build(directory)
    names = options.only or []
    init = INIT.replace("SECONDS", str(options.seconds)).replace("NAMES", " ".join(names))
    ramdisk = common.initramfs(directory, init, f"{program}:/bin/cpu")
    append = options.append + " quiet"
    boot = ["--kernel", options.kernel, "--initrd", ramdisk, "--append", append]
    commands = {"native": [program, str(options.seconds), *names], "holon": common.holon_command(options, *boot),
                "qemu": common.qemu_command(options, "-nographic", "-kernel", options.kernel, "-initrd", ramdisk,
                                            "-append", append)}
    tests, places = Tests(options), options_places(options)
    for i in range(options.runs):
        for which in places[i % len(places):] + places[:i % len(places)]:
            text, at, status, _ = guest.output(commands[which], options.limit, (BEGIN, END))
            if status:
                guest.failed(commands[which], text, f"ended with status {status}")
            tests.take(which, commands[which], text, at)
    if not tests.times:
        common.fail("no such test or group: " + " ".join(names))
    return tests


def time_text(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def cell(samples):
    """The median, and how far the samples lie from it."""
    if not samples:
        return "-"
    middle = common.median(samples)
    away = max(middle - min(samples), max(samples) - middle) / middle * 100
    return f"{time_text(middle)} ±{away:.0f}%"


def ratio(value):
    return f"{value:.2f}" if value else "-"


def rows(tests):
    """The table: a heading, then for each group its tests and its mean, as lists of cells."""
    places = options_places(tests.options)
    heading = ["", "one", *(NAMES[p] for p in places)]
    ratios = [(w, b) for w, b in (("holon", "native"), ("qemu", "native"), ("qemu", "holon"))
              if w in places and b in places]
    heading += [f"{NAMES[w]}/{NAMES[b]}" for w, b in ratios]
    table = []
    for group in GROUPS:
        keys = [k for k in tests.times if k[0] == group]
        for key in keys:
            table.append([f"{group}/{key[1]}", tests.per[key], *(cell(tests.times[key][p]) for p in places),
                          *(ratio(tests.slowdown(key, w, b)) for w, b in ratios)])
        if keys:
            table.append([f"{group}: geometric mean", "", *("" for _ in places),
                          *(ratio(tests.mean(group, w, b)) for w, b in ratios)])
    return heading, table


def show(tests):
    heading, table = rows(tests)
    widths = [max(len(r[i]) for r in [heading, *table]) for i in range(len(heading))]
    print(f"Time of one operation, engine {tests.options.engine}, {tests.options.runs} runs: "
          f"{'fastest unit of a run, ' if tests.options.best else ''}median ±largest distance")
    for r in [heading, *table]:
        print("  " + "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip())


def chart_of(tests):
    shown = [p for p in options_places(tests.options) if p != "native"]
    lines = []
    for group in GROUPS:
        keys = [k for k in tests.times if k[0] == group and tests.median(k, "native")]
        lines += [(k[1], [tests.slowdown(k, p) for p in shown], False) for k in keys]
        if keys:
            lines += [(f"{group}: mean", [tests.mean(group, p) for p in shown], True), None]
    return chart.svg("Times slower than native: shorter is better", surroundings(tests)[0], [NAMES[p] for p in shown],
                     lines[:-1])


def first_line(command):
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=common.TOP).stdout
    return out.splitlines()[0].strip() if out else "?"


def surroundings(tests):
    """When, of what and where the figures are, as lines."""
    o = tests.options
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*: (.*)", f.read())
    commit = first_line(["git", "rev-parse", "--short", "HEAD"])
    if first_line(["git", "status", "--porcelain", "src", "bench"]) != "?":
        commit += " (changed)"
    return [f"{time.strftime('%Y-%m-%d')}, Holon {commit}, engine {o.engine}, " +
            ("" if o.no_qemu else first_line([o.qemu, "--version"]).split(" (")[0].replace(" emulator version", "") + ", ") +
            f"{o.runs} alternating runs of {o.seconds:g} s" + (", fastest unit of each" if o.best else ""),
            f"{model[1] if model else '?'}, {os.cpu_count()} processors, host Linux {os.uname().release}, "
            f"load {os.getloadavg()[1]:.1f}; guest {os.path.basename(o.kernel)}, one vCPU, {o.memory} MiB; "
            f"{first_line(['cc', '--version'])}"]


DOC_BEGIN, DOC_END = "<!-- written by bench/cpu --doc -->\n", "<!-- end -->\n"


def write_doc(tests, path):
    """Puts the figures between the marks in the page, and the chart beside it."""
    with open(path) as f:
        page = f.read()
    if page.count(DOC_BEGIN) != 1 or page.count(DOC_END) != 1:
        common.fail(f"{path} has no place for the figures: a line '{DOC_BEGIN.strip()}' and a line '{DOC_END.strip()}'")
    heading, table = rows(tests)
    picture = os.path.splitext(path)[0] + ".svg"
    lines = [*surroundings(tests), ""]
    lines += ["| " + " | ".join(heading) + " |", "|---|---|" + "---:|" * (len(heading) - 2)]
    lines += ["| " + " | ".join(f"**{c}**" if c and "mean" in r[0] else c for c in r) + " |" for r in table]
    lines += ["", f"![slowdowns]({os.path.basename(picture)})"]
    before, after = page.split(DOC_BEGIN)[0], page.split(DOC_END)[1]
    with open(path, "w") as f:
        f.write(before + DOC_BEGIN + "\n".join(lines) + "\n" + DOC_END + after)
    with open(picture, "w") as f:
        f.write(chart_of(tests))


def limits(text):
    known = GROUPS + ["test", "tcg"]
    try:
        found = {name: float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': write NAME=FACTOR[,...]")
    for name in found:
        if name not in known:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(known)}")
    return found


def beyond(tests, limit):
    """What is slower than it may be, in words."""
    found = []
    for group in GROUPS:
        mean = tests.mean(group, "holon")
        if mean and mean > limit.get(group, math.inf):
            found.append(f"{group}: {mean:.2f} times native, limit {limit[group]}")
    for key in tests.times:
        holon, qemu = tests.slowdown(key, "holon"), tests.slowdown(key, "qemu")
        against = tests.slowdown(key, "holon", "qemu")
        if key[0] != "os" and holon and holon > limit.get("test", math.inf):
            found.append(f"{key[0]}/{key[1]}: {holon:.2f} times native, limit {limit['test']}")
        if against and against > 1 and (qemu is None or qemu > limit.get("tcg", math.inf)) and "tcg" in limit:
            found.append(f"{key[0]}/{key[1]}: {against:.2f} times QEMU TCG's time")
    return found


def main():
    p = common.arguments(__doc__)
    p.add_argument("--runs", type=int, default=5, help="runs of each (default: 5)")
    p.add_argument("--seconds", type=float, default=1, metavar="S", help="length of one test (default: 1)")
    p.add_argument("--only", action="append", metavar="GROUP|TEST", help="measure this alone; may be repeated. "
                   f"Groups: {', '.join(GROUPS)}")
    p.add_argument("--no-native", action="store_true", help="compare Holon with QEMU TCG alone")
    p.add_argument("--best", action="store_true", help="take the fastest unit of each run, not all of them: "
                   "for a machine that is busy with other things")
    p.add_argument("--svg", metavar="FILE", help="draw a chart; as PNG too where rsvg-convert, inkscape or convert is")
    p.add_argument("--doc", metavar="FILE", help="write the figures into this page, and a chart beside it: "
                   "docs/performance.md")
    p.add_argument("--limit", type=float, default=600, metavar="S", help="longest time for one guest")
    p.add_argument("--max-slowdown", type=limits, nargs="?", const=GOAL, metavar="NAME=FACTOR,...",
                   help="exit 1 when a group's mean, any test outside os (name: test), is more than this times "
                   "slower than native, or a test is slower than TCG where TCG is more than a factor (name: tcg) "
                   f"slower than native; alone: {GOAL}")
    options = common.parse(p)
    options.kernel = common.kernel_of(options)
    with common.scratch() as directory:
        tests = measure(options, directory)
    if options.json:
        common.show_json(kernel=options.kernel, engine=options.engine, seconds=options.seconds, best=options.best,
                         ns={f"{g}/{n}": t for (g, n), t in tests.times.items()},
                         mean_slowdown={g: {w: tests.mean(g, w) for w in options_places(options)} for g in GROUPS})
    else:
        show(tests)
    if options.svg:
        chart.write(options.svg, chart_of(tests))
    if options.doc:
        write_doc(tests, options.doc)
    slow = beyond(tests, options.max_slowdown) if options.max_slowdown else []
    if slow:
        common.fail("slower than it may be:\n  " + "\n  ".join(slow))


if __name__ == "__main__":
    main()
