#!/usr/bin/env python3
"""A kernel for instances that name none: fetched from a mirror of Alpine's layout, verified, kept; and mirrors that lie.
@timeout 360
"""
import base64
import concurrent.futures
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(ROOT, "tests", "registry")]
from apk_mirror import ARCH, KERNEL, VERSION, Files, index, index_file, make_key, openssl, pack, package, segment, sign  # noqa: E402
from registry import certificates  # noqa: E402

IO, NETWORK, CANCELLED = 7, 8, 9
INDEX, PACKAGE = f"/main/{ARCH}/APKINDEX.tar.gz", f"/main/{ARCH}/linux-virt-{VERSION}.apk"
TOP = f"lib/modules/{KERNEL}/"
FILES = {
    "boot/vmlinuz-virt": bytes(range(256)) * 5000, "boot/config-" + KERNEL: b"CONFIG_X=y\n", "etc/passwd": b"root::0:0\n",
    TOP + "modules.dep": b"kernel/a/b-c.ko.gz:\n", TOP + "kernel/a/b-c.ko.gz": pack(b"module"), TOP + "modules.order": b"",
}
WANTED = {"vmlinuz": FILES["boot/vmlinuz-virt"], "config": b"CONFIG_X=y\n", "modules/modules.dep": b"kernel/a/b-c.ko.gz:\n",
          "modules/kernel/a/b-c.ko.gz": pack(b"module"), "modules/modules.order": b""}
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


def tree(folder):
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, folder)] = f.read()
    return found


