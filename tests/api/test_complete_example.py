#!/usr/bin/env python3
"""The published "Complete Example" compiles unchanged, and runs: it pulls its image over TLS from a registry on loopback.
@vm
@timeout 90
@kernel own
@setup mkdir -p build/tests
@setup tools/mkimage --format oci busybox build/tests/busybox.oci.tar
@setup gcc -std=c11 -O1 -DCC_IMPLEMENTATION -x c -c cc.h -o build/tests/libcc.o
@setup clang -std=c11 -Wall -Wextra -Wno-unused-parameter -Werror -I. -c tests/api/complete_example.c -o build/tests/example.clang.o
@setup gcc -std=c11 -Wall -Wextra -Wno-unused-parameter -Werror -I. tests/api/complete_example.c build/tests/libcc.o -o build/tests/example -lpthread -l:libbearssl.a

The image's reference is the one thing that differs in what runs: "alpine:latest" becomes that of the loopback registry.
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "registry"))
from registry import ROOT, Registry, run  # noqa: E402

BUILD = os.path.join(ROOT, "build/tests")
failures = 0


def check(name, ok, why=""):
    global failures
    print(("ok " if ok else "not ok ") + name, flush=True)
    if not ok:
        failures += 1
        print("# " + str(why).strip().replace("\n", "\n# "))


def example(folder, binary, **env):
    r = subprocess.run([binary], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
                       env=dict(os.environ, CC_CACHE_DIR=os.path.join(folder, "cache"), HOME=folder, **env))
    return r.returncode, r.stdout, r.stderr


def pointed_at(folder, reference):
    """The program with another image."""
    with open(os.path.join(ROOT, "tests/api/complete_example.c")) as f:
        text = f.read()
    source, binary = os.path.join(folder, "example.c"), os.path.join(folder, "example")
    with open(source, "w") as f:
        f.write(text.replace('cc_oci_client_pull(client, "alpine:latest",', f'cc_oci_client_pull(client, "{reference}",'))
    run("gcc", "-std=c11", "-I" + ROOT, source, os.path.join(BUILD, "libcc.o"), "-o", binary, "-lpthread", "-l:libbearssl.a")
    return binary


def main():
    with tempfile.TemporaryDirectory(prefix="cc-example-") as folder, Registry(os.path.join(folder, "r"), tls=True) as r:
        r.push(f"oci-archive:{BUILD}/busybox.oci.tar", "library/alpine:latest")
        binary = pointed_at(folder, f"{r.address}/library/alpine:latest")
        code, out, err = example(folder, binary, SSL_CERT_FILE=os.devnull)
        check("does not trust a registry with any certificate", code == 1 and "Failed to pull image" in err, out + err)
        code, out, err = example(folder, binary, SSL_CERT_FILE=r.ca)
        check("succeeds", code == 0 and err == "", err)
        want = ["Pulling alpine:latest...", "Creating instance...", "File contents: Hello from C!", "OS Release:"]
        check("prints", out.splitlines()[:4] == want and "ID=busybox\n" in out and out.endswith("Exit code: 0\n"), out)
        blobs = [p for m, p, status in r.requests() if m == "GET" and "/blobs/" in p and status == 200]
        check("pulled from the registry", len(blobs) == 2, blobs)  # the configuration and the one layer
        code, again, err = example(folder, binary, SSL_CERT_FILE=os.devnull)
        check("runs again from the cache, with no registry to trust", code == 0 and again == out, again + err)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
