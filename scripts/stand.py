"""The stand-in world on a server of this machine, for scripts that build in a store of their own."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """[source]
stage3 = "amd64-musl"
[build]
profile = "gentoo:default/linux/amd64/23.0/musl"
"""


@contextlib.contextmanager
def served():
    """Serves the stand-in world on 127.0.0.1. Yields its directory and the environment of a build that uses it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    world = Path(subprocess.run([ROOT / "scripts/world"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(world / "mirror"), "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = re.search(r"port ([0-9]+)", server.stdout.readline()).group(1)
        yield world, {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "SOURCE_DATE_EPOCH": "1700000000",
            "QUERN_SOURCE_MIRRORS": f"http://127.0.0.1:{port}", "QUERN_SOURCE_KEYRING": str(world / "keys/release.asc"),
            "QUERN_PORTAGE_REPOSITORIES": str(world / "repo"),
        }
    finally:
        server.terminate()
        server.wait()


def run(command, env=None, **options):
    """Runs a command, which must succeed. Returns its processor time with all its descendants, and its wall time, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{Path(sys.argv[0]).name}: {command[0]} failed:\n{done.stdout[-4000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall
