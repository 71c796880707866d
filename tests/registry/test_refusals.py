#!/usr/bin/env python3
"""Pulls from a registry that refuses, lies or stalls: each gives its own message, and none more requests than it should.
@timeout 240

The registry is a script: it serves an image layout from memory, and each case puts a fault into it.
"""
import gzip
import hashlib
import http.server
import json
import os
import re
import shutil
import socketserver
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fault_proxy import FaultProxy  # noqa: E402
from registry import Puller, build_pull, certificates, tar_of  # noqa: E402

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Scripted:
    """Serves blobs and manifests from dictionaries. fault(handler) may answer in their place, and returns True then."""

    def __init__(self):
        self.blobs, self.manifests, self.requests, outer = {}, {}, [], self
        self.fault = lambda handler: False

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def give(self, status, body=b"", **fields):
                self.send_response(status)
                fields.setdefault("Content_Length", len(body))
                for k, v in fields.items():
                    if v is not None:
                        self.send_header(k.replace("_", "-"), str(v))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                outer.requests.append((self.command, self.path))
                try:
                    if not outer.fault(self):
                        self.plain()
                except OSError:
                    self.close_connection = True

            def plain(self):
                m = re.fullmatch(r"/v2/(.*)/(manifests|blobs)/([^/]+)", self.path)
                if m and m[2] == "manifests" and m[3] in outer.manifests:
                    media, body = outer.manifests[m[3]]
                    self.give(200, body, Content_Type=media, Docker_Content_Digest=digest(body))
                elif m and m[2] == "blobs" and m[3] in outer.blobs:
                    self.give(200, outer.blobs[m[3]])
                else:
                    self.give(404, json.dumps({"errors": [{"code": "UNKNOWN", "message": "it is\u0007 unknown"}]}).encode())

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # a client that goes away in the middle is part of the test

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def blob(self, data):
        self.blobs[digest(data)] = data
        return {"digest": digest(data), "size": len(data)}

    def image(self, tag, layers=None, **changes):
        """An image with these layers, (descriptor, diffID) each, and these changes to its manifest."""
        layers = [self.layer({"file": b"hello\n"})] if layers is None else layers
        config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [d for _, d in layers]}}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                    "config": dict(self.blob(json.dumps(config).encode()), mediaType="application/vnd.oci.image.config.v1+json"),
                    "layers": [l for l, _ in layers]}
        manifest.update(changes)
        body = json.dumps({k: v for k, v in manifest.items() if v is not None}).encode()
        self.manifests[tag] = self.manifests[digest(body)] = (MANIFEST, body)
        return body

    def layer(self, files, media=GZIP, **changes):
        tar = files if isinstance(files, bytes) else tar_of(files)
        return dict(self.blob(gzip.compress(tar, mtime=0)), mediaType=media, **changes), digest(tar)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Cases:
    def __init__(self, server, pull):
        self.server, self.pull, self.number = server, pull, 0

    def run(self, tag="good", fault=None, **env):
        """A pull into a store of its own: (exit code, output, requests)."""
        self.number += 1
        self.server.requests.clear()
        self.server.fault = fault or (lambda handler: False)
        code, out = self.pull(f"case{self.number}", f"{self.server.address}/a/b:{tag}", **env)
        return code, out, [r for r in self.server.requests if r[1].startswith("/v2/")]

    def fails(self, name, code, words, tag="good", fault=None, most=None, **env):
        got, out, requests = self.run(tag, fault, **env)
        check(name, got == code and words in out and (most is None or len(requests) <= most), f"{got} {out} {requests}")


def every(status, body=b"", **fields):
    def fault(handler):
        handler.give(status, body, **fields)
        return True
    return fault


def times(n, status, **fields):
    """The first n requests."""
    left = [n]

    def fault(handler):
        left[0] -= 1
        if left[0] < 0:
            return False
        handler.give(status, **fields)
        return True
    return fault


def raw(n, status, **fields):
    """The first n requests, without the fields that Python adds."""
    left = [n]

    def fault(handler):
        left[0] -= 1
        if left[0] < 0:
            return False
        handler.send_response_only(status)
        for k, v in dict(fields, Content_Length="0").items():
            handler.send_header(k.replace("_", "-"), v)
        handler.end_headers()
        return True
    return fault


