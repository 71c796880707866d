#!/usr/bin/env python3
"""Makes what the tests of unusual kernels run.

usage: kernel_build.py embed KERNEL OUT     the image as a C array, and version_app.c compiled with it
       kernel_build.py gz BUNDLE OUT        a bundle with each module gzipped, and version_app.c
       kernel_build.py app ANY OUT          version_app.c alone
"""
import gzip
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def compile_app(out, *flags):
    subprocess.run(["gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", *flags, "-I" + ROOT,
                    os.path.join(ROOT, "tests", "api", "version_app.c"), "-o", os.path.join(out, "version_app"), "-lpthread", "-l:libbearssl.a"],
                   check=True)


def embed(kernel, out):
    with open(kernel, "rb") as f:
        data = f.read()
    codes = ["\\%03o" % i for i in range(256)]
    with open(os.path.join(out, "embed_kernel.h"), "w") as f:
        # One string: a compiler reads it many times faster than a list of numbers.
        f.write(f"static const unsigned char embedded_kernel[{len(data)}] =\n")
        for at in range(0, len(data), 4096):
            f.write('"' + "".join(codes[b] for b in data[at : at + 4096]) + '"\n')
        f.write(";\n")
    compile_app(out, "-DEMBED", "-I" + out)


def gz(bundle, out):
    image = os.path.join(out, "vmlinux")
    if not os.path.lexists(image):
        os.symlink(os.path.join(bundle, "vmlinux"), image)
    with open(os.path.join(bundle, "modules", "modules.dep")) as f:
        dep = f.read()
    for path in re.findall(r"^(\S+\.ko):", dep, re.M):
        packed = os.path.join(out, "modules", path + ".gz")
        os.makedirs(os.path.dirname(packed), exist_ok=True)
        with open(os.path.join(bundle, "modules", path), "rb") as f, gzip.open(packed, "wb", 1) as g:
            g.write(f.read())
    with open(os.path.join(out, "modules", "modules.dep"), "w") as f:
        f.write(re.sub(r"\.ko\b", ".ko.gz", dep))
    for name in ("modules.softdep", "modules.builtin"):
        with open(os.path.join(bundle, "modules", name)) as f, open(os.path.join(out, "modules", name), "w") as g:
            g.write(f.read())
    compile_app(out)


def main():
    what, source, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    {"embed": embed, "gz": gz, "app": lambda _, out: compile_app(out)}[what](source, out)


main()
