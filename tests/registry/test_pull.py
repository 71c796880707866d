#!/usr/bin/env python3
"""Pulls from a real registry on loopback: plain, TLS, basic auth, tokens.
@timeout 300

What is pulled is compared, file by file of the store, with the same image loaded from the layout that was pushed (which the
import's tests compare with what umoci unpacks).
"""
import base64
import http.server
import json
import os
import random
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from registry import PASSWORD, USER, Layout, Puller, Registry, build_pull, free_port  # noqa: E402

failures = 0


def check(name, ok, note=""):
    global failures
    failures += not ok
    print(("ok " if ok else "not ok ") + name + (f"  # {note}" if not ok else "").replace("\n", " | "), flush=True)


def noise(seed, n):
    """Bytes that do not compress."""
    out, state = bytearray(), seed
    while len(out) < n:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out += state.to_bytes(8, "little")
    return bytes(out[:n])


def tree(store):
    """Every file of the layers in a store: {diffID/file: digest-like bytes}."""
    out, top = {}, os.path.join(store, "layers")
    for layer in os.listdir(top):
        for file in os.listdir(os.path.join(top, layer)):
            with open(os.path.join(top, layer, file), "rb") as f:
                out[f"{layer}/{file}"] = f.read()
    return out


def left(store):
    """What is in a store that no pull should leave."""
    return os.listdir(os.path.join(store, "tmp")) + os.listdir(os.path.join(store, "partial"))


class Cutter:
    """A plain proxy in front of the registry that cuts connections after so many bytes of a blob, and counts; with `hold`
    it keeps them open and sends nothing more, so that a pull is surely in the middle."""

    def __init__(self, registry, cut_after, times, hold=False):
        self.left, self.ranges, self.sent, self.over, outer = times, [], 0, threading.Event(), self
        self.changed = threading.Condition()  # more was sent

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                request = urllib.request.Request(f"http://{registry.address}{self.path}", method=self.command)
                for k in ("Accept", "Range"):
                    if self.headers.get(k):
                        request.add_header(k, self.headers[k])
                if "/blobs/" in self.path:
                    outer.ranges.append(self.headers.get("Range"))
                try:
                    answer = urllib.request.urlopen(request)
                except urllib.error.HTTPError as e:
                    answer = e
                body = answer.read()
                self.send_response(answer.status)
                for k in ("Content-Type", "Content-Range", "Docker-Content-Digest", "Content-Length"):
                    if answer.headers.get(k):
                        self.send_header(k, answer.headers[k])
                self.end_headers()
                if "/blobs/" in self.path and len(body) > cut_after and outer.left:
                    outer.left -= 1
                    body = body[:cut_after]
                with outer.changed:
                    outer.sent += len(body)
                    outer.changed.notify_all()
                try:
                    self.wfile.write(body)
                    if hold and len(body) == cut_after:
                        outer.over.wait(100)
                except OSError:
                    pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # a client that goes away in the middle is part of the test

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


def images(folder):
    l = Layout(os.path.join(folder, "layout"))
    base = l.layer({"etc/os-release": b"ID=test\n", "bin/data": noise(1, 3 << 20), "old": b"gone\n"})
    second = l.layer({"etc/second": b"2\n" * 1000, ".wh.old": b""})
    plain = l.layer({"plain": b"not compressed\n" * 500}, compress=False)
    empty = l.layer({})
    multi = l.tag(l.image([base, second, empty, plain, empty], Env=["A=1", "B=2"]), "multi")
    hundred = l.tag(l.image([base] + [l.layer({f"file{i}": b"%d\n" % i}) for i in range(99)]), "hundred")
    arm = l.image([l.layer({"machine": b"arm64\n"})], arch="arm64", Env=["M=arm"])
    amd = l.image([base, l.layer({"machine": b"amd64\n"})], arch="amd64", Env=["M=amd"])
    index = l.many([arm, amd])
    big = l.tag(l.image([l.layer({"big": noise(7, 12 << 20)}), l.layer({"other": noise(8, 6 << 20)})]), "big")
    return {"multi": multi, "hundred": hundred, "arch": l.tag(index, "arch"), "big": big,
            "index digest": index["digest"], "arm digest": arm["digest"], "base": base[0]["digest"]}


