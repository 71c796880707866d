"""Awkward images for the tests of the import.

In all but "implied" each directory has an entry: the time of one without is nobody's to say.
`tools/mkimage matrix DIR` writes

    DIR/good/NAME/            an OCI layout (`umoci unpack --image DIR/good/NAME:latest OUT` is the reference), gzip
    DIR/good/NAME.oci.tar     the same as a tar
    DIR/good/NAME.docker.tar  as `docker save` writes it, layers plain
    DIR/good/list             NAME, a tab, the reference that reads it: "umoci", or "tar" (the only layer of the
                              docker form, unpacked by GNU tar)
    DIR/hostile/NAME.tar      images that must be refused, or must stay inside their root
    DIR/hostile/list          NAME, a tab, "error" (must be refused) or "contained" (may load, must not escape), a tab,
                              what is wrong with it

Every name below says what is in it; what goes wrong when a reader forgets it is said where it is not plain.
"""
import os
import shutil
import struct

import hostile
import imagefile
import tarwrite

Tar = tarwrite.Tar
NOISE = bytes((i * 197 + (i >> 8) * 31) & 255 for i in range(20000))


def files():
    """Sizes around the block size, every kind of entry, all mode bits, a directory's entry after what is in it, an entry
    given twice."""
    tar = Tar(complete=True)
    tar.directory(b".")
    tar.directory(b"d", mode=0o1777)
    for size in (0, 1, 511, 512, 513, 4095, 4096, 4097, 20000):
        tar.file(b"d/size-%d" % size, NOISE[:size])
    for mode in (0, 0o400, 0o755, 0o4755, 0o2755, 0o1644, 0o7777):
        tar.file(b"d/mode-%o" % mode, b"x", mode=mode)
    tar.symlink(b"d/relative", b"size-1")
    tar.symlink(b"d/absolute", b"/d/size-1")
    tar.symlink(b"d/dangling", b"../nowhere/at/all")
    for size in (59, 60, 61, 99, 100, 101, 255, 1000, 4000):  # ext4 keeps up to 59 bytes in the inode
        tar.symlink(b"d/target-%d" % size, (b"t/" * 2000)[:size - 1] + b"x")
    tar.file(b"d/linked", b"one file, four names\n", mode=0o640)
    for number in range(3):
        tar.hardlink(b"d/linked-%d" % number, b"d/linked")
    tar.add(b"d/fifo", b"6", mode=0o600)
    tar.add(b"d/null", b"3", mode=0o666, major=1, minor=3)
    tar.add(b"d/disk", b"4", mode=0o660, major=259, minor=65537)
    tar.seen.add(b"late")
    tar.file(b"late/file", b"the directory's own entry comes after it")
    tar.directory(b"late", mode=0o711, mtime=1600000000, uid=7)
    tar.file(b"twice", b"first, and longer than the second", mode=0o600)
    tar.file(b"twice", b"second", mode=0o644)
    tar.directory(b".")
    return [tar]


def implied():
    """Files whose directories have no entry: they are made, root's, mode 755, with any time."""
    tar = Tar()
    tar.file(b"missing/parents/file", b"x")
    tar.symlink(b"missing/too/link", b"../parents/file")
    return [tar]


def names():
    """Long names in each of their forms, every byte a name may have, the longest name and a deep path."""
    tar, long = Tar(complete=True), b"a-fairly-long-directory-name/" * 12
    for form in ("pax", "gnu"):
        tar.file(form.encode() + b"/" + long + b"file", form.encode(), long=form)
        tar.symlink(form.encode() + b"/link", b"x/" * 100 + form.encode(), long=form)
        tar.hardlink(form.encode() + b"/hard", form.encode() + b"/" + long + b"file", long=form)
    tar.file(b"ustar/" + b"p" * 90 + b"/" + b"n" * 90, b"ustar", long="ustar")
    tar.file(b"hundred/" + b"h" * 92, b"a name that fills the field: no NUL ends it")
    tar.file(b"c/" + b"n" * 255, b"the longest component")
    tar.file(b"/".join([b"deep"] * 200) + b"/file", b"deep")
    tar.file(b"bytes/" + bytes(b for b in range(1, 256) if b not in b"/"), b"every byte but two")
    for name in (b"\xff\xfe", b"two\nlines", b" blank ", b"back\\slash", b"-rf", b"..x", b"...", b"#", b"\xc3\xa4"):
        tar.file(b"odd/" + name, b"x")
    tar.file(b"./dot/./file", b"x")
    tar.file(b"dot//twice", b"x")
    return [tar]


