#!/bin/sh
# The library as one file: builds with nothing beside it, keeps its names to itself, and its API half is C99 and C++.
# @timeout 600
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
status=0
W="-Wall -Wextra -Wshadow -Wconversion -Werror"

# case NAME COMMAND...: one line of result, with the command's output when it fails
case_() {
    name=$1
    shift
    if "$@" >"$dir/log" 2>&1; then
        echo "ok $name"
    else
        echo "not ok $name"
        sed 's/^/# /' "$dir/log" | head -n 40
        status=1
    fi
}

case_ amalgamate "$root/amalgamate.py" -o "$dir/cc.h"
mkdir "$dir/empty"
cp "$dir/cc.h" "$dir/empty/"
cd "$dir/empty" || exit 2

cat >app.c <<'C'
#include <stdio.h>
#define CC_IMPLEMENTATION
#include "cc.h"
int main(void)
{
    cc_error err = {0};
    cc_init();
    cc_error_code code = cc_supports_hypervisor(&err);
    printf("%s %s\n", cc_api_version(), code == CC_OK ? "hypervisor" : err.message);
    cc_error_free(&err);
    cc_shutdown();
    return code == CC_OK || code == CC_ERR_HYPERVISOR_UNAVAILABLE ? 0 : 1;
}
C
for cc in gcc clang; do
    for o in -O0 -O2; do
        case_ "app with $cc $o" sh -c "$cc $o app.c -lpthread -o app && ./app"
        case_ "no warnings with $cc $o -std=c11" $cc -std=c11 $o $W -c app.c -o app.o
    done
    case_ "after _GNU_SOURCE with $cc" $cc -std=gnu11 -D_GNU_SOURCE $W -c app.c -o /dev/null
    case_ "private with CC_STATIC, $cc" sh -c "$cc -DCC_STATIC -Wno-unused-function -c app.c -o static.o &&
        test -z \"\$(nm -g --defined-only static.o | grep -v ' main\$')\""
done
case_ "without TLS" gcc -std=c11 -DCC_NO_TLS $W -c app.c -o no_tls.o
case_ "without TLS there is no BearSSL" sh -c '! nm no_tls.o | grep " br_" && nm app.o | grep -q " br_"'
case_ "with zstd" sh -c "gcc -std=c11 -DCC_WITH_ZSTD $W app.c -lpthread -lzstd -o zstd_app && ./zstd_app"
case_ "every external symbol begins with cc_" sh -c 'nm -g app.o | grep -q " T cc_init$" && ! nm -g --defined-only app.o | grep -v " T main$" | grep -v "^[0-9a-f]* [A-Z] cc_"'

# Macros: what is defined after our header, less what the system headers that it includes define.
# Those of other processors and systems are not here.
grep -h '^#include <' cc.h | sort -u | grep -v -e cpuid -e intrin -e arm_neon -e '<win' -e '<CoreFoundation/' -e '<Security/' >system.h
{ cat system.h; grep -h '^#include <\(cpuid\|immintrin\|x86intrin\).h>' cc.h | sort -u; } >system.c
printf '#define CC_IMPLEMENTATION\n#include "cc.h"\n' >ours.c
case_ "every macro begins with CC_ or CCI_" sh -c '
    gcc -std=c11 -dM -E system.c | sed "s/(.*//" | awk "{print \$2}" | sort -u >system.macros &&
    gcc -std=c11 -dM -E ours.c | sed "s/(.*//" | awk "{print \$2}" | sort -u >our.macros &&
    ! comm -13 system.macros our.macros | grep -v "^CC_\|^CCI_"'

# The declarations alone, in other languages; and with the implementation in another file.
printf '#include "cc.h"\nint main(void) { return cc_api_version_compatible(0, 1) ? 0 : 1; }\n' >user.c
cp user.c user.cc
printf '#define CC_IMPLEMENTATION\n#include "cc.h"\n#include "cc.h"\n' >impl.c
case_ "implementation twice in one file" gcc -std=c11 $W -c impl.c -o impl.o
case_ "API as C99" sh -c "gcc -std=c99 -pedantic $W user.c impl.o -lpthread -o user && ./user"
case_ "API as C11, clang" clang -std=c11 -pedantic $W -c user.c -o /dev/null
case_ "API as C++98" sh -c "g++ -std=c++98 -pedantic -Wno-long-long -Wall -Wextra -Werror user.cc impl.o -lpthread -o user && ./user"
case_ "API as C++20" g++ -std=c++20 -pedantic -Wall -Wextra -Werror -c user.cc -o /dev/null
case_ "API for Windows" x86_64-w64-mingw32-gcc -std=c99 -pedantic $W -c user.c -o /dev/null

# From a checkout, with nothing generated.
cd "$root" || exit 2
case_ "a checkout works as it is" sh -c "cd '$dir' && gcc -I'$root' empty/app.c -lpthread -lbearssl -o app2 && ./app2"
exit $status
