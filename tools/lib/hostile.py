"""Images that attack their reader: each is one thing wrong and otherwise well-formed. See matrix.py for their use.

"contained" marks those that a reader may accept by treating the path as one inside the image's own root; whatever it
does, nothing outside may be read, made or changed.
"""
import json

import imagefile
import tarwrite

Tar = tarwrite.Tar
ERROR, CONTAINED = "error", "contained"


def _image(*tars, compress=False):
    return imagefile.Image([imagefile.Layer(tar.bytes() if isinstance(tar, Tar) else tar, compress) for tar in tars],
                           ["cc/hostile:latest"])


def _docker(*tars):
    return imagefile.docker_archive([_image(*tars)])


def _one(action):
    """An image of a directory and whatever `action` adds to its only layer."""
    tar = Tar()
    tar.directory(b"d")
    action(tar)
    return _docker(tar)


def _paths():
    outside = b"../../../../../../../../../../tmp/cc-escaped"
    yield "dotdot", CONTAINED, "a file named ../…", _one(lambda t: t.file(outside, b"x"))
    yield "dotdot-inside", CONTAINED, "a file named d/../../x", _one(lambda t: t.file(b"d/../../cc-escaped", b"x"))
    yield "absolute", CONTAINED, "a file named /tmp/…", _one(lambda t: t.file(b"/tmp/cc-escaped", b"x"))

    def through(link):
        def add(tar):
            tar.symlink(b"d/out", link)
            tar.file(b"d/out/cc-escaped", b"x")
            tar.directory(b"d/out/cc-escaped-dir")
        return add

    yield "symlink-absolute", CONTAINED, "a file below a link to /tmp", _one(through(b"/tmp"))
    yield "symlink-dotdot", CONTAINED, "a file below a link to ../../…/tmp", _one(through(outside[:-11]))

    def loop(tar):
        tar.symlink(b"a", b"b")
        tar.symlink(b"b", b"a")
        tar.file(b"a/file", b"x")

    # A reader may well let a directory take the link's place: only hanging and escaping are wrong.
    yield "symlink-loop", CONTAINED, "a file below a loop of links", _one(loop)
    yield "hardlink-outside", CONTAINED, "a hardlink to ../…/etc/passwd", \
        _one(lambda t: t.hardlink(b"d/passwd", b"../../../../../../etc/passwd"))
    yield "hardlink-missing", ERROR, "a hardlink to nothing", _one(lambda t: t.hardlink(b"d/x", b"d/nothing"))
    yield "hardlink-self", ERROR, "a hardlink to itself", _one(lambda t: t.hardlink(b"d/x", b"d/x"))
    yield "hardlink-directory", ERROR, "a hardlink to a directory", _one(lambda t: t.hardlink(b"x", b"d"))
    yield "whiteout-dotdot", CONTAINED, "a whiteout of ..", _one(lambda t: t.file(b"d/.wh..."))
    yield "whiteout-dot", CONTAINED, "a whiteout of .", _one(lambda t: t.file(b"d/.wh.."))
    yield "whiteout-nothing", CONTAINED, "a whiteout with no name", _one(lambda t: t.file(b"d/.wh."))
    yield "long-component", ERROR, "a name of 300 bytes", _one(lambda t: t.file(b"d/" + b"n" * 300, b"x"))
    yield "nul-in-path", ERROR, "a pax path with a NUL", _one(lambda t: t.file(b"d/x", records={b"path": b"d/a\0b"}))
    yield "empty-path", CONTAINED, "a pax path that is empty", _one(lambda t: t.file(b"d/x", records={b"path": b""}))


