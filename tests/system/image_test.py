#!/usr/bin/env python3
"""A full Debian: built by holon image build, booted by holon run, reached over SSH.

The image is built once for each state of the scripts that make it, and kept in the user's
cache; where it cannot be built, the test is skipped with the reason."""

import glob
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from harness import Vm

HOLON = os.path.abspath(sys.argv.pop(1))
SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or
                     os.path.expanduser("~/.cache"), "holon/test-data")
BOOT = 240  # seconds to SSH; only a hang comes near
SKIPPED = 77


def image_name():
    digest = hashlib.sha256()
    for path in sorted(glob.glob(f"{SCRIPTS}/build-debian") +
                       glob.glob(f"{SCRIPTS}/image/**", recursive=True) +
                       glob.glob(f"{SCRIPTS}/../src/agent/*.[ch]")):
        if os.path.isfile(path):
            with open(path, "rb") as f:
                digest.update(f.read())
    return "debian-" + digest.hexdigest()[:12]


def holon(*words):
    return subprocess.run([HOLON, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)


def have_image(name):
    """None, or why there is none."""
    if holon("image", "info", name).returncode == 0:
        return None
    for line in holon("image", "ls").stdout.splitlines()[1:]:
        holon("image", "rm", "--force", line.split()[0])  # of older scripts
    built = holon("image", "build", "debian", "--name", name)
    return None if built.returncode == 0 else built.stderr.strip().replace("\n", "; ")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Debian(Vm):
    """The VM "test", with a way in."""

    def __init__(self, key, *words):
        self.key, self.port = key, free_port()
        self.log = tempfile.TemporaryFile()
        super().__init__(HOLON, "--log-level", "info", "--name", "test", "--user", "ana",
                         "--ssh-key", key + ".pub", "--hostname", "box", "-p",
                         f"127.0.0.1:{self.port}:22", *words, NAME, stdin=subprocess.DEVNULL,
                         stdout=self.log, stderr=subprocess.STDOUT)

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.log.close()

    def told(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def ssh(self, command, check=True, patience=30):
        p = subprocess.run(
            ["ssh", "-F", "none", "-p", str(self.port), "-i", self.key, "-o", "BatchMode=yes",
             "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
             "LogLevel=ERROR", "-o", f"ConnectTimeout={patience}", "ana@127.0.0.1", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            check=False, timeout=120)
        if check and p.returncode:
            raise AssertionError(f"{command}: {p.returncode}, {p.stdout}{p.stderr}")
        return p.stdout.strip() if p.returncode == 0 else None

    def boot_id(self):
        return self.ssh("cat /proc/sys/kernel/random/boot_id", check=False, patience=5)

    def up(self, other_than=None):
        deadline = time.monotonic() + BOOT
        while (boot := self.boot_id()) in (None, other_than):
            if self.p.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"SSH did not answer: {self.told()[-4000:]}")
            time.sleep(0.3)
        return boot

    def power_off(self):
        self.ssh("sudo systemctl poweroff", check=False)
        status = self.status()
        if status:
            raise AssertionError(f"holon ended with {status}: {self.told()[-4000:]}")


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.key = os.path.join(cls.dir.name, "key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", cls.key], check=True)
        shutil.rmtree(f"{CACHE}/holon/vms/test", ignore_errors=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(f"{CACHE}/holon/vms/test", ignore_errors=True)
        cls.dir.cleanup()

    def idle_share(self, vm):
        """Of a core, over half a minute; the least of three, for others may disturb it."""
        shares = []
        for _ in range(3):
            time.sleep(5)
            before, start = processor_seconds(vm.p.pid), time.monotonic()
            time.sleep(30)
            shares.append((processor_seconds(vm.p.pid) - before) / (time.monotonic() - start))
            if shares[-1] < 0.01:
                break
        return min(shares)

    def first_boot(self, vm):
        boot = vm.up()
        self.assertEqual(vm.ssh("hostname; id -un; sudo id -u"), "box\nana\n0")
        self.assertEqual(vm.ssh("systemctl is-system-running --wait", check=False), "running",
                         vm.ssh("systemctl --failed --no-pager"))
        self.assertEqual(vm.ssh("lsblk -dno NAME,RO").split(), ["vda", "0", "vdb", "1"])
        self.assertEqual(holon("exec", "test", "cat", "/etc/hostname").stdout, "box\n")
        # A restart in the middle of the boot would refuse connections for a while.
        self.assertEqual(vm.ssh("sudo journalctl -b -u ssh -o cat | grep -c ^Starting"), "1")
        return boot

    def other_kernel(self, vm):
        """What an upgrade does: another version's files, and the link to them."""
        vm.ssh("set -e; cd /boot; v=$(uname -r); sudo cp vmlinuz-$v vmlinuz-$v.1;"
               "sudo cp initrd.img-$v initrd.img-$v.1; sudo ln -sf boot/vmlinuz-$v.1 /vmlinuz;"
               "echo kept > ~/file")
        return vm.ssh("uname -r") + ".1"

    def test_a_debian_is_reached_by_ssh_keeps_its_data_and_boots_the_kernel_it_installed(self):
        with Debian(self.key) as vm:
            boot = self.first_boot(vm)
            version = self.other_kernel(vm)
            self.assertNotIn(version, vm.told())
            vm.ssh("sudo systemctl reboot", check=False)
            vm.up(other_than=boot)
            self.assertIn(f"vmlinuz-{version} from the disk", vm.told())
            self.assertEqual(vm.ssh("cat file"), "kept")
            # Until cloud-init has done its part in this boot too, the seed comes again.
            vm.ssh("systemctl is-system-running --wait", check=False)
            vm.power_off()
        check = subprocess.run(["qemu-img", "check", f"{CACHE}/holon/vms/test/disk.qcow2"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               check=False)
        self.assertEqual(check.returncode, 0, check.stdout)

        with Debian(self.key) as vm:
            vm.up()
            self.assertEqual(vm.ssh("cat file; hostname; lsblk -dno NAME"), "kept\nbox\nvda")
            vm.ssh("systemctl is-system-running --wait", check=False)
            self.assertLess(self.idle_share(vm), 0.01, "of a core, while the guest is idle")
            vm.power_off()

    def test_an_image_in_use_is_not_removed(self):
        os.makedirs(f"{CACHE}/holon/vms/user", exist_ok=True)
        self.addCleanup(shutil.rmtree, f"{CACHE}/holon/vms/user")
        digest = os.readlink(f"{CACHE}/holon/images/names/{NAME}").split("/")[-1][:64]
        with open(f"{CACHE}/holon/vms/user/vm.json", "w") as f:
            f.write(f'{{"image": "{digest}"}}')
        refused = holon("image", "rm", NAME)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("user", refused.stderr)
        self.assertIn(NAME, holon("image", "ls").stdout)


os.environ["XDG_DATA_HOME"] = CACHE
NAME = image_name()
os.makedirs(CACHE, exist_ok=True)
lacking = [t for t in ("ssh", "ssh-keygen", "qemu-img") if not shutil.which(t)]
why = f"missing: {', '.join(lacking)}" if lacking else have_image(NAME)
if why:
    print(f"skipped: no Debian image can be had: {why}")
    sys.exit(SKIPPED)
unittest.main()