def global_header():
    """A pax header for all entries that follow: its values hold until an entry's own header says otherwise."""
    tar = Tar(complete=True)
    tar.directory(b".")
    tar.file(b"before", b"x")
    tar.raw(tarwrite.pax({b"comment": b"a global header"}, b"g"))
    tar.file(b"after", b"x", mtime="1700000001.5")
    return [tar]


def attributes():
    """Times with nanoseconds, before 1970 and after 2038; owners past 16 and 21 bits; extended attributes."""
    tar = Tar(complete=True)
    tar.directory(b".")
    for number, time in enumerate(("0", "1.5", "1700000000.123456789", "1700000000.1234567899", "-1", "-1.5",
                                   "-1000000000.25", "2147483648", "4294967296.000000001", "9000000000")):
        tar.file(b"time-%d" % number, b"x", mtime=time)
    tar.file(b"time-base256", b"x", mtime=-86400, long="gnu")
    for owner in (1, 65534, 65535, 65536, 2097151, 2097152, 2147483648, 4294967294):
        tar.file(b"owner-pax-%d" % owner, b"x", uid=owner, gid=owner - 1)
        tar.file(b"owner-gnu-%d" % owner, b"x", uid=owner, gid=owner - 1, long="gnu")
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # CAP_NET_BIND_SERVICE, effective
    tar.file(b"capability", b"x", mode=0o755, xattrs={b"security.capability": capability})
    tar.file(b"user", b"x", xattrs={b"user.text": b"value", b"user.binary": b"\0\xff\n=\0"})
    tar.file(b"large", b"x", xattrs={b"user.large": NOISE[:3000]})
    tar.file(b"many", b"x", xattrs={b"user.n%02d" % n: b"%d" % n * 8 for n in range(40)})
    tar.directory(b"directory", xattrs={b"user.on": b"a directory", b"trusted.kind": b"t"})
    tar.file(b"both", b"x", uid=70000, mtime="5.000000005", xattrs={b"user.x": b"y"}, mode=0o4711)
    return [tar]


def _sparse(*forms):
    """Sparse files: holes at the start, in the middle and at the end, nothing but a hole, many spans (the old form's
    chained headers), and one of 160 MB that holds three blocks. Every span but the last is whole blocks: readers
    disagree whether another would be padded in the archive."""
    tar = Tar(complete=True)
    tar.directory(b".")
    shapes = {b"middle": (20000, [(0, NOISE[:512]), (10240, NOISE[:1000])]),
              b"start": (8192, [(4096, NOISE[:4096])]),
              b"hole": (1 << 20, []),
              b"unaligned": (5000, [(1, NOISE[:512]), (1000, NOISE[:1024]), (4999, b"c")]),
              b"many": (400 * 8192, [(n * 8192, NOISE[n:n + 512]) for n in range(400)]),
              b"large": (160 << 20, [(0, NOISE[:4096]), (80 << 20, NOISE[:4096]), ((160 << 20) - 512, NOISE[:512])])}
    for form in forms:
        for name, (size, chunks) in shapes.items():
            tar.sparse(b"sparse-" + form.encode() + b"-" + name, size, chunks, form)
    tar.file(b"after", b"the reader is still in step")
    return [tar]


def sparse():
    """GNU's three pax forms."""
    return _sparse("0.0", "0.1", "1.0")


def sparse_old():
    """GNU's own entry type S."""
    return _sparse("old")


