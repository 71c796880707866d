#!/usr/bin/env python3
"""Every code block of README.md is compiled or run: C programs are built and, with an image, run in a guest; shell lines
name targets and files that exist. Public calls in cc.h are all defined.
@timeout 120
@setup tools/mkimage busybox build/tests/busybox.tar
"""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
failed = 0


def case(name, ok, why=""):
    global failed
    print(("ok " if ok else "not ok ") + name)
    if not ok:
        failed = 1
        print("# " + str(why).strip().replace("\n", "\n# "))


def run(command, cwd=ROOT, **options):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **options)


def c_block(text, number, directory):
    path = os.path.join(directory, f"block{number}.c")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    binary = os.path.join(ROOT, "build", "tests", f"readme{number}")
    r = run(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I" + ROOT, path, "-o", binary, "-lpthread", "-lbearssl"])
    case(f"README: C block {number} compiles", r.returncode == 0, r.stderr)
    if r.returncode:
        return
    kernel = run(["tools/kernel", "path", "stock"]).stdout.strip()
    direct = os.environ.get("CC_TEST_DIRECT") == "1"
    command = ([] if direct else ["tools/rig", "--timeout", "90"]) + [binary, "build/tests/busybox.tar"]
    r = run(command, env=dict(os.environ, CC_KERNEL=kernel))
    case(f"README: C block {number} runs", r.returncode == 0 and r.stdout.startswith("Hello from Linux"), r.stdout + r.stderr)


def shell_line(line):
    """Whether what the line calls is there; the commands themselves are run by tests of their own."""
    words = line.split("#")[0].split("|")[-1].split()  # of a pipeline, its end
    words = [w for w in words if "=" not in w or w.startswith("-")]
    if words[0] == "make":
        return run(["make", "-n"] + words[1:2]).returncode == 0
    if words[0] == "build/crumble":  # which make crumble builds
        with open(os.path.join(ROOT, "tools/crumble.c"), encoding="utf-8") as f:
            return f'{{"{words[1]}", cmd_{words[1]},' in f.read()
    return words[0] in ("cc", "./app") or os.access(os.path.join(ROOT, words[0]), os.X_OK)


def main():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    os.makedirs(os.path.join(ROOT, "build", "tests"), exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for number, (kind, block) in enumerate(re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S), 1):
            if kind == "c":
                c_block(block, number, directory)
            elif kind == "sh":
                bad = [l for l in block.splitlines() if l.strip() and not shell_line(l)]
                case(f"README: shell block {number} names what exists", not bad, bad)
            else:
                case(f"README: block {number}", False, f"no test for blocks of kind {kind!r}")
    for name in re.findall(r"`((?:src|tests|tools|guest|examples)/[\w./-]*|\w+\.(?:h|py|md))`", text):
        case(f"README: {name} is there", os.path.exists(os.path.join(ROOT, name)))
    return failed


if __name__ == "__main__":
    sys.exit(main())
