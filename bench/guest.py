"""Runs a hypervisor until it ends, and takes what its guest writes to the console."""

import os
import select
import subprocess
import time

import common


def output(command, limit, marks=()):
    """(the text, {mark: seconds from the start to when it was seen}, exit status, seconds to the end);
    the process is killed after `limit` seconds."""
    start = time.perf_counter()
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen, at, fd = b"", {}, p.stdout.fileno()
    while True:
        left = start + limit - time.perf_counter()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            p.kill()
            break
        piece = os.read(fd, 65536)
        if not piece:
            break
        seen += piece
        for mark in marks:
            if mark not in at and mark.encode() in seen:
                at[mark] = time.perf_counter() - start
    status = p.wait()
    return seen.decode(errors="replace"), at, status, time.perf_counter() - start


def failed(command, text, what):
    common.fail(f"{command[0]}: {what}; its last lines:\n" + "\n".join(text.splitlines()[-15:]))
