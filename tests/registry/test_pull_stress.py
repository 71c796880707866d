#!/usr/bin/env python3
"""Pulls from a TLS registry with tokens under failing allocations, and by several threads at once under ThreadSanitizer.
@timeout 240
"""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from registry import PASSWORD, USER, Layout, Puller, Registry, build  # noqa: E402


def image(folder):
    layout = Layout(os.path.join(folder, "layout"))
    layers = [layout.layer({f"dir{i}/file": os.urandom(30000), "text": b"some text\n" * 20000}) for i in range(5)]
    return layout.tag(layout.image(layers), "v1")


def run(folder, r, binary, what):
    p = subprocess.run([binary, what, f"{r.address}/test/image:1"], capture_output=True, text=True, errors="replace", timeout=110,
                       stdin=subprocess.DEVNULL, env=dict(Puller(binary, folder).environment({}), CA_FILE=r.ca, USERNAME=USER,
                                                          PASSWORD=PASSWORD, TSAN_OPTIONS="halt_on_error=1"))
    print((p.stdout + p.stderr)[-8000:], end="", flush=True)
    print(("ok " if p.returncode == 0 else "not ok ") + what, flush=True)
    return p.returncode != 0


def main():
    folder = tempfile.mkdtemp(prefix="cc-stress-")
    source, failed = "tests/registry/pull_stress.c", False
    try:
        with Registry(os.path.join(folder, "registry"), tls=True, auth="token") as r:
            r.push(image(folder), "test/image:1")
            failed |= run(folder, r, build(folder, "pull_stress_address", source), "alloc")
            failed |= run(folder, r, build(folder, "pull_stress_thread", source, sanitize="thread"), "threads")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
