"""Measures, on the host's clock, from the start of the hypervisor's process to the first line
that the guest's /init writes to its console, and to the end of the process after the guest has
powered off. The same kernel, initramfs and memory for both; runs alternate, and which of the
two begins a pair alternates too."""

import os

import common
import guest

MARK = "HOLON-BENCH-INIT"
INIT = f"#!/bin/sh\necho {MARK}\npoweroff -f\n"


def run(command, limit):
    """(seconds to /init, seconds to the end)"""
    text, at, status, end = guest.output(command, limit, [MARK])
    if status or MARK not in at:
        guest.failed(command, text, f"ended with status {status}{'' if MARK in at else ' before /init'}")
    return at[MARK], end


def main():
    p = common.arguments(__doc__)
    p.add_argument("--runs", type=int, default=5, help="counted pairs (default: 5)")
    p.add_argument("--limit", type=float, default=120, metavar="S", help="longest time for one run")
    p.add_argument("--max-ratio", type=float, help="exit 1 when a median is above this times QEMU's")
    options = common.parse(p)
    kernel = common.kernel_of(options)
    to_init, to_end = {"holon": [], "qemu": []}, {"holon": [], "qemu": []}
    with common.scratch() as directory:
        ramdisk = common.initramfs(directory, INIT)
        boot = ["--kernel", kernel, "--initrd", ramdisk, "--append", options.append]
        commands = {"holon": common.holon_command(options, *boot)}
        if not options.no_qemu:
            boot = ["-kernel", kernel, "-initrd", ramdisk, "-append", options.append]
            commands["qemu"] = common.qemu_command(options, "-nographic", *boot)
        # The first pair reads the files from disk and is not counted.
        for i in range(options.runs + 1):
            for name in sorted(commands, reverse=i % 2 == 1):
                init, end = run(commands[name], options.limit)
                if i:
                    to_init[name].append(init)
                    to_end[name].append(end)
    if options.json:
        common.show_json(kernel=kernel, memory_mib=options.memory, to_init_s=to_init, to_end_s=to_end)
    else:
        common.show(f"Boot of {os.path.basename(kernel)}, {options.memory} MiB, engine {options.engine}",
                    "seconds from process start", 3,
                    [("to /init", to_init["holon"], to_init["qemu"]),
                     ("to power-off", to_end["holon"], to_end["qemu"])])
    if options.max_ratio and not options.no_qemu:
        for t in to_init, to_end:
            if common.median(t["holon"]) > options.max_ratio * common.median(t["qemu"]):
                common.fail(f"slower than {options.max_ratio} times QEMU")


main()