def loaded(folder, layout_name):
    """The store that loading the same layout gives."""
    binary = os.path.join(folder, "load")
    if not os.path.exists(binary):
        subprocess.run(["gcc", "-std=c11", "-O1", "-w", "-I" + ROOT, os.path.join(ROOT, "tests/image/load_tar.c"), "-o", binary,
                        "-lpthread", "-l:libbearssl.a"], check=True)
    store = os.path.join(folder, "loaded-" + layout_name)
    tar = os.path.join(folder, "layout.tar")
    if not os.path.exists(tar):
        subprocess.run(["tar", "-C", os.path.join(folder, "layout"), "-cf", tar, "."], check=True)
    r = subprocess.run([binary, store, f"{tar}:{layout_name}"], capture_output=True, text=True, env=dict(os.environ, QUIET="1"))
    return store if r.returncode == 0 else r.stdout


def test_plain(r, pull, folder, names):
    base = r.address
    for name in ("multi", "hundred"):
        code, out = pull(name, f"{base}/test/{name}:1")
        check(f"pull_{name}", code == 0 and "bad 0" in out, out)
        same = loaded(folder, name)
        check(f"pull_{name}_as_loaded", os.path.isdir(same) and tree(pull.store(name)) == tree(same), same)
        check(f"pull_{name}_leaves_nothing", left(pull.store(name)) == [], left(pull.store(name)))
        m = re.search(r"current (\d+) total (\d+) blobs (\d+)", out)
        check(f"pull_{name}_progress_ends_at_all", m and m[1] == m[2] and int(m[2]) > 3 << 20 and
              int(m[3]) == {"multi": 4, "hundred": 100}[name], out)
    code, out = pull("multi", f"{base}/test/multi:1")
    before = len(r.requests())
    code, out = pull("multi", f"{base}/test/multi:1")
    check("second_pull_asks_nothing", code == 0 and len(r.requests()) == before and "env A=1\nenv B=2" in out, out)
    code, out = pull("multi", f"{base}/test/multi:1", POLICY="always")
    new = r.requests()[before:]
    check("always_asks_once", code == 0 and len(new) == 1 and new[0][0] == "HEAD" and new[0][2] == 200, f"{new} {out}")
    before = len(r.requests())
    code, out = pull("multi", f"{base}/test/multi:1", AGAIN="1")
    new = r.requests()[before:]
    check("always_in_the_same_client_asks_once", code == 0 and [n[0] for n in new] == ["HEAD"], f"{new} {out}")
    # The tag moves: one more image, of which the base is there already.
    r.push(names["arch"], "test/multi:1")
    before = len(r.requests())
    code, out = pull("multi", f"{base}/test/multi:1", POLICY="always")
    blobs = [p for _, p, _ in r.requests()[before:] if "/blobs/" in p]
    check("always_follows_the_tag", code == 0 and "env M=amd" in out, out)
    check("a_layer_in_the_store_is_not_fetched", len(blobs) == 2 and not any(names["base"] in b for b in blobs), blobs)


def test_platform(r, pull, names):
    code, out = pull("arch", f"{r.address}/test/arch:1")
    check("index_this_platform", code == 0 and "architecture amd64" in out, out)
    code, out = pull("arch", f"{r.address}/test/arch:1", ARCH="arm64")
    check("index_other_platform", code == 0 and "architecture arm64" in out and "env M=arm" in out, out)
    code, out = pull("arch", f"{r.address}/test/arch:1", ARCH="s390x")
    check("index_no_such_platform", code == 7 and "linux/s390x" in out and "linux/arm64, linux/amd64" in out, out)
    code, out = pull("arch", f"{r.address}/test/multi@{names['arm digest']}")
    check("manifest_of_another_platform", code == 7 and "it is for linux/arm64" in out, out)
    code, out = pull("digest", f"{r.address}/test/arch@{names['index digest']}")
    before = len(r.requests())
    again = [pull("digest", f"{r.address}/test/arch@{names['index digest']}", POLICY=p)[0] for p in (None, "always", "never")]
    check("by_digest_asks_nothing_when_cached", code == 0 and again == [0, 0, 0] and len(r.requests()) == before, out)
    code, out = pull("arch", f"{r.address}/other/name@{names['index digest']}", POLICY="never")
    check("by_digest_under_another_name", code == 0, out)


