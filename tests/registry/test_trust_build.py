#!/usr/bin/env python3
"""trust_windows.h with Windows' own headers, as it stands in dist/cc.h behind BearSSL's sources: no warning, and a
program of it needs nothing beside crypt32. It is not run: that takes a Windows.
"""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "lib"))
import bearssl  # noqa: E402

CC = ["x86_64-w64-mingw32-gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-unused-function", "-Werror"]
PROGRAM = """
int main(void)
{
    struct cci_trust *t = cci_mem_zalloc(1, sizeof(*t));
    cc_error err = {0};
    if (!t || cci_trust_add_system(t, &err) != CC_OK)
        return 1;
    printf("%u\\n", (unsigned)t->count);
    cci_trust_free(t);
    return 0;
}
"""
failed = 0


def case(name, good, text=""):
    global failed
    print(("ok " if good else "not ok ") + name)
    if not good:
        failed += 1
        print("\n".join("# " + line for line in text.splitlines()[:20]))


def main():
    with tempfile.TemporaryDirectory() as work:
        def path(name):
            return os.path.join(work, name)
        region, end = bearssl.region()
        with open(path("bearssl.h"), "w") as f:
            f.write("\n".join(["#ifndef REGION", "#define REGION", "#include <stddef.h>", "#include <stdint.h>", "#include <string.h>"]
                              + region + ["#endif", ""]))
        with open(path("app.c"), "w") as f:
            f.write('#include "src/registry/trust_windows.h"\n' + "\n".join(end) + "\n" + PROGRAM)
        with open(path("windows_first.c"), "w") as f:
            f.write('#include <windows.h>\n#include "src/registry/trust_windows.h"\n' + PROGRAM)
        for source in ("app", "windows_first"):
            r = subprocess.run(CC + ["-I" + ROOT, "-I" + work, "-c", path(source + ".c"), "-o", path(source + ".o")],
                               capture_output=True, text=True)
            case(f"{source}.c compiles for Windows", r.returncode == 0, r.stderr)
        for libraries, wanted in ((["-lcrypt32"], True), ([], False)):
            r = subprocess.run([CC[0], path("app.o"), "-o", path("app.exe")] + libraries, capture_output=True, text=True)
            case("it links with -lcrypt32" if wanted else "it does not link without", (r.returncode == 0) == wanted, r.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
