"""A file tree on disk as values that two tools' results can be compared by: paths, types, modes, owners, times, sizes,
devices, link targets, extended attributes, contents, and which names are one file."""
import hashlib
import os
import stat


def names_of(group):
    together = {}
    for path, key in group.items():
        together.setdefault(key, set()).add(path)
    return sorted(sorted(s) for s in together.values() if len(s) > 1)


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
            with open(full, "rb") as f:
                content = hashlib.sha256(f.read()).hexdigest()
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
