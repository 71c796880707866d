"""Kernel bundles for the tests and the rig: a directory with `vmlinuz` (bzImage), `vmlinux` (the ELF inside it, where
it could be unpacked), `modules/` (the contents of /lib/modules/VERSION, if the kernel has modules) and `origin` (one
line: where it came from).

  stock    the distribution's cloud kernel: package downloaded and unpacked, never installed
  generic  its kernel for any machine, likewise: the cloud kernel has no 9p, which the rig needs
  guest    our own small guest kernel: guest/kernel/guest-ARCH.config over tinyconfig
  rig      the rig's outer kernel: guest/kernel/rig-ARCH.config over the same
"""
import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import struct
import subprocess
import tempfile
import zlib

import cache

FRAGMENTS = {"guest": ["guest-{arch}.config"], "rig": ["guest-{arch}.config", "rig-{arch}.config"]}
PREBUILT = os.path.join("..", "shared", "kernel")
PREBUILT_FRAGMENTS = {"guest": ["guest-{arch}.config"], "rig": ["guest-{arch}.config", "rig-{arch}.addon.config"]}
PACKAGES = {("stock", "x86_64"): ("linux-image-cloud-amd64", "amd64"),
            ("generic", "x86_64"): ("linux-image-amd64", "amd64")}
XEN_ELFNOTE_PHYS32_ENTRY = 18


class Failure(Exception):
    """Something the user can act on; the message says what."""


def bundle(name, arch="x86_64"):
    return cache.path("kernel", f"{name}-{arch}")


def fragment_paths(name, arch):
    return [os.path.join(cache.CHECKOUT, "guest", "kernel", f.format(arch=arch)) for f in FRAGMENTS[name]]


def settings(paths):
    """The effective settings of some fragments, in which order and comments do not matter."""
    result = {}
    for path in paths:
        with open(path) as handle:
            for line in handle:
                if line.startswith("CONFIG_"):
                    key, _, value = line.strip().partition("=")
                    result[key] = value
    return result


