#!/usr/bin/env python3
"""crumble run passes on streams, signals and a terminal while the command runs.
@vm
@timeout 120
@kernel own
@setup mkdir -p build/tests
@setup tools/mkimage busybox build/tests/busybox.tar
@setup cc -std=c11 -O1 -I. tools/crumble.c -o build/tests/crumble -lpthread -l:libbearssl.a
"""
import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build/tests")
IMAGE = os.path.join(BUILD, "busybox.tar")
failures = 0


def check(name, ok, why=""):
    global failures
    print(("ok " if ok else "not ok ") + name, flush=True)
    if not ok:
        failures += 1
        print("# " + str(why).strip().replace("\n", "\n# "))


def start(*args, **streams):
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([os.path.join(BUILD, "crumble"), "run", *args], **streams)


def test_streams():
    p = start("-i", IMAGE, "sh", "-c", "echo one; read x; echo got $x; echo wrong >&2")
    check("output comes while the command runs", p.stdout.readline() == b"one\n")
    p.stdin.write(b"two\n")
    p.stdin.flush()
    out, err = p.communicate(timeout=30)
    check("input reaches it, and the two outputs stay two", (p.returncode, out, err) == (0, b"got two\n", b"wrong\n"), f"{out} {err}")
    data = os.urandom(1 << 20) * 3
    p = start("-i", IMAGE, "cat")
    out, err = p.communicate(data, timeout=60)
    check("3 MiB there and back", p.returncode == 0 and hashlib.sha256(out).digest() == hashlib.sha256(data).digest(), f"{len(out)} {err}")
    p = start(IMAGE, "sh", "-c", "cat; echo end")  # the writing end of its input stays open
    check("without -i the input is empty", p.stdout.read() == b"end\n" and p.wait(30) == 0)
    p.stdin.close()
    p = start(IMAGE, "yes")
    first = p.stdout.read(4)
    p.stdout.close()
    err = p.stderr.read()
    check("nobody reads any more", (first, p.wait(30), err) == (b"y\ny\n", 128 + signal.SIGPIPE, b""), f"{p.returncode} {err}")
    p = start("--timeout", "3", IMAGE, "sleep", "1000")
    out, err = p.communicate(timeout=60)
    check("--timeout", p.returncode == 124 and b"time" in err, f"{p.returncode} {err}")


def test_signals():
    p = start(IMAGE, "sh", "-c", "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
    ready = p.stdout.readline()
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=30)
    check("a signal is the command's", (ready, p.returncode, out) == (b"ready\n", 9, b"caught\n"), f"{p.returncode} {out} {err}")
    for number in signal.SIGINT, signal.SIGUSR1:
        p = start(IMAGE, "sh", "-c", "echo ready; exec sleep 1000")
        p.stdout.readline()
        p.send_signal(number)
        out, err = p.communicate(timeout=30)
        check(f"{number.name} ends a command that does not care", (p.returncode, err) == (128 + number, b""), f"{p.returncode} {err}")
    p = start(IMAGE, "sh", "-c", "trap 'echo again' INT; echo ready; while :; do sleep 0.1; done")
    said = [p.stdout.readline()]
    for _ in range(2):
        p.send_signal(signal.SIGINT)
        said.append(p.stdout.readline())
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=30)
    check("the third ends one that goes on", said == [b"ready\n", b"again\n", b"again\n"] and p.returncode == 130, f"{said} {p.returncode}")


class Terminal:
    """A run on a terminal of 50 columns and 20 rows."""

    def __init__(self, *args):
        self.ours, self.theirs = pty.openpty()
        self.resize(50, 20)
        self.before = termios.tcgetattr(self.theirs)
        self.text = b""
        self.p = subprocess.Popen([os.path.join(BUILD, "crumble"), "run", *args], stdin=self.theirs, stdout=self.theirs,
                                  stderr=self.theirs)

    def resize(self, columns, rows):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text):
        """Reads until that has come."""
        while text not in self.text:
            if not select.select([self.ours], [], [], 30)[0]:
                raise SystemExit(f"{text!r} did not come; what came is {self.text!r}")
            self.text += os.read(self.ours, 4096)
        self.text = self.text.split(text, 1)[1]

    def type(self, text):
        os.write(self.ours, text)

    def end(self):
        """(exit status, whether the terminal is as it was)"""
        code = self.p.wait(30)
        same = termios.tcgetattr(self.theirs) == self.before
        os.close(self.theirs)
        os.close(self.ours)
        return code, same


def test_terminal():
    t = Terminal("-it", IMAGE, "sh")
    t.until(b"# ")
    t.type(b"stty size; echo $TERM; tty\n")
    t.until(b"20 50\r\nxterm\r\n/dev/pts/")
    check("a terminal of the same size", True)
    t.resize(70, 30)
    t.p.send_signal(signal.SIGWINCH)  # no session leads this terminal here, so that nobody is told by itself
    t.type(b"until [ \"$(stty size)\" = '30 70' ]; do sleep 0.1; done; echo fol''lows\n")
    t.until(b"follows\r\n")
    check("which follows", True)
    t.type(b"\nsleep 1000\n")
    t.until(b"sleep 1000\r\n")
    t.type(b"\x03")
    t.until(b"# ")
    t.type(b"echo $?; exit 7\n")
    t.until(b"130\r\n")
    check("^C is the command's", True)
    check("the exit status, and the terminal is as it was", t.end() == (7, True))
    t = Terminal("-t", IMAGE, "sh", "-c", "test -t 1 && echo yes; exit 3")
    t.until(b"yes\r")
    check("-t alone", t.end() == (3, True))
    p = start("-it", IMAGE, "true")
    out, err = p.communicate(timeout=30)
    check("-it without a terminal", p.returncode == 125 and b"terminal" in err, err)


def main():
    with tempfile.TemporaryDirectory(prefix="cc-crumble-") as folder:
        os.environ["CC_CACHE_DIR"] = folder
        test_streams()
        test_signals()
        test_terminal()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
