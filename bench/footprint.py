"""Measures two things. Start: the whole life of a process whose guest, a few bytes of multiboot
image, ends the machine with its first instructions (port 0xf4); so it is an upper bound of the
time to the first guest instruction. Memory: the proportional set size (PSS) of the process while
its guest idles at a shell, less the pages of guest RAM; and less Holon's translated code, too, which
has a limit of its own."""

import os
import select
import shutil
import struct
import subprocess
import time

import common

READY = b"HOLON-BENCH-IDLE"
INIT = f"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo {READY.decode()}
exec setsid cttyhack sh
"""


def tiny_guest(path):
    """mov al, 16; out 0xf4, al: exit status 33 both here and there."""
    magic, flags, base = 0x1BADB002, 0x10000, 0x100000
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, base, base, 0, 0, base + 32)
    with open(path, "wb") as f:
        f.write(header + b"\xb0\x10\xe6\xf4\xf4\xeb\xfd")


def life_ms(command, status):
    start = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1),
             (os.POSIX_SPAWN_DUP2, 0, 2)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
    got = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    end = time.perf_counter()
    if got != status:
        common.fail(f"{' '.join(command)} ended with status {got}, not {status}")
    return (end - start) * 1000


def start_times(options, directory, commands):
    tiny = os.path.join(directory, "tiny")
    tiny_guest(tiny)
    full = {"holon": commands["holon"] + ["--debug-exit", "--kernel", tiny]}
    if "qemu" in commands:
        full["qemu"] = commands["qemu"] + ["-nodefaults", "-display", "none", "-device",
                                           "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel", tiny]
    times = {"holon": [], "qemu": [], "true": []}
    true = [shutil.which("true")]
    for i in range(options.runs + 1):
        for name in full:
            t = life_ms(full[name], 33)
            if i:
                times[name].append(t)
        times["true"].append(life_ms(true, 0))
    return times


def ram_inode(pid, ram_bytes):
    """Guest RAM is the memfd of its size."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            st = os.stat(f"/proc/{pid}/fd/{fd}")
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if name.startswith("/memfd:") and st.st_size == ram_bytes:
            return st.st_ino
    return None


def pss_kib(pid, ram_bytes):
    """(beyond guest RAM, beyond that and Holon's translated code)"""
    ram = ram_inode(pid, ram_bytes)
    if ram is None:
        common.fail(f"process {pid} has no memfd of {ram_bytes} bytes: which mapping is guest RAM?")
    total, guest, code, inode, name = 0, 0, 0, None, ""
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            words = line.split()
            if words[0] == "Pss:":
                total += int(words[1])
                guest += int(words[1]) if inode == ram else 0
                code += int(words[1]) if name == "/memfd:holon-code" else 0
            elif not words[0].endswith(":"):
                inode, name = int(words[4]), words[5] if len(words) > 5 else ""
    return total - guest, total - guest - code


def idle_kib(options, command):
    p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        seen, limit = b"", time.monotonic() + 120
        while READY not in seen:
            if not select.select([p.stdout], [], [], max(0, limit - time.monotonic()))[0]:
                common.fail(f"{command[0]}: no shell in two minutes")
            piece = os.read(p.stdout.fileno(), 65536)
            if not piece:
                common.fail(f"{command[0]} ended before the shell:\n" + seen.decode(errors="replace")[-800:])
            seen += piece
        time.sleep(options.settle)
        return pss_kib(p.pid, options.memory << 20)
    finally:
        p.kill()
        p.wait()


def memory(options, directory, commands):
    kernel, ramdisk = common.kernel_of(options), common.initramfs(directory, INIT)
    full = {"holon": commands["holon"] + ["--kernel", kernel, "--initrd", ramdisk, "--append", options.append]}
    if "qemu" in commands:
        # RAM as a memfd, so that it can be told from the rest.
        full["qemu"] = commands["qemu"] + [
            "-object", f"memory-backend-memfd,id=ram,size={options.memory}M", "-machine",
            "memory-backend=ram", "-nographic", "-kernel", kernel, "-initrd", ramdisk, "-append", options.append]
    kib = {"holon": [], "qemu": [], "holon_without_code": []}
    for _ in range(options.idle_runs):
        for name in full:
            beyond, without_code = idle_kib(options, full[name])
            kib[name].append(beyond)
            if name == "holon":
                kib["holon_without_code"].append(without_code)
    return kib


def main():
    p = common.arguments(__doc__)
    p.add_argument("--runs", type=int, default=20, help="starts (default: 20)")
    p.add_argument("--idle-runs", type=int, default=1, help="idle guests (default: 1; 0: none)")
    p.add_argument("--settle", type=float, default=3, metavar="S", help="idle time before memory is read")
    options = common.parse(p)
    commands = {"holon": common.holon_command(options)}
    if not options.no_qemu:
        commands["qemu"] = common.qemu_command(options)
    with common.scratch() as directory:
        start = start_times(options, directory, commands)
        kib = memory(options, directory, commands)
    if options.json:
        common.show_json(memory_mib=options.memory, start_ms=start, idle_kib=kib)
        return
    common.show("Start", "milliseconds", 2,
                [("process start to debug exit", start["holon"], start["qemu"]),
                 ("for scale: /bin/true", start["true"], [])])
    mib = {name: [k / 1024 for k in samples] for name, samples in kib.items()}
    if options.idle_runs:
        common.show(f"Idle guest of {options.memory} MiB", "MiB (PSS)", 1,
                    [("beyond guest RAM", mib["holon"], mib["qemu"]),
                     ("without translated code", mib["holon_without_code"], [])])


main()
