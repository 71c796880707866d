#!/usr/bin/env python3
"""A mirror of Alpine's layout, made of another distribution's kernel, and a server for it.

    apk_mirror.py make BUNDLE FOLDER [ARCH]     FOLDER/main/ARCH/{APKINDEX.tar.gz,linux-virt-VERSION.apk}, FOLDER/key.pub, and for TLS
                                                ca.pem, server.pem, server.key
    apk_mirror.py serve FOLDER                  by HTTPS on loopback until standard input ends; prints the port

As in Alpine's own packages the modules are gzipped and modules.dep says so. Signatures are made by openssl.
"""
import base64
import gzip
import hashlib
import http.server
import io
import os
import platform
import re
import socketserver
import ssl
import subprocess
import sys
import tarfile
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VERSION = "6.1.99-r3"
KERNEL = "6.1.99-3-virt"
ARCH = platform.machine()


def segment(files):
    """A tar of {path: bytes or TarInfo} without its end."""
    out = b""
    for path, data in files.items():
        info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(path)
        if info is data:
            data = b""
        else:
            info.size = len(data)
        info.name, info.mtime = path, 1700000000
        if not path.startswith("."):  # abuild has the checksum of each of a package's files in front of it
            info.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(data).hexdigest()}
        out += info.tobuf(tarfile.PAX_FORMAT) + data + b"\0" * (-len(data) % 512)
    return out


def pack(data, level=1):
    return gzip.compress(data, level, mtime=0)


def openssl(*args, data=None):
    return subprocess.run(["openssl", *args], input=data, check=True, capture_output=True).stdout


def make_key(path, bits=2048):
    openssl("genrsa", "-out", path, str(bits))
    return openssl("rsa", "-in", path, "-pubout")


def sign(key, data, algorithm="RSA"):
    name = f".SIGN.{algorithm}.test@example.org-00000001.rsa.pub"
    signature = openssl("dgst", {"RSA": "-sha1", "RSA256": "-sha256"}[algorithm], "-sign", key, data=data)
    return pack(segment({name: signature})) + data


def package(files, key, datahash=None, tail=b"\0" * 1024):
    """The file, and what the index says of it."""
    data = pack(segment(files) + tail)
    info = f"# made by a test\npkgname = linux-virt\npkgver = {VERSION}\narch = {ARCH}\n"
    info += f"datahash = {datahash or hashlib.sha256(data).hexdigest()}\n"
    control = pack(segment({".PKGINFO": info.encode(), ".post-install": b"#!/bin/sh\nexit 1\n"}))
    return sign(key, control) + data, "Q1" + base64.b64encode(hashlib.sha1(control).digest()).decode()


def index(entries):
    """The text for a list of (name, version, checksum, size)."""
    return "".join(f"C:{c}\nP:{n}\nV:{v}\nA:{ARCH}\nS:{s}\nI:{s * 3}\nT:a package\nL:GPL-2.0-only\n\n" for n, v, c, s in entries)


def index_file(text, key, algorithm="RSA"):
    return sign(key, pack(segment({"DESCRIPTION": b"v0", "APKINDEX": text.encode()}) + b"\0" * 1024), algorithm)


def closure(dep, wanted):
    """The lines of modules.dep for these modules and all that they need."""
    lines = dict(l.split(":", 1) for l in dep.splitlines() if ":" in l)
    named = {os.path.basename(p).split(".")[0].replace("-", "_"): p for p in lines}
    todo, done = [named[w] for w in wanted if w in named], {}
    while todo:
        path = todo.pop()
        if path not in done:
            done[path] = lines[path]
            todo += lines[path].split()
    return done


def kernel_files(bundle):
    """A package's files out of a bundle: the kernel and what a guest needs of its modules."""
    read = lambda *p: open(os.path.join(bundle, *p), "rb").read()
    top = f"lib/modules/{KERNEL}/"
    deps = closure(read("modules", "modules.dep").decode(), [
        "virtio_mmio", "virtio_blk", "vmw_vsock_virtio_transport", "ext4", "overlay", "virtio_rng", "virtio_balloon", "crc32c_generic"])
    directory = tarfile.TarInfo()
    directory.type = tarfile.DIRTYPE
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = {"boot": directory, "boot/vmlinuz-virt": read("vmlinuz"), "boot/config-" + KERNEL: b"# CONFIG_MODULE_DECOMPRESS is not set\n",
             "boot/System.map-" + KERNEL: b"ffffffff81000000 T _text\n", top + "build": link}
    for path in deps:
        files[top + path + ".gz"] = pack(read("modules", path))
    text = "".join(f"{p}:{d}\n" for p, d in deps.items())
    files[top + "modules.dep"] = re.sub(r"\.ko\b", ".ko.gz", text).encode()
    for name in ("modules.softdep", "modules.builtin"):
        files[top + name] = read("modules", name)
    return files


def make(bundle, folder, arch=ARCH):
    main = os.path.join(folder, "main", arch)
    if os.path.exists(os.path.join(main, "APKINDEX.tar.gz")):
        return
    os.makedirs(main, exist_ok=True)
    key = os.path.join(folder, "key.rsa")
    with open(os.path.join(folder, "key.pub"), "wb") as f:
        f.write(make_key(key, 4096))
    sys.path.insert(0, os.path.join(ROOT, "tests", "registry"))
    from registry import certificates
    certificates(folder)
    data, checksum = package(kernel_files(bundle), key)
    with open(os.path.join(main, f"linux-virt-{VERSION}.apk"), "wb") as f:
        f.write(data)
    text = index([("linux-lts", "6.1.98-r0", "Q1" + "A" * 27 + "=", 1000), ("linux-virt", VERSION, checksum, len(data))])
    with open(os.path.join(main, "APKINDEX.tar.gz.new"), "wb") as f:
        f.write(index_file(text, key))
    os.rename(os.path.join(main, "APKINDEX.tar.gz.new"), os.path.join(main, "APKINDEX.tar.gz"))


class Files:
    """Serves {path: bytes} on loopback. fault(handler, data) may answer in its place, and returns True then."""

    def __init__(self, files, tls=None):
        outer = self
        self.files, self.requests, self.fault = files, [], lambda handler, data: False

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.requests.append(self.path)
                data = outer.files.get(self.path)
                if outer.fault(self, data):
                    return
                start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
                self.send_response(404 if data is None else 206 if start else 200)
                body = b"no such file\n" if data is None else data[start:]
                if start and data is not None:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, *args):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(os.path.join(tls, "server.pem"), os.path.join(tls, "server.key"))
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def serve(folder):
    files = {}
    for top, _, names in os.walk(os.path.join(folder, "main")):
        for name in names:
            path = os.path.join(top, name)
            with open(path, "rb") as f:
                files["/" + os.path.relpath(path, folder)] = f.read()
    server = Files(files, tls=folder)
    print(server.port, flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    {"make": make, "serve": serve}[sys.argv[1]](*sys.argv[2:])