def recipe(name, arch):
    """A name for what the fragments of this checkout ask for: another recipe is another kernel."""
    text = repr(sorted(settings(fragment_paths(name, arch)).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached(name, arch="x86_64"):
    """The bundle's directory if it can be had without a build or download (a seed counts), else None."""
    if _present(name, arch) or (name in FRAGMENTS and _seed(name, arch)):
        return bundle(name, arch)
    return None


def _present(name, arch):
    try:
        with open(os.path.join(bundle(name, arch), "origin")) as handle:
            return name not in FRAGMENTS or handle.read().split()[0] == recipe(name, arch)
    except FileNotFoundError:
        return False


def _seed(name, arch):
    """Takes a prebuilt kernel that lies beside the checkout, provided it was built from the same settings."""
    beside = os.path.join(cache.CHECKOUT, PREBUILT)
    image = os.path.join(beside, "prebuilt", f"{name}-{arch}.bzImage")
    theirs = [os.path.join(beside, f.format(arch=arch)) for f in PREBUILT_FRAGMENTS[name]]
    if not all(os.path.exists(path) for path in [image, *theirs]):
        return False
    if settings(theirs) != settings(fragment_paths(name, arch)):
        return False
    with cache.lock(f"kernel-{name}-{arch}"):
        if not _present(name, arch):
            with cache.new_directory(bundle(name, arch)) as new:
                install(new, image, f"{recipe(name, arch)} prebuilt")
    return True


def install(directory, image, origin):
    """Fills a bundle directory from a bzImage."""
    shutil.copyfile(image, os.path.join(directory, "vmlinuz"))
    with open(image, "rb") as handle:
        elf = extract(handle.read())
    with open(os.path.join(directory, "vmlinux"), "wb") as handle:
        handle.write(elf)
    with open(os.path.join(directory, "origin"), "w") as handle:
        handle.write(origin + "\n")


# ---- the ELF inside a bzImage -----------------------------------------------------------------------------------


def extract(image):
    """The uncompressed kernel of a bzImage (Documentation/x86/boot.rst: setup_sects, payload_offset and _length)."""
    if image[0x202:0x206] != b"HdrS":
        raise Failure("not a bzImage: no HdrS at 0x202")
    setup = (image[0x1F1] or 4) + 1
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[setup * 512 + offset:setup * 512 + offset + length]
    try:
        elf = _decompress(payload)
    except (EOFError, OSError, lzma.LZMAError, zlib.error, IndexError, subprocess.CalledProcessError) as problem:
        raise Failure(f"the bzImage's payload is damaged: {problem}") from None
    if elf[:4] != b"\x7fELF":
        raise Failure("the bzImage's payload is not an ELF file")
    return elf


def _decompress(payload):
    # The build appends the uncompressed size (4 bytes) to every form but gzip, which has it in its own trailer.
    if payload[:2] == b"\x1f\x8b":
        return gzip.decompress(payload)
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    if payload[:3] == b"]\0\0":
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
    if payload[:3] == b"BZh":
        return bz2.BZ2Decompressor().decompress(payload)
    if payload[:4] == b"\x02\x21\x4c\x18":
        return _unlz4(payload[:-4])
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-dcq"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    raise Failure("the bzImage's payload is compressed in an unknown way")


def _unlz4(data):
    """LZ4's legacy frame: a magic number, then blocks of at most 8 MiB, each with its compressed size before it."""
    if shutil.which("lz4"):
        return subprocess.run(["lz4", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    output, position = bytearray(), 4
    while position + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, position)
        _unlz4_block(data[position + 4:position + 4 + size], output)
        position += 4 + size
    return bytes(output)


def _unlz4_block(block, output):
    """One LZ4 block: sequences of literals and a match (offset, length), as lz4_Block_format.md describes them."""
    i, end = 0, len(block)
    while i < end:
        token = block[i]
        i += 1
        count = token >> 4
        if count == 15:
            while True:
                extra = block[i]
                i += 1
                count += extra
                if extra != 255:
                    break
        output += block[i:i + count]
        i += count
        if i >= end:
            break
        distance = block[i] | block[i + 1] << 8
        i += 2
        count = (token & 15) + 4
        if count == 19:
            while True:
                extra = block[i]
                i += 1
                count += extra
                if extra != 255:
                    break
        start = len(output) - distance
        if distance >= count:
            output += output[start:start + count]
        else:
            pattern = output[start:]
            output += (pattern * (count // distance + 1))[:count]


def pvh_entry(elf):
    """The 32-bit entry point from the Xen PVH note, or None when the kernel has none."""
    offset, = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for i in range(count):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", elf, offset + i * size)
        position = start
        while kind == 4 and position + 12 <= start + length:
            name_size, data_size, note = struct.unpack_from("<III", elf, position)
            name = elf[position + 12:position + 12 + name_size]
            data = position + 12 + (name_size + 3 & ~3)
            if name == b"Xen\0" and note == XEN_ELFNOTE_PHYS32_ENTRY:
                return int.from_bytes(elf[data:data + data_size], "little")
            position = data + (data_size + 3 & ~3)
    return None


# ---- the distribution's kernel ----------------------------------------------------------------------------------


def _apt(*arguments, cwd=None):
    done = subprocess.run(arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(arguments)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _versioned_package(name, arch):
    """The versioned package behind the distribution's metapackage, as NAME:ARCH."""
    meta, debian_arch = PACKAGES[name, arch]
    for line in _apt("apt-cache", "depends", "--no-recommends", "--no-suggests", f"{meta}:{debian_arch}").splitlines():
        word, _, package = line.strip().partition(" ")
        if word == "Depends:" and package.startswith("linux-image-"):
            return package if ":" in package else f"{package}:{debian_arch}"
    raise Failure(f"apt does not know {meta}: run `apt-get update`")


def fetch(name="stock", arch="x86_64"):
    """Puts a distribution kernel's bundle into the cache and returns its directory. The package is not installed."""
    directory = bundle(name, arch)
    with cache.lock(f"kernel-{name}-{arch}"):
        if _present(name, arch):
            return directory
        package = _versioned_package(name, arch)
        cache.say(f"kernel: downloading {package}")
        with tempfile.TemporaryDirectory() as scratch, cache.new_directory(directory) as new:
            os.chmod(scratch, 0o755)
            _apt("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package, cwd=scratch)
            deb = [f for f in os.listdir(scratch) if f.endswith(".deb")][0]
            tree = os.path.join(scratch, "tree")
            _apt("dpkg-deb", "-x", os.path.join(scratch, deb), tree)
            modules = os.path.join(tree, "lib", "modules")
            version = os.listdir(modules)[0]
            depmod = shutil.which("depmod", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
            _apt(depmod or "depmod", "-b", tree, version)
            install(new, os.path.join(tree, "boot", f"vmlinuz-{version}"), deb)
            shutil.move(os.path.join(modules, version), os.path.join(new, "modules"))
    return directory


def module_closure(modules, names):
    """Paths (relative to `modules`) of the named modules and all they need, in the order in which they load."""
    needs, by_name = {}, {}
    with open(os.path.join(modules, "modules.dep")) as handle:
        for line in handle:
            path, _, rest = line.partition(":")
            needs[path] = rest.split()
            by_name[os.path.basename(path).split(".")[0].replace("-", "_")] = path
    order = []

    def visit(path):
        for other in needs[path]:
            visit(other)
        if path not in order:
            order.append(path)

    for name in names:
        path = by_name.get(name.replace("-", "_"))
        if path:  # one that is missing is built in
            visit(path)
    return order
