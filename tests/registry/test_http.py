#!/usr/bin/env python3
"""The HTTP client over real sockets: kept connections, every fault that fault_proxy.py knows, proxies, TLS, ends at once.
@timeout 120
"""
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fault_proxy import FaultProxy  # noqa: E402
from registry import certificates  # noqa: E402

OK, TIMEOUT, NETWORK, CANCELLED, INVALID = 0, 5, 8, 9, 2
BLOB = bytes(range(251)) * 1200  # 300 kB, many reads
SOON = 20000  # ms; what ends a call that would last for ever, however busy the machine is
failures = 0
TOOL = None


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


class Result:
    def __init__(self, line):
        code, status, size, self.digest, broken, ms, self.url, self.message = (line + " ").split(" ", 7)
        self.code, self.status, self.size, self.broken, self.ms = int(code), int(status), int(size), broken == "1", int(ms)
        self.line = line

    def whole(self, data):
        return self.code == OK and self.size == len(data) and self.digest == hashlib.sha256(data).hexdigest()


def get(*args, env=None):
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    r = subprocess.run([TOOL, *args], capture_output=True, text=True, timeout=60, check=False, env=dict(clean, **(env or {})))
    results = [Result(line) for line in r.stdout.splitlines()]
    if r.returncode or not results:
        check("http_get_itself", False, f"{args}: {r.returncode} {r.stdout} {r.stderr}"[:2000])
        sys.exit(1)
    return results


def answer(entry):
    """The server behind: /blob by ranges, everything else by name."""
    if entry.target.startswith("/blob"):
        r = entry.header("Range")
        if r:
            first = int(r[len("bytes="):-1])
            return 206, [("Content-Range", f"bytes {first}-{len(BLOB) - 1}/{len(BLOB)}")], BLOB[first:]
        return 200, [("ETag", '"x"')], BLOB
    return 200, [], b"hello"


def kept(p):
    before = p.connections
    results = get(*[p.url + f"/{i}" for i in range(5)], p.url + "/blob", p.url + "/last")
    check("kept_connection", all(r.code == OK for r in results) and p.connections == before + 1
          and results[5].whole(BLOB), f"{p.connections - before} connections: {[r.line for r in results]}")
    # The server hangs up on the kept connection: asked again on a new one.
    before, asked = p.connections, len(p.log)
    p.rule("GET /again", "refuse")
    results = get(p.url + "/first", p.url + "/again", p.url + "/after")
    check("replayed_once", [r.code for r in results] == [OK, OK, OK] and p.connections == before + 2
          and [e.target for e in p.log[asked:]] == ["/first", "/again", "/again", "/after"],
          f"{[r.line for r in results]} {[e.target for e in p.log[asked:]]}")
    asked = len(p.log)
    p.rule("GET /dead", "refuse", times=None)
    results = get(p.url + "/first", p.url + "/dead")
    check("replayed_not_twice", results[1].code == NETWORK and len(p.log) == asked + 3, results[1].line)
    results = get(p.url + "/dead")
    check("refused", results[0].code == NETWORK and "closed the connection" in results[0].message, results[0].line)


def cut(p):
    head = len("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 301200\r\n\r\n")
    for n in (1, 8, 17, head - 2, head - 1):
        p.rule("GET /blob", "cut_head", n)
        r = get(p.url + "/blob")[0]
        check(f"cut_in_head_{n}", r.code == NETWORK and r.status == 0, r.line)
    for fault in ("cut", "reset"):
        for n in (0, 1, 16384, 100000, len(BLOB) - 1):
            p.rule("GET /blob", fault, n)
            r = get(p.url + "/blob")[0]
            fine = r.code == NETWORK and r.broken and r.size <= n and (fault == "reset" or r.size == n)
            check(f"{fault}_in_body_{n}", fine, r.line)
    r = get("--range", "100000", p.url + "/blob")[0]
    check("range", r.whole(BLOB[100000:]) and r.status == 206, r.line)
    for n, target, data in ((1, "/small", b"hello"), (7, "/small", b"hello"), (1000, "/blob", BLOB), (1 << 20, "/blob", BLOB)):
        p.rule("GET " + target, "chunked", n)
        r = get(p.url + target)[0]
        check(f"chunked_{n}", r.whole(data), r.line)


