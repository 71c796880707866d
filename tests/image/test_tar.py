#!/usr/bin/env python3
# @timeout 120
"""The tar reader against others: archives that GNU tar and Python's tarfile wrote, in every format of theirs, compared
with the files they were made from and with what they say of them."""
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
failures = 0


def case(name, ok, detail=""):
    global failures
    failures += not ok
    for line in detail.splitlines()[:20] if not ok else []:
        print("#", line)
    print(("ok " if ok else "not ok ") + name, flush=True)


def quote(b):
    return "".join(chr(c) if 32 < c < 127 and c not in b"%=" else "%%%02x" % c for c in b) or "-"


def dump(archive, step=65536):
    p = subprocess.run([DUMP, str(step)], stdin=open(archive, "rb"), capture_output=True)
    if p.stderr:
        raise SystemExit(p.stderr.decode())
    return p.returncode, p.stdout.decode().splitlines()


def make_tree(top):
    def path(name):
        return os.path.join(top, name)

    def write(name, data, mode=0o644):
        with open(path(name), "wb") as f:
            f.write(data)
        os.chmod(path(name), mode)

    os.mkdir(top)
    write("plain", b"hello\n")
    write("empty", b"", 0o4755)
    write("large", os.urandom(300000), 0o600)
    for n in (511, 512, 513):
        write(f"size{n}", b"x" * n)
    os.mkdir(path("dir"), 0o1777)
    os.chmod(path("dir"), 0o1777)
    os.symlink("../plain", path("dir/soft"))
    os.link(path("plain"), path("hard"))
    os.mkfifo(path("fifo"), 0o640)
    if os.geteuid() == 0:
        os.mknod(path("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(path("disk"), stat.S_IFBLK | 0o660, os.makedev(259, 70000))
        os.chown(path("plain"), 70000, 1000000)
        os.chown(path("dir/soft"), 1, 2, follow_symlinks=False)
    return write, path


def extend_tree(write, path):
    """What Version 7 and ustar cannot express."""
    long = "d" * 100
    os.makedirs(path(long + "/" + long))
    write(long + "/" + long + "/" + "f" * 200, b"deep")
    os.symlink("t" * 300, path("long-link"))
    write("ünïcode \n%=", b"name")
    write("old", b"")
    os.utime(path("old"), ns=(-1500000000, -1500000000))
    with open(path("sparse"), "wb") as f:
        f.truncate(5000000)
        for at in range(40):
            f.seek(at * 100000 + 12345)
            f.write(b"island %d" % at)
    with open(path("hole"), "wb") as f:
        f.truncate(1 << 20)
    try:
        os.setxattr(path("plain"), "user.comment", b"some\x00bytes=\n")
        os.setxattr(path("plain"), "user.second", b"x" * 300)
        if os.geteuid() == 0:
            os.setxattr(path("empty"), "security.capability", bytes.fromhex("0100000200040000" + "00" * 12))
    except OSError:
        pass


def expected(top, names, nanoseconds, xattrs):
    """The lines that the dump of an archive of these files must have."""
    out, inodes = [], {}
    for name in names:
        p = os.path.join(os.fsencode(top), name.rstrip(b"/"))
        st = os.lstat(p)
        kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b",
                stat.S_IFIFO: "p"}[stat.S_IFMT(st.st_mode)]
        link, size, digest, dev = b"", 0, "-", "0,0"
        if kind == "f" and st.st_ino in inodes:
            kind, link = "h", inodes[st.st_ino]
        elif kind == "f":
            inodes[st.st_ino] = name
            data = open(p, "rb").read()
            size, digest = len(data), hashlib.sha256(data).hexdigest()
        elif kind == "l":
            link = os.readlink(p)
        elif kind in "cb":
            dev = "%d,%d" % (os.major(st.st_rdev), os.minor(st.st_rdev))
        sec, nsec = divmod(st.st_mtime_ns, 10**9)
        attrs = {}
        if xattrs and kind not in "lh":
            attrs = {n: os.getxattr(p, n) for n in os.listxattr(p) if not n.startswith("system.")}
        out.append((kind, stat.S_IMODE(st.st_mode) if kind != "l" else 0o777, st.st_uid, st.st_gid, size,
                    "%d.%09d" % (sec, nsec if nanoseconds else 0), dev, quote(name), quote(link), digest,
                    tuple(sorted(f"{n}={v.hex()}" for n, v in attrs.items()))))
    return out


def parse(lines):
    out = []
    for line in lines:
        f = line.split(" ")
        out.append((f[0], int(f[1], 8), int(f[2]), int(f[3]), int(f[4]), f[5], f[6], f[7], f[8], f[9],
                    tuple(sorted(f[10:]))))
    return out


def compare(name, got, want):
    """Hard links carry attributes too, or not: writers differ, and it does not matter."""
    strip = lambda rows: [r[:-1] if r[0] == "h" else r for r in rows]
    got, want = strip(got), strip(want)
    case(name, got == want and len(got) > 5,
         "\n".join(f"got  {g}\nwant {w}" for g, w in zip(got, want) if g != w) + f"\n{len(got)} of {len(want)} entries")


def gnu_tar(name, top, archive, *options, nanoseconds=False, xattrs=False):
    subprocess.run(["tar", "-C", top, "-b1", "--sort=name", *options, "-cf", archive, "."], check=True,
                   stderr=subprocess.DEVNULL)
    listing = subprocess.run(["tar", "-tf", archive, "--quoting-style=escape"], capture_output=True, check=True).stdout
    names = [n.decode("unicode_escape").encode("latin-1") for n in listing.splitlines()]
    for step in (65536, 333):
        code, lines = dump(archive, step)
        if code:
            case(f"{name} in pieces of {step}", False, lines[-1])
        else:
            compare(f"{name} in pieces of {step}", parse(lines), expected(top, names, nanoseconds, xattrs))


def test_gnu(tmp):
    top = os.path.join(tmp, "tree")
    archive = os.path.join(tmp, "a.tar")
    write, path = make_tree(top)
    gnu_tar("gnu-tar oldgnu", top, archive, "--format=oldgnu")
    gnu_tar("gnu-tar ustar", top, archive, "--format=ustar")
    extend_tree(write, path)
    gnu_tar("gnu-tar gnu", top, archive, "--format=gnu")
    gnu_tar("gnu-tar gnu sparse", top, archive, "--format=gnu", "--sparse")
    gnu_tar("gnu-tar pax", top, archive, "--format=pax", "--xattrs", "--xattrs-include=*", nanoseconds=True, xattrs=True)
    for version in ("0.0", "0.1", "1.0"):
        gnu_tar("gnu-tar pax sparse " + version, top, archive, "--format=pax", "--sparse", "--sparse-version=" + version,
                nanoseconds=True)


def test_python(tmp):
    for name, fmt in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        archive = os.path.join(tmp, "p.tar")
        rich = fmt != tarfile.USTAR_FORMAT
        want = []
        with tarfile.open(archive, "w", format=fmt) as t:
            def add(path, kind=tarfile.REGTYPE, data=b"", **fields):
                i = tarfile.TarInfo(path)
                i.type, i.size, i.mtime = kind, len(data), 1700000000
                for k, v in fields.items():
                    setattr(i, k, v)
                t.addfile(i, io.BytesIO(data))
                letter = {tarfile.REGTYPE: "f", tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h",
                          tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}[kind]
                want.append((letter, i.mode, i.uid, i.gid, len(data), "%d.000000000" % i.mtime,
                             f"{i.devmajor},{i.devminor}" if letter in "cb" else "0,0",
                             quote((path + "/" * (letter == "d")).encode()), quote(i.linkname.encode()),
                             hashlib.sha256(data).hexdigest() if letter == "f" else "-", ()))
            add("a", data=b"abc")
            add("setuid", data=b"x" * 5000, mode=0o6755)
            add("dir", tarfile.DIRTYPE, mode=0o1777)
            add("p" * 90 + "/" + "n" * 99, data=b"prefix")
            add("l", tarfile.SYMTYPE, linkname="../a")
            add("h", tarfile.LNKTYPE, linkname="a")
            add("c", tarfile.CHRTYPE, devmajor=5, devminor=1)
            add("b", tarfile.BLKTYPE, devmajor=8, devminor=17)
            add("f", tarfile.FIFOTYPE)
            if rich:
                add("q" * 300, data=b"long")
                add("l2", tarfile.SYMTYPE, linkname="t" * 200)
                add("owner", uid=4000000000, gid=2097152)
                add("past", mtime=-12345)
                add("future", mtime=1 << 35)
                add("ünï", data=b"unicode")
        for step in (65536, 77):
            code, lines = dump(archive, step)
            compare(f"python {name} in pieces of {step}", parse(lines), want)


def test_large(tmp):
    """A file of more than 8 GiB: the size does not fit into octal digits. Sparse, so that nobody has to read it."""
    top = os.path.join(tmp, "large")
    os.mkdir(top)
    with open(os.path.join(top, "f"), "wb") as f:
        f.seek((9 << 30) + 5)
        f.write(b"x")
    for fmt in ("gnu", "pax"):
        archive = os.path.join(tmp, "large.tar")
        subprocess.run(["tar", "-C", top, "--format=" + fmt, "-S", "-cf", archive, "f"], check=True)
        p = subprocess.run([DUMP, "65536", "names"], stdin=open(archive, "rb"), capture_output=True, text=True)
        case(f"size beyond octal, {fmt}", p.returncode == 0 and f" {(9 << 30) + 6} " in p.stdout, p.stdout)


def main():
    global DUMP
    tmp = tempfile.mkdtemp(prefix="cc-tar-")
    try:
        DUMP = os.path.join(tmp, "dump")
        subprocess.run(os.environ.get("CC", "cc").split() + ["-std=c11", "-g", "-O2", "-Wno-unused-function",
                       "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", ROOT,
                       os.path.join(HERE, "tar_dump.c"), "-o", DUMP], check=True)
        test_gnu(tmp)
        test_python(tmp)
        test_large(tmp)
    finally:
        shutil.rmtree(tmp)
    return 1 if failures else 0


sys.exit(main())