def test_never(r, pull, names):
    code, out = pull("never", f"{r.address}/test/arch:1", POLICY="never")
    check("never_miss", code == 7 and "not in the cache" in out, out)
    pull("never", f"{r.address}/test/arch:1")
    code, out = pull("never", f"{r.address}/test/arch:1", POLICY="never")
    check("never_hit", code == 0, out)
    layers = os.path.join(pull.store("never"), "layers")
    shutil.rmtree(os.path.join(layers, os.listdir(layers)[0]))
    code, out = pull("never", f"{r.address}/test/arch:1", POLICY="never")
    check("never_invalid", code == 7 and "no longer whole" in out, out)
    before = len(r.requests())
    code, out = pull("never", f"{r.address}/test/arch:1")
    fetched = [p for m, p, _ in r.requests()[before:] if "/blobs/" in p]
    check("what_is_missing_is_mended_from_the_kept_blob", code == 0 and not fetched, f"{fetched} {out}")


def test_errors(r, pull):
    for reference, code, words in (
            (f"{r.address}/test/none:1", 8, "there is no image"),
            (f"{r.address}/test/multi:none", 8, "there is no image"),
            (f"{r.address}/Test/multi", 2, 'repository "Test/multi" is not valid'),
            (f"{r.address}/test/multi:-x", 2, 'tag "-x" is not valid'),
            (f"{r.address}/test/multi@sha256:12", 2, 'digest "sha256:12" is not valid'),
            ("host_x:5000/a", 2, 'registry "host_x:5000" is not valid'),
            (f"127.0.0.1:{free_port()}/a", 8, "127.0.0.1")):
        got, out = pull("errors", reference)
        check("error_" + re.sub(r"\W+", "_", words + reference.split("/", 1)[1]), got == code and words in out, out)


def test_resume(r, pull, names):
    layers = 18 << 20
    cut = Cutter(r, 1 << 20, 6)
    code, out = pull("cut", f"{cut.address}/test/big:1")
    resumed = [x for x in cut.ranges if x]
    check("cut_connections_are_taken_up", code == 0 and len(resumed) == 6 and cut.left == 0, f"{cut.ranges} {out}")
    check("nothing_comes_twice", layers <= cut.sent < layers + (64 << 10), cut.sent)
    cut.close()
    # Killed in the middle: the next pull goes on.
    hold = Cutter(r, 3 << 20, 1000, hold=True)
    code, out = pull("killed", f"{hold.address}/test/big:1", KILL_AT=4 << 20)
    there = os.listdir(os.path.join(pull.store("killed"), "partial"))
    have = sum(os.path.getsize(os.path.join(pull.store("killed"), "partial", f)) for f in there)
    check("killed", code == -signal.SIGKILL and 4 << 20 <= have <= 6 << 20, f"{code} {out} {there} {have}")
    before = len(r.requests())
    code, out = pull("killed", f"{r.address}/test/big:1")
    check("goes_on_after_a_kill", code == 0 and left(pull.store("killed")) == [], out)
    r206 = [x for x in r.requests()[before:] if x[2] == 206]
    check("goes_on_by_range", len(r206) == 2, r206)
    # What was left on the disk is wrong: fetched again.
    pull("wrong", f"{hold.address}/test/big:1", KILL_AT=4 << 20)
    hold.close()
    partial = os.path.join(pull.store("wrong"), "partial")
    for f in os.listdir(partial):
        with open(os.path.join(partial, f), "r+b") as h:
            h.seek(1000)
            h.write(b"\0" * 5000)
    code, out = pull("wrong", f"{r.address}/test/big:1")
    check("a_damaged_part_is_fetched_again", code == 0, out)
    check("as_pulled_at_once", tree(pull.store("wrong")) == tree(pull.store("killed")) == tree(pull.store("cut")))


