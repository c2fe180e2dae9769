"""Measures what a guest gets of its disk (io_disk.py), its network (io_net.py) and a folder of the host (io_share.py), on the same
files, kernel and initramfs for both hypervisors. Runs alternate, and which of the two begins a
pair alternates too. Each row is a rate: more is better. Prints medians, their ratio for each
row, and the geometric mean of the ratios.

A half is a module with half(options, directory), which returns an object with
    title, rows    [(name, unit, digits)]
    run(which)     boots one guest under "holon" or "qemu"; {name: rate}"""

import importlib.util
import math
import os

import common

HALVES = ["disk", "net", "share"]


def load(name):
    path = os.path.join(os.path.dirname(os.path.realpath(__file__)), f"io_{name}.py")
    if not os.path.exists(path):
        return None
    spec = importlib.util.spec_from_file_location(f"io_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(half, options):
    """{row: {hypervisor: samples}}"""
    samples = {name: {"holon": [], "qemu": []} for name, _, _ in half.rows}
    hypervisors = ["holon"] if options.no_qemu else ["holon", "qemu"]
    for i in range(options.runs):
        for which in sorted(hypervisors, reverse=i % 2 == 1):
            for name, rate in half.run(which).items():
                samples[name][which].append(rate)
    return samples


def ratios(samples):
    return {name: common.median(s["holon"]) / common.median(s["qemu"])
            for name, s in samples.items() if s["holon"] and s["qemu"]}


def geometric_mean(values):
    return math.exp(sum(math.log(v) for v in values) / len(values))


def main():
    p = common.arguments(__doc__)
    p.add_argument("--runs", type=int, default=3, help="counted pairs (default: 3)")
    p.add_argument("--seconds", type=int, default=4, metavar="S", help="length of one load (default: 4)")
    p.add_argument("--only", choices=HALVES, help="measure this half alone")
    p.add_argument("--disk", metavar="FILE", help="what the guest's disk lies on: a file that is made anew "
                   "(default: one in /var/tmp)")
    p.add_argument("--disk-size", type=int, default=1024, metavar="MIB", help="its size (default: 1024)")
    p.add_argument("--format", default="raw", choices=["raw", "qcow2"], help="its format (default: raw)")
    p.add_argument("--cache", default="none", choices=["none", "writeback"], help="its cache mode (default: none)")
    p.add_argument("--limit", type=float, default=300, metavar="S", help="longest time for one guest")
    p.add_argument("--min-ratio", type=float, help="exit 1 when a row is below this times QEMU's")
    p.add_argument("--min-mean", type=float, help="exit 1 when the geometric mean is below this")
    options = common.parse(p)
    options.kernel = common.kernel_of(options)
    results, all_ratios = {}, {}
    with common.scratch("/var/tmp") as directory:
        for name in HALVES:
            module = load(name) if options.only in (None, name) else None
            if not module:
                continue
            half = module.half(options, directory)
            results[name] = measure(half, options)
            all_ratios.update(ratios(results[name]))
            if not options.json:
                for unit, digits in dict.fromkeys((u, d) for _, u, d in half.rows):
                    common.show(half.title, unit, digits,
                                [(r, results[name][r]["holon"], results[name][r]["qemu"])
                                 for r, u, _ in half.rows if u == unit])
    mean = geometric_mean(all_ratios.values()) if all_ratios else None
    if options.json:
        common.show_json(kernel=options.kernel, samples=results, ratios=all_ratios, geometric_mean=mean)
    elif mean:
        print(f"geometric mean of {len(all_ratios)} ratios: {mean:.2f}")
    slow = [f"{n} ({r:.2f})" for n, r in all_ratios.items() if options.min_ratio and r < options.min_ratio]
    if slow:
        common.fail(f"below {options.min_ratio} times QEMU: {', '.join(slow)}")
    if options.min_mean and mean and mean < options.min_mean:
        common.fail(f"the geometric mean is below {options.min_mean}")


main()
