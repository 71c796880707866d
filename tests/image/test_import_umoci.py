#!/usr/bin/env python3
"""What the import stores of a layer, against what umoci unpacks of it; and that every form of an image gives the same.
@root
@timeout 120

The images are those of `tools/mkimage matrix` with one layer (of several: test_flatten_umoci.py). Compared
are paths, types, modes, owners, times, sizes, devices, targets, extended attributes, contents, and which names are one file.
The forms are docker-archive and OCI layout, plain and gzip-compressed as a whole, by our tools and by skopeo, which writes
them with the same library as podman and buildah.
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

import trees

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


def run(*command, **options):
    r = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if r.returncode:
        raise SystemExit(f"{' '.join(command)}: {r.stdout}{r.stderr}")
    return r.stdout


def unescape(text):
    return re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), text.encode())


def entry_of(line):
    """A line of load_tar as (path, what is to be compared)."""
    f = line.split(" ")
    kind, mode, owner, time, size, device, _, content, path, target = f[1:11]
    xattrs = {}
    for x in f[11:]:
        name, value = x.split("=", 1)
        xattrs[unescape(name)] = unescape(value)
    return unescape(path), [kind, int(mode, 8), owner, time, size, device, content, unescape(target[1:]), xattrs]


def stored(out):
    """The tree that a layer's index describes: the last entry of a path counts, hard links are what they link to."""
    tree, group = {}, {}
    for line in out.splitlines():
        if not line.startswith("entry "):
            continue
        path, e = entry_of(line)
        if e[0] == "h":
            target = b"/" + e[7]
            tree[path], group[path] = tree[target], group.get(target, target)
            group[target] = group[path]
        else:
            tree[path] = e
            group.pop(path, None)
    return tree, trees.names_of(group)


def load(tool, base, image):
    store = os.path.join(base, "store")
    shutil.rmtree(store, ignore_errors=True)
    r = subprocess.run([tool, store, image], capture_output=True, text=True, check=False)
    return r.stdout + r.stderr


def same_as_umoci(tool, base, matrix):
    """Each image with one layer; returns the one with the most kinds of files."""
    for name in sorted(os.listdir(os.path.join(matrix, "good"))):
        folder = os.path.join(matrix, "good", name)
        if not os.path.isdir(folder):
            continue
        out = load(tool, base, folder + ".oci.tar")
        check(f"forms_{name}", out == load(tool, base, folder + ".docker.tar") and "error" not in out.split("\n")[0], out[:300])
        if out.count("\nlayer ") != 1:
            continue
        with open(os.path.join(matrix, "good", "list"), encoding="utf-8") as f:
            if f"{name}\tumoci" not in f.read():
                continue
        bundle = os.path.join(base, "bundle")
        shutil.rmtree(bundle, ignore_errors=True)
        run("umoci", "unpack", "--keep-dirlinks", "--image", folder + ":latest", bundle)
        ours, our_links = stored(out)
        theirs, their_links = trees.unpacked(os.fsencode(bundle + "/rootfs"))
        found = trees.differences(ours, theirs, name == "implied")
        if our_links != their_links:
            found.append(f"hard links: ours {our_links} umoci {their_links}")
        check(f"same_as_umoci_{name}", len(ours) > 0 and not found, f"{len(found)}: " + "; ".join(found[:4]))


def other_tools(tool, base, matrix):
    """Forms that skopeo writes, and tars compressed as a whole."""
    layout = os.path.join(matrix, "good", "files")
    want = load(tool, base, layout + ".oci.tar")
    for form in ("docker-archive:{}:cc/files:latest", "oci-archive:{}:cc/files:latest", "oci-archive:{}"):
        path = os.path.join(base, "copy.tar")
        if os.path.exists(path):
            os.unlink(path)
        run("skopeo", "copy", "--insecure-policy", "-q", f"oci:{layout}:latest", form.format(path))
        name = form.split(":")[0].replace("-", "_") + ("" if form.endswith("}") else "_named")
        check(f"by_skopeo_{name}", load(tool, base, path) == want)
        if not form.endswith("}"):
            check(f"by_skopeo_{name}_by_reference", load(tool, base, path + ":cc/files") == want)
            check(f"by_skopeo_{name}_by_wrong_reference", "is called" in load(tool, base, path + ":other"))
        with open(path, "rb") as f, gzip.open(path + ".gz", "wb", 1) as z:
            shutil.copyfileobj(f, z)
        check(f"by_skopeo_{name}_gzip", load(tool, base, path + ".gz") == want)


def sparse_is_small(tool, base, matrix):
    """A file of holes takes no space in the store."""
    out = load(tool, base, os.path.join(matrix, "good", "sparse.oci.tar"))
    sizes = sum(int(l.split(" ")[5]) for l in out.splitlines() if l.startswith("entry f"))
    layer = re.search(r"^layer sha256:(\w+)", out, re.M)[1]
    data = os.stat(os.path.join(base, "store", "layers", layer, "data")).st_size
    check("sparse_is_small", sizes > 2 * data, f"{sizes} bytes in files, {data} stored")


