#!/usr/bin/env python3
"""For test_embed.sh: writes a kernel as a C array beside the tests' other products, and compiles embed_app.c with it."""
import os
import subprocess
import sys

kernel, out = sys.argv[1:]
root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
with open(kernel, "rb") as f:
    data = f.read()
os.makedirs(out, exist_ok=True)
with open(os.path.join(out, "embed_kernel.h"), "w") as f:
    # One string: a compiler reads it many times faster than a list of numbers.
    f.write(f"static const unsigned char embedded_kernel[{len(data)}] =\n")
    codes = ["\\%03o" % i for i in range(256)]
    for at in range(0, len(data), 4096):
        f.write('"' + "".join(codes[b] for b in data[at : at + 4096]) + '"\n')
    f.write(";\n")
subprocess.run(["gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-I" + root, "-I" + out,
                os.path.join(root, "tests", "api", "embed_app.c"), "-o", os.path.join(out, "embed_app"), "-lpthread"],
               check=True)
