#!/usr/bin/env python3
"""TLS against Python's (OpenSSL's) server: certificates good and bad, ends, cuts, silence, deadlines, cancellation.
@timeout 120
"""
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OK, TIMEOUT, IO, NETWORK, CANCELLED = 0, 5, 7, 8, 9
SIZE = 3_000_001
WORK = tempfile.TemporaryDirectory()
failed = 0


def path(name):
    return os.path.join(WORK.name, name)


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def authority(name, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
    openssl("req", "-x509", "-newkey", *key, "-nodes", "-keyout", path(name + ".key"), "-out", path(name + ".pem"), "-subj",
            "/CN=" + os.path.basename(name), "-days", "10", "-addext", "basicConstraints=critical,CA:TRUE")


def certificate(name, ca, key=("rsa:2048",), names="DNS:localhost,DNS:*.test.example,IP:127.0.0.1,IP:::1", more=""):
    with open(path(name + ".ext"), "w") as f:
        f.write(f"subjectAltName={names}\n{more}" if names else more)
    openssl("req", "-newkey", *key, "-nodes", "-keyout", path(name + ".key"), "-out", path(name + ".csr"), "-subj", "/CN=" + name)
    openssl("x509", "-req", "-in", path(name + ".csr"), "-CA", path(ca + ".pem"), "-CAkey", path(ca + ".key"), "-CAcreateserial",
            "-out", path(name + ".pem"), "-extfile", path(name + ".ext"), "-days", "5")


class Server(threading.Thread):
    """Answers one connection at a time, in the way it was told."""

    def __init__(self, cert, how="whole", ciphers=None, version=None):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.how, self.cipher, self.read_after = how, None, None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if ciphers:
            self.context.set_ciphers(ciphers)
        self.context.load_cert_chain(path(cert + ".pem"), path(cert + ".key"))
        if version:
            self.context.minimum_version = version
        self.start()

    def run(self):
        while True:
            try:
                raw, _ = self.socket.accept()
            except OSError:
                return
            try:
                self.answer(raw)
            except OSError:
                pass
            raw.close()

    def answer(self, raw):
        if self.how == "silent":
            raw.recv(10000)
            raw.recv(1)  # until the client goes
            return
        if self.how == "plain":
            raw.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            raw.recv(10000)
            return
        if self.how == "cut early":
            raw.recv(10)
            return
        tls = self.context.wrap_socket(raw, server_side=True)
        self.cipher = tls.cipher()[0]
        tls.recv(6)
        if self.how == "stall":
            tls.sendall(b"x" * 1000)
            tls.recv(1)
        elif self.how == "endless":
            while True:
                tls.sendall(b"x" * 65536)
        elif self.how == "garbled":
            os.write(tls.fileno(), b"\x17\x03\x03\x00\x40" + b"g" * 64)
            tls.recv(1)
        else:
            tls.sendall(bytes(SIZE))
            if self.how == "whole":
                tls.unwrap()
            else:  # cut: no close_notify
                socket.socket(fileno=os.dup(tls.fileno())).shutdown(socket.SHUT_RDWR)
        tls.close()


def get(tool, server, *args, host="localhost", ca="ca", env=None):
    r = subprocess.run([tool, host, str(server.port), path(ca + ".pem") if ca else "-", *args], capture_output=True, text=True,
                       timeout=60, env=dict(os.environ, **(env or {})))
    m = re.match(r"(\d+) (\d+) (\d+) ([\d.]+) (.*)", r.stdout)
    if not m or r.returncode:
        return -1, 0, 0, 0.0, f"exit code {r.returncode}\n{r.stdout}{r.stderr}"
    return int(m[1]), int(m[2]), int(m[3]), float(m[4]), m[5]


def check(name, got, code, text="", size=None, seconds=20, errno=None):
    global failed
    good = got[0] == code and text in got[4] and got[3] < seconds and size in (None, got[2]) and errno in (None, got[1])
    print(("ok " if good else "not ok ") + name)
    if not good:
        failed += 1
        print(f"# {got}, wanted code {code}, {text!r}, {size} bytes")


def check_true(name, good):
    global failed
    print(("ok " if good else "not ok ") + name)
    failed += not good


def test_certificates(tool):
    whole = Server("server")
    check("everything arrives", get(tool, whole), OK, size=SIZE)
    check_true("AES-GCM is used", "GCM" in (whole.cipher or ""))
    check("an address in the certificate", get(tool, whole, host="127.0.0.1"), OK, size=SIZE)
    check("an IPv6 address in the certificate", get(tool, whole, "--name", "::1"), OK, size=SIZE)
    check("a name under a wildcard", get(tool, whole, "--name", "a.test.example"), OK, size=SIZE)
    wrong = "its certificate is for another name"
    check("two labels under a wildcard", get(tool, whole, "--name", "a.b.test.example"), NETWORK, wrong, 0)
    check("another name", get(tool, whole, "--name", "registry.example"), NETWORK, wrong, 0)
    check("another address", get(tool, whole, "--name", "127.0.0.2"), NETWORK, wrong, 0)
    check("another IPv6 address", get(tool, whole, "--name", "::2"), NETWORK, wrong, 0)
    check("no name", get(tool, whole, "--name", ""), NETWORK, "is no host name", 0)
    untrusted = "from an authority that is not trusted here"
    check("only the system's authorities", get(tool, whole, ca=None, env={"SSL_CERT_FILE": path("other.pem")}), NETWORK, untrusted, 0)
    check("another authority", get(tool, whole, ca="other", env={"SSL_CERT_FILE": path("other.pem")}), NETWORK, untrusted, 0)
    check("an authority of the same name", get(tool, whole, ca="twin/ca", env={"SSL_CERT_FILE": path("other.pem")}), NETWORK, "")
    check("the authority in SSL_CERT_FILE", get(tool, whole, ca=None, env={"SSL_CERT_FILE": path("ca.pem")}), OK, size=SIZE)
    check("no such CA file", get(tool, whole, ca="missing"), IO, "cannot read the certificates in", 0, errno=2)
    check("a CA file without certificates", get(tool, whole, ca="empty"), IO, "has no certificate", 0)
    check("a CA file that is a directory", get(tool, whole, ca="directory"), IO, "is no file of certificates", 0)
    check("a server's own certificate, trusted", get(tool, Server("self"), ca="self"), OK, size=SIZE)
    check("ECDSA", get(tool, Server("ecdsa")), OK, size=SIZE)
    check("a chain by way of another authority", get(tool, Server("chained")), OK, size=SIZE)
    check("signed by one that is no authority", get(tool, Server("forged")), NETWORK, "its certificate", 0)
    check("a short RSA key", get(tool, Server("weak", ciphers="DEFAULT:@SECLEVEL=0")), NETWORK, "less than 2048 bits", 0)
    check("expired", get(tool, Server("expired")), NETWORK, "has expired or is not valid yet", 0)


def test_suites(tool):
    for suite in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"):
        server = Server("server", ciphers=suite)
        check(suite, get(tool, server), OK, size=SIZE)
        check_true(suite + " was used", server.cipher == suite)
    check("no suite in common", get(tool, Server("server", ciphers="AES128-SHA256")), NETWORK, "refused the handshake", 0)
    check("TLS 1.3 only", get(tool, Server("server", version=ssl.TLSVersion.TLSv1_3)), NETWORK, "does not speak TLS 1.2", 0)


def test_ends(tool):
    check("cut behind the last byte", get(tool, Server("server", "cut")), NETWORK, "the connection was cut", SIZE, errno=104)
    got = get(tool, Server("server", "cut early"))
    check("cut in the handshake", got, NETWORK, "", 0, errno=104)
    check("plain HTTP in answer", get(tool, Server("server", "plain")), NETWORK, "it answers in plain HTTP; a registry", 0)
    check("a forged record", get(tool, Server("server", "garbled")), NETWORK, "was changed on the way", 0)


def test_waits(tool):
    silent, stall, endless = Server("server", "silent"), Server("server", "stall"), Server("server", "endless")
    check("deadline in the handshake", get(tool, silent, "--deadline", "150"), TIMEOUT, "timed out while reading", 0, 5)
    check("cancelled in the handshake", get(tool, silent, "--cancel", "150"), CANCELLED, "cancelled while reading", 0, 5)
    check("deadline while reading", get(tool, stall, "--deadline", "700"), TIMEOUT, "timed out", 1000, 5)
    check("cancelled while reading", get(tool, stall, "--cancel", "700"), CANCELLED, "cancelled", 1000, 5)
    check("deadline in a stream without end", get(tool, endless, "--deadline", "700"), TIMEOUT, "timed out", None, 5)
    check("cancelled in a stream without end", get(tool, endless, "--cancel", "700"), CANCELLED, "cancelled", None, 5)
    check("cancelled beforehand", get(tool, endless, "--cancel", "0"), CANCELLED, "cancelled", None, 5)


def make_certificates():
    os.mkdir(path("twin"))
    os.mkdir(path("directory.pem"))
    open(path("empty.pem"), "w").close()
    authority("ca")
    authority("other")
    authority("twin/ca")
    certificate("server", "ca")
    certificate("ecdsa", "ca", key=("ec", "-pkeyopt", "ec_paramgen_curve:P-384"))
    certificate("middle", "ca", names="", more="basicConstraints=critical,CA:TRUE\n")
    certificate("chained", "middle")
    certificate("forged", "server")
    certificate("weak", "ca", key=("rsa:1024",))
    for name, issuer in (("chained", "middle"), ("forged", "server")):
        with open(path(name + ".pem"), "a") as out, open(path(issuer + ".pem")) as f:
            out.write(f.read())
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path("self.key"), "-out", path("self.pem"), "-subj",
            "/CN=self", "-days", "5", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost")
    expired()


def expired():
    """`openssl x509` makes no certificate that is over; `openssl ca` does."""
    certificate("expired", "ca")
    os.mkdir(path("db"))
    for name, text in (("index.txt", ""), ("serial", "1000\n")):
        with open(path("db/" + name), "w") as f:
            f.write(text)
    with open(path("db/ca.cnf"), "w") as f:
        f.write(f"[ca]\ndefault_ca=d\n[d]\ndatabase={path('db/index.txt')}\nserial={path('db/serial')}\nnew_certs_dir={path('db')}\n"
                "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
    openssl("ca", "-batch", "-config", path("db/ca.cnf"), "-in", path("expired.csr"), "-cert", path("ca.pem"), "-keyfile",
            path("ca.key"), "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-out", path("expired.pem"), "-notext",
            "-extfile", path("expired.ext"))


def main():
    tool = path("tls_get")
    subprocess.run(["gcc", "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror",
                    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I" + ROOT,
                    os.path.join(ROOT, "tests/registry/tls_get.c"), "-o", tool, "-lpthread", "-lbearssl"], check=True)
    make_certificates()
    test_certificates(tool)
    test_suites(tool)
    test_ends(tool)
    test_waits(tool)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