def whiteouts():
    """What a layer can do to the one below: hide, replace, reveal, re-add."""
    lower, upper, top = Tar(complete=True), Tar(), Tar()
    lower.directory(b".")
    lower.file(b"keep/stays", b"below")
    lower.file(b"keep/changed", b"below")
    lower.file(b"hide/file", b"gone later")
    lower.file(b"hide/other", b"stays")
    lower.file(b"dir/a/b/c", b"a tree that goes as one")
    lower.file(b"opaque/old", b"hidden by the opaque mark")
    lower.file(b"opaque/sub/old", b"hidden too")
    lower.file(b"early/old", b"hidden though the mark comes last")
    lower.file(b"tofile/inside", b"a directory that becomes a file")
    lower.file(b"todir", b"a file that becomes a directory")
    lower.symlink(b"linkdir", b"real")
    lower.symlink(b"todirlink", b"real")
    lower.file(b"real/below", b"x")
    lower.file(b"first", b"two names, one inode")
    lower.hardlink(b"second", b"first")
    lower.file(b"again/file", b"removed, then back")
    lower.file(b"modes", b"x", mode=0o600)

    upper.file(b"keep/changed", b"above")
    upper.whiteout(b"hide/file")
    upper.whiteout(b"dir/a")
    upper.whiteout(b"keep/never-was")
    upper.directory(b"opaque", mode=0o700)
    upper.opaque(b"opaque")
    upper.file(b"opaque/new", b"above")
    upper.directory(b"early")
    upper.file(b"early/new", b"above")
    upper.opaque(b"early")
    upper.file(b"tofile", b"now a file")
    upper.directory(b"todir")
    upper.file(b"todir/inside", b"now a directory")
    upper.file(b"linkdir/through", b"lands in real/")
    upper.directory(b"todirlink")
    upper.file(b"todirlink/own", b"a directory in the link's place")
    upper.hardlink(b"third", b"first")
    upper.file(b"second", b"no longer the same file")
    upper.whiteout(b"again/file")
    upper.directory(b"keep", mode=0o711, uid=5, gid=6, mtime=1500000000)

    top.file(b"again/file", b"back")
    top.directory(b"dir/a")
    top.directory(b"dir/a/b")
    top.file(b"dir/a/b/c", b"a new tree under the old name")
    top.whiteout(b"opaque/new")
    top.file(b"opaque/newer", b"x")
    top.hardlink(b"fourth", b"third")
    top.whiteout(b"first")
    return [lower, upper, top]


def order():
    """A whiteout hides only what is below its own layer, wherever it stands in it."""
    lower, upper = Tar(complete=True), Tar()
    lower.directory(b".")
    lower.file(b"a/file", b"below")
    lower.file(b"b/file", b"below")
    lower.file(b"c/sub/file", b"below")
    upper.file(b"a/file", b"above, before the mark")
    upper.whiteout(b"a/file")
    upper.whiteout(b"b/file")
    upper.file(b"b/file", b"above, after the mark")
    upper.whiteout(b"c")
    upper.directory(b"c")
    upper.file(b"c/other", b"the old c is gone, this one is new")
    return [lower, upper]


def crowd():
    """A directory of 20,000 entries (htree), with a layer that removes some of them."""
    lower, upper = Tar(complete=True), Tar()
    lower.directory(b".")
    lower.directory(b"crowd")
    for number in range(20000):
        lower.file(b"crowd/entry-number-%05d" % number, b"%d\n" % number if number % 4 == 0 else b"")
    for number in range(0, 20000, 1000):
        upper.whiteout(b"crowd/entry-number-%05d" % number)
    return [lower, upper]


def empty():
    """A layer with nothing in it, between two that have something."""
    one, two = Tar(complete=True), Tar()
    one.directory(b".")
    one.file(b"one", b"1")
    two.file(b"two", b"2")
    return [one, Tar(), two]


GOOD = {"files": files, "implied": implied, "names": names, "attributes": attributes, "sparse": sparse,
        "sparse-old": sparse_old, "global-header": global_header, "whiteouts": whiteouts, "order": order,
        "crowd": crowd, "empty": empty}
NOT_FOR_UMOCI = ("global-header", "sparse-old")  # it refuses these entry types; GNU tar is the reference


def _write(path, data):
    with open(path, "wb") as handle:
        handle.write(data)


def write(directory, busybox_tar):
    """Writes the whole matrix. `busybox_tar` gives a harmless layer for images whose fault lies elsewhere."""
    good, bad = os.path.join(directory, "good"), os.path.join(directory, "hostile")
    for path in (good, bad):
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
    for name, make in GOOD.items():
        tars = [tar.bytes() for tar in make()]
        zipped = imagefile.Image([imagefile.Layer(tar, True, 1) for tar in tars], ["latest"])
        layout = imagefile.oci_layout([zipped])
        layout.directory(os.path.join(good, name))
        _write(os.path.join(good, name + ".oci.tar"), layout.tar())
        plain = imagefile.Image([imagefile.Layer(tar) for tar in tars], [f"cc/{name}:latest"])
        _write(os.path.join(good, name + ".docker.tar"), imagefile.docker_archive([plain]))
    _write(os.path.join(good, "list"), b"".join(
        f"{name}\t{'tar' if name in NOT_FOR_UMOCI else 'umoci'}\n".encode() for name in GOOD))
    lines = []
    for name, verdict, what, data in hostile.images(busybox_tar()):
        _write(os.path.join(bad, name + ".tar"), data)
        lines.append(f"{name}\t{verdict}\t{what}\n")
    _write(os.path.join(bad, "list"), "".join(lines).encode())
