#!/usr/bin/env python3
"""Images that attack their reader, loaded up to the root filesystem: a clear error within seconds, nothing left in the store
but whole layers, nothing made outside of it; and layers that decompress to far more than they are.
@timeout 180
"""
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


def load(tool, store, image, **options):
    env = dict(os.environ, QUIET="1", ROOTFS="1")
    r = subprocess.run([tool, store, image], capture_output=True, text=True, errors="replace", env=env, timeout=60,
                       check=False, **options)
    return r.returncode, r.stdout + r.stderr


def leftovers(store):
    """Names in the store that are no whole layer."""
    left = os.listdir(store + "/tmp") + os.listdir(store + "/rootfs")
    for layer in os.listdir(store + "/layers"):
        if sorted(os.listdir(f"{store}/layers/{layer}")) != ["data", "index", "tar"]:
            left.append(layer)
    return left


def the_family(tool, base):
    matrix = os.path.join(base, "matrix")
    subprocess.run([os.path.join(ROOT, "tools/mkimage"), "matrix", matrix], check=True, capture_output=True)
    with open(os.path.join(matrix, "hostile", "list"), encoding="utf-8") as f:
        cases = [line.rstrip("\n").split("\t") for line in f]
    for name, kind, what in cases:
        store = os.path.join(base, "store")
        shutil.rmtree(store, ignore_errors=True)
        start = time.monotonic()
        code, out = load(tool, store, os.path.join(matrix, "hostile", name + ".tar"))
        took = time.monotonic() - start
        expected = (code == 7 and out.startswith("error 7: ")) or (kind == "contained" and code == 0)
        left = leftovers(store) if code else []
        check(f"hostile_{name}", expected and took < 45 and not left and not os.path.exists("/tmp/cc-escaped"),
              f"{what}: {code} after {took:.1f} s, left {left}: {out[:300]}")
    check("hostile_cases", len(cases) > 40, str(len(cases)))


def bombs(tool, base):
    """A GiB of zeroes in a MB, as a layer and around a whole tar. The declared limits are larger than the disk here."""
    sys.path.insert(0, os.path.join(ROOT, "tools", "lib"))
    import imagefile
    import tarwrite
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    header = tarwrite.Tar()
    header.file(b"bomb", b"")
    block = bytearray(header.bytes()[:512])
    size = 1 << 30
    block[124:136] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    blob, inner, zeroes = squeeze.compress(bytes(block)), hashlib.sha256(bytes(block)), bytes(1 << 20)
    for _ in range(size >> 20):
        blob += squeeze.compress(zeroes)
        inner.update(zeroes)
    blob += squeeze.compress(bytes(1024)) + squeeze.flush()
    inner.update(bytes(1024))
    layer = imagefile.Layer(b"")
    layer.blob, layer.diff_id = blob, "sha256:" + inner.hexdigest()
    image = os.path.join(base, "bomb.tar")
    with open(image, "wb") as f:
        f.write(imagefile.docker_archive([imagefile.Image([layer], ["cc/bomb:latest"])]))
    mount = os.path.join(base, "small")
    os.makedirs(mount)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", mount], capture_output=True, check=False).returncode:
        print("skip bomb_fills_the_disk: cannot mount a tmpfs here")
        return
    try:
        code, out = load(tool, os.path.join(mount, "store"), image)
        check("bomb_fills_the_disk", code == 7 and "no space left on device: free some space" in out, out[:300])
        check("bomb_leaves_nothing", not leftovers(os.path.join(mount, "store")))
        with gzip.open(image + ".gz", "wb", 1) as z:
            z.write(b"\0" * 1024 + b"\0" * (200 << 20))
        code, out = load(tool, os.path.join(mount, "store"), image + ".gz")
        check("whole_file_bomb_fills_the_disk", code == 7 and "no space left on device: free some space" in out, out[:300])
        check("whole_file_bomb_leaves_nothing", not leftovers(os.path.join(mount, "store")))
    finally:
        subprocess.run(["umount", mount], check=False)


def cut_and_damaged(tool, base):
    """An honest image cut at many places and with bits flipped at many: never a crash, never anything wrong accepted."""
    sys.path.insert(0, os.path.join(ROOT, "tools", "lib"))
    import imagefile
    import tarwrite
    tar = tarwrite.Tar()
    tar.directory(b"d")
    tar.file(b"d/f", bytes(range(256)) * 40)
    whole = imagefile.docker_archive([imagefile.Image([imagefile.Layer(tar.bytes(), True)], ["cc/x:latest"])])
    store, path = os.path.join(base, "store"), os.path.join(base, "damaged.tar")
    shutil.rmtree(store, ignore_errors=True)
    problems, want = [], hashlib.sha256(tar.bytes()).hexdigest()
    end = len(whole.rstrip(b"\0"))
    cases = [whole[:n] for n in range(0, end, end // 40)]
    for at in range(0, end, end // 120):
        cases.append(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1:])
    for i, data in enumerate(cases):
        with open(path, "wb") as f:
            f.write(data)
        code, out = load(tool, store, path)
        accepted = code == 0 and "layer sha256:" + want in out
        if not (accepted or (code == 7 and out.startswith("error 7: "))) or (i < 40 and accepted) or os.listdir(store + "/tmp"):
            problems.append(f"{i}: {code} {out[:200]}")
        shutil.rmtree(store, ignore_errors=True)
    check("cut_and_damaged", not problems, "; ".join(problems[:3]))


def several_at_once(tool, base):
    """Processes that load the same image into the same store at the same time."""
    image, store = os.path.join(base, "busybox.tar"), os.path.join(base, "shared")
    subprocess.run([os.path.join(ROOT, "tools/mkimage"), "busybox", image], check=True, capture_output=True)
    env = dict(os.environ, ROOTFS="1")
    running = [subprocess.Popen([tool, store, image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env) for _ in range(6)]
    outs = {p.communicate()[0] for p in running}
    check("several_at_once", all(p.returncode == 0 for p in running) and len(outs) == 1, str(outs)[:300])
    check("several_at_once_leave_nothing", os.listdir(store + "/tmp") == [] and len(os.listdir(store + "/layers")) == 1)


def main():
    base = tempfile.mkdtemp(prefix="cc-hostile.")
    try:
        tool = os.path.join(base, "load_tar")
        subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-g", "-O1", "-Wno-unused-function",
                        "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
                        os.path.join(ROOT, "tests/image/load_tar.c"), "-o", tool, "-lpthread"], check=True)
        the_family(tool, base)
        bombs(tool, base)
        cut_and_damaged(tool, base)
        several_at_once(tool, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
