#!/usr/bin/env python3
"""An import that is killed at any system call, or is told at any that the disk is full, leaves a usable store.
@timeout 300

strace injects: at the Nth call of each kind that changes or reads the store, for every N until an import gets through, once
a SIGKILL before the call is made and once an error in its place. After a kill the next import must give the same layers as
an undisturbed one, and sweep tmp/. After an error the import itself must have failed with a clear message, or got through,
and have left neither a temporary file nor a damaged layer.
"""
import os
import resource
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CALLS = ["openat", "mkdirat", "flock", "pwrite64", "write", "fsync", "sync_file_range", "renameat2", "unlinkat", "close",
         "getdents64", "pread64"]
ERRORS = [("pwrite64", "ENOSPC"), ("write", "ENOSPC"), ("fsync", "ENOSPC"), ("fsync", "EIO"), ("openat", "ENOSPC"),
          ("openat", "EMFILE"), ("mkdirat", "ENOSPC"), ("renameat2", "ENOSPC"), ("pread64", "EIO"), ("flock", "ENOLCK"),
          ("getrandom", "EAGAIN")]
WORDS = {"ENOSPC": "no space left on device", "EIO": "input/output error", "EMFILE": "too many open files"}
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if note else "").replace("\n", " | "), flush=True)


def tree(store):
    """Every file of the store's rooms with its bytes."""
    found = {}
    for folder, _, files in os.walk(store):
        for f in files:
            path = os.path.join(folder, f)
            with open(path, "rb") as h:
                found[os.path.relpath(path, store)] = h.read()
    return found


def load(tool, store, image, inject=None):
    command = [tool, store, image]
    if inject:
        trace = inject.split(":")[0]
        command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=" + trace, "-e", "inject=" + inject] + command
    r = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, QUIET="1"), timeout=60, check=False)
    return r.returncode, r.stdout


def killed_at_each(tool, image, want, base):
    store, points, problems = os.path.join(base, "killed"), 0, []
    for call in CALLS:
        for n in range(1, 400):
            shutil.rmtree(store, ignore_errors=True)
            code, _ = load(tool, store, image, f"{call}:signal=SIGKILL:when={n}")
            if code == 0:
                break
            points += 1
            if code not in (-9, 137):
                problems.append(f"{call} {n}: the killed import ended with {code}")
            code, out = load(tool, store, image)
            if code != 0 or tree(store) != want:
                problems.append(f"{call} {n}: the next import ended with {code}: {out[:200]}")
        else:
            problems.append(f"{call}: no end of them")
    check("killed_at_each_call", not problems and points > 60, f"{points} points; " + "; ".join(problems[:5]))


def failed_at_each(tool, image, want, base):
    store, points, problems = os.path.join(base, "failed"), 0, []
    for call, error in ERRORS:
        for n in range(1, 400):
            shutil.rmtree(store, ignore_errors=True)
            code, out = load(tool, store, image, f"{call}:error={error}:when={n}")
            found = tree(store)
            if code == 0 and found == want:
                if load(tool, os.path.join(base, "scratch"), image)[0] or n > 30:
                    break
                continue  # an error that did not matter, or too few calls: try some more
            points += 1
            if code != 0 and WORDS.get(error, "cannot") not in out:
                problems.append(f"{call} {error} {n}: {out[:200]}")
            bad = [p for p in found if p.startswith("tmp/") or found[p] != want.get(p)]
            if bad and error != "EMFILE" and call not in ("openat",):
                problems.append(f"{call} {error} {n}: left {bad[:3]}")
            code, out = load(tool, store, image)
            if code != 0 or tree(store) != want:
                problems.append(f"{call} {error} {n}: the next import ended with {code}: {out[:200]}")
    check("failed_at_each_call", not problems and points > 40, f"{points} points; " + "; ".join(problems[:5]))


def full_disk(tool, image, want, base):
    """A real one: a tmpfs too small for the layers."""
    mount = os.path.join(base, "small")
    os.makedirs(mount)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", mount], capture_output=True, check=False).returncode:
        print("skip full_disk: cannot mount a tmpfs here")
        return
    try:
        store = os.path.join(mount, "store")
        code, out = load(tool, store, image)
        check("full_disk_is_a_clear_error", code != 0 and WORDS["ENOSPC"] + ": free some space" in out, out.strip()[:300])
        found = tree(store)
        check("full_disk_leaves_nothing_half", all(want.get(p) == found[p] for p in found), str(sorted(found)))
        subprocess.run(["mount", "-o", "remount,size=20m", mount], check=True)
        code, out = load(tool, store, image)
        check("works_with_space_again", code == 0 and tree(store) == want, out.strip()[:300])
    finally:
        subprocess.run(["umount", mount], check=False)


def main():
    base = tempfile.mkdtemp(prefix="cc-crash.")
    try:
        tool, image = os.path.join(base, "load_tar"), os.path.join(base, "image.tar")
        subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O1", "-static", "-Wno-unused-function",
                        os.path.join(ROOT, "tests/image/load_tar.c"), "-o", tool, "-lpthread"], check=True)
        sys.path.insert(0, os.path.join(ROOT, "tools", "lib"))
        import imagefile
        import tarwrite
        tars = []
        for number in range(2):
            tar = tarwrite.Tar()
            tar.directory(b"d%d" % number)
            tar.file(b"d%d/big" % number, bytes(range(256)) * 6000)
            tar.file(b"d%d/small" % number, b"small")
            tars.append(imagefile.Layer(tar.bytes(), number == 1))
        with open(image, "wb") as f:
            f.write(imagefile.docker_archive([imagefile.Image(tars, ["cc/crash:latest"])]))
        clean = os.path.join(base, "clean")
        code, out = load(tool, clean, image)
        want = tree(clean)
        check("undisturbed", code == 0 and len(want) == 7, out.strip()[:200])
        full_disk(tool, image, want, base)
        killed_at_each(tool, image, want, base)
        failed_at_each(tool, image, want, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
