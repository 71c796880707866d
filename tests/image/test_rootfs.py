#!/usr/bin/env python3
# @root
# @timeout 180
"""The root filesystem through a kernel: directories of the host become layers (pack_dir), the layers a disk (flatten),
which e2fsck must accept and a loop mount must show exactly as the host's directories are: contents, holes, modes,
owners, times to the nanosecond, devices, links, extended attributes and access control lists.
"""
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORK = tempfile.mkdtemp(prefix="cc-rootfs-")
CACHE = os.path.join(WORK, "cache")
MOUNT = os.path.join(WORK, "mnt")
os.environ["PATH"] += ":/sbin:/usr/sbin"


def run(*command):
    r = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        raise AssertionError(f"{command[0]} gave {r.returncode}: {r.stdout}")
    return r.stdout


def build(name):
    run(*os.environ.get("CC", "gcc").split(), "-std=c11", "-g", "-O1", "-Wno-unused-function",
        "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
        os.path.join(ROOT, "tests", "image", name + ".c"), "-o", os.path.join(WORK, name), "-lpthread")


def describe(top, times=True):
    """Everything about a tree, by path; hard links are named by the first of their names."""
    result, inodes = {}, {}
    for folder, dirs, files in os.walk(top):
        for name in [""] if folder == top else []:
            result["."] = one(top, "", top, inodes, times)
        for name in dirs + files:
            path = os.path.join(folder, name)
            rel = os.path.relpath(path, top)
            result[rel] = one(top, rel, path, inodes, times)
    for key, value in result.items():
        if "inode" in value:
            value["inode"] = sorted(inodes[value["inode"]])
    return result


