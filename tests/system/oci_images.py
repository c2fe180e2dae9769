"""Images for containers, made here: layers as lists of entries, in OCI's layout."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile

BUSYBOX = shutil.which("busybox") or "/bin/busybox"


def applets():
    return subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True,
                          text=True).stdout.split()


def entry(name, data=None, kind=tarfile.REGTYPE, mode=0o755, **more):
    """A member and its bytes."""
    e = tarfile.TarInfo(name)
    e.type, e.mode = kind, mode
    data = data.encode() if isinstance(data, str) else data or b""
    e.size = len(data) if kind == tarfile.REGTYPE else 0
    for key, value in more.items():
        setattr(e, key, value)
    return e, data


def layer(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for e, data in entries:
            tar.addfile(e, io.BytesIO(data))
    return out.getvalue()


def busybox_layer():
    with open(BUSYBOX, "rb") as f:
        program = f.read()
    d = dict(kind=tarfile.DIRTYPE)
    return layer(*[entry(n, **d) for n in ("bin", "etc", "root", "usr", "usr/bin")],
                 entry("tmp", kind=tarfile.DIRTYPE, mode=0o1777),
                 entry("bin/busybox", program),
                 *[entry(f"bin/{a}", kind=tarfile.LNKTYPE, linkname="bin/busybox")
                   for a in applets() if a != "busybox"],
                 entry("etc/passwd", "root:x:0:0::/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\n",
                       mode=0o644),
                 entry("etc/group", "root:x:0:\nana:x:1000:\nwheel:x:10:ana\n", mode=0o644))


def pack(data):
    """The same bytes each time."""
    return gzip.compress(data, 6, mtime=0)


class Image:
    """What an image consists of: blobs by digest."""

    def __init__(self, layers, **config):
        self.blobs, self.layers = {}, layers
        self.packed = [self.add(pack(x), "application/vnd.oci.image.layer.v1.tar+gzip")
                       for x in layers]
        self.config = {"architecture": "amd64", "os": "linux", "config": config,
                       "rootfs": {"type": "layers", "diff_ids": [
                           "sha256:" + hashlib.sha256(x).hexdigest() for x in layers]}}
        self.manifest = self.seal()

    def add(self, data, media):
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": media, "digest": "sha256:" + digest, "size": len(data)}

    def seal(self):
        config = self.add(json.dumps(self.config).encode(),
                          "application/vnd.oci.image.config.v1+json")
        return self.add(json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": self.packed}).encode(),
            "application/vnd.oci.image.manifest.v1+json")

    def index(self, tag="latest"):
        named = {**self.manifest, "annotations": {"org.opencontainers.image.ref.name": tag}}
        return {"schemaVersion": 2, "manifests": [named]}

    def write(self, path, tag="latest"):
        os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
        for digest, data in self.blobs.items():
            with open(f"{path}/blobs/sha256/{digest}", "wb") as f:
                f.write(data)
        with open(f"{path}/oci-layout", "w") as f:
            f.write('{"imageLayoutVersion": "1.0.0"}')
        with open(f"{path}/index.json", "w") as f:
            json.dump(self.index(tag), f)
        return path
