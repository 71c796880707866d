#!/bin/sh
# examples/complete.c in a guest: built from a checkout, in C and with every warning, and what it prints.
# @vm
# @timeout 60
# @kernel own
# @setup tools/mkimage busybox build/tests/busybox.tar
# @setup gcc -std=c11 -Wall -Wextra -Wshadow -Wconversion -Werror -I. examples/complete.c -o build/tests/complete -lpthread -l:libbearssl.a
# @setup gcc -std=c11 -Wall -Wextra -Wshadow -Wconversion -Werror -I. examples/hello.c -o build/tests/hello -lpthread -l:libbearssl.a
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
exit $status
