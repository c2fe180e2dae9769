#!/usr/bin/env python3
"""Containers' images as VMs: holon run oci:IMAGE -- COMMAND. The images are made here; what others
make of them is skopeo's, where it is installed."""

import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest

from oci_images import Image, busybox_layer, entry, layer

HOLON = os.path.abspath(sys.argv.pop(1))
SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts")
ENGINE = os.environ.get("HOLON_TEST_ENGINE", "jit")
RUN = 240  # seconds; only a hang comes near
DIR = dict(kind=tarfile.DIRTYPE)


class Registry(http.server.ThreadingHTTPServer):
    """What there is of the API for pulling, with tokens that do not live long."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.images, self.blobs, self.requests = {}, {}, []
        self.token, self.cut = 0, None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def ref(self, name):
        return f"oci:localhost:{self.server_port}/{name}"

    def put(self, name, image):
        self.images[name] = image.manifest["digest"]
        self.blobs.update({"sha256:" + k: v for k, v in image.blobs.items()})

    def handle_error(self, request, client_address):
        pass

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, status, body, **headers):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            r = self.server
            r.requests.append(self.path)
            if self.path.startswith("/token?"):
                r.token += 1
                self.answer(200, json.dumps({"token": f"t{r.token}"}).encode())
                return
            if self.headers.get("Authorization") != f"Bearer t{r.token}" or not r.token:
                here = f"http://localhost:{r.server_port}/token"
                self.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="{here}",service="us"')
                return
            _, _, name, what, which = self.path.split("/", 4)
            which = r.images.get(f"{name}:{which}", which)
            body = r.blobs.get(which)
            if body is None:
                self.answer(404, b"{}")
                return
            if what == "blobs" and r.cut:
                cut, r.cut = r.cut, None
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:cut])
                self.close_connection = True
                r.token += 1  # the old one ends meanwhile
                return
            wanted = self.headers.get("Range")
            if wanted and what == "blobs":
                start = int(wanted.split("=")[1].rstrip("-"))
                self.answer(206, body[start:],
                            Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.answer(200, body)


class Oci(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temp = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temp.cleanup)
        cls.dir = temp.name
        cls.env = {**os.environ, "XDG_DATA_HOME": os.path.join(cls.dir, "data"),
                   "XDG_RUNTIME_DIR": cls.path("run")}
        os.mkdir(cls.path("run"), 0o700)
        cls.busybox = busybox_layer()
        cls.image = Image([cls.busybox], Env=["PATH=/bin", "GREETING=hello there"],
                          WorkingDir="/made", User="ana:wheel",
                          Entrypoint=["sh", "-c"], Cmd=["echo $GREETING; id; pwd; hostname"])
        cls.layout = cls.image.write(cls.path("first"))

    @classmethod
    def path(cls, name):
        return os.path.join(cls.dir, name)

    def holon(self, *words, **more):
        return subprocess.run(["timeout", "-k", "5", str(RUN), HOLON, *words], env=self.env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, **more)

    def run_image(self, image, *command, options=()):
        done = self.holon("run", "--engine", ENGINE, *options, image,
                          *(["--", *command] if command else []))
        return done.returncode, done.stdout, done.stderr

    def refused(self, image):
        done = self.holon("image", "pull", image)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        return done.stderr

    def written(self, name, *layers, tag="latest", **config):
        return Image([self.busybox, *layers], Cmd=["sh"], **config).write(self.path(name), tag)

    def test_the_configuration(self):
        status, out, err = self.run_image("oci:" + self.layout, options=["--hostname", "box"])
        self.assertEqual((status, out.splitlines()), (0, [
            "hello there", "uid=1000(ana) gid=10(wheel) groups=10(wheel)", "/made", "box"]), err)
        images = json.loads(self.holon("image", "ls", "--json").stdout)
        # A second time nothing is made; a command takes the place of Cmd, and its status is ours.
        status, out, err = self.run_image("oci:" + self.layout, "echo a; echo b >&2; exit 7",
                                          options=["--user", "0"])
        self.assertEqual((status, out), (7, "a\nb\n"), err)
        self.assertEqual(err, "")
        self.assertEqual(len(json.loads(self.holon("image", "ls", "--json").stdout)), len(images))
        status, out, err = self.run_image("oci:" + self.layout, "kill -9 $$")
        self.assertEqual(status, 128 + 9, err)

    def test_layers(self):
        upper = layer(
            entry("old", **DIR), entry("old/.wh..wh..opq"), entry("old/new", "new"),
            entry("etc/.wh.gone"), entry("was-file", **DIR), entry("was-file/inside", "x"),
            entry("was-dir", "file now"), entry("usr/lib/", **DIR),
            entry("lib/through-link", "found"), entry("owned", "x", mode=0o4750, uid=12345,
                                                     gid=70000, mtime=1000000000),
            entry("dev-like/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
            entry("fifo", kind=tarfile.FIFOTYPE),
            entry("attrs", "x", pax_headers={"SCHILY.xattr.user.color": "blue"}),
            entry("link", kind=tarfile.SYMTYPE, linkname="/etc/" + "../etc/" * 20 + "passwd"),
            entry("up", kind=tarfile.LNKTYPE, linkname="below"),
            entry("n" * 200, "long name"), entry("big", os.urandom(3 << 20)))
        lower = layer(
            entry("old", **DIR), entry("old/hidden", "x"), entry("etc/gone", "x"),
            entry("was-file", "x"), entry("was-dir", **DIR), entry("was-dir/y", "x"),
            entry("usr/lib", **DIR), entry("lib", kind=tarfile.SYMTYPE, linkname="usr/lib"),
            entry("below", "shared"))
        path = self.written("layers", lower, upper)
        status, out, err = self.run_image(
            "oci:" + path, "sh", "-c",
            "ls /old; test ! -e /etc/gone && cat /was-file/inside /was-dir; echo;"
            "cat /usr/lib/through-link; echo; ls -n --full-time /owned; "
            "stat -c '%t %T %F' /dev-like/null; stat -c %F /fifo; head -1 /link; cat /n*; echo;"
            "stat -c '%h' /below; echo more >> /up; cat /below; sha256sum < /big; mount | head -1;"
            "touch /written; df -k / | tail -1 | awk '{print ($4 > 4000000)}'; stat -c %a /tmp")
        self.assertEqual(status, 0, err)
        big = upper[upper.index(b"big\0" + bytes(96)) + 512:][:3 << 20]
        lines = out.splitlines()
        self.assertEqual(lines[:3], ["new", "xfile now", "found"], out)
        self.assertRegex(lines[3], r"^-rwsr-x--- +1 12345 +70000 .*2001-09-09 01:46:40")
        self.assertEqual(lines[4:], [
            "1 3 character special file", "fifo", "root:x:0:0::/root:/bin/sh", "long name",
            "2", "sharedmore", hashlib.sha256(big).hexdigest() + "  -",
            "/dev/vda on / type ext4 (rw,relatime,noinit_itable)", "1", "1777"], out)

    def test_a_file_system_without_faults(self):
        name = self.holon("image", "pull", "oci:" + self.written(
            "many", layer(*[entry(f"dir/{i:06}-{'x' * (i % 200)}", str(i)) for i in range(3000)],
                          *[entry(f"deep/{'d/' * i}f", "x") for i in range(0, 60, 7)]))).stdout
        info = json.loads(self.holon("image", "info", "--json", name.strip()).stdout)
        raw = self.path("many.raw")
        self.assertEqual(self.holon("disk", "convert", "-O", "raw", info["file"], raw).returncode, 0)
        checked = subprocess.run(["/sbin/e2fsck", "-fn", raw], capture_output=True, text=True,
                                 check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        os.unlink(raw)

    def test_a_named_one_stays(self):
        path = self.written("named")
        for command, expected in [("echo kept > /kept; sync", ""), ("cat /kept", "kept\n")]:
            status, out, err = self.run_image("oci:" + path, "sh", "-c", command,
                                              options=["--name", "stays"])
            self.assertEqual((status, out), (0, expected), err)
        checked = self.holon("disk", "check", self.path("data/holon/vms/stays/disk.qcow2"))
        self.assertEqual(checked.returncode, 0, checked.stderr)

    def test_in_the_background(self):
        path = self.written("service", StopSignal="SIGUSR1")
        done = self.holon("run", "-d", "--engine", ENGINE, "--name", "service", "oci:" + path, "--",
                          "sh", "-c", "trap 'echo asked; exit 5' USR1; while :; do sleep 1; done")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(self.holon, "kill", "service")
        done = self.holon("exec", "--wait", "120", "service", "sh", "-c", "hostname; id -u; ps")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.splitlines()[:2], ["service", "0"])
        self.assertIn("while :", done.stdout)
        self.assertEqual(self.holon("stop", "service").returncode, 0)
        self.assertIn("asked", self.holon("logs", "service").stdout)

    def test_what_cannot_run(self):
        path = self.written("wrong")
        for command, expected in [("/no/such", 127), ("/etc/passwd", 126)]:
            status, out, err = self.run_image("oci:" + path, command)
            self.assertEqual(status, expected, out + err)
        empty = Image([self.busybox]).write(self.path("nothing"))
        status, _, err = self.run_image("oci:" + empty)
        self.assertEqual(status, 1)
        self.assertIn("-- COMMAND", err)
        self.assertIn("goes with oci:", self.holon("run", "debian", "sh").stderr)

    def test_hostile_layers(self):
        cases = [
            (layer(entry("../out", "x")), "leads out"),
            (layer(entry("a/../../out", "x")), "leads out"),
            (layer(entry("hard", kind=tarfile.LNKTYPE, linkname="../../etc/passwd")), "no file"),
            (layer(entry("loop", kind=tarfile.SYMTYPE, linkname="loop"), entry("loop/x", "x")),
             "too many symbolic links"),
            (b"x" * 10240, "no header"),
            (layer(entry("cut", bytes(5000)))[:2048], "ends too early"),
            (layer(entry("x/" * 1000, **DIR)), "deeper"),
        ]
        for i, (bad, said) in enumerate(cases):
            with self.subTest(said):
                self.assertIn(said, self.refused("oci:" + self.written(f"bad{i}", bad)))
        # What leads out of a container stays in it.
        path = self.written("inside", layer(
            entry("way", kind=tarfile.SYMTYPE, linkname="/../../../../tmp"),
            entry("way/holon-oci-escape", "x")))
        self.assertEqual(self.holon("image", "pull", "oci:" + path).returncode, 0)
        self.assertFalse(os.path.exists("/tmp/holon-oci-escape"))
        self.assertEqual(os.listdir(self.path("data/holon/images/temp")), [])

    def test_hostile_documents(self):
        def changed(name, change):
            path = self.path(name)
            shutil.copytree(self.written(name + "-good"), path)
            change(path)
            return "oci:" + path

        def manifest(path):
            return f"{path}/blobs/sha256/{Image([self.busybox], Cmd=['sh']).manifest['digest'][7:]}"

        def write(path, text):
            with open(path, "w") as f:
                f.write(text)

        self.assertIn("not what its name says", self.refused(changed(
            "swapped", lambda p: write(manifest(p), "{}"))))
        self.assertIn("no JSON", self.refused(changed(
            "text", lambda p: write(f"{p}/index.json", "hello"))))
        self.assertIn("no SHA-256", self.refused(changed("digest", lambda p: write(
            f"{p}/index.json", '{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}'))))
        good = Image([self.busybox], Cmd=["sh"])
        good.config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
        good.manifest = good.seal()
        self.assertIn("not what the image's configuration says",
                      self.refused("oci:" + good.write(self.path("diff"))))
        good = Image([self.busybox], Cmd=["sh"])
        good.config["architecture"] = "arm64"
        good.manifest = good.seal()
        self.assertIn("not for x86-64", self.refused("oci:" + good.write(self.path("arm"))))
        self.assertIn("no image with the tag",
                      self.refused("oci:" + self.written("tags", tag="one") + ":two"))
        self.assertIn("neither a file, nor a reference", self.refused("oci:Hello World"))

    def test_archives(self):
        with tarfile.open(self.path("layout.tar"), "w") as tar:
            tar.add(self.layout, arcname=".")
        once = self.holon("image", "pull", "oci:" + self.path("layout.tar"))
        again = self.holon("image", "pull", "oci:" + self.layout)
        self.assertEqual((once.returncode, once.stdout), (0, again.stdout), once.stderr)
        if not shutil.which("skopeo"):
            self.skipTest("skopeo is not installed (Debian package skopeo)")
        # docker save's form, and OCI's by another hand: the same image, so nothing is made.
        for form, tag in [("docker-archive", "name:tag"), ("oci-archive", "tag")]:
            path = self.path(form + ".tar")
            subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{self.layout}:latest",
                            f"{form}:{path}:{tag}"], check=True)
            done = self.holon("image", "pull", f"oci:{path}:tag")
            self.assertEqual((done.returncode, done.stdout), (0, once.stdout), done.stderr)

    def test_a_registry(self):
        registry = Registry()
        self.addCleanup(registry.server_close)
        self.addCleanup(registry.shutdown)
        image = Image([self.busybox, layer(entry("from", "registry"))], Cmd=["cat", "/from"])
        registry.put("some:1", image)
        registry.cut = 100000
        done = self.holon("image", "pull", registry.ref("some:1"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(registry.token, 1)
        status, out, err = self.run_image(registry.ref("some:1"))
        self.assertEqual((status, out), (0, "registry"), err)
        # The store has it: the registry was not asked. By another name, its layers are there.
        asked = len(registry.requests)
        self.assertEqual(self.run_image(registry.ref("some:1"), "true")[0], 0)
        self.assertEqual(len(registry.requests), asked)
        registry.put("some:2", Image([self.busybox, layer(entry("b", "x"))], Cmd=["sh"]))
        self.assertEqual(self.holon("image", "pull", registry.ref("some:2")).returncode, 0)
        blobs = [p for p in registry.requests[asked:] if "/blobs/" in p]
        self.assertEqual(len(blobs), 2, blobs)  # its configuration, and the layer that is new
        # Lies.
        self.assertIn("has no image", self.refused(registry.ref("some:none")))
        registry.blobs[image.manifest["digest"]] = b"{}"
        self.assertIn("not what was promised", self.refused(
            registry.ref("some@" + image.manifest["digest"])))
        evil = Image([self.busybox, layer(entry("c", "x"))], Cmd=["sh"])
        registry.put("some:evil", evil)
        registry.blobs[evil.packed[1]["digest"]] = b"y" * evil.packed[1]["size"]
        self.assertIn("not what was promised", self.refused(registry.ref("some:evil")))

    def test_a_real_registry(self):
        if not shutil.which("docker-registry") or not shutil.which("skopeo"):
            self.skipTest("docker-registry and skopeo are not installed (Debian packages)")
        with open(self.path("registry.log"), "w+") as log:
            with open(self.path("registry.yml"), "w") as f:
                f.write("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: "
                        f"{self.path('registry')}\nhttp:\n  addr: 127.0.0.1:0\n")
            p = subprocess.Popen(["docker-registry", "serve", self.path("registry.yml")],
                                 stdout=log, stderr=log)
            self.addCleanup(p.wait)
            self.addCleanup(p.send_signal, signal.SIGKILL)
            port, deadline = None, time.monotonic() + 60
            while not port and p.poll() is None and time.monotonic() < deadline:
                with open(self.path("registry.log")) as said:
                    text = said.read()
                if "listening on 127.0.0.1:" in text:
                    port = text.split("listening on 127.0.0.1:")[1].split('"')[0].split()[0]
                time.sleep(0.05)
        self.assertTrue(port, text)
        subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false",
                        f"oci:{self.layout}:latest", f"docker://localhost:{port}/a/b:c"], check=True)
        done = self.holon("image", "pull", f"oci:localhost:{port}/a/b:c")
        here = self.holon("image", "pull", "oci:" + self.layout)
        self.assertEqual((done.returncode, done.stdout), (0, here.stdout), done.stderr)


if __name__ == "__main__":
    subprocess.run([f"{SCRIPTS}/fetch-kernel"], check=True, stdout=subprocess.DEVNULL)
    unittest.main()
