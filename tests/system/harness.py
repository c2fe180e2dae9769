"""What the system tests share: holon as a child process, and waiting for what it prints."""

import os
import select
import signal
import subprocess
import tempfile
import time

PATIENCE = int(os.environ.get("HOLON_TEST_PATIENCE", "180"))  # seconds; only a hang comes near
ENGINE = os.environ.get("HOLON_TEST_ENGINE", "jit")
ENGINE_WORDS = ["--engine", ENGINE] + (["--force"] if ENGINE == "kvm" else [])

# VMs that a test kills are told of until somebody forgets them: not among the user's own.
RUNTIME = tempfile.TemporaryDirectory(prefix="holon-run.")
os.environ["XDG_RUNTIME_DIR"] = RUNTIME.name

# Ignored signals are inherited, and a shell's background jobs have some.
for sig in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:
    signal.signal(sig, signal.SIG_DFL)


def read_until(fd, what, patience=PATIENCE):
    """All that came until what was among it."""
    got, deadline = b"", time.monotonic() + patience
    while what not in got:
        ready = select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]
        piece = os.read(fd, 65536) if ready else b""
        if not piece:
            raise AssertionError(f"{what!r} did not come, but {got[-4000:]!r}")
        got += piece
    return got


class Vm:
    """holon run, on pipes unless the caller hands in descriptors."""

    def __init__(self, holon, *words, **kw):
        for name in "stdin", "stdout", "stderr":
            kw.setdefault(name, subprocess.PIPE)
        self.p = subprocess.Popen([holon, "run", *ENGINE_WORDS, *words], **kw)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        for f in self.p.stdin, self.p.stdout, self.p.stderr:
            if f:
                try:
                    f.close()
                except BrokenPipeError:
                    pass

    def status(self):
        try:
            return self.p.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"holon did not end; its threads: {self.threads()}") from None

    def threads(self):
        """What each thread does, for a message about one that hangs."""
        task, told = f"/proc/{self.p.pid}/task", []
        for tid in os.listdir(task):
            with open(f"{task}/{tid}/status") as f:
                told.append([line.strip() for line in f
                             if line.startswith(("Name", "State", "Sig", "Shd"))])
        return told

    def ends(self):
        """(exit status, standard output, standard error)"""
        out, err = self.p.communicate(timeout=PATIENCE)
        return self.p.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def until(self, what):
        return read_until(self.p.stdout.fileno(), what)

    def say(self, text):
        self.p.stdin.write(text)
        self.p.stdin.flush()


class Guest(Vm):
    """A VM of 16 MiB that runs an image made of bytes (guests.py)."""

    def __init__(self, holon, image, *words, **kw):
        self.file = tempfile.NamedTemporaryFile(suffix=".guest")
        self.file.write(image)
        self.file.flush()
        super().__init__(holon, "--memory", "16M", "--kernel", self.file.name, *words, **kw)

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.file.close()