def _headers():
    def raw(*blocks):
        return _one(lambda t: [t.raw(block) for block in blocks])

    header, pax = tarwrite.header, tarwrite.pax
    yield "checksum", ERROR, "a header with a wrong checksum", raw(header(b"x", checksum=1))
    yield "noise", ERROR, "noise where a header should be", raw(bytes(range(256)) * 2)
    yield "size-huge", ERROR, "an entry of 2^62 bytes", raw(header(b"x", size=1 << 62))
    yield "size-negative", ERROR, "an entry of -512 bytes", raw(header(b"x", size=-512))
    yield "size-pax", ERROR, "a pax size of 2^64", raw(pax({b"size": b"18446744073709551616"}), header(b"x"))
    yield "size-wraps", ERROR, "a size that wraps when rounded up", raw(header(b"x", size=(1 << 63) - 1))
    yield "pax-huge", ERROR, "an extended header of 4 GiB", raw(header(b"x", b"x", size=1 << 32))
    yield "name-huge", ERROR, "a GNU long name of 4 GiB", raw(header(b"x", b"L", size=1 << 32, gnu=True))
    body = b"99999 path=short\n"
    yield "pax-length", ERROR, "a pax record longer than its header", \
        raw(header(b"x", b"x", size=len(body)), tarwrite.pad(body), header(b"y"))
    body = b"0 path=x\n"
    yield "pax-zero", ERROR, "a pax record of length 0", \
        raw(header(b"x", b"x", size=len(body)), tarwrite.pad(body), header(b"y"))
    body = b"x" * 20
    yield "pax-noise", ERROR, "an extended header that holds no records", \
        raw(header(b"x", b"x", size=len(body)), tarwrite.pad(body), header(b"y"))
    yield "pax-alone", ERROR, "an extended header with nothing after it", raw(pax({b"path": b"x"}))

    def sparse(table, size=b"8192", data=512):
        return raw(pax({b"GNU.sparse.size": size, b"GNU.sparse.numblocks": b"%d" % (table.count(b",") // 2 + 1),
                        b"GNU.sparse.map": table}), header(b"s", size=data), bytes(512))

    yield "sparse-beyond", ERROR, "a sparse span past the end", sparse(b"1048576,512")
    yield "sparse-overlap", ERROR, "sparse spans that overlap", sparse(b"0,256,0,256")
    yield "sparse-wraps", ERROR, "a sparse span that wraps", sparse(b"18446744073709551104,1024")
    yield "sparse-more", ERROR, "sparse spans of more than the data", sparse(b"0,4096")
    yield "sparse-negative", ERROR, "a negative sparse offset", sparse(b"-512,512")
    yield "sparse-count", ERROR, "a sparse table that claims 10^12 spans", \
        raw(pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"s",
                 b"GNU.sparse.realsize": b"8192"}), header(b"s", size=512), tarwrite.pad(b"1000000000000\n0\n512\n"))


