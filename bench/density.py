"""Measures what idle Debian VMs side by side cost together: memory, and processor time in percent of
a core. First Holon's VMs, in the background, then as many of QEMU's from the same image, with the
kernel and the command line that Holon's had. QEMU's RAM is anonymous memory that KSM may merge; KSM
is switched on for it (root alone may do that), and put back.

Memory is the proportional set size of the processes without memfds, and all pages of those, mapped or not, and
page tables. Each VM is started when the one before has come to its login: systemd gives up waiting for devices on
a machine that is too busy. The VMs are left alone for a while before anything is read (--settle)."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import common

KSM = "/sys/kernel/mm/ksm"
TICK = os.sysconf("SC_CLK_TCK")
LOGIN = r"login:"


class Holon:
    name = "Holon"

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.env = {**os.environ, "XDG_RUNTIME_DIR": directory}
        self.names = [f"idle{i}" for i in range(options.vms)]

    def run(self, *words, check=True, limit=600):
        r = subprocess.run([self.options.holon, *words], env=self.env, text=True, capture_output=True,
                           stdin=subprocess.DEVNULL, timeout=limit)
        if check and r.returncode:
            common.fail(f"holon {' '.join(words)}: {r.stderr.strip()}")
        return r.stdout

    def start(self):
        for name in self.names:
            self.run("run", "-d", "--ephemeral", "--engine", self.options.engine, "--memory",
                     f"{self.options.memory}M", "--name", name, *self.options.holon_option, self.options.image)
            deadline = time.monotonic() + self.options.limit
            while not re.search(LOGIN, said := self.run("logs", name)):
                if time.monotonic() > deadline:
                    common.fail(f"{name} does not come to a login; its console:\n{said[-800:]}")
                time.sleep(1)

    def boot_files(self):
        """(kernel, initrd, command line) of the first VM, for the peer. The first two are memfds of its
        process, which found them on the disk."""
        first, pid = self.names[0], self.pids()[0]
        files = []
        for fd in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
            if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/memfd:kernel"):
                files.append(os.path.join(self.directory, f"boot{len(files)}"))
                shutil.copyfile(f"/proc/{pid}/fd/{fd}", files[-1])
        with subprocess.Popen([self.options.holon, "console", "--lines", "0", first], env=self.env, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
            p.stdin.write("\ncat /proc/cmdline\n")
            p.stdin.flush()
            for line in p.stdout:
                if found := re.search(r"root=\S+.*", line):
                    p.terminate()
                    return (*files, found[0].strip())
        common.fail("the guest's shell does not say what its command line was")

    def pids(self):
        return [json.loads(self.run("inspect", name))["pid"] for name in self.names]

    def stop(self):
        self.run("kill", *self.names, check=False)


class Qemu:
    name = "QEMU TCG"

    def __init__(self, options, directory, disk, boot):
        self.options, self.directory, self.disk, self.boot, self.vms = options, directory, disk, boot, []

    def start(self):
        kernel, initrd, append = self.boot
        for i in range(self.options.vms):
            console = os.path.join(self.directory, f"console{i}")
            self.vms.append((console, subprocess.Popen(
                common.qemu_command(self.options, "-display", "none", "-serial", f"file:{console}", "-kernel", kernel,
                                    "-initrd", initrd, "-append", append + " cloud-init=disabled", "-drive",
                                    f"file={self.disk},if=virtio,snapshot=on", "-nic", "user,model=virtio", "-device",
                                    "virtio-rng-pci"), stdin=subprocess.DEVNULL)))
            deadline = time.monotonic() + self.options.limit
            while not self.logged_in(console):
                if time.monotonic() > deadline or self.vms[-1][1].poll() is not None:
                    common.fail(f"QEMU's VM does not come to a login; its console:\n{self.tail(console)}")
                time.sleep(1)

    def tail(self, console):
        with open(console, "rb") as f:
            return f.read()[-800:].decode(errors="replace")

    def logged_in(self, console):
        return os.path.exists(console) and re.search(LOGIN, self.tail(console))

    def pids(self):
        return [p.pid for _, p in self.vms]

    def stop(self):
        for _, p in self.vms:
            p.kill()
            p.wait()


class Ksm:
    """Switched on while in use. What the files said before is put back."""

    def __enter__(self):
        self.before = {}
        try:
            for name, value in (("pages_to_scan", "5000"), ("sleep_millisecs", "20"), ("run", "1")):
                with open(f"{KSM}/{name}") as f:
                    self.before[name] = f.read()
                with open(f"{KSM}/{name}", "w") as f:
                    f.write(value)
        except OSError as e:
            print(f"KSM stays as it is: {e}")
        return self

    def __exit__(self, *exc):
        for name in reversed(self.before):
            with open(f"{KSM}/{name}", "w") as f:
                f.write(self.before[name])


def memory(pid):
    """(all, of that guest RAM and other memfds) in bytes"""
    seen, shared = set(), 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/memfd:"):
                st = os.stat(f"/proc/{pid}/fd/{fd}")
                shared += 0 if st.st_ino in seen else st.st_blocks * 512
                seen.add(st.st_ino)
        except OSError:
            pass
    # A memfd may be mapped whose descriptor is closed: its PSS is all that can be known of it.
    private, in_memfd = 0, False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            words = line.split()
            if words[0] == "Pss:" and not in_memfd:
                private += int(words[1]) * 1024
            elif not words[0].endswith(":"):
                in_memfd = len(words) > 5 and words[5].startswith("/memfd:") and int(words[4]) in seen
    with open(f"/proc/{pid}/status") as f:
        tables = int(re.search(r"VmPTE:\s*(\d+)", f.read())[1]) * 1024
    return private + shared + tables, shared


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def measure(side, options):
    try:
        side.start()
        print(f"{side.name}: {options.vms} VMs are up", flush=True)
        time.sleep(options.settle)
        pids = side.pids()
        before, start = cpu_seconds(pids), time.monotonic()
        time.sleep(options.window)
        cpu = 100 * (cpu_seconds(pids) - before) / (time.monotonic() - start)
        sizes = [memory(pid) for pid in pids]
        return {"cpu_percent": cpu, "bytes": sum(a for a, _ in sizes), "memfd_bytes": sum(m for _, m in sizes)}, \
            side.boot_files() if hasattr(side, "boot_files") else None
    finally:
        side.stop()


def image_disk(options):
    store = os.path.join(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "holon", "images")
    with open(os.path.join(store, "names", options.image)) as f:
        path = os.path.realpath(f.name)
    return re.sub(r"\.json$", ".qcow2", path)


def main():
    p = common.arguments(__doc__)
    p.add_argument("--vms", type=int, default=10, help="how many (default: 10)")
    p.add_argument("--image", default="debian", help="an image of 'holon image ls' (default: debian)")
    p.add_argument("--settle", type=float, default=120, metavar="S", help="idle time before (default: 120)")
    p.add_argument("--window", type=float, default=60, metavar="S", help="over which CPU is measured (default: 60)")
    p.add_argument("--limit", type=int, default=1800, metavar="S", help="longest time to a login (default: 1800)")
    p.add_argument("--holon-option", action="append", default=[], metavar="WORD", help="further words for 'holon run'")
    options = common.parse(p)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that VMs end and KSM is put back
    disk = image_disk(options)
    results = {}
    with common.scratch() as directory:
        results["holon"], boot = measure(Holon(options, directory), options)
        if not options.no_qemu:
            with Ksm():
                results["qemu"], _ = measure(Qemu(options, directory, disk, boot), options)
    if options.json:
        common.show_json(vms=options.vms, memory_mib=options.memory, **results)
        return
    print(f"{options.vms} idle VMs of {options.memory} MiB, engine {options.engine}:")
    print(f"  {'':24} {'Holon':>10} {'QEMU TCG':>10}")
    rows = (("memory in all, MiB", "bytes", 1 << 20), ("of it guest RAM, memfds", "memfd_bytes", 1 << 20),
            ("CPU, % of a core", "cpu_percent", 1))
    for what, key, unit in rows:
        cells = [f"{results[s][key] / unit:10.1f}" if s in results else f"{'-':>10}" for s in ("holon", "qemu")]
        print(f"  {what:24} {' '.join(cells)}")


main()
