#!/usr/bin/env python3
"""Images of every kind through a real registry: pushed by skopeo, pulled by us, and the root filesystem that a guest would
see compared with what umoci unpacks of the image as skopeo pulls it.
@root
@timeout 240

Compared are paths, types, modes, owners, times, sizes, devices, targets, extended attributes, contents, and which names are
one file.
"""
import json
import os
import shutil
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in ("tools/lib", "tests/image", "tests/registry"):
    sys.path.insert(0, os.path.join(ROOT, folder))
import imagefile  # noqa: E402
import tarwrite  # noqa: E402
import trees  # noqa: E402
from registry import Puller, Registry, build_pull, run  # noqa: E402

os.environ["PATH"] += ":/sbin:/usr/sbin"
GIB = 1 << 30
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


# ---- The images: lists of tars, lowest first --------------------------------------------------------------------------


def base():
    """What the others put their layers on."""
    t = tarwrite.Tar(complete=True)
    t.directory(b".")
    t.directory(b"etc", uid=3, mode=0o750, mtime="1500000000.25")
    t.file(b"etc/passwd", b"root:x:0:0::/:/bin/sh\n" * 300, mtime="1600000000.000000001")
    t.file(b"etc/old", b"old", uid=70000, gid=1 << 21)
    t.directory(b"usr/share/doc/" + b"d" * 120)
    t.file(b"usr/share/doc/" + b"d" * 120 + b"/" + b"f" * 130, b"long", mode=0o4755)
    t.file(b"usr/bin/tool", bytes(range(256)) * 700, mode=0o755, xattrs={b"user.note": b"a\0b", b"trusted.x": b"y" * 900})
    t.hardlink(b"usr/bin/other", b"usr/bin/tool")
    t.symlink(b"bin", b"usr/bin")
    t.symlink(b"etc/far", b"x/" * 200)
    t.add(b"dev/null", b"3", major=1, minor=3, mode=0o666)
    t.add(b"dev/disk", b"4", major=8, minor=1, mode=0o660, gid=6)
    t.add(b"run/pipe", b"6", mode=0o600)
    t.file(b"empty")
    return t


def several():
    """Files replaced, directories given other owners, a file in place of a directory and the other way round."""
    second, third = tarwrite.Tar(), tarwrite.Tar()
    second.directory(b"etc", uid=9, mode=0o701, mtime=1550000000)
    second.file(b"etc/passwd", b"nobody\n")
    second.file(b"run", b"a file now")
    second.directory(b"empty")
    second.file(b"empty/full", b"e")
    third.directory(b"run")
    third.file(b"run/again", b"r")
    third.symlink(b"etc/passwd", b"old")
    third.file(b"bin/through-a-link", b"in /usr/bin")
    return [base(), second, third]


def whiteouts():
    second, third = tarwrite.Tar(), tarwrite.Tar()
    second.whiteout(b"etc/old")
    second.whiteout(b"run")
    second.whiteout(b"bin")
    second.file(b"bin", b"no link any more")
    second.directory(b"usr/share")
    second.opaque(b"usr/share")
    second.file(b"usr/share/new", b"new")
    second.directory(b"usr/bin")
    second.file(b"usr/bin/added", b"added")
    third.whiteout(b"usr/share/new")
    third.directory(b"run")
    third.file(b"run/back", b"back")
    third.directory(b"etc")
    third.file(b"etc/later", b"an opaque whiteout comes after it")
    third.opaque(b"etc")
    return [base(), second, third]


def links():
    """Hard links to files of the layers below; and the names they were made from replaced and removed."""
    second, third, fourth = tarwrite.Tar(), tarwrite.Tar(), tarwrite.Tar()
    second.hardlink(b"linked", b"etc/passwd")
    second.hardlink(b"third-name", b"usr/bin/other")
    second.hardlink(b"dev/zero", b"dev/null")
    third.file(b"etc/passwd", b"replaced: `linked` keeps the old bytes")
    third.whiteout(b"usr/bin/tool")
    third.hardlink(b"fourth-name", b"third-name")
    fourth.hardlink(b"etc/again", b"linked")
    fourth.whiteout(b"linked")
    return [base(), second, third, fourth]


