"""Writes images in the two forms the library loads: what `docker save` writes, and an OCI image layout in a tar
(image-spec, image-layout.md). Output depends on nothing but the input: no times, no random names."""
import gzip
import hashlib
import io
import json
import os

import tarwrite

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CREATED = "2024-01-01T00:00:00Z"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def gzipped(data, level=6):
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=level, mtime=0) as stream:
        stream.write(data)
    return buffer.getvalue()


class Layer:
    """A layer as stored: its blob, media type, and the digest of the tar inside."""

    def __init__(self, tar, compress=False, level=6):
        self.diff_id = digest(tar)
        self.blob = gzipped(tar, level) if compress else tar
        self.media_type = LAYER + ("+gzip" if compress else "")
        self.digest = digest(self.blob)
        self.size = len(self.blob)


class Image:
    def __init__(self, layers, tags=(), architecture="amd64", variant=None, **config):
        self.layers, self.tags, self.architecture, self.variant = layers, list(tags), architecture, variant
        document = {"architecture": architecture, "os": "linux", "created": CREATED, "config": config,
                    "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
                    "history": [{"created": CREATED, "created_by": "tools/mkimage"} for _ in layers]}
        if variant:
            document["variant"] = variant
        self.config = to_json(document)

    def platform(self):
        return {"architecture": self.architecture, "os": "linux", **({"variant": self.variant} if self.variant else {})}


def docker_archive(images):
    """The bytes of a `docker save` tar: manifest.json, a config and the layer tars of each image."""
    tar, manifest, written = tarwrite.Tar(), [], set()

    def put(name, data):
        if name not in written:
            written.add(name)
            tar.file(name.encode(), data, mtime=0)

    for image in images:
        names = []
        for layer in image.layers:
            names.append(layer.digest[7:] + "/layer.tar")
            put(names[-1], layer.blob)
        config = digest(image.config)[7:] + ".json"
        put(config, image.config)
        manifest.append({"Config": config, "RepoTags": image.tags or None, "Layers": names})
    put("manifest.json", to_json(manifest))
    return tar.bytes()


class Layout:
    """An OCI image layout: blobs by digest and an index. `files` maps paths to bytes."""

    def __init__(self):
        self.files = {"oci-layout": to_json({"imageLayoutVersion": "1.0.0"})}
        self.entries = []

    def blob(self, data, name=None):
        self.files["blobs/sha256/" + (name or digest(data))[7:]] = data
        return digest(data)

    def descriptor(self, image):
        """Stores an image; returns the descriptor of its manifest."""
        for layer in image.layers:
            self.blob(layer.blob, layer.digest)
        layers = [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
                  for layer in image.layers]
        config = {"mediaType": CONFIG, "digest": self.blob(image.config), "size": len(image.config)}
        manifest = to_json({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
        return {"mediaType": MANIFEST, "digest": self.blob(manifest), "size": len(manifest)}

    def _tagged(self, descriptor, tags):
        for tag in tags or [None]:
            annotations = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}
            self.entries.append({**descriptor, **annotations})

    def add(self, image):
        self._tagged(self.descriptor(image), image.tags)

    def add_index(self, images, tags):
        """Several platforms under one name: an index of manifests, as a blob of its own."""
        manifests = [{**self.descriptor(image), "platform": image.platform()} for image in images]
        index = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        self._tagged({"mediaType": INDEX, "digest": self.blob(index), "size": len(index)}, tags)

    def _finished(self):
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries}
        return {**self.files, "index.json": to_json(index)}

    def tar(self):
        tar = tarwrite.Tar()
        for name in ("blobs", "blobs/sha256"):
            tar.directory(name.encode(), mtime=0)
        for name, data in sorted(self._finished().items()):
            tar.file(name.encode(), data, mtime=0)
        return tar.bytes()

    def directory(self, path):
        for name, data in self._finished().items():
            target = os.path.join(path, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as handle:
                handle.write(data)


def oci_layout(images):
    layout = Layout()
    for image in images:
        layout.add(image)
    return layout
