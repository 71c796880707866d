#!/usr/bin/env python3
"""Joins cc.h, every part and the guest's initramfs into one file: dist/cc.h.

usage: amalgamate.py [-o OUTPUT]

Every local #include is replaced by the file it names the first time it occurs, between banners, and dropped after
that; #include <...> lines stay, but for BearSSL's, in whose place its sources go (tools/lib/bearssl.py). Nothing else
is changed, so a line of the result can be found in the tree by its text.
A part that is first included under a condition (a platform's file) and again outside of it would be missing there;
that is an error.
"""
import argparse
import os
import re
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(ROOT, "tools", "lib"))
import bearssl  # noqa: E402

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"\s*$')
OPEN, CLOSE = re.compile(r"^\s*#\s*if(n?def)?\b"), re.compile(r"^\s*#\s*endif\b")
BRANCH = re.compile(r"^\s*#\s*(else|elif)\b")


class Joiner:
    def __init__(self):
        self.out = []
        self.seen = {}  # path -> the conditions that its text stands under
        self.foreign_end = None  # what ends BearSSL's macros, once its sources are joined

    def add(self, path, conditions):
        name = os.path.relpath(path, ROOT).replace(os.sep, "/")
        self.seen[path] = conditions
        with open(path, encoding="utf-8") as f:
            lines = f.read().split("\n")
        guard = next((l for l in lines if OPEN.match(l)), None)  # the include guard is no condition
        stack = []
        for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
            if OPEN.match(line):
                stack.append(line.strip() if line is not guard else None)
            elif BRANCH.match(line):
                stack[-1] = f"{stack[-1]} | {line.strip()}" if stack[-1] else None  # the whole chain
            elif CLOSE.match(line):
                stack.pop()
            if line.strip() == bearssl.INCLUDE:
                self.include_bearssl()
                continue
            m = INCLUDE.match(line)
            if not m:
                self.out.append(line)
                continue
            self.include(os.path.normpath(os.path.join(os.path.dirname(path), m[1])),
                         conditions + tuple(c for c in stack if c), f"{name}:{number}")

    def include(self, path, conditions, where):
        if path == os.path.join(ROOT, "cc.h"):
            return
        if path in self.seen:
            first = self.seen[path]
            if conditions[:len(first)] != first:
                sys.exit(f"amalgamate.py: {where} includes {os.path.relpath(path, ROOT)}, which was joined under {first}")
            return
        name = os.path.relpath(path, ROOT).replace(os.sep, "/")
        self.out.append(f"/* ======== {name} ======== */")
        self.add(path, conditions)
        self.out.append(f"/* ======== end of {name} ======== */")
        if name == bearssl.END:
            self.out += self.foreign_end

    def include_bearssl(self):
        if self.foreign_end is None:
            lines, self.foreign_end = bearssl.region()
            self.out += lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", default=os.path.join(ROOT, "dist", "cc.h"))
    args = parser.parse_args()
    joiner = Joiner()
    joiner.add(os.path.join(ROOT, "cc.h"), ())
    text = "/* Made by amalgamate.py from the parts of cc.h: edit those instead. */\n" + "\n".join(joiner.out) + "\n"
    os.makedirs(os.path.dirname(os.path.abspath(args.output)), exist_ok=True)
    with open(args.output + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(args.output + ".new", args.output)


if __name__ == "__main__":
    main()