def sparse():
    """One file of more than 4 GiB, and one that is a hole, in two of the forms that umoci reads (the old one, type S, it
    does not: tests/image/test_tar.py compares that with GNU tar)."""
    t = tarwrite.Tar()
    size = 4 * GIB + 12345
    pieces = [(0, b"begin" * 100), (GIB + 512, b"middle" * 999), (4 * GIB - 4096, b"around" * 2000), (size - 3, b"end")]
    t.sparse(b"huge", size, pieces, "1.0", mode=0o600)
    t.sparse(b"hole", GIB // 16, [], "0.1")
    return [base(), t]


def hundred():
    tars = [base()]
    for i in range(1, 100):
        t = tarwrite.Tar()
        t.directory(b"d%d" % (i % 7), uid=i)
        t.file(b"d%d/f%d" % (i % 7, i), b"%d\n" % i * i, mtime=1500000000 + i)
        t.file(b"counter", b"%d\n" % i)
        if i % 10 == 9:
            t.whiteout(b"d%d/f%d" % ((i - 7) % 7, i - 7))
        if i % 25 == 24:
            t.directory(b"d%d" % ((i + 1) % 7))
            t.opaque(b"d%d" % ((i + 1) % 7))
        tars.append(t)
    return tars


def empty():
    """Layers that hold nothing, one of them twice, at the top too."""
    change = tarwrite.Tar()
    change.file(b"empty", b"not empty")
    return [base(), tarwrite.Tar(), change, tarwrite.Tar()]


IMAGES = {f.__name__: f for f in (several, whiteouts, links, sparse, hundred, empty)}


def layers_of(tars):
    """Every second one compressed."""
    return [imagefile.Layer(t.bytes(), n % 2 == 0, 1) for n, t in enumerate(tars)]


# ---- The comparison ---------------------------------------------------------------------------------------------------


class Ways:
    """Both ways from the registry to a tree."""

    def __init__(self, folder, registry):
        self.folder, self.registry = folder, registry
        self.flatten, self.pull = trees.tool("flatten", folder), Puller(build_pull(folder), folder)

    def push(self, layout, name):
        path = os.path.join(self.folder, "layout-" + name)
        layout.directory(path)
        self.registry.push(f"oci:{path}:latest", f"test/{name}:1")
        shutil.rmtree(path)

    def differences(self, name, arch="amd64"):
        reference = f"{self.registry.address}/test/{name}:1"
        code, out = self.pull(name, reference, ARCH=arch)
        if code:
            return [out]
        copy = os.path.join(self.folder, f"copy-{name}-{arch}")
        run("skopeo", "--override-arch", arch, "copy", "-q", "--src-tls-verify=false", "docker://" + reference, f"oci:{copy}:latest")
        blob = lambda d: json.load(open(os.path.join(copy, "blobs/sha256", d["digest"][7:]), encoding="utf-8"))
        manifest = blob(json.load(open(os.path.join(copy, "index.json"), encoding="utf-8"))["manifests"][0])
        ours, our_links = trees.flattened(self.flatten, self.pull.store(name), blob(manifest["config"])["rootfs"]["diff_ids"],
                                          self.folder)
        theirs, their_links = trees.by_umoci(copy + ":latest", self.folder)
        shutil.rmtree(copy)
        if not theirs:
            return ["umoci: " + their_links]
        found = trees.differences(ours, theirs, False)
        return found + ([f"hard links: ours {our_links} umoci {their_links}"] if our_links != their_links else [])


def several_platforms(ways):
    """One name for images of two platforms."""
    images = [imagefile.Image(layers_of(several() + [extra]), [], arch) for arch, extra in
              (("amd64", tarwrite.Tar()), ("arm64", tarwrite.Tar()))]
    marked = tarwrite.Tar()
    marked.file(b"machine", b"arm64")
    images[1] = imagefile.Image(layers_of(several() + [marked]), [], "arm64", "v8")
    layout = imagefile.oci_layout([])
    layout.add_index(images, ["latest"])
    ways.push(layout, "platforms")
    for arch in ("amd64", "arm64"):
        found = ways.differences("platforms", arch)
        check(f"pulled_as_umoci_platforms_{arch}", not found, f"{len(found)}: " + "; ".join(found[:4]))


def main():
    folder = tempfile.mkdtemp(prefix="cc-pull-umoci.")
    try:
        with Registry(os.path.join(folder, "registry")) as registry:
            ways = Ways(folder, registry)
            for name, tars in IMAGES.items():
                ways.push(imagefile.oci_layout([imagefile.Image(layers_of(tars()), ["latest"])]), name)
                found = ways.differences(name)
                check(f"pulled_as_umoci_{name}", not found, f"{len(found)}: " + "; ".join(found[:4]))
            several_platforms(ways)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
