#!/usr/bin/env python3
"""Images whose layers other tools compressed with zstd give the same layers as with gzip: pulled, loaded from a tar and from a
directory, exported again. And a program without libzstd says what it lacks.
@timeout 120
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "registry"))
from registry import Layout, Puller, Registry, build, run  # noqa: E402

ZSTD = ["-DCC_WITH_ZSTD", "-lzstd"]
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


def tree(store):
    out, top = {}, os.path.join(store, "layers")
    for layer in os.listdir(top):
        for file in os.listdir(os.path.join(top, layer)):
            with open(os.path.join(top, layer, file), "rb") as f:
                out[f"{layer}/{file}"] = f.read()
    return out


def image(folder):
    layout = Layout(os.path.join(folder, "gzip"))
    text = b"".join(b"line %d of many\n" % i for i in range(200000))
    return layout.tag(layout.image([layout.layer({"etc/os-release": b"ID=test\n", "text": text}), layout.layer({}),
                                    layout.layer({"noise": os.urandom(300000), ".wh.text": b""})], Env=["A=1"]), "v1")


class Loader:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.number = binary, folder, 0

    def __call__(self, path, **env):
        """(store, exit code, output)"""
        self.number += 1
        store = os.path.join(self.folder, f"loaded{self.number}")
        r = subprocess.run([self.binary, store, path], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                           env=dict(os.environ, QUIET="1", **env))
        return store, r.returncode, r.stdout + r.stderr


def test_load(load, plain, folder, want):
    layout = os.path.join(folder, "zstd")
    store, code, out = load(layout, DIR="1")
    check("load_dir", code == 0 and tree(store) == want, out)
    tar = os.path.join(folder, "zstd.tar")
    run("tar", "-C", layout, "-cf", tar, ".")
    store, code, out = load(tar)
    check("load_tar", code == 0 and tree(store) == want, out)
    run("zstd", "-q", "-19", tar, "-o", tar + ".zst")
    store, code, out = load(tar + ".zst")
    check("load_tar_compressed_as_a_whole", code == 0 and tree(store) == want, out)
    with open(tar + ".zst", "r+b") as f:
        f.truncate(os.path.getsize(tar + ".zst") - 3)
    _, code, out = load(tar + ".zst")
    check("load_tar_cut", code == 7 and "end too early" in out, out)
    for path, env in ((layout, {"DIR": "1"}), (tar, {}), (tar + ".zst", {})):
        _, code, out = plain(path, **env)
        check("without_libzstd_" + re.sub(r"\W", "_", os.path.basename(path)), code == 7 and
              "compressed with zstd, which this program was built without: define CC_WITH_ZSTD" in out, out)


def test_pull(pull, load, folder, want):
    with Registry(os.path.join(folder, "registry")) as r:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-compress-format", "zstd", "oci:" + os.path.join(folder, "zstd"),
            f"docker://{r.address}/test/zstd:1")
        code, out = pull("pulled", f"{r.address}/test/zstd:1")
        check("pull", code == 0 and "env A=1" in out and tree(pull.store("pulled")) == want, out)
        exported = os.path.join(folder, "exported")
        code, out = pull("pulled", f"{r.address}/test/zstd:1", EXPORT=exported)
        same = [b for b in os.listdir(os.path.join(exported, "blobs/sha256"))
                if open(os.path.join(exported, "blobs/sha256", b), "rb").read(4) == b"\x28\xb5\x2f\xfd"]
        check("an_export_has_the_layers_as_they_came", code == 0 and len(same) == 3, f"{same} {out}")
        run("skopeo", "copy", "-q", "oci:" + exported, "oci:" + os.path.join(folder, "again") + ":v1")
        store, code, out = load(os.path.join(folder, "again"), DIR="1")
        check("skopeo_reads_the_export", code == 0 and tree(store) == want, out)


def main():
    folder = tempfile.mkdtemp(prefix="cc-zstd-")
    try:
        load = Loader(build(folder, "zstd_load", "tests/image/load_tar.c", ZSTD), folder)
        plain = Loader(build(folder, "gzip_load", "tests/image/load_tar.c"), os.path.join(folder, "plain"))
        pull = Puller(build(folder, "zstd_pull", flags=ZSTD), folder)
        os.mkdir(plain.folder)
        run("skopeo", "copy", "-q", "--dest-compress-format", "zstd", "--dest-oci-accept-uncompressed-layers=false", image(folder),
            "oci:" + os.path.join(folder, "zstd") + ":v1")
        blobs = os.path.join(folder, "zstd/blobs/sha256")
        magic = [open(os.path.join(blobs, b), "rb").read(4) for b in os.listdir(blobs)]
        check("skopeo_made_zstd", magic.count(b"\x28\xb5\x2f\xfd") == 3, magic)
        store, code, out = load(os.path.join(folder, "gzip"), DIR="1")
        check("gzip", code == 0, out)
        want = tree(store)
        test_load(load, plain, folder, want)
        test_pull(pull, load, folder, want)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
