"""A file tree on disk as values that two tools' results can be compared by: paths, types, modes, owners, times, sizes,
devices, link targets, extended attributes, contents, and which names are one file."""
import hashlib
import os
import shutil
import stat
import subprocess

LARGE = 1 << 30


def names_of(group):
    together = {}
    for path, key in group.items():
        together.setdefault(key, set()).add(path)
    return sorted(sorted(s) for s in together.values() if len(s) > 1)


def contents(path, size):
    """A digest of a file's bytes. Of a large one, only what is not zero is hashed, with where it stands: so it does not
    matter which zeroes are holes, and holes are not read."""
    h = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        if size < LARGE:
            h.update(f.read())
            return h.hexdigest()
        buffer, at = bytearray(1 << 20), 0
        zeroes = bytes(len(buffer))
        while at < size:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA) >> 20 << 20
            except OSError:
                break  # a hole up to the end
            n = os.preadv(f.fileno(), [buffer], at)
            if (buffer if n == len(buffer) else buffer[:n]) != zeroes[:n]:
                h.update(b"%d " % at + buffer[:n])
            at += len(buffer)
    return "large " + h.hexdigest()


def unpacked(root):
    """The tree below a directory, and the sets of paths that are one file."""
    tree, group = {}, {}

    def visit(path):
        full = root + path
        st = os.lstat(full)
        kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b",
                stat.S_IFIFO: "p", stat.S_IFSOCK: "s"}[stat.S_IFMT(st.st_mode)]
        content = "-"
        if kind == "f":
            content = contents(full, st.st_size)
        device = f"{os.major(st.st_rdev)},{os.minor(st.st_rdev)}" if kind in "cb" else "0,0"
        sec, nsec = divmod(st.st_mtime_ns, 10**9)
        xattrs = {os.fsencode(n): os.getxattr(full, n, follow_symlinks=False)
                  for n in os.listxattr(full, follow_symlinks=False)}
        name = path or b"/"
        tree[name] = [kind, stat.S_IMODE(st.st_mode), f"{st.st_uid}:{st.st_gid}", f"{sec}.{nsec:09d}",
                      str(st.st_size if kind == "f" else 0), device, content,
                      os.readlink(full) if kind == "l" else b"", xattrs]
        if st.st_nlink > 1 and kind != "d":
            group[name] = st.st_ino
        if kind == "d":
            for child in os.listdir(full):
                visit(path + b"/" + child)

    visit(b"")
    return tree, names_of(group)


def tool(name, folder):
    """Compiles tests/image/NAME.c."""
    binary, here = os.path.join(folder, name), os.path.dirname(os.path.abspath(__file__))
    checked(*os.environ.get("CC", "cc").split(), "-std=c11", "-O1", "-g", "-Wno-unused-function", "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all", os.path.join(here, name + ".c"), "-o", binary, "-lpthread", "-l:libbearssl.a")
    return binary


def checked(*command):
    r = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if r.returncode:
        raise RuntimeError(f"{' '.join(command)} gave {r.returncode}: {r.stdout}{r.stderr}")
    return r.stdout


def flattened(flatten, store, diff_ids, folder):
    """The tree that a guest would see of these layers: the disk of the store, accepted by e2fsck, and mounted."""
    disk, mount = os.path.join(folder, "disk"), os.path.join(folder, "mnt")
    checked(flatten, store, disk, *[d.removeprefix("sha256:") for d in diff_ids])
    checked("e2fsck", "-fn", disk)
    os.makedirs(mount, exist_ok=True)
    checked("mount", "-o", "loop,ro", disk, mount)
    try:
        return unpacked(os.fsencode(mount))
    finally:
        checked("umount", mount)
        os.unlink(disk)


def by_umoci(layout, folder):
    """The tree that umoci unpacks of "layout:tag"; None and the error if it refuses."""
    bundle = os.path.join(folder, "bundle")
    shutil.rmtree(bundle, ignore_errors=True)
    r = subprocess.run(["umoci", "unpack", "--image", layout, bundle], capture_output=True, text=True, errors="replace",
                       check=False)
    tree = unpacked(os.fsencode(bundle + "/rootfs")) if r.returncode == 0 else (None, r.stderr)
    shutil.rmtree(bundle, ignore_errors=True)
    return tree


def differences(ours, theirs, implied):
    """What differs. `implied`: there are directories that no entry speaks of; ours may lack them, and any time is right."""
    found = []
    for path in sorted(set(ours) | set(theirs)):
        a, b = ours.get(path), theirs.get(path)
        if a is None and b and b[0] == "d" and implied:
            continue
        if a and b and a[0] == "d" and implied:
            a, b = a[:3] + a[4:], b[:3] + b[4:]
        if a and b and a[0] == "l":
            a, b = a[:1] + a[2:], b[:1] + b[2:]  # Linux has no mode for links
        if a != b:
            found.append(f"{path!r}: ours {a} umoci {b}")
    return found
