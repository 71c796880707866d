#!/bin/sh
# The examples in a guest: built from a checkout, in C and with every warning, and what they print.
# @vm
# @timeout 120
# @kernel own
# @setup tools/mkimage busybox build/tests/busybox.tar
# @setup gcc -std=c11 -Wall -Wextra -Wshadow -Wconversion -Werror -I. examples/complete.c -o build/tests/complete -lpthread -l:libbearssl.a
# @setup gcc -std=c11 -Wall -Wextra -Wshadow -Wconversion -Werror -I. examples/hello.c -o build/tests/hello -lpthread -l:libbearssl.a
# @setup tools/mkimage gcc build/tests/gcc.tar
# @setup cc -std=c11 -O1 -I. tools/crumble.c -o build/tests/crumble -lpthread -l:libbearssl.a
# @setup CC_CACHE_DIR=build/tests/gcc-cache build/tests/crumble load build/tests/gcc.tar >/dev/null
# @setup gcc -std=c11 -Wall -Wextra -Wshadow -Wconversion -Werror -I. examples/build.c -o build/tests/build -lpthread -l:libbearssl.a
set -u
status=0

# expect NAME TEXT WANT: one line of result
expect() {
    if [ "$2" = "$3" ]; then
        echo "ok $1"
    else
        echo "not ok $1"
        echo "# got: $2" | head -n 20
        status=1
    fi
}

out=$(build/tests/complete build/tests/busybox.tar 2>&1)
expect "complete.c succeeds" $? 0
expect "complete.c prints" "$out" "Loading build/tests/busybox.tar...
Creating instance...
File contents: Hello from C!
Users:
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
Exit code: 0"
out=$(build/tests/complete /no/such.tar 2>&1)
expect "complete.c fails without an image" $? 1
expect "complete.c says why" "$(echo "$out" | grep -c '(load_tar /no/such.tar)')" 1
out=$(build/tests/hello build/tests/busybox.tar sh -c 'echo hello; exit 3' 2>&1)
expect "hello.c gives the command's exit code" $? 3
expect "hello.c prints the command's output" "$out" hello

# build.c: the project is on this host and read-only in the guest; what comes back runs here, and nothing else has changed.
top=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/project"
cp -r build/tests/gcc-cache "$work/cache" # the image is unpacked already: that takes minutes in an emulated machine
cat >"$work/project/Makefile" <<'END'
greet: greet.c
	$(CC) -Wall -Werror -static -o $@ $<
END
cat >"$work/project/greet.c" <<'END'
#include <stdio.h>
int main(void) { return puts("built in a guest") < 0; }
END
cd "$work"
out=$(CC_CACHE_DIR="$work/cache" "$top/build/tests/build" "$top/build/tests/gcc.tar" project greet 2>"$work/errors")
expect "build.c succeeds" $? 0
expect "build.c passes on what make prints" "$out" "make: Entering directory '/build'
cc -Wall -Werror -static -o greet greet.c
make: Leaving directory '/build'"
cat "$work/errors"
expect "the program that was built runs here" "$(./greet)" "built in a guest"
expect "the project's directory is as it was" "$(ls project)" "Makefile
greet.c"
exit $status
