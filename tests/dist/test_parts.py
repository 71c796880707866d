#!/usr/bin/env python3
"""Every part compiles alone, with each compiler; those that know no POSIX also for Windows, and all also for arm64.

A part for Windows compiles for Windows alone. One for macOS is compiled against the fake of its headers that its test
has.
@timeout 300
"""
import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WARN = ["-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-unused-function", "-Werror", "-fsyntax-only", "-x", "c"]
PARTS = sorted(os.path.relpath(p, ROOT) for p in glob.glob(ROOT + "/src/*/*.h") + glob.glob(ROOT + "/cc_impl_*.h"))
POSIX = re.compile(r"(^|/)(os|loop|os_\w+|loop_\w+)\.h$")  # whoever reaches these knows the operating system
LIBRARY = re.compile(r"/unzstd_lib\.h$")  # needs a header that only this host has
WINDOWS, MACOS = re.compile(r"_windows\.h$"), re.compile(r"_macos\.h$")  # what only that system's compiler takes
FAKE_MACOS = "-Itests/registry/fake_macos"
ONE_CPU = {"x86": re.compile(r"_x86\.h$|/x86\.h$|cc_impl_kvm\.h$"), "arm": re.compile(r"_arm\.h$")}
BEARSSL = tempfile.TemporaryDirectory()  # for the compiler that does not look in /usr/include: BearSSL's headers alone


def copy_bearssl():
    shutil.copy("/usr/include/bearssl.h", BEARSSL.name)
    shutil.copytree("/usr/include/bearssl", os.path.join(BEARSSL.name, "bearssl"))


def includes(part, seen=None):
    """The parts that this one includes, itself among them."""
    seen = set() if seen is None else seen
    if part in seen or not os.path.exists(os.path.join(ROOT, part)):
        return seen
    seen.add(part)
    with open(os.path.join(ROOT, part), encoding="utf-8") as f:
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', f.read(), re.M):
            includes(os.path.normpath(os.path.join(os.path.dirname(part), name)), seen)
    return seen


def compiles(job):
    compiler, part = job
    more = ["-isystem", BEARSSL.name] if "mingw" in compiler else [FAKE_MACOS] if MACOS.search(part) else []
    r = subprocess.run([compiler] + WARN + more + [part], cwd=ROOT, capture_output=True, text=True)
    return job, r.returncode == 0, r.stderr


def main():
    reach = {p: includes(p) for p in PARTS}
    jobs = []
    copy_bearssl()
    for p in PARTS:
        if WINDOWS.search(p):
            jobs.append(("x86_64-w64-mingw32-gcc", p))
            continue
        needs_x86 = any(ONE_CPU["x86"].search(q) for q in [p])
        needs_arm = any(ONE_CPU["arm"].search(q) for q in [p])
        if not needs_arm:
            jobs += [("gcc", p), ("clang", p)]
            if not any(POSIX.search(q) for q in reach[p]) and not LIBRARY.search(p) and not MACOS.search(p):
                jobs.append(("x86_64-w64-mingw32-gcc", p))
        if not needs_x86 and not any(ONE_CPU["x86"].search(q) for q in reach[p] if "machine" in q or "cc_impl" in q):
            jobs.append(("aarch64-linux-gnu-gcc", p))
    failed = 0
    count = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (compiler, part), ok, text in pool.map(compiles, jobs):
            count[compiler] = count.get(compiler, 0) + 1
            if not ok:
                failed += 1
                print(f"not ok {part} alone with {compiler}\n" + "\n".join("# " + l for l in text.splitlines()[:12]))
    for compiler, n in sorted(count.items()):
        print(f"ok {n} parts looked at with {compiler}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