def one(top, rel, path, inodes, times):
    st = os.lstat(path)
    got = {"mode": oct(st.st_mode), "uid": st.st_uid, "gid": st.st_gid}
    if times:
        got["mtime"] = st.st_mtime_ns
    names = [n for n in os.listxattr(path, follow_symlinks=False)]
    got["xattrs"] = {n: os.getxattr(path, n, follow_symlinks=False) for n in names}
    if stat.S_ISLNK(st.st_mode):
        got["target"] = os.readlink(path)
    if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        got["device"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
    if stat.S_ISREG(st.st_mode):
        got["size"] = st.st_size
        with open(path, "rb") as f:
            got["data"] = hash(f.read())
        got["holes"] = holes(path, st.st_size)
    if not stat.S_ISDIR(st.st_mode):
        got["inode"] = st.st_ino
        inodes.setdefault(st.st_ino, []).append(rel)
        got["links"] = st.st_nlink
    else:
        got["subdirs"] = len([1 for e in os.scandir(path) if e.is_dir(follow_symlinks=False)])
    return got


def holes(path, size):
    found, at = [], 0
    fd = os.open(path, os.O_RDONLY)
    while at < size:
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        if hole >= size:
            break
        try:
            at = os.lseek(fd, hole, os.SEEK_DATA)
        except OSError:
            at = size
        found.append((hole // 4096, at // 4096))
    os.close(fd)
    return found


class Mounted:
    """A chain of layers, flattened, checked and mounted read-only."""

    def __init__(self, *chain):
        self.image = os.path.join(WORK, "flat.img")
        run(os.path.join(WORK, "flatten"), CACHE, self.image, *chain)

    def __enter__(self):
        run("e2fsck", "-fn", self.image)
        os.makedirs(MOUNT, exist_ok=True)
        run("mount", "-o", "loop,ro", self.image, MOUNT)
        return MOUNT

    def __exit__(self, *_):
        run("umount", MOUNT)


def pack(tree, number, *whiteouts):
    diff_id = f"{number:064x}"
    os.makedirs(os.path.join(CACHE, "layers", diff_id), exist_ok=True)
    run(os.path.join(WORK, "pack_dir"), tree, CACHE, diff_id, *whiteouts)
    return diff_id


def compare(want, got):
    for path in sorted(set(want) | set(got)):
        if want.get(path) != got.get(path):
            raise AssertionError(f"{path!r}: {got.get(path)} should be {want.get(path)}")


def write(path, data=b"x"):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


def awkward_tree(top):
    for i in range(40):
        write(f"{top}/dir{i % 7}/sub{i % 3}/file{i}", os.urandom(i * 997))
    os.makedirs(f"{top}/empty")
    write(f"{top}/größe-ÿ-名前", b"names beyond ASCII")
    write(f"{top}/" + os.fsdecode(b"\xff\xfe\x01"), b"and beyond UTF-8")
    os.symlink("short", f"{top}/link")
    os.symlink("x" * 59, f"{top}/link59")
    os.symlink("x" * 60, f"{top}/link60")
    os.symlink("y/" * 2000, f"{top}/link4000")
    os.mknod(f"{top}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(f"{top}/big", stat.S_IFBLK | 0o600, os.makedev(4000, 1000000))
    os.mkfifo(f"{top}/fifo")
    s = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(top)
    s.bind("socket")
    os.chdir(here)
    s.close()
    os.link(f"{top}/fifo", f"{top}/dir1/fifo-too")
    os.link(f"{top}/dir0/sub0/file0", f"{top}/first-name-of-none")
    os.link(f"{top}/dir1/sub1/file1", f"{top}/dir2/another")
    os.link(f"{top}/link4000", f"{top}/dir3/link-again")
    for i, mode in enumerate((0o4755, 0o2755, 0o1777, 0, 0o7777)):
        write(f"{top}/modes/m{i}")
        os.chown(f"{top}/modes/m{i}", 70000 * i, 4000000000)
        os.chmod(f"{top}/modes/m{i}", mode)
    os.chmod(f"{top}/empty", 0o1777)
    os.lchown(f"{top}/link", 100000, 100001)
    with open(f"{top}/sparse", "wb") as f:
        for i in range(1500):
            f.seek(i * 3 * 4096 + 17)
            f.write(b"data %d" % i)
        f.truncate(1500 * 3 * 4096 + 123456)
    with open(f"{top}/all-hole", "wb") as f:
        f.truncate(100 << 20)
    os.setxattr(f"{top}/dir0", "user.small", b"v")
    os.setxattr(f"{top}/dir0/sub0", "user.large", os.urandom(3000))
    for i in range(5):
        os.setxattr(f"{top}/dir{i}/sub{i % 3}", "trusted.same", b"s" * 200)
    os.setxattr(f"{top}/link60", "trusted.on-a-link", b"1", follow_symlinks=False)
    cap = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)
    os.setxattr(f"{top}/dir1/sub1/file1", "security.capability", cap)
    os.setxattr(f"{top}/dir2/sub2/file2", "system.posix_acl_access",
                acl((1, 6, 0xffffffff), (2, 7, 70000), (4, 4, 0xffffffff), (8, 5, 123456), (16, 7, 0xffffffff),
                    (32, 0, 0xffffffff)))
    os.setxattr(f"{top}/dir2", "system.posix_acl_default",
                acl((1, 7, 0xffffffff), (2, 5, 1000), (4, 5, 0xffffffff), (16, 5, 0xffffffff), (32, 0, 0xffffffff)))
    for i in range(30):
        os.setxattr(f"{top}/dir5/sub2/file5", f"user.n{i}", b"%d" % i * i)
    for i, sec in enumerate((0, -1, -(1 << 31), (1 << 31) - 1, 1 << 31, (1 << 32) + 5, 10 ** 10)):
        write(f"{top}/times/t{i}")
        os.utime(f"{top}/times/t{i}", ns=(0, sec * 10 ** 9 + 123456789))
    os.utime(f"{top}/link59", ns=(0, 987654321), follow_symlinks=False)
    os.utime(f"{top}/times", ns=(0, 1))
    os.utime(top, ns=(0, 1234567890123456789))


def test_one_layer():
    top = f"{WORK}/one"
    os.makedirs(top)
    awkward_tree(top)
    want = describe(top)
    with Mounted(pack(top, 1)) as mnt:
        compare(want, describe(mnt))


def test_large_directories():
    top = f"{WORK}/large"
    os.makedirs(f"{top}/many")
    os.makedirs(f"{top}/long")
    names = [f"name-{i}" for i in range(100000)]
    for n in names:
        os.mknod(f"{top}/many/{n}")
    for i in range(2000):
        os.mknod(f"{top}/long/{i:0250d}")
    with Mounted(pack(top, 2)) as mnt:
        for n in names:
            os.stat(f"{mnt}/many/{n}")
        for i in range(2000):
            os.stat(f"{mnt}/long/{i:0250d}")
        for i in range(1000):
            assert not os.path.exists(f"{mnt}/many/none-{i}")
        assert sorted(os.listdir(f"{mnt}/many")) == sorted(names)


def test_layers():
    low, mid, high, want = (f"{WORK}/{n}" for n in ("low", "mid", "high", "want"))
    for top in (low, want):
        for path in ("etc/passwd", "etc/shadow", "usr/bin/a", "usr/bin/b", "opt/x/1", "opt/x/2", "var/f", "keep/me"):
            write(f"{top}/{path}", path.encode() * 500)
    write(f"{mid}/etc/passwd", b"new")
    write(f"{mid}/usr/bin/c", b"c" * 9000)
    os.makedirs(f"{mid}/opt/x")
    os.makedirs(f"{mid}/var/f")
    write(f"{high}/opt/x/3", b"3" * 5000)
    os.makedirs(f"{high}/keep")
    os.chmod(f"{high}/keep", 0o700)
    write(f"{high}/usr/bin/b", b"b, the third layer's")
    os.symlink("bin", f"{high}/usr/sbin")

    write(f"{want}/etc/passwd", b"new")
    os.unlink(f"{want}/etc/shadow")
    os.unlink(f"{want}/var/f")
    os.makedirs(f"{want}/var/f")
    write(f"{want}/usr/bin/c", b"c" * 9000)
    os.unlink(f"{want}/usr/bin/a")
    shutil.rmtree(f"{want}/opt/x")
    write(f"{want}/opt/x/3", b"3" * 5000)
    os.chmod(f"{want}/keep", 0o700)
    write(f"{want}/usr/bin/b", b"b, the third layer's")
    os.symlink("bin", f"{want}/usr/sbin")
    chain = [pack(low, 3), pack(mid, 4, "etc/shadow"), pack(high, 5, "usr/bin/a", "opt/x/")]
    with Mounted(*chain) as mnt:
        compare(describe(want, False), describe(mnt, False))
    with Mounted(*chain[:1]) as mnt:
        compare(describe(low), describe(mnt))


def test_scratch_below_an_overlay():
    image, scratch = f"{WORK}/scratch.img", f"{WORK}/scratch"
    os.makedirs(scratch)
    os.makedirs(f"{WORK}/over")
    write(f"{WORK}/lower/dir/file", b"from the image")
    run(f"{WORK}/flatten", "--scratch", image, str(16 << 30))
    with Mounted(pack(f"{WORK}/lower", 8)) as mnt:
        run("mount", "-o", "loop,discard", image, scratch)
        try:
            assert sorted(os.listdir(scratch)) == ["upper", "work"]
            run("mount", "-t", "overlay", "overlay", "-o",
                f"lowerdir={mnt},upperdir={scratch}/upper,workdir={scratch}/work,"
                "redirect_dir=off,metacopy=off,index=off", f"{WORK}/over")
            try:
                os.unlink(f"{WORK}/over/dir/file")
                for i in range(3000):
                    write(f"{WORK}/over/new/{i % 10}/{i}", b"%d" % i)
                write(f"{WORK}/over/large", os.urandom(1 << 20) * 64)
                os.setxattr(f"{WORK}/over/large", "user.a", b"b" * 1000)
            finally:
                run("umount", f"{WORK}/over")
        finally:
            run("umount", scratch)
    run("e2fsck", "-fn", image)
    full = os.stat(image).st_blocks * 512
    run("mount", "-o", "loop,discard", image, scratch)
    try:
        with open(f"{scratch}/upper/large", "rb") as f:
            assert len(f.read()) == 64 << 20
        os.unlink(f"{scratch}/upper/large")
        os.sync()
    finally:
        run("umount", scratch)
    run("e2fsck", "-fn", image)
    assert full > 64 << 20 and os.stat(image).st_blocks * 512 < full - (60 << 20), "discard gave nothing back"


def test_a_real_tree():
    want = describe("/etc")
    with Mounted(pack("/etc", 6)) as mnt:
        compare(want, describe(mnt))


def test_the_comparison_is_awake():
    top = f"{WORK}/awake"
    write(f"{top}/a")
    want = describe(top)
    want["a"]["mtime"] += 1
    try:
        with Mounted(pack(top, 7)) as mnt:
            compare(want, describe(mnt))
    except AssertionError:
        return
    raise AssertionError("a wrong time was not noticed")


def main():
    failed = 0
    if os.geteuid() != 0:
        print("skip rootfs: needs root to mount")
        return 0
    try:
        build("pack_dir")
        build("flatten")
        for name, test in sorted(globals().items()):
            if not name.startswith("test_"):
                continue
            try:
                test()
                print("ok", name)
            except (AssertionError, OSError) as e:
                failed = 1
                print(f"# {e}"[:2000])
                print("not ok", name)
            sys.stdout.flush()
    finally:
        shutil.rmtree(WORK)
    return failed


sys.exit(main())
