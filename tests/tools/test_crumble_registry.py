#!/usr/bin/env python3
"""crumble run of an image that comes over TLS from a registry on loopback.
@vm
@timeout 90
@kernel own
@setup mkdir -p build/tests
@setup tools/mkimage --format oci busybox build/tests/busybox.oci.tar
@setup cc -std=c11 -O1 -I. tools/crumble.c -o build/tests/crumble -lpthread -l:libbearssl.a
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "registry"))
from registry import PASSWORD, ROOT, USER, Registry  # noqa: E402

BUILD = os.path.join(ROOT, "build/tests")
failures = 0


def check(name, ok, why=""):
    global failures
    print(("ok " if ok else "not ok ") + name, flush=True)
    if not ok:
        failures += 1
        print("# " + str(why).strip().replace("\n", "\n# "))


def crumble(folder, *args, **env):
    """(exit status, output, messages)"""
    r = subprocess.run([os.path.join(BUILD, "crumble"), *args], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                       timeout=60, env=dict(os.environ, HOME=folder, CC_CACHE_DIR=os.path.join(folder, "cache"), **env))
    return r.returncode, r.stdout, r.stderr


def main():
    with tempfile.TemporaryDirectory(prefix="cc-crumble-") as folder:
        with Registry(os.path.join(folder, "r"), tls=True, auth="basic") as r:
            image = f"{r.address}/team/app:1.0"
            creds = ("--creds", f"{USER}:{PASSWORD}")
            r.push(f"oci-archive:{BUILD}/busybox.oci.tar", "team/app:1.0")
            code, out, err = crumble(folder, "run", *creds, image, "true")
            check("not from a registry that nobody vouches for", code == 125 and out == "" and "certificate" in err, out + err)
            code, out, err = crumble(folder, "run", *creds, image, "sh", "-c", ". /etc/os-release; echo $ID on $(uname -s)",
                                     SSL_CERT_FILE=r.ca)
            check("pulls and prints the command's output", (code, out) == (0, "busybox on Linux\n"), out + err)
            check("with the pull's progress beside it", "100 %" in err and "crumble:" not in err, err)
            before = len(r.requests())
            code, out, err = crumble(folder, "run", image, "sh", "-c", "exit 42")
            check("the exit status is the command's", code == 42 and out == err == "", out + err)
            check("what the cache has is not asked for", len(r.requests()) == before)
            code, out, err = crumble(folder, "run", *creds, "--pull", "always", "--ca-file", r.ca, image, "true")
            check("unless it is to be", code == 0 and any(m == "HEAD" for m, _, _ in r.requests()[before:]), err)
        code, out, err = crumble(folder, "run", image, "no-such-program")
        check("no such program: 127", code == 127 and "no-such-program" in err and len(err.splitlines()) == 1, f"{code} {err}")
        code, out, err = crumble(folder, "run", image, "/etc/passwd")
        check("no program: 126", code == 126 and "/etc/passwd" in err and len(err.splitlines()) == 1, f"{code} {err}")
        code, out, err = crumble(folder, "run", "--pull", "always", image, "true")
        check("no registry: 125", code == 125 and image.split("/")[0] in err, f"{code} {err}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