def test_cancel(r, pull):
    hold = Cutter(r, 3 << 20, 1000, hold=True)
    code, out = pull("cancel", f"{hold.address}/test/big:1", CANCEL_AT=4 << 20)
    m = re.search(r"cancel_ms (\d+)", out)
    check("cancel_ends_at_once", code == 9 and m and int(m[1]) < 20000, out)
    check("cancel_asks_no_more", len(hold.ranges) == 3, hold.ranges)  # the configuration and two layers
    hold.close()
    check("cancel_keeps_what_came", os.listdir(os.path.join(pull.store("cancel"), "partial")) != [], out)
    code, out = pull("cancel", f"{r.address}/test/big:1")
    check("goes_on_after_a_cancel", code == 0, out)


class Drip:
    """A proxy that sends blobs slowly, and notes when it sent what, and when it could not any more."""

    def __init__(self, registry):
        self.sent, self.ends, self.requests, self.open, self.changed, outer = [], [], [], 0, threading.Condition(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.requests.append(time.time())
                request = urllib.request.Request(f"http://{registry.address}{self.path}", headers={"Accept": self.headers["Accept"] or "*/*"})
                with urllib.request.urlopen(request) as answer:
                    body = answer.read()
                    self.send_response(answer.status)
                    for k in ("Content-Type", "Docker-Content-Digest", "Content-Length"):
                        if answer.headers.get(k):
                            self.send_header(k, answer.headers[k])
                self.end_headers()
                if len(body) < 1 << 20:
                    self.wfile.write(body)
                    return
                with outer.changed:
                    outer.open += 1
                try:
                    for at in range(0, len(body), 8192):
                        self.wfile.write(body[at:at + 8192])
                        outer.sent.append(time.time())
                        time.sleep(0.002)
                except OSError:
                    pass
                with outer.changed:
                    outer.ends.append(time.time())
                    outer.changed.notify_all()

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def test_nothing_is_read_afterwards(r, pull):
    """A pull that was cancelled, or whose time is over, reads nothing more and keeps no connection, while its process lives."""
    for name, code, env in (("cancel", 9, {"CANCEL_AT": 1 << 20}), ("time_out", 5, {"TIMEOUT": 2})):
        drip = Drip(r)
        p = subprocess.Popen([pull.binary, pull.store("drip-" + name), f"{drip.address}/test/big:1"], text=True,
                             env=pull.environment(dict(env, LINGER=1)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = ""
        while line is not None and not line.startswith("returned"):
            line = p.stdout.readline() or None
        with drip.changed:
            ended = drip.changed.wait_for(lambda: len(drip.ends) == drip.open >= 1, 20)
        out = p.communicate()[0]
        returned = int(line.split()[2]) / 1e9 if line else 0
        late = [t - returned for t in drip.sent if t > returned]
        # What was on its way, and one write until the server learns of the end.
        check(f"nothing_is_read_after_a_{name}", p.returncode == code and ended and len(late) <= 40 and max(late, default=0) < 1,
              f"{line} {out} {late} {drip.ends} {drip.open}")
        check(f"nothing_is_asked_after_a_{name}", drip.sent and not [t for t in drip.requests if t > returned])
        drip.close()


def test_killed_at_random(r, pull):
    """Killed again and again, at any moment: what is left never harms, and the last pull is as if there had been none."""
    seed = int.from_bytes(os.urandom(4), "little")
    chance, killed = random.Random(seed), 0
    for _ in range(12):
        p = subprocess.Popen([pull.binary, pull.store("random"), f"{r.address}/test/hundred:1"], env=pull.environment({}),
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.02, 0.3) if killed else 0.05)
        p.kill()
        killed += p.wait() == -signal.SIGKILL
    together = [subprocess.Popen([pull.binary, pull.store("random"), f"{r.address}/test/hundred:1"], env=pull.environment({}),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [p.communicate(timeout=100)[0] for p in together]
    check("after_random_kills", [p.returncode for p in together] == [0, 0] and killed, f"seed {seed} killed {killed} {outs}")
    check("after_random_kills_all_is_there", tree(pull.store("random")) == tree(pull.store("hundred")), f"seed {seed}")
    # A pull that died between a layer's coming into the store and the keeping of its blob leaves the latter for a prune.
    tmp = os.listdir(os.path.join(pull.store("random"), "tmp"))
    check("after_random_kills_nothing_is_left_half_written", tmp == [], tmp)


def test_together(r, pull, names):
    """Several processes, one store: each layer is fetched once."""
    before = len(r.requests())
    command = [pull.binary, pull.store("together"), f"{r.address}/test/big:1"]
    all_of = [subprocess.Popen(command, env=pull.environment({}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
              for _ in range(3)]
    outs = [p.communicate(timeout=100)[0] for p in all_of]
    check("three_at_once", all(p.returncode == 0 for p in all_of), outs)
    manifest_and_config = 2
    blobs = [p for m, p, _ in r.requests()[before:] if "/blobs/" in p]
    per = {b: blobs.count(b) for b in set(blobs)}
    check("three_at_once_share_layers", sorted(per.values())[:manifest_and_config] == [1, 1], per)


def test_damaged(r, pull, names):
    """The registry's own file is changed: the digest tells."""
    file = r.blob_file(names["base"])
    with open(file, "rb") as f:
        good = f.read()
    with open(file, "r+b") as f:
        f.seek(2 << 20)
        f.write(b"\0" * 4096)
    code, out = pull("damaged", f"{r.address}/test/multi:2")
    check("damaged_layer", code == 7 and names["base"] in out, out)
    check("damaged_layer_leaves_nothing", left(pull.store("damaged")) == [] and
          not any(names["base"][7:] in f for f in os.listdir(os.path.join(pull.store("damaged"), "blobs/sha256"))))
    with open(file, "wb") as f:
        f.write(good)
    code, out = pull("damaged", f"{r.address}/test/multi:2")
    check("whole_again", code == 0, out)


def config(pull, **what):
    os.makedirs(os.path.join(pull.home, ".docker"), exist_ok=True)
    with open(os.path.join(pull.home, ".docker/config.json"), "w") as f:
        json.dump(what, f)


def auth_cases(tag, r, pull, reference):
    ca = {"CA_FILE": r.ca}
    store = lambda n: f"{tag}-{n}"
    code, out = pull(store("anonymous"), reference, **ca)
    check(f"{tag}_anonymous", code == 8 and "docker login" in out, out)
    code, out = pull(store("wrong"), reference, USERNAME=USER, PASSWORD="wrong", **ca)
    check(f"{tag}_wrong_password", code == 8 and "refuses the user name and password" in out, out)
    code, out = pull(store("options"), reference, USERNAME=USER, PASSWORD=PASSWORD, **ca)
    check(f"{tag}_options", code == 0, out)
    config(pull, auths={r.address: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}})
    code, out = pull(store("auths"), reference, **ca)
    check(f"{tag}_docker_config", code == 0, out)
    file = os.path.join(pull.home, ".docker/config.json")
    before = len(r.requests())
    code, out = pull(store("auths"), reference, POLICY="always", AGAIN="1", **ca)
    check(f"{tag}_same_configuration_is_the_same_user", code == 0 and [s for m, p, s in r.requests()[before:]] == [401, 200, 200], out)
    code, out = pull(store("auths"), reference, POLICY="always", AGAIN="1", REMOVE=file, **ca)
    check(f"{tag}_logged_out_between_pulls", code == 8 and "docker login" in out, out)
    config(pull, auths={r.address: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}})
    before, tokens = len(r.requests()), len(r.tokens.requests) if r.tokens else 0
    code, out = pull(store("options"), reference, POLICY="always", AGAIN="1", USERNAME=USER, PASSWORD=PASSWORD, **ca)
    new = [(m, s) for m, p, s in r.requests()[before:]]
    check(f"{tag}_second_pull_of_a_client_asks_once", code == 0 and new == [("HEAD", 401), ("HEAD", 200), ("HEAD", 200)] and
          (not r.tokens or len(r.tokens.requests) == tokens + 1), f"{new} {out}")
    bin_dir = os.path.join(pull.folder, "bin")
    os.makedirs(bin_dir, exist_ok=True)
    with open(os.path.join(bin_dir, "docker-credential-test"), "w") as f:
        f.write('#!/bin/sh\nread -r server\n[ "$1 $server" = "get ' + r.address + '" ] || exit 3\n'
                f"printf '%s' '{json.dumps({'Username': USER, 'Secret': PASSWORD})}'\n")
    os.chmod(os.path.join(bin_dir, "docker-credential-test"), 0o755)
    config(pull, credHelpers={r.address: "test"})
    code, out = pull(store("helper"), reference, PATH=bin_dir + ":" + os.environ["PATH"], **ca)
    check(f"{tag}_credential_helper", code == 0, out)
    shutil.rmtree(os.path.join(pull.home, ".docker"))


def test_auth(binary, folder, names):
    pull = Puller(binary, folder)
    with Registry(os.path.join(folder, "basic"), auth="basic") as r:
        r.push(names["multi"], "test/multi:1")
        auth_cases("basic", r, pull, f"{r.address}/test/multi:1")
    with Registry(os.path.join(folder, "tls"), tls=True) as r:
        r.push(names["multi"], "test/multi:1")
        code, out = pull("tls-unknown", f"{r.address}/test/multi:1")
        check("tls_unknown_authority", code == 8 and "certificate" in out, out)
        check("tls_unknown_authority_sends_no_request", [x for x in r.requests() if x[0] == "GET" and "manifests" in x[1]] == [])
        code, out = pull("tls", f"{r.address}/test/multi:1", CA_FILE=r.ca)
        check("tls_with_authority", code == 0, out)
        code, out = pull("tls-env", f"{r.address}/test/multi:1", SSL_CERT_FILE=r.ca)
        check("tls_with_SSL_CERT_FILE", code == 0, out)
    with Registry(os.path.join(folder, "token"), tls=True, auth="token") as r:
        r.push(names["multi"], "test/multi:1")
        r.push(names["hundred"], "test/hundred:1")
        auth_cases("token", r, pull, f"{r.address}/test/multi:1")
        config(pull, auths={r.address: {"identitytoken": r.tokens.refresh}})
        code, out = pull("token-identity", f"{r.address}/test/multi:1", CA_FILE=r.ca)
        check("token_identity", code == 0 and any(x[0] == "POST" and "refresh_token" in x[1] for x in r.tokens.requests), out)
        shutil.rmtree(os.path.join(pull.home, ".docker"))
        before = len(r.tokens.requests)
        code, out = pull("token-once", f"{r.address}/test/hundred:1", USERNAME=USER, PASSWORD=PASSWORD, CA_FILE=r.ca)
        check("token_is_fetched_once", code == 0 and len(r.tokens.requests) == before + 1, f"{r.tokens.requests[before:]} {out}")
        r.tokens.seconds = 1
        before = len(r.tokens.requests)
        code, out = pull("token-short", f"{r.address}/test/big:1", USERNAME=USER, PASSWORD=PASSWORD, CA_FILE=r.ca)
        check("no_such_image_behind_tokens", code == 8, out)
        code, out = pull("token-short", f"{r.address}/test/hundred:1", USERNAME=USER, PASSWORD=PASSWORD, CA_FILE=r.ca)
        check("short_tokens_are_renewed", code == 0 and len(r.tokens.requests) > before + 1, out)


def main():
    folder = tempfile.mkdtemp(prefix="cc-pull-")
    try:
        binary = build_pull(folder)
        names = images(folder)
        pull = Puller(binary, folder)
        with Registry(os.path.join(folder, "plain")) as r:
            for name in ("multi", "hundred", "arch", "big"):
                r.push(names[name], f"test/{name}:1")
            r.push(names["multi"], "test/multi:2")
            test_plain(r, pull, folder, names)
            test_platform(r, pull, names)
            test_never(r, pull, names)
            test_errors(r, pull)
            test_resume(r, pull, names)
            test_cancel(r, pull)
            test_nothing_is_read_afterwards(r, pull)
            test_killed_at_random(r, pull)
            test_together(r, pull, names)
            test_damaged(r, pull, names)
        test_auth(binary, folder, names)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
