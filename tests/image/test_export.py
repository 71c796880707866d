#!/usr/bin/env python3
"""Exported images, read back by skopeo, umoci and ourselves; every layer is bit for bit the tar that it came as.
@root
@timeout 300

The images are those of `tools/mkimage matrix`: tars of every kind, by several tools.
"""
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | ")[:800], flush=True)


def run(*command):
    r = subprocess.run(command, capture_output=True, text=True, check=False)
    return r.returncode == 0, r.stdout + r.stderr


def export(tool, store, image, target, **env):
    r = subprocess.run([tool, store, image], capture_output=True, text=True,
                       env={**os.environ, "QUIET": "1", "EXPORT": target, **env})
    return r.returncode, r.stdout + r.stderr


def blob(layout, digest):
    with open(f"{layout}/blobs/sha256/{digest.removeprefix('sha256:')}", "rb") as f:
        data = f.read()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest, f"{digest} is another's name"
    return data


def parts(layout):
    """Manifest, configuration and uncompressed layers of a layout's one image; every digest and size is checked."""
    d = json.load(open(layout + "/index.json"))["manifests"][0]
    manifest = json.loads(blob(layout, d["digest"]))
    config = blob(layout, manifest["config"]["digest"])
    layers = []
    for l in manifest["layers"]:
        data = blob(layout, l["digest"])
        assert len(data) == l["size"]
        layers.append(gzip.decompress(data) if l["mediaType"].endswith("gzip") else data)
    return d, config, layers


def test_matrix(tool, work, good):
    names = sorted(n for n in os.listdir(good) if os.path.isdir(f"{good}/{n}"))
    with open(f"{good}/list", encoding="utf-8") as f:
        by_umoci = f.read()
    for name in names:
        out = f"{work}/out.{name}"
        code, text = export(tool, work + "/store", f"{good}/{name}.oci.tar", out)
        if code:
            check(f"{name}: exported", False, text)
            continue
        _, config, layers = parts(out)
        _, want_config, want_layers = parts(f"{good}/{name}")
        check(f"{name}: configuration and tars are as they came, bit for bit", config == want_config and layers == want_layers)
        if f"{name}\tumoci" not in by_umoci:
            continue
        ok, text = run("umoci", "unpack", "--keep-dirlinks", "--image", out + ":latest", work + "/u1")
        ok2, text2 = run("umoci", "unpack", "--keep-dirlinks", "--image", f"{good}/{name}:latest", work + "/u2")
        same, differs = run("diff", "-r", "--no-dereference", "-q", work + "/u1/rootfs", work + "/u2/rootfs")
        check(f"{name}: umoci unpacks the same", ok and ok2 and (same or not different(differs)), text + text2 + differs)
        for d in ("/u1", "/u2", f"/out.{name}"):
            shutil.rmtree(work + d, ignore_errors=True)


def test_forms(tool, work, good):
    image = f"{good}/files.docker.tar"
    export(tool, work + "/store", image, work + "/one")
    ok, text = run("skopeo", "copy", "--insecure-policy", "-q", f"oci:{work}/one:latest", f"oci:{work}/copy:latest")
    check("skopeo copies it", ok, text)
    code, again = export(tool, work + "/store3", work + "/one", work + "/two", DIR="1")
    check("an export loads, and exports the same", code == 0 and run("diff", "-r", work + "/one", work + "/two")[0], again)
    # Where blobs/ has the compressed layers, as after a pull, they are copied, and the manifest keeps its digest.
    layout = f"{good}/files"
    d = json.load(open(layout + "/index.json"))["manifests"][0]
    manifest = json.loads(blob(layout, d["digest"]))
    gz = f"{work}/gz"
    ok, text = run("skopeo", "copy", "--insecure-policy", "-q", "--dest-compress", f"oci:{layout}:latest", f"oci:{gz}:latest")
    d = json.load(open(gz + "/index.json"))["manifests"][0]
    manifest = json.loads(blob(gz, d["digest"]))
    compressed = [l["digest"].removeprefix("sha256:") for l in manifest["layers"] if l["mediaType"].endswith("gzip")]
    check("skopeo compressed a layer", ok and compressed, text)
    for hexes in compressed:
        shutil.copy(f"{gz}/blobs/sha256/{hexes}", f"{work}/store/blobs/sha256/{hexes}")
    code, text = export(tool, work + "/store", gz, work + "/kept", DIR="1")
    kept = json.load(open(work + "/kept/index.json"))["manifests"][0]
    check("with its compressed layers an image keeps its manifest's digest", kept["digest"] == d["digest"], text)
    with open(f"{work}/store/blobs/sha256/{compressed[0]}", "r+b") as f:
        f.seek(20)
        f.write(b"damage")
    code, text = export(tool, work + "/store", gz, work + "/damaged", DIR="1")
    check("a damaged blob is found out, and nothing is left", code == 7 and "damaged" in text and
          not os.path.exists(work + "/damaged"), text)


def flip(b):
    """Changes a byte in the middle."""
    at = max(len(b) // 2, min(17, len(b) - 1))
    return b[:at] + bytes([b[at] ^ 1]) + b[at + 1:]


def different(text):
    """What diff says less pipes and devices, which it calls different from themselves."""
    return [l for l in text.splitlines() if not re.search(r" is a (.*) while file .* is a \1$", l)]


def test_directory(tool, work, good):
    image = f"{good}/files.docker.tar"
    os.makedirs(work + "/full/blobs")
    os.symlink(work, work + "/full/blobs/sha256")
    before = sorted(os.listdir(work))
    code, text = export(tool, work + "/store", image, work + "/full")
    check("a directory that is not empty is refused", code == 7 and "not empty" in text and sorted(os.listdir(work)) == before, text)
    os.makedirs(work + "/empty")
    code, text = export(tool, work + "/store", image, work + "/empty")
    check("an empty one is used", code == 0 and os.path.exists(work + "/empty/index.json"), text)
    code, text = export(tool, work + "/store", image, work + "/no/such/parent")
    check("its parent must be there", code == 7 and "no such file" in text, text)
    store = work + "/store"
    recipes = [f"{store}/layers/{n}/tar" for n in os.listdir(store + "/layers")]
    saved = {p: open(p, "rb").read() for p in recipes}
    bad = {"cut": lambda b: b[:-3], "longer": lambda b: b + b"\0\5hello", "nothing": lambda b: b"",
           "changed": flip, "kind": lambda b: b[:16] + b"\x09" + b[17:],
           "huge": lambda b: b[:8] + b"\xff" * 8 + b[16:], "zeroes": lambda b: b[:16] + b"\1" + b"\xff" * 8 + b"\1" + b[16:]}
    for name, change in bad.items():
        for p, b in saved.items():
            open(p, "wb").write(change(b))
        code, text = export(tool, store, image, work + "/bad")
        check(f"a recipe that is damaged ({name}) is found out", code == 7 and "damaged" in text and
              not os.path.exists(work + "/bad"), text)


def main():
    with tempfile.TemporaryDirectory() as work:
        tool = work + "/load"
        ok, text = run("gcc", "-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-I" + ROOT,
                       ROOT + "/tests/image/load_tar.c", "-o", tool, "-lpthread")
        assert ok, text
        ok, text = run(ROOT + "/tools/mkimage", "matrix", work + "/matrix")
        assert ok, text
        good = work + "/matrix/good"
        test_matrix(tool, work, good)
        test_forms(tool, work, good)
        test_directory(tool, work, good)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
