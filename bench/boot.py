"""Measures, on the host's clock, from the start of the hypervisor's process to the first line
that the guest's /init writes to its console, and to the end of the process after the guest has
powered off. The same kernel, initramfs and memory for both; runs alternate, and which of the
two begins a pair alternates too."""

import os
import select
import subprocess
import time

import common

MARK = b"HOLON-BENCH-INIT"
INIT = f"#!/bin/sh\necho {MARK.decode()}\npoweroff -f\n"


def run(command, limit):
    """(seconds to /init, seconds to the end)"""
    start = time.perf_counter()
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen, at_init = b"", None
    fd = p.stdout.fileno()
    while True:
        left = start + limit - time.perf_counter()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            p.kill()
            p.wait()
            break
        piece = os.read(fd, 65536)
        if not piece:
            break
        seen += piece
        if at_init is None and MARK in seen:
            at_init = time.perf_counter() - start
    status = p.wait()
    end = time.perf_counter() - start
    if status or at_init is None:
        tail = seen.decode(errors="replace").splitlines()[-15:]
        common.fail("\n".join([f"{command[0]} ended with status {status}"
                               f"{'' if at_init else ' before /init'}; its last lines:"] + tail))
    return at_init, end


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
