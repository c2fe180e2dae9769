#!/usr/bin/env python3
"""holon image pull, from servers that break off, lie, and lead astray. All of them are ours."""

import gzip
import hashlib
import http.server
import json
import os
import signal
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HOLON = os.path.abspath(sys.argv.pop(1))
QUICK = 120  # seconds; only a hang comes near


def make_raw(path, mib=4):
    """A disk with a boot sector and noise that does not pack."""
    with open(path, "wb") as f:
        f.write(bytes(510) + b"\x55\xaa" + os.urandom((mib << 20) - 512))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        web = self.server.web
        web.requests.append((self.path, dict(self.headers)))
        name = self.path.split("?")[0].lstrip("/")
        if name in web.special:
            web.special[name](self)
        elif name in web.files:
            self.serve(web.files[name])
        else:
            self.send_response(404)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"gone")

    def serve(self, body, etag='"1"', ranges=True, stop_after=None):
        start, wanted = 0, self.headers.get("Range")
        if ranges and wanted and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.split("=")[1].rstrip("-"))
        if start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body[start:stop_after])
        if stop_after:
            self.close_connection = True


class Web(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.web, self.files, self.special, self.requests = self, {}, {}, []
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https" if context else "http"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # clients that go away are meant to

    def url(self, name):
        return f"{self.scheme}://localhost:{self.server_port}/{name}"


class Pull(unittest.TestCase):
    def setUp(self):
        temp = tempfile.TemporaryDirectory()
        self.addCleanup(temp.cleanup)
        self.dir = temp.name
        self.env = {**os.environ, "XDG_DATA_HOME": self.dir}
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            self.env.pop(name, None)
            self.env.pop(name.upper(), None)
        self.web = Web()
        self.addCleanup(self.web.server_close)
        self.addCleanup(self.web.shutdown)
        make_raw(self.path("disk.raw"))
        subprocess.run([HOLON, "disk", "convert", "-O", "qcow2", self.path("disk.raw"),
                        self.path("disk.qcow2")], check=True)
        with open(self.path("disk.qcow2"), "rb") as f:
            self.qcow2 = f.read()
        with open(self.path("disk.raw"), "rb") as f:
            self.raw = f.read()

    def path(self, name):
        return os.path.join(self.dir, name)

    def holon(self, *words):
        return subprocess.run([HOLON, *words], env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=QUICK, check=False)

    def pulled(self, *words):
        """The image, which is there; its bytes are the disk's."""
        done = self.holon("image", "pull", *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        name = done.stdout.strip()
        info = json.loads(self.holon("image", "info", "--json", name).stdout)
        out = self.path("compared.raw")
        converted = self.holon("disk", "convert", "-O", "raw", info["file"], out)
        self.assertEqual(converted.returncode, 0, converted.stderr)
        with open(out, "rb") as f:
            self.assertEqual(f.read(), self.raw)
        self.assertEqual(self.leftovers(), [])
        return name, info, done.stderr

    def refused(self, *words):
        done = self.holon("image", "pull", *words)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(self.holon("image", "ls", "--json").stdout.strip(), "[]")
        return done.stderr

    def leftovers(self):
        return [n for d in ("partial", "temp")
                for n in os.listdir(self.path(f"holon/images/{d}"))]

    def test_plain(self):
        self.web.files["debian-12.qcow2"] = self.qcow2
        name, info, said = self.pulled(self.web.url("debian-12.qcow2?from=here"))
        self.assertEqual(name, "debian-12")
        self.assertIn("no checksum", said)
        self.assertEqual(info["disk_size"], len(self.raw))
        self.assertIn("debian-12", self.holon("image", "ls").stdout)

    def test_checksums(self):
        self.web.files["d.qcow2"] = self.qcow2
        good, bad = hashlib.sha256(self.qcow2).hexdigest(), "0" * 64
        self.assertIn("is not what was promised",
                      self.refused("--sha256", bad, self.web.url("d.qcow2")))
        self.assertEqual(self.leftovers(), [])
        self.web.files["SHA256SUMS"] = f"{bad}  d.qcow2\n".encode()
        self.assertIn("is not what was promised", self.refused(self.web.url("d.qcow2")))
        self.web.files["SHA512SUMS"] = (hashlib.sha512(self.qcow2).hexdigest() +
                                        "  d.qcow2\n").encode()
        said = self.pulled(self.web.url("d.qcow2"))[2]
        self.assertNotIn("no checksum", said)
        self.pulled("--sha256", good, "--name", "other", self.web.url("d.qcow2"))
        self.assertIn("digits", self.holon("image", "pull", "--sha256", "12", "x").stderr)

    def test_a_file(self):
        with open(self.path("SHA256SUMS"), "w") as f:
            f.write(hashlib.sha256(self.qcow2).hexdigest() + "  disk.qcow2\n")
        self.pulled(self.path("disk.qcow2"))
        self.assertTrue(os.path.exists(self.path("disk.qcow2")))

    def test_packed(self):
        self.web.files["d.raw.gz"] = gzip.compress(self.raw, 1)
        self.pulled(self.web.url("d.raw.gz"))
        self.web.files["e.raw.gz"] = gzip.compress(self.raw, 1)[:-100]
        done = self.holon("image", "pull", self.web.url("e.raw.gz"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("breaks off", done.stderr)

    def test_connections_that_break(self):
        cuts = [100000, 1000001, 2000000]

        def flaky(request):
            request.serve(self.qcow2, stop_after=cuts.pop(0) if cuts else None)
        self.web.special["d.qcow2"] = flaky
        said = self.pulled(self.web.url("d.qcow2"))[2]
        self.assertIn("going on", said)
        ranges = [h.get("Range") for p, h in self.web.requests if p == "/d.qcow2"]
        self.assertEqual(ranges, [None, "bytes=100000-", "bytes=1000001-", "bytes=2000000-"])
        self.assertEqual(self.web.requests[-1][1]["If-Range"], '"1"')

    def test_a_file_that_changes_meanwhile(self):
        first = [True]

        def other(request):
            if first.pop() if first else False:
                request.serve(os.urandom(len(self.qcow2)), etag='"0"', stop_after=500000)
            else:
                request.serve(self.qcow2)
        self.web.special["d.qcow2"] = other
        self.pulled(self.web.url("d.qcow2"))

    def test_ranges_that_are_ignored(self):
        first = [True]

        def plain(request):
            request.serve(self.qcow2, ranges=False,
                          stop_after=500000 if first and first.pop() else None)
        self.web.special["d.qcow2"] = plain
        self.pulled(self.web.url("d.qcow2"))

    def test_a_wrong_part(self):
        first = [True]

        def wrong(request):
            if first and first.pop():
                request.serve(self.qcow2, stop_after=500000)
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes 7-{len(self.qcow2) - 1}/*")
            request.send_header("Content-Length", str(len(self.qcow2) - 7))
            request.end_headers()
            request.wfile.write(self.qcow2[7:])
        self.web.special["d.qcow2"] = wrong
        self.assertIn("another part", self.refused(self.web.url("d.qcow2")))

    def test_what_broke_off_before_is_used(self):
        def cut(request):
            request.serve(self.qcow2, stop_after=3000000 if "Range" not in request.headers else 1)
        self.web.special["d.qcow2"] = cut
        self.refused(self.web.url("d.qcow2"))
        self.assertEqual(len(self.leftovers()), 2)
        self.web.special.clear()
        self.web.files["d.qcow2"] = self.qcow2
        self.pulled(self.web.url("d.qcow2"))
        self.assertEqual(self.web.requests[-1][1]["Range"], "bytes=3000000-")
        # Damaged meanwhile: with a checksum it is fetched anew.
        self.web.special["d.qcow2"] = cut
        self.holon("image", "pull", self.web.url("d.qcow2"))
        part = [n for n in self.leftovers() if not n.endswith(".json")][0]
        with open(self.path(f"holon/images/partial/{part}"), "r+b") as f:
            f.write(b"\0" * 4096)
        self.web.special.clear()
        self.pulled("--sha256", hashlib.sha256(self.qcow2).hexdigest(), self.web.url("d.qcow2"))

    def test_interrupted(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def slow(request):
            request.send_response(200)
            request.send_header("ETag", '"1"')
            request.send_header("Content-Length", str(len(self.qcow2)))
            request.end_headers()
            request.wfile.write(self.qcow2[:1000000])
            go_on.wait()
        self.web.special["d.qcow2"] = slow
        p = subprocess.Popen([HOLON, "image", "pull", self.web.url("d.qcow2")], env=self.env,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.kill)
        deadline = time.monotonic() + QUICK
        partial = self.path("holon/images/partial")
        while not (os.path.isdir(partial) and any(
                os.path.getsize(os.path.join(partial, n)) == 1000000
                for n in os.listdir(partial) if not n.endswith("XXXX"))):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=QUICK)
        self.assertEqual(p.returncode, 128 + signal.SIGINT, err)
        self.assertIn("is kept", err)
        self.web.special.clear()
        self.web.files["d.qcow2"] = self.qcow2
        self.pulled(self.web.url("d.qcow2"))
        self.assertEqual(self.web.requests[-1][1]["Range"], "bytes=1000000-")

    def test_redirects(self):
        def to(url):
            def answer(request):
                request.send_response(302)
                request.send_header("Location", url)
                request.send_header("Content-Length", "0")
                request.end_headers()
            return answer
        self.web.files["d.qcow2"] = self.qcow2
        self.web.special["good"] = to("/d.qcow2")
        self.web.special["file"] = to("file://" + self.path("disk.qcow2"))
        self.web.special["loop"] = to("/loop")
        self.assertIn("file", self.refused(self.web.url("file")))
        self.assertIn("redirects", self.refused(self.web.url("loop")))
        self.pulled(self.web.url("good"))

    def test_bodies_that_do_not_end(self):
        def endless(request):
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            while True:
                request.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        self.web.special["SHA512SUMS"] = endless
        self.web.files["d.qcow2"] = self.qcow2
        self.assertIn("longer than", self.refused(self.web.url("d.qcow2")))
        del self.web.special["SHA512SUMS"]

        def huge(request):
            request.send_response(200)
            request.send_header("Content-Length", str(1 << 40))
            request.end_headers()
            request.wfile.write(b"x")
        self.web.special["huge"] = huge
        self.assertIn("no space", self.refused(self.web.url("huge")))

    def test_what_is_no_disk(self):
        self.web.files["d.qcow2"] = b"<html>Please log in</html>" * 100
        self.assertIn("no disk image", self.refused(self.web.url("d.qcow2")))
        self.web.files["d.qcow2"] = b""
        self.assertIn("no disk image", self.refused(self.web.url("d.qcow2")))
        self.assertEqual(self.leftovers(), [])
        self.assertIn("no such file", self.refused(self.web.url("nothing.qcow2")))
        self.assertIn("http, https and files", self.refused("ftp://localhost/x.qcow2"))
        self.assertIn("No such file", self.refused(self.path("nothing")))

    def test_a_layer_over_a_file_of_ours(self):
        overlay = self.path("overlay.qcow2")
        done = self.holon("disk", "create", "-f", "qcow2", "--backing", self.path("disk.raw"),
                          "--backing-format", "raw", overlay)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(overlay, "rb") as f:
            self.web.files["d.qcow2"] = f.read()
        self.assertIn("layer over another file", self.refused(self.web.url("d.qcow2")))

    def test_servers_in_trouble(self):
        count = [0]

        def busy(request):
            count[0] += 1
            if count[0] < 3:
                request.send_response(503)
                request.send_header("Content-Length", "0")
                request.end_headers()
            else:
                request.serve(self.qcow2)
        self.web.special["d.qcow2"] = busy
        self.pulled(self.web.url("d.qcow2"))
        count[0] = -100
        self.assertIn("503", self.holon("image", "pull", self.web.url("d.qcow2")).stderr)

    def test_certificates(self):
        cert, key = self.path("cert.pem"), self.path("key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                        "-keyout", key, "-out", cert], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        web = Web(context)
        self.addCleanup(web.server_close)
        self.addCleanup(web.shutdown)
        web.files["d.qcow2"] = self.qcow2
        self.assertIn("certificate", self.refused(web.url("d.qcow2")))
        self.env["SSL_CERT_FILE"] = cert

        def downgrade(request):
            request.send_response(302)
            request.send_header("Location", self.web.url("d.qcow2"))
            request.send_header("Content-Length", "0")
            request.end_headers()
        self.web.files["d.qcow2"] = self.qcow2
        web.special["plain"] = downgrade
        self.assertIn("http", self.refused(web.url("plain")))
        self.pulled(web.url("d.qcow2"))


if __name__ == "__main__":
    unittest.main()
