#!/usr/bin/env python3
"""Images from directories: a root filesystem tree, against the tree itself; an OCI layout, against a tar of it.
@root
@timeout 180
"""
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "image"))
import test_import_umoci as peer  # noqa: E402: entries of a layer
import trees  # noqa: E402: entries of a tree on disk
from test_import_umoci import check, run  # noqa: E402


def make_tree(root):
    os.makedirs(root + "/bin")
    os.makedirs(root + "/etc/deep/er")
    shutil.copy("/bin/busybox", root + "/bin/busybox")
    os.link(root + "/bin/busybox", root + "/bin/sh")
    os.link(root + "/bin/busybox", root + "/etc/deep/er/also")
    os.symlink("busybox", root + "/bin/ls")
    os.symlink("/nowhere/" + "x" * 200, root + "/etc/dangling")
    open(root + "/etc/empty", "w").close()
    with open(root + "/etc/two", "wb") as f:
        f.write(b"a" * 4097)
    os.chmod(root + "/etc/two", 0o4751)
    os.chown(root + "/etc/two", 70000, 3000000)
    os.utime(root + "/etc/two", ns=(1, 1234567890_123456789))
    with open(root + "/etc/old", "wb") as f:
        f.write(b"before 1970")
    os.utime(root + "/etc/old", ns=(0, -1500000000))
    long = root + "/" + "/".join(["d" * 90] * 3)
    os.makedirs(long)
    with open(long + "/" + "f" * 200, "wb") as f:
        f.write(b"long")
    with open(root.encode() + b"/etc/\xff\xfe", "wb") as f:
        f.write(b"no UTF-8")
    os.mkfifo(root + "/etc/fifo")
    os.mknod(root + "/etc/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root + "/etc/disk", 0o600 | stat.S_IFBLK, os.makedev(259, 100000))
    os.setxattr(root + "/etc/two", "user.note", b"\0binary\n=\xff")
    os.setxattr(root + "/bin", "trusted.note", b"on a directory")
    subprocess.run(["setcap", "cap_net_raw+ep", root + "/etc/empty"], check=True)
    with open(root + "/etc/sparse", "wb") as f:
        f.truncate(200 << 20)
        f.seek(90 << 20)
        f.write(b"middle" * 1000)
    with open(root + "/etc/sparse2", "wb") as f:
        f.write(b"start")
        f.truncate((2 << 20) + 5)
        f.seek(2 << 20)
        f.write(b"end!!")
    os.chmod(root, 0o751)


def load(tool, store, path, **env):
    r = subprocess.run([tool, store, path], capture_output=True, text=True, env={**os.environ, **env})
    return r.returncode, r.stdout + r.stderr


def diff(ours, theirs):
    return "; ".join(f"{p}: {ours.get(p)} / {theirs.get(p)}" for p in sorted(set(ours) | set(theirs))
                     if ours.get(p) != theirs.get(p))[:1500]


def test_tree(tool, work):
    tree = work + "/tree"
    make_tree(tree)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(tree + "/etc/socket")
    code, out = load(tool, work + "/store", tree, DIR="1")
    if code:
        return check("a tree loads", False, out)
    check("a tree loads", True)
    times = os.stat(tree + "/etc")
    os.unlink(tree + "/etc/socket")
    os.utime(tree + "/etc", ns=(times.st_atime_ns, times.st_mtime_ns))
    ours, our_groups = peer.stored(out)
    theirs, their_groups = trees.unpacked(os.fsencode(tree))
    check("every file is as lstat has it; a socket is left out", ours == theirs, diff(ours, theirs))
    check("hard links", our_groups == their_groups, f"{our_groups} {their_groups}")
    again = load(tool, work + "/store2", tree, DIR="1")
    check("the same tree gives the same image", again[1] == out)
    os.makedirs(work + "/copy")
    subprocess.run(["cp", "-a", "--sparse=auto", tree + "/.", work + "/copy"], check=True)
    os.utime(work + "/copy", ns=(os.stat(tree).st_atime_ns, os.stat(tree).st_mtime_ns))
    check("a copy elsewhere too", load(tool, work + "/store2", work + "/copy/", DIR="1")[1] == out)
    os.symlink("tree", work + "/link")
    check("the tree by a link to it", load(tool, work + "/store2", work + "/link", DIR="1")[1] == out)
    used = int(run("du", "-sk", work + "/store/layers").split()[0])
    check("holes take no space", used < 20000, f"{used} KiB")
    os.utime(tree + "/etc/old", ns=(0, 0))
    check("another time gives another image", load(tool, work + "/store2", tree, DIR="1")[1] != out)


def test_refused(tool, work):
    tree = work + "/refused"
    os.makedirs(tree)
    open(tree + "/.wh.file", "w").close()
    code, out = load(tool, work + "/store", tree, DIR="1")
    check("a name that would be a whiteout", code == 7 and ".wh." in out, out)
    code, out = load(tool, work + "/store", tree + ":name", DIR="1")
    check("a tree has no names", code == 7 and "no image layout" in out, out)
    code, out = load(tool, work + "/store", tree + "/.wh.file", DIR="1")
    check("a file is no directory", code == 7 and "no directory" in out, out)
    code, out = load(tool, work + "/store", work + "/nothing", DIR="1")
    check("what is not there", code == 7 and "no such file" in out, out)
    os.unlink(tree + "/.wh.file")
    with open(tree + "/secret", "w") as f:
        f.write("secret")
    os.chmod(tree + "/secret", 0)
    os.makedirs(work + "/nobody")
    for d in (work, work + "/nobody", tree):
        os.chmod(d, 0o755)
    os.chown(work + "/nobody", 65534, 65534)
    r = subprocess.run([tool, work + "/nobody/store", tree], capture_output=True, text=True, user=65534, group=65534,
                       extra_groups=[], env={**os.environ, "DIR": "1"})
    check("a file that the caller may not read", r.returncode == 7 and "permission denied" in r.stdout and
          not os.listdir(work + "/nobody/store/layers") and not os.listdir(work + "/nobody/store/tmp"), r.stdout)


def test_layout(tool, work):
    tar, layout = work + "/multi.tar", work + "/layout"
    run(ROOT + "/tools/mkimage", "multi", tar, "--format", "oci")
    os.makedirs(layout)
    run("tar", "-C", layout, "-xf", tar)
    index = json.load(open(layout + "/index.json"))
    names = [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]]
    for name in names:
        want = load(tool, work + "/a", f"{tar}:{name}")
        got = load(tool, work + "/b", f"{layout}:{name}", DIR="1")
        check(f"a layout is as a tar of it: {name}", want == got and want[0] == 0, got[1])
    code, out = load(tool, work + "/b", layout, DIR="1")
    check("several images, and none named", code == 7 and "several images" in out, out)
    victim = sorted(os.listdir(layout + "/blobs/sha256"), key=lambda n: os.path.getsize(f"{layout}/blobs/sha256/{n}"))[-1]
    blob = f"{layout}/blobs/sha256/{victim}"
    os.rename(blob, work + "/moved")
    os.symlink(work + "/moved", blob)
    results = [load(tool, work + "/c", f"{layout}:{n}", DIR="1") for n in names]
    check("a blob that is a link leads nowhere", any(c == 7 and "not in the image" in o for c, o in results), str(results)[:500])
    os.unlink(blob)
    os.mkfifo(blob)
    results = [load(tool, work + "/c", f"{layout}:{n}", DIR="1") for n in names]
    check("nor one that is a pipe", any(c == 7 and "not in the image" in o for c, o in results), str(results)[:500])
    os.unlink(blob)
    data = bytearray(open(work + "/moved", "rb").read())
    data[len(data) // 2] ^= 1
    open(blob, "wb").write(data)
    results = [load(tool, work + "/d", f"{layout}:{n}", DIR="1") for n in names]
    check("a blob that was changed is refused", any(c == 7 for c, _ in results), str(results)[:500])


def main():
    with tempfile.TemporaryDirectory() as work:
        tool = work + "/load"
        run("gcc", "-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-I" + ROOT, ROOT + "/tests/image/load_tar.c", "-o",
            tool, "-lpthread")
        test_tree(tool, work)
        test_refused(tool, work)
        test_layout(tool, work)
    return 1 if peer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
