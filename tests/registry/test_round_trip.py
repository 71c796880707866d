#!/usr/bin/env python3
"""Images that go around: pulled, exported, pushed back by skopeo and compared by digest; images in Docker's format; exports
after the compressed layers are gone; and tars as skopeo and buildah write them.
@root
@timeout 120

buildah stands for podman too: both write archives with one library (containers/image).
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in ("tools/lib", "tests/image", "tests/registry"):
    sys.path.insert(0, os.path.join(ROOT, folder))
import tarwrite  # noqa: E402
import trees  # noqa: E402
from registry import Layout, Puller, Registry, build_pull, run, tar_of  # noqa: E402

os.environ["PATH"] += ":/sbin:/usr/sbin"
DOCKER = "application/vnd.docker."
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | ")[:1500], flush=True)


def skopeo(command, *arguments):
    insecure = {"copy": ["-q", "--src-tls-verify=false", "--dest-tls-verify=false"], "inspect": ["--tls-verify=false"]}
    return run("skopeo", "--insecure-policy", command, *insecure[command], *arguments)


def manifest_of(place):
    """The bytes of a manifest, "docker://HOST/NAME:TAG" or "oci:DIR:TAG"."""
    return skopeo("inspect", "--raw", place)


def config_of(place):
    return skopeo("inspect", "--raw", "--config", place)


def diff_ids(place):
    return json.loads(config_of(place))["rootfs"]["diff_ids"]


def images(folder):
    """A layout with an image of several layers, and one of two platforms; {name: what skopeo calls it}."""
    l = Layout(os.path.join(folder, "layout"))
    base = tarwrite.Tar(complete=True)  # with its directories: umoci gives others the time at which it unpacks
    base.directory(b".")
    base.file(b"etc/os-release", b"ID=test\n" * 400)
    base.file(b"bin/tool", os.urandom(1 << 20), mode=0o755)
    base.file(b"old", b"gone")
    first = l.layer(base.bytes())
    second = l.layer({".wh.old": b"", "etc/second": b"2\n" * 9000})
    plain = l.layer({"plain": b"not compressed\n" * 500}, compress=False)
    empty = l.layer({})
    config = {"Env": ["A=1"], "Cmd": ["/bin/tool"], "Labels": {"a": "b"}}
    whole = l.tag(l.image([first, second, plain, empty], **config), "whole")
    gzipped = l.tag(l.image([first, second, empty], **config), "gzipped")
    return {"whole": whole, "gzipped": gzipped,
            "index": l.tag(l.many([l.image([first]), l.image([first, plain], arch="arm64")]), "index")}


class Bench:
    """The tools, and the registry in the middle."""

    def __init__(self, folder, registry):
        self.folder, self.registry = folder, registry
        self.pull = Puller(build_pull(folder), folder)
        self.load, self.flatten = trees.tool("load_tar", folder), trees.tool("flatten", folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def place(self, name):
        return f"docker://{self.registry.address}/{name}"

    def exported(self, name, store, **env):
        """Pulls, and exports to a new directory: (exit code, output, the layout)."""
        layout = self.path("export-" + re.sub(r"\W", "-", name) + f"-{len(os.listdir(self.folder))}")
        code, out = self.pull(store, f"{self.registry.address}/{name}", EXPORT=layout, **env)
        return code, out, f"oci:{layout}:{name.rpartition(':')[2]}"

    def store_tree(self, store, ids):
        return trees.flattened(self.flatten, self.pull.store(store), ids, self.folder)

    def check_same(self, name, store, layout):
        found = self.differs(store, layout)
        check(name, not found, found[:4])

    def differs(self, store, layout):
        """How what we have in a store differs from what umoci unpacks of a layout of the same image; [] if it does not."""
        ours, our_links = self.store_tree(store, diff_ids(layout))
        theirs, their_links = trees.by_umoci(layout.removeprefix("oci:"), self.folder)
        if not theirs:
            return ["umoci: " + their_links]
        return trees.differences(ours, theirs, False) + [l for l in (our_links, their_links) if our_links != their_links]


def test_back(b, names):
    """Manifests and layers come back as they went out."""
    for name in ("whole", "gzipped"):
        b.registry.push(names[name], f"test/{name}:1")
        code, out, layout = b.exported(f"test/{name}:1", "back")
        check(f"back_{name}_exported", code == 0, out)
        skopeo("copy", "--preserve-digests", layout, b.place(f"back/{name}:2"))
        check(f"back_{name}_has_the_same_manifest", manifest_of(b.place(f"back/{name}:2")) == manifest_of(b.place(f"test/{name}:1")))
        check(f"back_{name}_has_the_same_configuration", config_of(b.place(f"back/{name}:2")) == config_of(b.place(f"test/{name}:1")))
        b.check_same(f"back_{name}_is_what_umoci_unpacks", "back", layout)
    b.registry.push(names["index"], "test/index:1")
    code, out, layout = b.exported("test/index:1", "back", ARCH="arm64")
    index = json.loads(manifest_of(b.place("test/index:1")))
    want = [m["digest"] for m in index["manifests"] if m["platform"]["architecture"] == "arm64"]
    skopeo("copy", "--preserve-digests", layout, b.place("back/index:2"))
    got = json.loads(skopeo("inspect", "--override-arch=arm64", b.place("back/index:2")))["Digest"]
    check("back_one_platform_of_an_index", code == 0 and [got] == want, f"{got} {want} {out}")


def test_docker_format(b, names):
    """A manifest in Docker's format (v2s2) becomes one in OCI's; the image stays the same."""
    place = b.place("docker/image:1")
    skopeo("copy", "--format=v2s2", names["gzipped"], place)
    before = json.loads(manifest_of(place))
    check("docker_manifest_is_dockers", before["mediaType"].startswith(DOCKER) and before["layers"][0]["mediaType"].startswith(DOCKER),
          str(before))
    code, out, layout = b.exported("docker/image:1", "docker")
    after = json.loads(manifest_of(layout))
    check("docker_export_is_oci", code == 0 and DOCKER not in manifest_of(layout) and
          after["mediaType"] == "application/vnd.oci.image.manifest.v1+json", f"{after} {out}")
    check("docker_export_keeps_the_layers", [(l["digest"], l["size"]) for l in after["layers"]] ==
          [(l["digest"], l["size"]) for l in before["layers"]], str(after))
    check("docker_export_keeps_the_configuration", config_of(layout) == config_of(place))
    copy = f"oci:{b.path('docker-copy')}:x"
    skopeo("copy", layout, copy)
    check("docker_export_is_read_by_skopeo", diff_ids(copy) == diff_ids(place))
    b.check_same("docker_export_is_read_by_umoci", "docker", layout)
    skopeo("copy", "--format=v2s2", layout, b.place("docker/image:2"))
    check("docker_manifest_comes_back_as_it_was", json.loads(manifest_of(b.place("docker/image:2"))) == before)
    code, out = b.pull("docker-again", f"{b.registry.address}/docker/image:2")
    check("docker_image_is_pulled_again", code == 0, out)


def test_without_blobs(b):
    """The compressed layers are gone from the cache: plain ones are written, and the image is the same."""
    place, blobs = b.place("test/whole:1"), os.path.join(b.pull.store("back"), "blobs/sha256")
    layers = [l["digest"][7:] for l in json.loads(manifest_of(place))["layers"]]
    for digest in set(layers):
        os.unlink(os.path.join(blobs, digest))
    code, out, layout = b.exported("test/whole:1", "back")
    check("without_blobs_exported", code == 0, out)
    manifest = json.loads(manifest_of(layout))
    check("without_blobs_layers_are_plain", all(l["mediaType"].endswith(".tar") for l in manifest["layers"]), str(manifest))
    check("without_blobs_layers_are_their_diff_ids", [l["digest"] for l in manifest["layers"]] == diff_ids(place), str(manifest))
    check("without_blobs_keeps_the_configuration", config_of(layout) == config_of(place))
    b.check_same("without_blobs_umoci_unpacks_the_same", "back", layout)
    skopeo("copy", layout, b.place("back/plain:1"))
    code, out = b.pull("plain-again", f"{b.registry.address}/back/plain:1")
    check("without_blobs_is_pulled_again", code == 0, out)
    check("without_blobs_is_the_same_image", b.store_tree("plain-again", diff_ids(place)) == b.store_tree("back", diff_ids(place)))


def loaded(b, store, archive):
    """The diffIDs of a tar that is loaded, or the output."""
    r = subprocess.run([b.load, b.pull.store(store), archive], capture_output=True, text=True, errors="replace", check=False,
                       env=dict(os.environ, QUIET="1"))
    return re.findall(r"^layer (\S+)", r.stdout, re.M) if r.returncode == 0 else r.stdout + r.stderr


def test_archives(b):
    """What skopeo writes of images that come from the registry."""
    for name, place in (("oci", b.place("test/whole:1")), ("docker", b.place("docker/image:1"))):
        want = diff_ids(place)
        for form in ("docker-archive:{}:test/whole:1", "docker-archive:{}", "oci-archive:{}:test/whole:1", "oci-archive:{}"):
            archive = b.path("archive.tar")
            skopeo("copy", place, form.format(archive))
            got = loaded(b, f"archive-{name}", archive)
            case = form.replace(":{}", "").replace(":", "_").replace("/", "_")
            check(f"archive_of_{name}_{case}", got == want, f"{got}")
            os.unlink(archive)
        check(f"archive_of_{name}_is_the_same_tree", b.store_tree(f"archive-{name}", want) ==
              b.store_tree("back" if name == "oci" else "docker", want))


def test_buildah(b):
    """An image built by buildah: every form that it writes, and a push that we pull."""
    storage = ["--storage-driver=vfs", "--root", b.path("storage"), "--runroot", b.path("storage-run")]
    buildah = lambda *c: run("buildah", *storage, *c, env=dict(os.environ, BUILDAH_ISOLATION="chroot")).strip()
    source = b.path("source.tar")
    with open(source, "wb") as f:
        f.write(tar_of({"bin/tool": b"#!/bin/sh\n" * 300, "etc/motd": b"hello\n"}))
    container = buildah("from", "scratch")
    buildah("add", "-q", container, source, "/")
    buildah("commit", "-q", container, "first")
    buildah("rm", container)
    container = buildah("from", "--pull-never", "localhost/first")
    buildah("copy", "-q", container, os.path.join(ROOT, "LICENSE"), "/usr/share/doc/LICENSE")
    buildah("config", "--env", "BUILT=yes", "--cmd", "/bin/tool", container)
    buildah("commit", "-q", container, "second")
    want = json.loads(buildah("inspect", "--type", "image", "--format", "{{.Config}}", "localhost/second"))["rootfs"]["diff_ids"]
    check("buildah_image_has_two_layers", len(want) == 2, want)
    for form in ("docker-archive:{}:second:latest", "oci-archive:{}:latest", "oci-archive:{}"):
        archive = b.path("buildah.tar")
        buildah("push", "-q", "localhost/second", form.format(archive))
        case = form.replace(":{}", "").replace(":", "_")
        got = loaded(b, "buildah", archive)
        check(f"buildah_{case}", got == want, f"{got} {want}")
        os.unlink(archive)
    for form in ("v2s2", "oci"):
        name = f"buildah/{form}:1"
        buildah("push", "-q", "--tls-verify=false", "--format", form, "localhost/second", b.place(name))
        code, out, layout = b.exported(name, "buildah-" + form)
        check(f"buildah_push_{form}_is_pulled", code == 0 and "env BUILT=yes" in out, out)
        check(f"buildah_push_{form}_is_what_was_built", diff_ids(layout) == want and
              b.differs("buildah-" + form, layout) == b.differs("buildah", layout) == [])


def main():
    folder = tempfile.mkdtemp(prefix="cc-round-trip.")
    try:
        names = images(folder)
        with Registry(os.path.join(folder, "registry")) as registry:
            b = Bench(folder, registry)
            test_back(b, names)
            test_docker_format(b, names)
            test_archives(b)
            test_buildah(b)
            test_without_blobs(b)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