def on_blob(body_of):
    """Layers are answered so; configurations as they are."""
    def fault(handler):
        name = handler.path.rsplit("/", 1)[1]
        if "/blobs/" not in handler.path or not name_is_layer(handler, name):
            return False
        return body_of(handler, name)
    return fault


def name_is_layer(handler, name):
    return SERVER.blobs.get(name, b"")[:2] == b"\x1f\x8b"


def statuses(c):
    c.fails("status_403", 8, "denies access to a/b (403): not for you", fault=every(403, b'{"errors":[{"message":"not for you"}]}'), most=1)
    c.fails("status_404", 8, "(404): it is  unknown", tag="none", most=1)
    c.fails("status_401_no_challenge", 8, "neither Basic nor Bearer", fault=every(401), most=1)
    c.fails("status_401_basic", 8, "docker login", fault=every(401, WWW_Authenticate='Basic realm="x"'), most=1)
    c.fails("status_401_for_ever", 8, "refuses the user name", fault=every(401, WWW_Authenticate='Basic realm="x"'), most=2,
            USERNAME="u", PASSWORD="p")
    c.fails("status_429_for_long", 8, "(429): try again in 3600 s", fault=every(429, Retry_After="3600"), most=1)
    c.fails("status_500_for_ever", 8, "has failed (500)", fault=every(500), most=5)
    c.fails("status_418", 8, "answers with status 418", fault=every(418), most=1)
    c.fails("html_refusal", 8, "(403): this user", fault=every(403, b"<html>" * 1000), most=1)
    c.fails("endless_refusal", 8, "(403)", fault=every(403, b"x" * 300000), most=1)

    def drip(handler):
        handler.send_response(403)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while True:  # until the client goes
            handler.wfile.write(b" ")
            STOP.wait(0.2)
    start = time.monotonic()
    c.fails("a_refusal_that_never_ends", 8, "(403)", fault=drip, most=1)
    check("a_refusal_is_not_waited_for", time.monotonic() - start < 20)
    start = time.monotonic()
    code, out, requests = c.run(fault=times(1, 429, Retry_After="1"))
    check("status_429_is_waited_for", code == 0 and time.monotonic() - start >= 1 and len(requests) == 4, f"{out} {requests}")
    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"):
        at = lambda seconds: time.strftime(form, time.gmtime(1_700_000_000 + seconds))  # by the server's clock
        start = time.monotonic()
        code, out, requests = c.run(fault=raw(1, 429, Date=at(0), Retry_After=at(2)))
        check("a_date_is_waited_for_" + re.sub(r"\W", "", form), code == 0 and time.monotonic() - start >= 2 and len(requests) == 4,
              f"{out} {requests}")
        c.fails("a_date_far_ahead_" + re.sub(r"\W", "", form), 8, "(429): try again in 7200 s",
                fault=raw(9, 429, Date=at(0), Retry_After=at(7200)), most=1)
    c.fails("a_date_by_our_clock", 8, "(429): try again in 1000000 s", fault=raw(9, 429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"), most=1)
    c.fails("a_date_that_is_over", 8, "(429): try again later", fault=raw(9, 429, Retry_After="Sun, 06 Nov 1994 08:49:37 GMT"), most=5)
    c.fails("a_date_that_is_none", 8, "(429): try again later", fault=raw(9, 429, Retry_After="Sun, 99 Nov 1994 08:49:37 GMT"), most=5)
    code, out, requests = c.run(fault=times(2, 503))
    check("status_503_is_asked_again", code == 0 and len(requests) == 5, f"{out} {requests}")
    start = time.monotonic()
    c.fails("a_pause_ends_with_the_time", 5, "timed out", fault=every(503, Retry_After="50"), TIMEOUT=1)
    check("a_pause_ends_in_time", time.monotonic() - start < 40)


def without_head(c):
    """A registry that has no HEAD, or whose HEAD says little: "always" asks by GET."""
    def run(name, status, **more):
        def fault(handler):
            if handler.command != "HEAD":
                return False
            handler.give(status, **more)
            return True
        c.run()
        c.number -= 1  # the same store
        code, out, requests = c.run(fault=fault, POLICY="always")
        check(name, code == 0 and [m for m, _ in requests] == ["HEAD", "GET"], f"{code} {out} {requests}")
    run("head_405", 405)
    run("head_501", 501)
    run("head_without_a_digest", 200, Content_Type=MANIFEST)
    run("head_with_nonsense_for_a_digest", 200, Docker_Content_Digest="sha256:x")
    old = SERVER.manifests["good"]
    SERVER.image("good", [SERVER.layer({"file": b"another\n"})])
    new = SERVER.manifests["good"]
    SERVER.manifests["good"] = old
    c.run()
    c.number -= 1
    SERVER.manifests["good"] = new
    code, out, requests = c.run(fault=lambda h: h.command == "HEAD" and (h.give(405), True)[1], POLICY="always")
    check("head_405_and_a_new_image", code == 0 and len([p for _, p in requests if "/blobs/" in p]) == 2, f"{code} {out} {requests}")
    SERVER.manifests["good"] = old


def recalled_and_refused(c):
    """What an earlier pull of the client was accepted with is refused: the challenge is met anew."""
    seen = []

    def fault(handler):
        said = handler.headers.get("Authorization")
        seen.append(said)
        if said and not (handler.command == "HEAD" and seen.count(said) == 4):
            return False
        handler.give(401, WWW_Authenticate='Basic realm="x"')
        return True
    code, out, requests = c.run(fault=fault, AGAIN="1", USERNAME="u", PASSWORD="p")
    check("recalled_and_refused", code == 0 and [bool(s) for s in seen] == [False, True, True, True, True, True],
          f"{code} {out} {seen}")


def led_elsewhere(c):
    """The registry leads to a server that wants to know who we are: it does not learn that, whatever it asks for."""
    seen = []

    def thief(entry):
        seen.append((entry.target.split("?")[0], entry.header("Authorization")))
        if entry.target.startswith("/token"):
            return 200, [], b'{"token": "x"}'
        return 401, [("WWW-Authenticate", challenge.replace("REALM", other.url + "/token"))], b""
    with FaultProxy(answer=thief) as other:
        for challenge in ('Bearer realm="REALM",service="s"', 'Basic realm="s"'):
            seen.clear()
            c.fails("led_to_another_login_" + challenge[:5].lower(), 8, "leads for sha256:", most=3, USERNAME="u", PASSWORD="p",
                    fault=on_blob(lambda h, name: (h.give(307, Location=other.url + "/data"), True)[1]))
            check("it_learns_nothing_" + challenge[:5].lower(), seen == [("/data", None)], seen)


def token_servers(c):
    """The token server refuses, stumbles, or is not where a password may go."""
    answers, seen = [], []

    def tokens(entry):
        seen.append(entry.target)
        return answers[min(len(seen), len(answers)) - 1]

    def challenge(realm):
        def fault(handler):
            if handler.headers.get("Authorization") == "Bearer good":
                return False
            handler.give(401, WWW_Authenticate=f'Bearer realm="{realm}",service="s"')
            return True
        return fault
    good = (200, [], b'{"token": "good"}')
    with FaultProxy(answer=tokens) as server:
        realm = server.url + "/token"

        def case(name, what, code, words, most, **env):
            seen.clear()
            answers[:] = what
            c.fails(name, code, words, fault=challenge(realm), **env)
            check(name + "_asks", len(seen) == most, seen)
        case("token_server_503", [(503, [], b""), (500, [], b""), good], 0, "architecture", 3)
        start = time.monotonic()
        case("token_server_429", [(429, [("Retry-After", "1")], b""), good], 0, "architecture", 2)
        check("token_server_429_is_waited_for", time.monotonic() - start >= 1)
        case("token_server_429_for_long", [(429, [("Retry-After", "900")], b"")], 8, "(429): try again in 900 s", 1)
        case("token_server_500_for_ever", [(500, [], b"")], 8, "token server has failed (500)", 5)
        case("token_server_401", [(401, [], b'{"details": "no such user"}')], 8, "(or token): no such user: log in again", 1,
             USERNAME="u", PASSWORD="p")
        case("token_server_404", [(404, [], b"")], 8, "answers with status 404", 1)
        server.rule("/token", "cut", 5)
        case("a_token_that_breaks_off", [good], 0, "architecture", 2)
    for realm, words in (("/token", '"/token" is not a URL'), ("ftp://x/", "neither https:// nor http://"),
                         ("https://u:p@127.0.0.1/", "must not have a user"), ("http://example.com/", "plain http is for this machine only")):
        c.fails("realm_" + re.sub(r"\W", "", realm), 8, "the token server that the registry names: ", fault=challenge(realm), most=1,
                USERNAME="u", PASSWORD="p")
        c.fails("realm_" + re.sub(r"\W", "", realm) + "_why", 8, words, fault=challenge(realm), most=1)


def token_server_without_tls(c, folder):
    """A registry that is asked over TLS names a token server without: the password does not go there, allowed or not. Who
    has none is served by it, where http is allowed."""
    ca, cert, key = certificates(os.path.join(folder, "tls"))
    seen = []

    def registry(entry):
        if entry.header("Authorization") == "Bearer good":
            return 404, [], b""
        return 401, [("WWW-Authenticate", 'Bearer realm="http://tokens.example/",service="s"')], b""

    def tokens(entry):
        seen.append(entry.target.split("?")[0])
        return 200, [], b'{"token": "good"}'
    with FaultProxy(answer=registry, tls=(cert, key)) as server, FaultProxy(answer=tokens) as proxy:
        reference, env = f"{server.address}/a/b:1", {"CA_FILE": ca, "ALLOW_HTTP": 1, "http_proxy": proxy.url}
        code, out = c.pull("without-tls", reference, USERNAME="u", PASSWORD="p", **env)
        check("token_server_without_tls", code == 8 and "names a token server without, tokens.example" in out and not seen,
              f"{code} {out} {seen}")
        code, out = c.pull("without-tls", reference, **env)
        check("token_server_without_tls_or_user", code == 8 and "there is no image" in out and seen == ["http://tokens.example/"],
              f"{code} {out} {seen}")


def documents(c, s):
    good = s.manifests["good"][1]
    c.fails("manifest_with_another_digest", 7, "does not have its digest",
            fault=every(200, good + b" ", Content_Type=MANIFEST, Docker_Content_Digest=digest(good)), most=1)
    c.fails("manifest_that_is_called_index", 7, "what refers to it says otherwise", fault=every(200, good, Content_Type=INDEX), most=1)
    s.image("liar", mediaType=INDEX)
    c.fails("manifest_that_calls_itself_index", 7, "does not agree with its content", tag="liar", most=1)
    s.image("both", manifests=[])
    c.fails("manifest_and_index_in_one", 7, "both an index and an image", tag="both", most=1)
    s.manifests["one"] = ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"schemaVersion": 1, "fsLayers": []}')
    c.fails("schema_1", 7, "schema 1", tag="one", most=1)
    s.manifests["text"] = ("text/html", b"<html>log in to the wireless network</html>")
    c.fails("no_manifest_at_all", 7, "not valid JSON", tag="text", most=1)
    s.manifests["huge"] = (MANIFEST, b" " * (5 << 20))
    c.fails("manifest_too_large", 8, "", tag="huge", most=1)
    body = s.image("gone")
    del s.blobs[json.loads(body)["config"]["digest"]]
    c.fails("no_configuration", 8, "does not have the blob", tag="gone", most=2)
    s.image("good")
    index = lambda d, n: json.dumps({"schemaVersion": 2, "mediaType": INDEX,
                                     "manifests": [dict(digest=d, size=n, mediaType=INDEX)]}).encode()
    loop = index(digest(good), len(good))
    for _ in range(6):
        s.manifests[digest(loop)] = (INDEX, loop)
        loop = index(digest(loop), len(loop))
    s.manifests["deep"] = (INDEX, loop)
    c.fails("indexes_nested_too_deeply", 7, "nested too deeply", tag="deep")
    none = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    s.manifests["empty"] = (INDEX, none)
    c.fails("index_of_nothing", 7, "no platform at all", tag="empty", most=1)


def documents_that_break_off(c, s):
    """A manifest or a configuration whose connection breaks is asked for again, a few times."""
    def broken(kind, n):
        left = [n]

        def fault(handler):
            if kind not in handler.path or (kind == "blobs" and name_is_layer(handler, handler.path.rsplit("/", 1)[1])):
                return False
            left[0] -= 1
            if left[0] < 0:
                return False
            handler.send_response(200)
            handler.send_header("Content-Length", "400")
            handler.end_headers()
            handler.wfile.write(b'{"schemaVersion": 2')
            handler.close_connection = True
            return True
        return fault
    for kind in ("manifests", "blobs"):
        code, out, requests = c.run(fault=broken(kind, 2))
        check(f"{kind}_that_break_off_are_asked_again", code == 0 and len(requests) == 5, f"{code} {out} {requests}")
        c.fails(f"{kind}_that_always_break_off", 8, "in the middle of the body", fault=broken(kind, 100), most=6)


def layers(c, s):
    s.image("foreign", [s.layer({"f": b"x"}, urls=["http://127.0.0.1/x"])])
    c.fails("foreign_layer", 7, "only found by its URL", tag="foreign", most=2)
    s.image("zstd", [s.layer({"f": b"x"}, media="application/vnd.oci.image.layer.v1.tar+zstd")])
    c.fails("zstd_layer", 7, "tar+zstd) is compressed with zstd, which this program was built without", tag="zstd", most=2)
    layer, _ = s.layer({"f": b"x"})
    s.image("diff", [(layer, digest(b"something else"))])
    c.fails("wrong_diff_id", 7, "has the diffID", tag="diff", most=3)
    s.image("long", [(dict(layer, size=layer["size"] - 1), s.layer({"f": b"x"})[1])])
    c.fails("layer_longer_than_said", 8, "more than", tag="long", most=3)
    s.image("short", [(dict(layer, size=layer["size"] + 1), s.layer({"f": b"x"})[1])])
    c.fails("layer_shorter_than_said", 8, "which the manifest says has", tag="short", most=3)
    bomb = s.layer(b"\0" * (64 << 20))
    s.image("cut", [(dict(s.blob(gzip.compress(tar_of({"f": b"x" * 100000}))[:-20]), mediaType=GZIP), digest(tar_of({"f": b"x" * 100000})))])
    c.fails("truncated_gzip", 7, "layer sha256:", tag="cut", most=3)
    s.image("zeroes", [bomb])
    code, out, _ = c.run("zeroes")
    check("zeroes_that_expand", code == 0, out)
    s.image("mixed", [s.layer({"f": b"x"}), (dict(s.blob(tar_of({"g": b"y"})), mediaType=GZIP), digest(tar_of({"g": b"y"})))])
    c.fails("plain_layer_that_is_called_gzip", 7, "is not compressed, but its media type says compressed with gzip", tag="mixed")

    def stall(handler, name):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(SERVER.blobs[name])))
        handler.end_headers()
        handler.wfile.write(SERVER.blobs[name][:20])
        handler.wfile.flush()
        STOP.wait(60)
        handler.close_connection = True
        return True
    start = time.monotonic()
    c.fails("a_stalled_layer_ends_with_the_time", 5, "timed out", fault=on_blob(stall), TIMEOUT=1)
    check("in_time", time.monotonic() - start < 40)

    def no_ranges(handler, name, cut=[0]):
        cut[0] += 1
        whole = SERVER.blobs[name]
        handler.give(200, whole[:len(whole) // 2] if cut[0] == 1 else whole, Content_Length=len(whole))
        handler.close_connection = True
        return True
    code, out, _ = c.run(fault=on_blob(no_ranges))
    check("a_server_without_ranges", code == 0, out)

    def always_cut(handler, name):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(SERVER.blobs[name])))
        handler.end_headers()
        handler.close_connection = True
        return True
    c.fails("connections_that_bring_nothing", 8, "", fault=on_blob(always_cut), most=30)


def main():
    global SERVER, STOP
    folder = tempfile.mkdtemp(prefix="cc-refusals-")
    STOP = threading.Event()
    SERVER = Scripted()
    try:
        c = Cases(SERVER, Puller(build_pull(folder), folder))
        SERVER.image("good")
        code, out, requests = c.run()
        check("good", code == 0 and len(requests) == 3, f"{out} {requests}")
        statuses(c)
        without_head(c)
        recalled_and_refused(c)
        led_elsewhere(c)
        token_servers(c)
        token_server_without_tls(c, folder)
        documents(c, SERVER)
        documents_that_break_off(c, SERVER)
        layers(c, SERVER)
    finally:
        STOP.set()
        SERVER.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
