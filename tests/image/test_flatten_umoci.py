#!/usr/bin/env python3
"""A whole image's root filesystem, its layers merged, against what umoci unpacks of the same image.
@root
@timeout 180

Each image is loaded into a store, flattened to one file, accepted by e2fsck, loop-mounted and compared with umoci's bundle:
paths, types, modes, owners, times, sizes, devices, targets, extended attributes, contents, and which names are one file.
The images are those of `tools/mkimage matrix` that umoci reads, and a family made at random: layers that hide, replace,
link and reach through symbolic links what the layers below them have.
"""
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

import trees

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "lib"))
import imagefile  # noqa: E402
import tarwrite  # noqa: E402

SEEDS = int(os.environ.get("CC_FLATTEN_SEEDS", "30"))
os.environ["PATH"] += ":/sbin:/usr/sbin"
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


class Reader:
    """Both ways from an OCI layout to a tree."""

    def __init__(self, base):
        self.base, self.store = base, os.path.join(base, "store")
        self.load, self.flatten = trees.tool("load_tar", base), trees.tool("flatten", base)
        os.environ["QUIET"] = "1"

    def ours(self, tar):
        """The tree, or None and the error when the image is refused."""
        shutil.rmtree(self.store, ignore_errors=True)
        r = subprocess.run([self.load, self.store, tar], capture_output=True, text=True, errors="replace", check=False)
        if r.returncode:
            return None, r.stdout + r.stderr
        return trees.flattened(self.flatten, self.store, re.findall(r"^layer sha256:(\w+)", r.stdout, re.M), self.base)

    def differences(self, layout, tar, implied=False):
        ours, our_links = self.ours(tar)
        theirs, their_links = trees.by_umoci(layout + ":latest", self.base)
        if not ours or not theirs:
            return [] if ours is theirs else [f"ours: {our_links if not ours else 'loads'}, "
                                              f"umoci: {their_links if not theirs else 'unpacks'}"]
        found = trees.differences(ours, theirs, implied)
        if our_links != their_links:
            found.append(f"hard links: ours {our_links} umoci {their_links}")
        return found


def matrix(reader, base):
    folder = os.path.join(base, "matrix")
    trees.checked(os.path.join(ROOT, "tools/mkimage"), "matrix", folder)
    with open(os.path.join(folder, "good", "list"), encoding="utf-8") as f:
        names = [line.split("\t")[0] for line in f if line.rstrip().endswith("\tumoci")]
    for name in names:
        path = os.path.join(folder, "good", name)
        found = reader.differences(path, path + ".oci.tar", name == "implied")
        check(f"flattened_{name}", not found, f"{len(found)}: " + "; ".join(found[:4]))
    check("flattened_cases", len(names) > 7, str(names))


class Layers:
    """A chain of layers at random over few names, so that they meet. `have` is what a reader should have so far: a kind
    for each path, from which only what readers agree on is derived."""

    def __init__(self, seed):
        self.r, self.have = random.Random(seed), {b"": "d"}

    def kind(self, path):
        return self.have.get(path)

    def folder(self):
        """A directory that is there, or a link to one."""
        return self.r.choice(sorted(p for p, k in self.have.items() if k == "d"))

    def path(self):
        folder = self.folder()
        return folder + (b"/" if folder else b"") + b"n%d" % self.r.randrange(5)

    def remove(self, path):
        for p in [p for p in self.have if p == path or p.startswith(path + b"/")]:
            del self.have[p]

    def details(self):
        more = {"uid": self.r.choice((0, 7, 70000)), "gid": self.r.choice((0, 9)),
                "mtime": "%d.%09d" % (self.r.randrange(1 << 31), self.r.randrange(10**9)),
                "mode": self.r.choice((0o755, 0o700, 0o1777, 0o640))}
        if self.r.random() < 0.3:
            more["xattrs"] = {b"user.a": b"%d" % self.r.randrange(3), b"trusted.b": b"x" * self.r.choice((3, 300))}
        return more

    def put(self, tar, touched):
        path, what = self.path(), self.r.choice("ffffddlhpc")
        if what == "d" or not self.r.randrange(6):
            if self.kind(path) != "d":
                self.remove(path)
            tar.directory(path, **self.details())
            what = "d"
        elif what == "f":
            tar.file(path, bytes([self.r.randrange(256)]) * self.r.choice((0, 1, 4096, 9000)), **self.details())
        elif what == "h":
            files = sorted(p for p, k in self.have.items() if k in "fpc" and p != path and not p.startswith(path + b"/"))
            if not files:
                return
            target = self.r.choice(files)
            what = self.kind(target)
            tar.hardlink(path, target)
        elif what == "l":
            tar.symlink(path, self.r.choice((b"n0", b"/n1", b"../n2", b"/n0/n1", b"nowhere", b"x" * 70)),
                        **{k: v for k, v in self.details().items() if k not in ("mode", "xattrs")})
        else:
            tar.add(path, b"6" if what == "p" else b"3", major=1, minor=3,
                    **{k: v for k, v in self.details().items() if k != "xattrs"})
        if what != "d":
            self.remove(path)
        self.have[path] = what
        touched.add(path)

    def layer(self, first):
        tar, touched = tarwrite.Tar(complete=True), set()
        if first:
            tar.directory(b".")
        else:
            tar.seen = None
            below = sorted(p for p in self.have if p)
            for path in self.r.sample(below, min(len(below), self.r.randrange(4))):
                if path not in self.have:
                    continue
                if self.kind(path) == "d" and self.r.random() < 0.5:
                    tar.directory(path, **self.details())
                    tar.opaque(path)
                    self.remove(path)
                    self.have[path] = "d"
                else:
                    tar.whiteout(path)
                    self.remove(path)
        for _ in range(self.r.randrange(1, 14)):
            self.put(tar, touched)
        return tar.bytes()


def at_random(reader, base):
    problems = []
    for seed in range(SEEDS):
        make = Layers(seed)
        layers = [imagefile.Layer(make.layer(n == 0), n % 2 == 0, 1) for n in range(make.r.randrange(2, 5))]
        layout, path = imagefile.oci_layout([imagefile.Image(layers, ["latest"])]), os.path.join(base, "random")
        shutil.rmtree(path, ignore_errors=True)
        layout.directory(path)
        with open(path + ".tar", "wb") as f:
            f.write(layout.tar())
        found = reader.differences(path, path + ".tar")
        if found:
            problems.append(f"seed {seed}: {len(found)}: " + "; ".join(found[:3]))
    check("flattened_random_layers", not problems, f"{len(problems)} of {SEEDS}: " + " || ".join(problems[:5]))


def main():
    base = tempfile.mkdtemp(prefix="cc-flatten.")
    try:
        reader = Reader(base)
        matrix(reader, base)
        at_random(reader, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
