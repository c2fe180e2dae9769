"""Boots a guest whose /init starts Holon's agent, in two ways that alternate: `holon run` until /init
says on the console that the agent starts (a boot alone), and `holon run -d` followed by `holon exec
--wait` until that has ended. The difference is what management costs: it is to stay under 100 ms.
Then the commands on that VM are timed, each from the start of its process to the end: they are to
stay under 20 ms, with the guest idle and with all its vCPUs computing."""

import os
import subprocess
import time

import common
import guest

MARK = "HOLON-BENCH-AGENT"
MODULES = ["virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev",
           "virtio/virtio_pci"]
VSOCK = ["vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"]
COMMANDS = [["ls"], ["inspect", "bench"], ["stats", "bench"], ["events", "bench"], ["logs", "bench"],
            ["pause", "bench"], ["resume", "bench"], ["exec", "bench", "true"]]


def guest_files():
    r = subprocess.run([os.path.join(common.SCRIPTS, "fetch-kernel"), "--root"], stdout=subprocess.PIPE, text=True)
    tree = os.path.join(r.stdout.strip(), "lib/modules")
    release, = os.listdir(tree)
    paths = [f"{tree}/{release}/kernel/drivers/{m}.ko" for m in MODULES]
    paths += [f"{tree}/{release}/kernel/net/vmw_vsock/{m}.ko" for m in VSOCK]
    return [p for p in paths if os.path.exists(p)]


def init(modules):
    load = "".join(f"insmod /lib/{os.path.basename(m)}\n" for m in modules)
    return (f"#!/bin/sh\nmount -t proc proc /proc\nmount -t sysfs sysfs /sys\nmount -t devtmpfs dev /dev\n{load}"
            f"holon-agent &\necho {MARK}\nif grep -q bench-off /proc/cmdline; then poweroff -f; fi\n"
            "while :; do sleep 1000; done\n")


class Vm:
    def __init__(self, options, directory):
        self.holon, self.env = options.holon, dict(os.environ, XDG_RUNTIME_DIR=directory)

    def call(self, *words):
        start = time.perf_counter()
        r = subprocess.run([self.holon, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
        took = time.perf_counter() - start
        if r.returncode:
            common.fail(f"holon {' '.join(words)}: {r.stdout}")
        return took


def boot_alone(command, limit):
    text, at, status, _ = guest.output(command, limit, [MARK])
    if status or MARK not in at:
        guest.failed(command, text, f"ended with status {status}")
    return at[MARK]


def times_of_commands(vm, runs):
    times = {" ".join(c): [] for c in COMMANDS}
    for _ in range(runs):
        for c in COMMANDS:
            times[" ".join(c)].append(1000 * vm.call(*c))
    return times


def main():
    p = common.arguments(__doc__)
    p.add_argument("--runs", type=int, default=5, help="counted pairs (default: 5)")
    p.add_argument("--calls", type=int, default=20, help="runs of each command (default: 20)")
    p.add_argument("--limit", type=float, default=120, metavar="S", help="longest time for one boot")
    p.add_argument("--max", action="store_true", help="exit 1 when a median is above its bound (see above)")
    p.set_defaults(no_qemu=True)
    options = common.parse(p)
    kernel, modules = common.kernel_of(options), guest_files()
    agent = os.path.join(os.path.dirname(options.holon), "holon-agent")
    if not os.path.exists(agent):
        common.fail(f"no agent {agent}: run `make` first")
    alone, managed = [], []
    with common.scratch() as directory:
        files = [f"{m}:lib/{os.path.basename(m)}" for m in modules] + [f"{agent}:bin/holon-agent"]
        ramdisk = common.initramfs(directory, init(modules), *files)
        boot = ["--name", "bench", "--kernel", kernel, "--initrd", ramdisk, "--append"]
        vm = Vm(options, directory)
        os.environ["XDG_RUNTIME_DIR"] = directory
        try:
            for i in range(options.runs + 1):  # the first pair reads the files from disk
                first = boot_alone(common.holon_command(options, *boot, options.append + " quiet bench-off"), options.limit)
                start = time.perf_counter()
                vm.call(*common.holon_command(options, "-d", *boot, options.append + " quiet")[1:])
                vm.call("exec", "--wait", str(int(options.limit)), "bench", "true")
                second = time.perf_counter() - start
                if i:
                    alone.append(1000 * first)
                    managed.append(1000 * second)
                if i < options.runs:
                    vm.call("rm", "-f", "bench")
            idle = times_of_commands(vm, options.calls)
            vm.call("exec", "bench", "sh", "-c", "while :; do :; done >/dev/null 2>&1 </dev/null &")
            busy = times_of_commands(vm, options.calls)
        finally:
            subprocess.run([options.holon, "rm", "-f", "bench"], env=vm.env, stderr=subprocess.DEVNULL)
    extra = common.median(managed) - common.median(alone)
    if options.json:
        common.show_json(boot_ms=alone, run_and_exec_ms=managed, idle_ms=idle, busy_ms=busy)
    else:
        common.show(f"From process start, engine {options.engine}", "ms", 0,
                    [("run -d, then exec answers", managed, alone)], peer="boot alone")
        print(f"  management costs {extra:.0f} ms")
        common.show("Commands on a VM", "ms", 1, [(c, idle[c], busy[c]) for c in idle], peer="guest computes")
    worst = max(common.median(t) for times in (idle, busy) for t in times.values())
    if options.max and (extra > 100 or worst > 20):
        common.fail(f"management costs {extra:.0f} ms (100), the slowest command takes {worst:.1f} ms (20)")


main()