def _streams(harmless):
    tar = Tar()
    tar.file(b"file", bytes(range(256)) * 400)
    whole = tar.bytes()
    cut = whole[:60000]
    yield "tar-truncated", ERROR, "a layer that ends within a file", _docker(cut)

    def zipped(change, **more):
        """An OCI layout whose layer blob is changed after the fact; digests agree with the changed blob."""
        image = _image(harmless, compress=True)
        layer = image.layers[0]
        layer.blob = change(layer.blob)
        layer.digest, layer.size = imagefile.digest(layer.blob), len(layer.blob)
        for name, value in more.items():
            setattr(layer, name, value)
        return imagefile.oci_layout([image]).tar()

    flip = bytearray
    yield "gzip-truncated", ERROR, "a gzip stream that ends early", zipped(lambda b: b[:len(b) // 2])
    yield "gzip-no-trailer", ERROR, "a gzip stream without its trailer", zipped(lambda b: b[:-8])
    yield "gzip-crc", ERROR, "a gzip stream with a wrong CRC", zipped(lambda b: b[:-8] + flip(b[-8:-4][::-1]) + b[-4:])
    yield "gzip-size", ERROR, "a gzip stream with a wrong length", zipped(lambda b: b[:-4] + b"\1\2\3\4")
    yield "gzip-noise", ERROR, "noise in place of a gzip stream", zipped(lambda b: bytes(range(256)) * 20)
    yield "gzip-garbage", ERROR, "garbage after a gzip stream", zipped(lambda b: b + b"garbage after the end")
    yield "gzip-empty", ERROR, "a gzip layer of no bytes", zipped(lambda b: b"")
    yield "blob-digest", ERROR, "a blob that is not its digest", zipped(lambda b: b, digest="sha256:" + "0" * 64)
    yield "blob-size", ERROR, "a blob of another size than declared", zipped(lambda b: b, size=17)
    kind = "application/vnd.oci.image.layer.v1.tar+zstd"
    yield "zstd", ERROR, "a zstd layer: " + kind, zipped(lambda b: b"\x28\xb5\x2f\xfd\0\0\0", media_type=kind)
    yield "encrypted", ERROR, "an encrypted layer", zipped(lambda b: b, media_type=kind[:-5] + "+encrypted")
    image = _image(harmless)
    image.config = image.config.replace(image.layers[0].diff_id.encode(), b"sha256:" + b"1" * 64)
    yield "diff-id", ERROR, "a layer that is not its diffID", imagefile.docker_archive([image])


def _documents(harmless):
    def layout(change):
        result = imagefile.oci_layout([_image(harmless)])
        change(result)
        return result.tar()

    def replace(archive_of, name, data):
        tar = Tar()
        for key, value in archive_of.items():
            tar.file(key.encode(), data if key == name else value)
        return tar.bytes()

    image = _image(harmless)
    layer = image.layers[0].digest[7:] + "/layer.tar"
    parts = {layer: image.layers[0].blob, "c.json": image.config,
             "manifest.json": imagefile.to_json([{"Config": "c.json", "RepoTags": ["cc/x:y"], "Layers": [layer]}])}
    yield "no-manifest", ERROR, "a tar that is no image", Tar().bytes()
    yield "manifest-noise", ERROR, "a manifest.json that is not JSON", replace(parts, "manifest.json", b"{nonsense")
    yield "manifest-deep", ERROR, "a manifest.json nested 100,000 deep", replace(parts, "manifest.json", b"[" * 100000)
    yield "manifest-empty", ERROR, "a manifest.json with no image", replace(parts, "manifest.json", b"[]")
    yield "config-noise", ERROR, "a configuration that is not JSON", replace(parts, "c.json", b"\xff\xfe\0")
    yield "config-types", ERROR, "a configuration of wrong types", \
        replace(parts, "c.json", b'{"architecture":1,"os":[],"config":"x","rootfs":{"diff_ids":7}}')
    few = json.loads(image.config)
    few["rootfs"]["diff_ids"] *= 2
    yield "config-count", ERROR, "more diffIDs than layers", replace(parts, "c.json", imagefile.to_json(few))
    missing = imagefile.to_json([{"Config": "c.json", "RepoTags": ["cc/x:y"], "Layers": ["not/there.tar"]}])
    yield "layer-missing", ERROR, "a layer that is not in the archive", replace(parts, "manifest.json", missing)
    outside = imagefile.to_json([{"Config": "../../../etc/passwd", "RepoTags": ["cc/x:y"], "Layers": [layer]}])
    yield "config-outside", ERROR, "a configuration at ../../../etc/passwd", replace(parts, "manifest.json", outside)

    def self_reference(result):
        result.entries = [{"mediaType": imagefile.INDEX, "digest": "sha256:" + "2" * 64, "size": 10}]
    yield "index-missing", ERROR, "an index that refers to nothing", layout(self_reference)

    def bad_digest(result):
        result.entries[0]["digest"] = "sha256:../../../../etc/passwd"
    yield "digest-path", ERROR, "a digest with a path in it", layout(bad_digest)

    def bad_size(result):
        result.entries[0]["size"] = -1
    yield "descriptor-size", ERROR, "a descriptor of -1 bytes", layout(bad_size)
    foreign = imagefile.Image([imagefile.Layer(harmless)], ["latest"], architecture="s390x")
    yield "other-platform", ERROR, "an image for another machine", imagefile.oci_layout([foreign]).tar()


def images(harmless):
    """Yields (name, verdict, what is wrong, bytes of the archive)."""
    yield from _paths()
    yield from _headers()
    yield from _streams(harmless)
    yield from _documents(harmless)