def several_images(tool, base):
    """The choice by reference and platform."""
    for form in ("docker", "oci"):
        path = os.path.join(base, f"multi:{form}.tar")  # a path may have colons
        run(os.path.join(ROOT, "tools/mkimage"), "--format", form, "multi", path)
        out = load(tool, base, path)
        check(f"several_{form}_are_listed", "several images" in out and "cc/one:latest (linux/amd64)" in out
              and "cc/two:v2" in out, out)
        one, two = load(tool, base, path + ":cc/one"), load(tool, base, path + ":docker.io/cc/two:v2")
        check(f"several_{form}_by_reference", "platform linux/amd64" in one and "platform linux/amd64" in two and one != two)
        check(f"several_{form}_wrong_tag", 'no image in the file is called "cc/two:v3"' in load(tool, base, path + ":cc/two:v3"))
    r = subprocess.run([tool, os.path.join(base, "store"), path + ":cc/platforms", "arm64"], capture_output=True, text=True, check=False)
    check("several_oci_by_platform", "platform linux/arm64" in r.stdout, r.stdout)
    r = subprocess.run([tool, os.path.join(base, "store"), path + ":cc/platforms", "riscv64"], capture_output=True, text=True, check=False)
    check("several_oci_no_platform", "no image in the file is for linux/riscv64; it holds" in r.stdout
          and "linux/arm64" in r.stdout, r.stdout)
    check("no_such_file", "no such file or directory" in load(tool, base, os.path.join(base, "missing.tar:alpine")))


def odd_layouts(tool, base):
    """Layouts by hand: links between layers as old Docker wrote them, "./" before names, nested indexes, missing parts."""
    sys.path.insert(0, os.path.join(ROOT, "tools", "lib"))
    import imagefile
    import tarwrite
    inner = tarwrite.Tar()
    inner.file(b"hello", b"world")
    image = imagefile.Image([imagefile.Layer(inner.bytes()), imagefile.Layer(inner.bytes())], ["x:latest"])
    layer = image.layers[0]
    config = hashlib.sha256(image.config).hexdigest()
    old = tarwrite.Tar()
    old.directory(b"./aa")
    old.file(b"./aa/layer.tar", layer.blob)
    old.directory(b"./bb")
    old.symlink(b"./bb/layer.tar", b"../aa/layer.tar")
    old.file(f"./{config}.json".encode(), image.config)
    old.file(b"./manifest.json", json.dumps([{"Config": config + ".json", "RepoTags": None,
                                              "Layers": ["aa/layer.tar", "bb/layer.tar"]}]).encode())
    path = os.path.join(base, "odd.tar")

    def attempt(tar):
        with open(path, "wb") as f:
            f.write(tar.bytes())
        return load(tool, base, path)

    out = attempt(old)
    check("old_docker_links", out.count("layer " + layer.diff_id) == 2, out)

    def document(tar, value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        tar.file(b"blobs/sha256/" + hashlib.sha256(data).hexdigest().encode(), data)
        return {"digest": imagefile.digest(data), "size": len(data)}

    def layout(build):
        tar = tarwrite.Tar()
        tar.file(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        tar.file(b"blobs/sha256/" + layer.digest[7:].encode(), layer.blob)
        d = document(tar, {"schemaVersion": 2, "config": {"mediaType": imagefile.CONFIG, **document(tar, image.config)},
                           "layers": [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}] * 2})
        index = build(tar, {"mediaType": imagefile.MANIFEST, **d})
        tar.file(b"index.json", json.dumps({"schemaVersion": 2, "manifests": index}).encode())
        return attempt(tar)

    absent = {"mediaType": imagefile.MANIFEST, "digest": "sha256:" + "0" * 64, "size": 7,
              "platform": {"os": "linux", "architecture": "arm64"}}

    def nested(depth):
        def build(tar, d):
            items = [d, absent]
            for _ in range(depth):
                items = [{"mediaType": imagefile.INDEX, **document(tar, {"schemaVersion": 2, "manifests": items})}]
            return items
        return build

    check("nested_index", layout(nested(1)).count("layer " + layer.diff_id) == 2)
    check("nested_too_deeply", "nested too deeply" in layout(nested(9)))
    check("only_absent", "holds none of them" in layout(lambda tar, d: [absent]))
    much = {"annotations": {"org.opencontainers.image.ref.name": "n" * 3000000}}
    check("a_name_that_is_too_long", layout(lambda tar, d: [{"mediaType": imagefile.INDEX, **much, **document(
        tar, {"schemaVersion": 2, "manifests": [d] * 4000})}]).count("layer " + layer.diff_id) == 2)
    check("too_many_listed", "lists more than 4096 images" in layout(lambda tar, d: [
        {"mediaType": imagefile.INDEX, **document(tar, {"schemaVersion": 2, "manifests": [absent] * 3000})}] * 2))
    check("the_same_twice", layout(lambda tar, d: [d, d]).count("layer " + layer.diff_id) == 2)
    check("attestations_are_passed_over", layout(lambda tar, d: [
        {**d, "platform": {"os": "linux", "architecture": "amd64"}},
        {"mediaType": imagefile.MANIFEST, "platform": {"os": "unknown", "architecture": "unknown"},
         **document(tar, {"schemaVersion": 2, "config": {}, "layers": []})}]).count("layer " + layer.diff_id) == 2)
    check("manifest_of_wrong_digest", "does not have its digest" in layout(
        lambda tar, d: [{**d, "digest": "sha256:" + "1" * 64}] if tar.file(b"blobs/sha256/" + b"1" * 64, b"x" * d["size"]) is None else []))


def main():
    base = tempfile.mkdtemp(prefix="cc-umoci.")
    try:
        tool, matrix = os.path.join(base, "load_tar"), os.path.join(base, "matrix")
        subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-g", "-O1", "-Wno-unused-function",
                        "-fsanitize=address,undefined", os.path.join(ROOT, "tests/image/load_tar.c"), "-o", tool, "-lpthread"],
                       check=True)
        run(os.path.join(ROOT, "tools/mkimage"), "matrix", matrix)
        same_as_umoci(tool, base, matrix)
        other_tools(tool, base, matrix)
        sparse_is_small(tool, base, matrix)
        several_images(tool, base)
        odd_layouts(tool, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
