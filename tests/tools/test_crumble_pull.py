#!/usr/bin/env python3
"""crumble pull from a real registry on loopback: what it prints, its progress on a terminal and elsewhere, and signals.
@timeout 180
"""
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "registry"))
from registry import PASSWORD, ROOT, USER, Layout, Registry, run  # noqa: E402
from test_pull import Cutter, noise  # noqa: E402

failures = 0


def check(name, ok, why=""):
    global failures
    print(("ok " if ok else "not ok ") + name, flush=True)
    if not ok:
        failures += 1
        print("# " + str(why).strip().replace("\n", "\n# "))


class Crumble:
    def __init__(self, folder):
        self.folder, self.binary = folder, os.path.join(folder, "crumble")
        self.env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k not in ("DOCKER_CONFIG", "SSL_CERT_FILE")}
        self.env.update(HOME=folder, CC_CACHE_DIR=os.path.join(folder, "cache"))
        run("gcc", "-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I" + ROOT,
            os.path.join(ROOT, "tools/crumble.c"), "-o", self.binary, "-lpthread", "-l:libbearssl.a")

    def __call__(self, *args):
        """(exit status, output, messages)"""
        r = subprocess.run([self.binary, *args], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=self.env, timeout=60)
        return r.returncode, r.stdout, r.stderr

    def start(self, *args, **options):
        return subprocess.Popen([self.binary, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env=self.env, **options)

    def on_terminal(self, columns, *args):
        """(exit status, what the terminal got)"""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        p = subprocess.Popen([self.binary, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=self.env)
        os.close(theirs)
        text = b""
        while True:
            try:
                text += os.read(ours, 65536)
            except OSError:  # nobody has the other end any more
                break
        os.close(ours)
        return p.wait(60), text.decode()

    def forget(self):
        shutil.rmtree(self.env["CC_CACHE_DIR"], ignore_errors=True)


def images(folder, r):
    """app:1, app:2, two platforms in one, and one that is large; returns the digests by name."""
    l = Layout(os.path.join(folder, "layout"))
    base = l.layer({"bin/data": noise(1, 2 << 20)})
    one = l.image([base], Env=["V=1"])
    two = l.image([base, l.layer({"two": b"2\n"})], Env=["V=2"])
    many = l.many([l.image([base], arch="arm64"), l.image([base], arch="amd64", User="5")])
    big = l.image([l.layer({"big": noise(7, 12 << 20)})])
    found = {"app:1": one, "app:2": two, "many:1": many, "big:1": big}
    for name, descriptor in found.items():
        r.push(l.tag(descriptor, name.replace(":", "")), "test/" + name)
    r.push(f"oci:{l.folder}:app1", "test/app:moves")
    return {name: d["digest"] for name, d in found.items()}, l


def said(digest, status, name):
    return f"Digest: {digest}\nStatus: {status} for {name}\n{name}\n"


def test_words(crumble, r, digests, layout):
    new, same = "Downloaded newer image", "Image is up to date"
    name = f"{r.address}/test/app:moves"
    code, out, err = crumble("pull", name)
    check("a first pull", (code, out) == (0, said(digests["app:1"], new, name)), out + err)
    lines = err.splitlines()
    check("progress in plain lines", lines and all(re.fullmatch(r" *\d+ %  \S+ \S?B of \S+ MB  .*", x) for x in lines), err)
    check("which end at all of it", lines and lines[-1].startswith("100 %  2.1 MB of 2.1 MB"), err)
    code, out, err = crumble("pull", name)
    check("the same again is up to date", (code, out, err) == (0, said(digests["app:1"], same, name), ""), out + err)
    r.push(f"oci:{layout.folder}:app2", "test/app:moves")
    code, out, err = crumble("pull", name)
    check("the tag moved", (code, out) == (0, said(digests["app:2"], new, name)), out + err)
    code, out, err = crumble("pull", "-q", name)
    check("quiet", (code, out, err) == (0, name + "\n", ""), out + err)
    by_digest = f"{r.address}/test/app@{digests['app:1']}"
    code, out, err = crumble("pull", by_digest)
    check("by digest", (code, out) == (0, said(digests["app:1"], new, by_digest)), out + err)
    many = f"{r.address}/test/many:1"
    for platform, arch in ((), "amd64"), (("--platform", "linux/arm64"), "arm64"):
        code, out, err = crumble("pull", *platform, many)
        check(f"{arch} of an index: the digest is the index's", (code, out) == (0, said(digests["many:1"], new, many)), out + err)
        code, out, err = crumble("inspect", *platform, many)
        check(f"{arch} is what inspect finds", code == 0 and f'"Architecture": "{arch}"' in out, out + err)
    code, out, err = crumble("pull", f"{r.address}/test/none:1")
    check("no such image", code == 1 and out == "" and "there is no image" in err and len(err.splitlines()) == 1, out + err)


def test_care(crumble, r):
    code, out, err = crumble("images")
    check("listed", code == 0 and len(out.splitlines()) == 5 and "linux/arm64" in out, out + err)
    layers = os.path.join(crumble.env["CC_CACHE_DIR"], "layers")
    for layer in os.listdir(layers):
        shutil.rmtree(os.path.join(layers, layer))
    code, out, err = crumble("images")
    check("a damaged one is called that", code == 0 and out.count("damaged") == 4, out + err)
    name = f"{r.address}/test/app:moves"
    code, out, err = crumble("pull", name)
    check("a pull mends it", code == 0 and "Downloaded newer" in out, out + err)
    code, out, err = crumble("rm", name, f"{r.address}/test/many:1")
    check("rm by reference, of all platforms", (code, out) == (0, f"{name}\n{r.address}/test/many:1\n"), out + err)
    code, out, err = crumble("images", "-q")
    check("leaves the other", code == 0 and len(out.splitlines()) == 1, out + err)
    code, again, err = crumble("rm", out[7:19])
    check("rm by the first digits of its ID", code == 0 and crumble("images", "-q") == (0, "", ""), again + err)


def test_terminal(crumble, r):
    code, text = crumble.on_terminal(100, "pull", f"{r.address}/test/big:1")
    shown, _, rest = text.replace("\r\n", "\n").partition("\n")
    steps = shown.split("\r")[1:]
    check("a bar on a terminal", code == 0 and steps and
          all(re.fullmatch(r"\[#* *\] *\d+ %  .*\x1b\[K", x) and x.index("]") == 31 for x in steps), repr(text))
    check("full at the end", steps and steps[-1].startswith("[" + "#" * 30 + "] 100 %  13 MB of 13 MB"), repr(text))
    check("then the words", rest.startswith("Digest: "), repr(text))
    crumble.forget()
    code, text = crumble.on_terminal(20, "pull", "-q", f"{r.address}/test/big:1")
    check("quiet on a terminal", code == 0 and text == f"{r.address}/test/big:1\r\n", repr(text))
    crumble.forget()
    code, text = crumble.on_terminal(30, "pull", f"{r.address}/test/big:1")
    steps = text.split("\r\n")[0].replace("\x1b[K", "").split("\r")
    check("no line is longer than the terminal is wide", code == 0 and len(steps) > 1 and max(map(len, steps)) <= 29, repr(text))
    crumble.forget()


def start_held(crumble, hold, command, **options):
    """Starts a pull or run; (process, whether it stands still in the middle of a layer)."""
    sent = hold.sent
    p = crumble.start(command, f"{hold.address}/test/big:1", **options)
    with hold.changed:
        there = hold.changed.wait_for(lambda: hold.sent >= sent + (1 << 20), 30)
    return p, p.poll() is None and there


def test_signals(crumble, r):
    hold = Cutter(r, 1 << 20, 1000, hold=True)
    for number, status in (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129):
        p, in_the_middle = start_held(crumble, hold, "pull")
        start = time.monotonic()
        p.send_signal(number)
        out, err = p.communicate(timeout=30)
        took = time.monotonic() - start
        check(f"{number.name} ends a pull at once", in_the_middle and p.returncode == status and took < 20, f"{p.returncode} {took} {err}")
        check(f"{number.name} is not called a failure", out == "" and "crumble:" not in err, out + err)
    p, in_the_middle = start_held(crumble, hold, "run")
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=30)
    check("SIGINT ends the pull of a run", in_the_middle and p.returncode == 130, p.returncode)
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    p, in_the_middle = start_held(crumble, hold, "pull", preexec_fn=ignore)
    p.send_signal(signal.SIGINT)
    hold.left = 0  # the rest comes at once
    hold.over.set()
    out, err = p.communicate(timeout=30)
    check("a SIGINT that is ignored stays so", in_the_middle and p.returncode == 0, f"{p.returncode} {err}")
    crumble("rm", f"{hold.address}/test/big:1")
    hold.close()
    check("the cache is whole", crumble("images") == (0, crumble("images")[1], "") and crumble("prune")[0] == 0)
    code, out, err = crumble("pull", f"{r.address}/test/big:1")
    check("a pull gets it then", code == 0 and out.startswith("Digest: "), out + err)


def test_access(crumble, folder, layout):
    with Registry(os.path.join(folder, "tls"), tls=True, auth="basic") as r:
        name = f"{r.address}/test/app:1"
        r.push(f"oci:{layout.folder}:app1", "test/app:1")
        code, out, err = crumble("pull", "--creds", f"{USER}:{PASSWORD}", name)
        check("an unknown authority", code == 1 and "certificate" in err, out + err)
        code, out, err = crumble("pull", "--ca-file", r.ca, name)
        check("no password", code == 1 and "docker login" in err, out + err)
        code, out, err = crumble("pull", f"--ca-file={r.ca}", "--creds", f"{USER}:{PASSWORD}", name)
        check("TLS and a password", code == 0 and out.endswith(name + "\n"), out + err)


def main():
    folder = tempfile.mkdtemp(prefix="cc-crumble-")
    try:
        crumble = Crumble(folder)
        with Registry(os.path.join(folder, "plain")) as r:
            digests, layout = images(folder, r)
            test_words(crumble, r, digests, layout)
            test_care(crumble, r)
            test_terminal(crumble, r)
            test_signals(crumble, r)
        test_access(crumble, folder, layout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