def wrong(p):
    p.rule("GET /", "longer", 5)
    r = get(p.url + "/")[0]
    check("longer_than_it_is", r.code == NETWORK and r.broken and r.size == 5, r.line)
    before = p.connections
    p.rule("GET /", "shorter", 2)
    results = get(p.url + "/", p.url + "/")
    check("shorter_than_it_is", results[0].code == OK and results[0].size == 3 and results[1].whole(b"hello")
          and p.connections == before + 2, results[0].line)
    p.rule("GET /", "append", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    results = get(p.url + "/", p.url + "/")
    check("appended_response", all(r.whole(b"hello") for r in results), results[1].line)
    for size, fine in ((40000, True), (70000, False), (5000000, False)):
        p.rule("GET /", "huge_head", size)
        r = get(p.url + "/")[0]
        check(f"huge_head_{size}", (r.code == OK) if fine else (r.code == NETWORK and "header" in r.message), r.line)
    p.rule("GET /", "raw", b"\x15\x03\x01\x00\x02\x02\x28")  # a TLS server's alert
    r = get(p.url + "/")[0]
    check("no_http_at_all", r.code == NETWORK, r.line)
    p.rule("GET /", "status", 503, headers=[("Retry-After", "7")], body=b"later")
    r = get(p.url + "/")[0]
    check("status", r.code == OK and r.status == 503 and r.size == 5, r.line)


def slow(p):
    p.rule("GET /", "drip", 0.02)
    r = get("--idle", "300", p.url + "/")[0]
    check("slow_but_steady", r.whole(b"hello") and r.ms >= 100, r.line)
    for fault, n, url in (("stall_head", 20, "/"), ("stall", 3, "/"), ("stall", 16384, "/blob")):
        p.rule("GET /", fault, n)
        r = get("--idle", "300", p.url + url)[0]
        check(f"{fault}_{n}", r.code == NETWORK and 250 <= r.ms < SOON and " s" in r.message, r.line)
    p.rule("GET /", "drip_head", 0.05)  # each byte in time, but not the whole
    r = get("--idle", "500", p.url + "/")[0]
    check("drip_head", r.code == NETWORK and 450 <= r.ms < SOON, r.line)
    p.rule("GET /", "stall", 3)
    r = get("--deadline", "300", p.url + "/")[0]
    check("deadline", r.code == TIMEOUT and 250 <= r.ms < SOON, r.line)


def cancelled(p):
    for fault, arg, what in (("stall_head", 0, "before_answer"), ("stall", 100000, "in_body"), ("drip", 0.001, "in_drip")):
        asked = len(p.log)
        p.rule("GET /blob", fault, arg)
        r = get("--cancel", "300", p.url + "/blob")[0]
        gone = p.wait_until_gone(p.log[asked], SOON / 1000)
        check(f"cancelled_{what}", r.code == CANCELLED and r.ms < SOON and gone, r.line)


def redirected(p):
    with FaultProxy(answer=answer) as other:
        for fault, target in (("redirect", other.url + "/blob?signature=x"),):
            p.rule("GET /blob", fault, target)
            asked = len(p.log)
            r = get("--auth", "Bearer secret", p.url + "/blob")[0]
            check("redirect_to_another_server", r.whole(BLOB) and r.url == target
                  and p.log[asked].header("Authorization") == "Bearer secret"
                  and other.log[-1].header("Authorization") is None, r.line)
        p.rule("GET /blob", "redirect", other.url + "/blob")
        r = get("--range", "5", p.url + "/blob")[0]
        check("redirect_keeps_range", r.whole(BLOB[5:]) and other.log[-1].header("Range") == "bytes=5-", r.line)
        p.rule("GET /a", "redirect", "b")
        before, asked = p.connections, len(p.log)
        r = get("--auth", "Bearer secret", p.url + "/a")[0]
        check("redirect_on_the_same", r.whole(b"hello") and p.connections == before + 1
              and [e.header("Authorization") for e in p.log[asked:]] == ["Bearer secret"] * 2, r.line)
    asked = len(p.log)
    p.rule("GET /loop", "redirect", "{path}x", times=None)
    r = get(p.url + "/loop")[0]
    check("redirect_loop", r.code == NETWORK and "10 times" in r.message and len(p.log) == asked + 11, r.line)
    p.rule("GET /gone", "redirect", "http://127.0.0.1:1/")
    r = get(p.url + "/gone")[0]
    check("redirect_to_nobody", r.code == NETWORK and "127.0.0.1:1" in r.message, r.line)
    p.rule("GET /gone", "redirect", "http://registry.example/")
    r = get(p.url + "/gone")[0]
    check("redirect_to_plain_http", r.code == NETWORK and "plain http" in r.message, r.line)


def addresses(p):
    r = get(f"http://localhost:{p.port}/")[0]  # ::1 may come first, and nobody listens there
    check("other_address_family", r.whole(b"hello"), r.line)
    r = get("http://registry.example/")[0]
    check("plain_http_refused", r.code == INVALID and "plain http" in r.message, r.line)


def tls(base):
    ca, certificate, key = certificates(os.path.join(base, "own"))
    _, named, named_key = certificates(os.path.join(base, "named"), name="registry.test")
    named_ca = os.path.join(base, "named", "ca.pem")
    with FaultProxy(answer=answer, tls=(certificate, key)) as p:
        results = get("--ca", ca, p.url + "/blob", p.url + "/", "https://localhost:%d/" % p.port)
        check("tls", results[0].whole(BLOB) and results[1].whole(b"hello") and results[2].whole(b"hello")
              and p.connections == 2, f"{[r.line for r in results]} {p.connections} connections")
        r = get(p.url + "/")[0]
        check("tls_unknown_authority", r.code == NETWORK and not p.log[3:], r.line)
        p.rule("GET /blob", "cut", 100000)
        r = get("--ca", ca, p.url + "/blob")[0]
        check("tls_cut", r.code == NETWORK and r.broken and r.size == 100000, r.line)
        p.rule("GET /again", "refuse")
        asked = len(p.log)
        results = get("--ca", ca, p.url + "/first", p.url + "/again")
        check("tls_replayed", [r.code for r in results] == [OK, OK] and len(p.log) == asked + 3, results[1].line)
        p.rule("GET /plain", "redirect", "http://127.0.0.1:1/")
        r = get("--ca", ca, p.url + "/plain")[0]
        check("tls_redirect_to_http", r.code == NETWORK and "https to http" in r.message, r.line)
        p.rule("GET /blob", "stall", 100000)
        r = get("--ca", ca, "--cancel", "400", p.url + "/blob")[0]
        check("tls_cancelled", r.code == CANCELLED and r.ms < SOON, r.line)
    with FaultProxy(answer=answer, tls=(named, named_key)) as p:
        proxied(p, named_ca)


def proxied(server, ca):
    hosts = {"registry.test": "127.0.0.1", "plain.test": "127.0.0.1"}
    with FaultProxy(upstream="127.0.0.1:1", hosts=hosts, credentials="Basic bWU6cHc=") as proxy, \
            FaultProxy(answer=answer) as plain:
        env = {"HTTPS_PROXY": f"http://me:pw@{proxy.address}", "http_proxy": f"me:pw@{proxy.address}"}
        url = f"https://registry.test:{server.port}"
        results = get("--ca", ca, "--auth", "Bearer secret", url + "/blob", url + "/", env=env)
        check("proxy_tunnel", results[0].whole(BLOB) and results[1].whole(b"hello")
              and [e.method for e in proxy.log] == ["CONNECT"] and proxy.log[0].header("Authorization") is None
              and server.log[-1].header("Proxy-Authorization") is None, f"{[r.line for r in results]}")
        r = get(url + "/", env=env)[0]
        check("tls_behind_a_proxy_names_the_server", r.code == NETWORK
              and f"TLS with registry.test (through the proxy {proxy.address}): its certificate" in r.message, r.line)
        r = get("--ca", ca, url + "/", env={"HTTPS_PROXY": f"http://me:wrong@{proxy.address}"})[0]
        check("proxy_wrong_password", r.code == NETWORK and "refuses this user" in r.message and "wrong" not in r.message,
              r.line)
        results = get("--plain", f"http://plain.test:{plain.port}/blob", f"http://plain.test:{plain.port}/", env=env)
        check("proxy_plain", results[0].whole(BLOB) and results[1].whole(b"hello")
              and plain.log[-1].header("Proxy-Authorization") is None
              and proxy.log[-1].target == f"http://plain.test:{plain.port}/", f"{[r.line for r in results]}")
        asked = len(proxy.log)
        r = get("--plain", f"http://plain.test:{plain.port}/", env=dict(env, NO_PROXY="x,.test"))[0]
        check("no_proxy", r.code == NETWORK and len(proxy.log) == asked, r.line)
        r = get(f"http://127.0.0.1:{plain.port}/", env=env)[0]
        check("loopback_is_not_proxied", r.whole(b"hello") and len(proxy.log) == asked, r.line)
        r = get("--ca", ca, url + "/", env={"HTTPS_PROXY": "http://127.0.0.1:1"})[0]
        check("proxy_not_there", r.code == NETWORK and "proxy" in r.message, r.line)


def main():
    global TOOL
    with tempfile.TemporaryDirectory() as base:
        TOOL = os.path.join(base, "http_get")
        subprocess.run([*shlex.split(os.environ.get("CC", "gcc")), "-std=c11", "-g", "-O1", "-fsanitize=address,undefined",
                        "-fno-sanitize-recover=all", os.path.join(ROOT, "tests/registry/http_get.c"), "-o", TOOL,
                        "-lbearssl", "-lpthread"], check=True)
        with FaultProxy(answer=answer) as p:
            for part in (kept, cut, wrong, slow, cancelled, redirected, addresses):
                part(p)
        # The same server, with the proxy in front of it as tests of pulls have it.
        with FaultProxy(answer=answer) as behind, FaultProxy(upstream=behind.address) as p:
            p.rule("GET /blob", "wrong", 1000)
            results = get(p.url + "/blob", p.url + "/blob")
            check("in_front_of_another", results[0].size == len(BLOB) and not results[0].whole(BLOB)
                  and results[1].whole(BLOB), results[0].line)
        tls(base)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
