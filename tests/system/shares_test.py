#!/usr/bin/env python3
"""Folders of the host in a guest with Debian's kernel: python3 shares_test.py HOLON POSIX [TEST...]

POSIX is the program of programs/posix.c."""

import difflib
import os
import stat
import subprocess
import sys
import tempfile
import unittest

import boot_test
import devices_test

POSIX = None

devices_test.MODULES["shares"] = ["fs/fuse/fuse", "fs/fuse/virtiofs"]
MOUNT = "mkdir -p /mnt /tmp; mount -t tmpfs t /tmp; mount -t virtiofs data /mnt || echo no-mount\n"


class Shares(devices_test.DriverTest):
    maxDiff = None
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="holon-share.", dir=os.environ.get("HOLON_SHARE_DIR"))
        self.addCleanup(self.folder.cleanup)

    def at(self, *names):
        return os.path.join(self.folder.name, *names)

    def guest(self, init, *words, option="", files=()):
        """The output of a guest that has the folder at /mnt, runs init and powers off."""
        with self.boot_with("shares", MOUNT + init + "\npoweroff -f\n", "--share",
                            f"{self.folder.name}:data{option}", *words, files=files) as vm:
            status, out, err = vm.ends()
        self.assertEqual(status, 0, (out, err))
        self.assertNotIn("no-mount", out)
        return out.replace("\r", "")

    def write(self, name, text):
        with open(self.at(name), "w") as f:
            f.write(text)

    def test_files_go_both_ways(self):
        self.write("hello", "from the host\n")
        os.symlink("/etc/shadow", self.at("absolute"))
        os.symlink("../../../../../../etc/shadow", self.at("dots"))
        out = self.guest("""cat /mnt/hello; mkdir /mnt/d; echo from the guest >/mnt/d/x; ln -s hello /mnt/link; cat /mnt/link
head -c 5000000 /dev/urandom >/mnt/big; sha256sum </mnt/big; chmod 640 /mnt/d/x; chown 12:34 /mnt/d/x
mv /mnt/d/x /mnt/d/y; ls -ln /mnt /mnt/d; df /mnt; rm /mnt/hello
cat /mnt/absolute /mnt/dots; rm /mnt/absolute /mnt/dots""")
        self.assertEqual(out.count("from the host"), 2)
        self.assertEqual(out.count("No such file"), 2, out)  # links lead to what is there in the guest
        with open(self.at("d", "y")) as f:
            self.assertEqual(f.read(), "from the guest\n")
        digest = subprocess.run(["sha256sum", self.at("big")], stdout=subprocess.PIPE, text=True).stdout.split()[0]
        self.assertIn(digest, out)
        self.assertEqual(os.readlink(self.at("link")), "hello")
        self.assertEqual(sorted(os.listdir(self.at())), ["big", "d", "link"])
        st = os.stat(self.at("d", "y"))
        self.assertEqual(stat.S_IMODE(st.st_mode), 0o640)
        if os.geteuid() == 0:
            self.assertEqual((st.st_uid, st.st_gid), (12, 34))

    def test_read_only_and_several(self):
        self.write("file", "text\n")
        os.mkdir(self.at("inner"))
        out = self.guest("""mkdir /two; mount -t virtiofs other /two && echo two >/two/made
cat /mnt/file; touch /mnt/x; echo x >/mnt/file; rm /mnt/file; mount -o remount,rw /mnt; echo x >>/mnt/file; ls /two""",
                         "--share", self.at("inner") + ":other", option=":ro")
        self.assertIn("text", out)
        self.assertEqual(out.count("Read-only file system"), 4, out)
        self.assertIn("made", out)
        self.assertEqual(sorted(os.listdir(self.at())), ["file", "inner"])
        self.assertEqual(os.listdir(self.at("inner")), ["made"])

    @unittest.skipUnless(os.geteuid() == 0, "makes files of several users: needs root")
    def test_posix_answers_are_the_hosts(self):
        os.chmod(self.at(), 0o755)
        os.mkdir(self.at("host"))
        os.mkdir(self.at("guest"))
        host = subprocess.run([POSIX, self.at("host")], stdout=subprocess.PIPE, text=True, errors="replace",
                              timeout=300, check=True).stdout.splitlines()
        self.guest("posix /mnt/guest >/mnt/answers; echo done", files=[f"{POSIX}:bin/posix"])
        with open(self.at("answers"), errors="replace") as f:
            guest = f.read().splitlines()
        self.assertEqual(host[-1], "all done")
        self.assertGreater(len(host), 5000)
        self.assertEqual("\n".join(difflib.unified_diff(host, guest, "host", "guest", lineterm="", n=1)), "")

    def test_mistakes_are_told(self):
        for words, told in ((["/nonexistent:t"], "No such file"), (["/tmp:" + "x" * 37], "36"),
                            (["/tmp:a", "--share", "/usr:a"], "'a'"), (["/tmp"], "DIR:TAG")):
            p = subprocess.run([boot_test.HOLON, "run", "--kernel", self.kernel, "--share", *words],
                               stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            self.assertEqual(p.returncode, 1)
            self.assertIn(told, p.stderr)


if __name__ == "__main__":
    boot_test.HOLON, POSIX = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