class Bench:
    """A mirror that can be made to lie, and runs of the tool, each with a store of its own unless one is named."""

    def __init__(self, folder):
        self.folder, self.runs = folder, 0
        self.binary = self.build("kernel_fetch", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
        self.key, self.other = os.path.join(folder, "key"), os.path.join(folder, "other")
        for key in (self.key, self.other):
            with open(key + ".pub", "wb") as f:
                f.write(make_key(key))
        self.server = Files({})
        self.good()

    def build(self, name, *flags, source="kernel_fetch.c"):
        binary = os.path.join(self.folder, name)
        subprocess.run(["gcc", "-std=c11", "-g", "-O0", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-Wno-unused-function", *flags,
                        os.path.join(ROOT, "tests", "api", source), "-o", binary, "-lpthread", "-l:libbearssl.a"], check=True)
        return binary

    def good(self):
        self.serve(*package(FILES, self.key))

    def serve(self, data, checksum, **more):
        """Serves a package, and an index that fits it but for what is said otherwise."""
        text = index([("linux-lts", "1-r0", "Q1" + "A" * 27 + "=", 1),
                      (more.get("name", "linux-virt"), more.get("version", VERSION), checksum, more.get("size", len(data)))])
        self.server.files = {INDEX: index_file(text, more.get("key", self.key), more.get("algorithm", "RSA")), PACKAGE: data}
        self.server.fault = lambda handler, data: False
        self.server.requests = []

    def store(self, name):
        return os.path.join(self.folder, "store-" + name)

    def environment(self, **env):
        base = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("CC_KERNEL") and k != "SSL_CERT_FILE"}
        env = dict({"CC_KERNEL_MIRROR": f"http://127.0.0.1:{self.server.port}/main", "CC_KERNEL_KEY": self.key + ".pub"}, **env)
        return dict(base, **{k: v for k, v in env.items() if v is not None})

    def start(self, store, **env):
        return subprocess.Popen([self.binary, self.store(store)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                text=True, errors="replace", env=self.environment(**env))

    def run(self, store=None, **env):
        self.runs += 1
        store = store or str(self.runs)
        p = self.start(store, **env)
        out, _ = p.communicate(timeout=60)
        return p.returncode, out, store

    def refused(self, name, text, **env):
        """The mirror is not believed: its fault is told, nothing is kept, and nothing is written anywhere else."""
        code, out, store = self.run(**env)
        # A host with a kernel of its own falls back to that; the log says why either way.
        ok = "none could be fetched" in out and text in out and (code == IO and "there is no kernel" in out or "kernel /boot/" in out)
        left = set(tree(self.store(store))) - {"kernel.lock"}
        check(name, ok and not left, f"exit code {code}: {out} left {left}")


def good_cases(b):
    code, out, store = b.run("good")
    check("fetched", code == 0 and f"kernel {b.store('good')}/kernel/vmlinuz" in out and f"modules {b.store('good')}/kernel/modules" in out, out)
    check("bundle_is_right", tree(b.store("good") + "/kernel") == WANTED and not os.listdir(b.store("good") + "/tmp"))
    check("log_tells", "log 2 guest kernel: fetching" in out and "KiB fetched" in out, out)
    check("two_requests", b.server.requests == [INDEX, PACKAGE], str(b.server.requests))
    code, out, _ = b.run("good")
    check("then_from_the_cache", code == 0 and len(b.server.requests) == 2 and "log" not in out, out)
    b.serve(*package(FILES, b.key), algorithm="RSA256")
    check("signed_with_sha256", b.run()[0] == 0)
    b.good()
    check("slash_behind_the_mirror", b.run(CC_KERNEL_MIRROR=f"http://127.0.0.1:{b.server.port}/main//")[0] == 0)
    moved = {re.sub("^lib/", "usr/lib/", p): d for p, d in FILES.items()}
    b.serve(*package(moved, b.key))
    _, _, store = b.run()
    check("modules_below_usr", tree(b.store(store) + "/kernel") == WANTED)
    with open(b.folder + "/two.pub", "wb") as f:
        f.write(open(b.other + ".pub", "rb").read() + open(b.key + ".pub", "rb").read())
    check("several_keys", b.run(CC_KERNEL_KEY=b.folder + "/two.pub")[0] == 0)


def tls_cases(b):
    ca, _, _ = certificates(b.folder)
    plain, b.server = b.server, Files({}, tls=b.folder)
    b.good()
    mirror = f"https://127.0.0.1:{b.server.port}/main"
    code, out, store = b.run(CC_KERNEL_MIRROR=mirror, SSL_CERT_FILE=ca)
    check("over_tls", code == 0 and tree(b.store(store) + "/kernel") == WANTED, out)
    b.refused("unknown_authority", "certificate", CC_KERNEL_MIRROR=mirror)
    b.server.close()
    b.server = plain


def broken_connections(b):
    """A connection that breaks is taken up again, until nothing more comes."""
    b.good()

    def cut(handler, data, least=50000):
        if handler.path == PACKAGE and handler.headers.get("Range") is None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[: len(data) // 2])
            handler.close_connection = True
            return True
        return False

    b.server.fault = cut
    code, out, store = b.run()
    check("taken_up_again", code == 0 and tree(b.store(store) + "/kernel") == WANTED and len(b.server.requests) == 3, out)

    def no_ranges(handler, data):
        handler.headers.replace_header("Range", "-") if handler.headers.get("Range") and len(b.server.requests) > 2 else None
        return cut(handler, data)

    b.good()
    b.server.fault = no_ranges
    code, out, store = b.run()
    check("taken_up_without_ranges", code == 0 and tree(b.store(store) + "/kernel") == WANTED, out)

    def always(handler, data):
        if handler.path == PACKAGE:
            handler.send_response(206 if handler.headers.get("Range") else 200)
            start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
            if start:
                handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            handler.send_header("Content-Length", str(len(data) - start))
            handler.end_headers()
            handler.wfile.write(b"" if start else data[:1000])
            handler.close_connection = True
            return True
        return False

    b.good()
    b.server.fault = always
    b.refused("cut_for_ever", "")
    check("not_asked_for_ever", len(b.server.requests) < 10, str(b.server.requests))


def hostile_indexes(b):
    b.serve(*package(FILES, b.key), key=b.other)
    b.refused("wrong_key", "signature")
    b.good()
    b.refused("alpine_s_key_does_not_fit", "signature", CC_KERNEL_KEY=None)
    whole = b.server.files[INDEX]
    b.server.files[INDEX] = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    b.refused("index_changed", "signature")
    b.server.files[INDEX] = index_file("", b.key)[:200]
    b.refused("index_cut", "index")
    b.server.files[INDEX] = pack(segment({"APKINDEX": b"P:linux-virt\n"}))
    b.refused("index_without_signature", "no signature")
    b.server.files[INDEX] = b"<html>not found</html>"
    b.refused("index_is_html", "damaged")
    b.server.files[INDEX] = pack(b"\0" * 10_000_000)
    b.refused("index_signature_bomb", "more signatures than makes sense")
    b.server.files[INDEX] = sign(b.key, pack(segment({"APKINDEX": b"\n" * 80_000_000})))
    b.refused("index_bomb", "unpacks to more")
    b.serve(*package(FILES, b.key), name="linux-virtual")
    b.refused("no_such_package", "has no package linux-virt")
    for name, more in (("version_with_slash", {"version": "../../x"}), ("size_zero", {"size": 0}), ("size_huge", {"size": 10**15})):
        b.serve(*package(FILES, b.key), **more)
        b.refused(name, "makes no sense")
    data, _ = package(FILES, b.key)
    b.serve(data, "Q1short")
    b.refused("checksum_cut", "makes no sense")
    b.server.files[INDEX] = sign(b.key, pack(segment({".PKGINFO": b"pkgname = linux-virt\n", ".post-install": b"P:linux-virt\n"}) + b"\0" * 1024))
    b.refused("signed_package_as_index", "has no package linux-virt")


def signatures(b, members, bad):
    """An index file whose signature comes behind `bad` ones that are wrong."""
    data = pack(segment(members) + b"\0" * 1024)
    good = openssl("dgst", "-sha1", "-sign", b.key, data=data)
    return pack(segment({**{f".SIGN.RSA.{n}": bytes([n + 1]) * 256 for n in range(bad)}, ".SIGN.RSA.good": good})) + data


def several_signatures(b):
    """Each costs a digest of the whole index, so they are counted."""
    data, checksum = package(FILES, b.key)
    text = index([("linux-virt", VERSION, checksum, len(data))]).encode()
    b.serve(data, checksum)
    b.server.files[INDEX] = signatures(b, {"APKINDEX": text}, 7)
    code, out, _ = b.run()
    check("eighth_signature_counts", code == 0, out)
    b.server.files[INDEX] = signatures(b, {"APKINDEX": text}, 8)
    b.refused("ninth_signature_does_not", "signature")
    b.server.files[INDEX] = signatures(b, {"APKINDEX": text, "APKINDEX.old": b"P:other\n", "APKINDE": b"P:other\n"}, 0)
    code, out, _ = b.run()
    check("other_names_in_an_index_are_passed_over", code == 0, out)


def built_in_keys(b):
    """The keys in the source are those whose digests stand beside them."""
    with open(os.path.join(ROOT, "src", "registry", "apk_key.h")) as f:
        keys = re.findall(r"/\* (\S+)\n \* SHA-256 ([0-9a-f]{64}) \*/\n#define CCI_APK_BUILTIN_KEY((?:.*\\\n)+.*\n)", f.read())
    check("two_keys", len(keys) == 2, str(keys))
    for name, digest, lines in keys:
        pem = "\n".join(re.findall(r'"(.*)\\n"', lines)) + "\n"
        check("key_" + name, hashlib.sha256(pem.encode()).hexdigest() == digest and b"4096 bit" in openssl("rsa", "-pubin", "-noout", "-text", data=pem.encode()), pem)


def hostile_packages(b):
    data, checksum = package(FILES, b.key)
    b.serve(data, "Q1" + "A" * 27 + "=")
    b.refused("wrong_control", "not the one")
    b.serve(*package(FILES, b.key, datahash=hashlib.sha256(b"").hexdigest()))
    b.refused("wrong_data", "wrong digest")
    b.serve(*package(FILES, b.key, datahash="sha256"))
    b.refused("no_datahash", "datahash")
    b.serve(data[:-2000], checksum)
    b.refused("cut_and_the_index_agrees", "wrong digest")
    b.serve(data[:-2000], checksum, size=len(data))
    b.refused("shorter_than_the_index_says", "where its index says")
    b.serve(data + b"x" * 1000, checksum, size=len(data))
    b.refused("longer_than_the_index_says", "more than")
    b.serve(data[:300], checksum)
    b.refused("cut_before_its_data", "")
    b.serve(data[:-200] + bytes([data[-200] ^ 255]) + data[-199:], checksum)
    b.refused("data_changed", "")
    for name, path in (("dots", TOP + "../../../../escaped"), ("dots_in_version", "lib/modules/../escaped"), ("dot_name", TOP + ".hidden"),
                       ("two_kernels", "lib/modules/other/x"), ("empty_component", TOP + "a//b"), ("control_character", TOP + "a\nb"),
                       ("deep", TOP + "a/" * 40 + "b")):
        b.serve(*package({**FILES, path: b"x"}, b.key))
        b.refused("name_" + name, "makes no sense")
    b.serve(*package({**FILES, "../escaped": b"x", "/tmp/escaped": b"x"}, b.key))
    code, out, store = b.run()
    check("other_names_left_out", code == 0 and tree(b.store(store) + "/kernel") == WANTED, out)
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, b.folder
    b.serve(*package({TOP + "kernel": link, **FILES}, b.key))
    code, out, store = b.run()
    check("links_left_out", code == 0 and tree(b.store(store) + "/kernel") == WANTED and not os.path.exists(b.folder + "/a"), out)
    huge = tarfile.TarInfo()
    huge.size = 1 << 32
    b.serve(*package({"boot/vmlinuz-virt": huge}, b.key))
    b.refused("huge_file", "makes sense")
    b.serve(*package({TOP + f"kernel/{n}.ko": b"" for n in range(20001)}, b.key))
    b.refused("many_files", "makes sense")
    b.serve(*package({p: d for p, d in FILES.items() if "vmlinuz" not in p}, b.key))
    b.refused("no_kernel", "boot/vmlinuz-virt")
    twice = segment({"boot/vmlinuz-virt": b"one"}) + segment(FILES)
    data = pack(twice)
    info = pack(segment({".PKGINFO": f"datahash = {hashlib.sha256(data).hexdigest()}\n".encode()}))
    b.serve(sign(b.key, info) + data, "Q1" + base64.b64encode(hashlib.sha1(info).digest()).decode())
    b.refused("file_twice", "twice")


def refusals(b):
    b.good()
    b.server.files.pop(PACKAGE)
    b.refused("no_package_file", "status 404")
    b.server.files.pop(INDEX)
    b.refused("no_index_file", "status 404")
    b.refused("off", "off", CC_KERNEL_MIRROR="off")
    b.refused("plain_http_elsewhere", "plain http", CC_KERNEL_MIRROR="http://192.0.2.1/main")
    b.refused("no_url", "", CC_KERNEL_MIRROR="/srv/mirror")
    secret = f"http://me:secret@127.0.0.1:{b.server.port}/main"
    b.refused("password_in_the_url", "user and password", CC_KERNEL_MIRROR=secret)
    check("password_is_not_shown", "secret" not in b.run(CC_KERNEL_MIRROR=secret)[1])
    b.refused("nobody_there", "127.0.0.1:1", CC_KERNEL_MIRROR="http://127.0.0.1:1/main")
    b.refused("no_key_file", "cannot read the keys", CC_KERNEL_KEY=b.folder + "/none.pub")
    b.refused("not_a_key", "public key", CC_KERNEL_KEY=b.folder + "/ca.pem")
    b.refused("key_file_too_large", "cannot read the keys", CC_KERNEL_KEY=b.binary)
    with open(b.folder + "/small.pub", "wb") as f:
        f.write(make_key(b.folder + "/small", 1024))
    b.refused("small_key", "2048", CC_KERNEL_KEY=b.folder + "/small.pub")
    in_the_way(b)


def in_the_way(b):
    """Something that is no kernel has the bundle's name: told before anything is fetched, and left alone."""
    b.good()
    for name, path in (("directory", "kernel/modules/notes"), ("link", "kernel")):
        store = b.store("way-" + name)
        os.makedirs(os.path.dirname(os.path.join(store, path)))
        if name == "link":
            os.symlink("/nowhere", os.path.join(store, path))
        else:
            open(os.path.join(store, path), "w").close()
        code, out, _ = b.run("way-" + name)
        check("in_the_way_" + name, "none could be fetched" in out and "is no kernel: remove it" in out and not b.server.requests and
              os.path.lexists(os.path.join(store, path)), f"{out} {b.server.requests}")
    os.makedirs(b.store("way-empty") + "/kernel")
    code, out, _ = b.run("way-empty")
    check("an_empty_directory_is_not_in_the_way", code == 0 and tree(b.store("way-empty") + "/kernel") == WANTED, out)


def without_tls(b):
    b.good()
    b.binary, binary = b.build("kernel_fetch_no_tls", "-DCC_NO_TLS"), b.binary
    b.refused("no_tls", "built without TLS")
    check("no_tls_asks_nobody", not b.server.requests, str(b.server.requests))
    b.binary = binary


def without_memory(b):
    b.good()
    binary = b.build("kernel_alloc", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", source="kernel_alloc.c")
    p = subprocess.run([binary], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=b.environment(TMPDIR=b.folder), timeout=200)
    print(p.stdout, end="")
    check("without_memory", p.returncode == 0, p.stdout + p.stderr)


def several_and_ends(b):
    b.good()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outs = list(pool.map(lambda _: b.run("shared"), range(4)))
    check("four_at_once", all(code == 0 for code, _, _ in outs) and tree(b.store("shared") + "/kernel") == WANTED, str(outs))
    check("one_fetched", b.server.requests == [INDEX, PACKAGE], str(b.server.requests))
    code, out, store = b.run(PRUNE_AT="KiB fetched")
    check("pruned_meanwhile", code == 0 and "pruned 0" in out and tree(b.store(store) + "/kernel") == WANTED, out)
    code, out, _ = b.run(store, PRUNE_AT="start")
    check("pruned_afterwards", code == 0 and "pruned 0" in out and "fetching" not in out and tree(b.store(store) + "/kernel") == WANTED, out)
    code, out, store = b.run(CANCEL_AT="fetching")
    left = set(tree(b.store(store))) - {"kernel.lock"}
    check("cancelled", code == CANCELLED and not left and "none could be" not in out, f"{code} {out} {left}")
    code, out, _ = b.run("killed", KILL_AT="KiB fetched")
    left = os.listdir(b.store("killed") + "/tmp")
    check("killed", code == -9 and left and not os.path.exists(b.store("killed") + "/kernel"), f"{code} {out} {left}")
    code, out, _ = b.run("killed")
    check("after_a_kill", code == 0 and tree(b.store("killed") + "/kernel") == WANTED and not os.listdir(b.store("killed") + "/tmp"), out)


def main():
    folder = tempfile.mkdtemp(prefix="cc-kernel-fetch-")
    b = None
    try:
        b = Bench(folder)
        for cases in (good_cases, tls_cases, broken_connections, hostile_indexes, several_signatures, built_in_keys, hostile_packages,
                      refusals, without_tls, without_memory,
                      several_and_ends):
            cases(b)
    finally:
        if b:
            b.server.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
