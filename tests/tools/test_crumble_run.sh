#!/usr/bin/env bash
# @vm
# @timeout 200
# @kernel own
# @setup mkdir -p build/tests
# @setup tools/mkimage busybox build/tests/busybox.tar
# @setup cc -std=c11 -O1 -I. tools/crumble.c -o build/tests/crumble -lpthread -l:libbearssl.a
# crumble run: output, exit status, and what its options do to the command.
set -u
cd "$(dirname "$0")/../.."
crumble=$PWD/build/tests/crumble
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CC_CACHE_DIR=$work/cache

check() {
    local name=$1
    shift
    if "$@"; then echo "ok $name"; else echo "not ok $name"; fi
}
run() { # arguments of run; the output and status are in $out and $status
    out=$("$crumble" run "$@" 2>"$work/err")
    status=$?
    [ $status -lt 125 ] || sed 's/^/# /' "$work/err"
}
is() { [ "$out/$status" = "$1" ] || { echo "# got: $out/$status"; return 1; }; }

"$crumble" load ./build/tests/busybox.tar >/dev/null
run cc/busybox echo hello
check "a command's output" is hello/0
run --rm -eA=1 --env B=2 --workdir=/etc -u 5:6 cc/busybox sh -c 'echo $A$B $PWD $(id -u):$(id -g); exit 7'
check "environment, directory, user, exit status" is "12 /etc 5:6/7"
run --memory 512m --cpus 2 cc/busybox sh -c 'nproc; [ $(sed -n "s/MemTotal: *\([0-9]*\) kB/\1/p" /proc/meminfo) -gt 400000 ] && echo enough'
check "memory and processors" is $'2\nenough/0'
run --disk-size 64m cc/busybox sh -c 'size=$(df -m / | awk "NR == 2 { print \$2 }"); [ $size -gt 40 ] && [ $size -le 64 ] && echo small'
check "the size of what can be written" is small/0
mkdir "$work/share" && echo there >"$work/share/file"
run -v "$work/share:/mnt/a" -v "$work/share:/mnt/b:ro" -v /mnt/empty cc/busybox sh -c \
    'cat /mnt/a/file; echo back >/mnt/a/new; (echo x >/mnt/b/file) 2>/dev/null || echo kept; ls -A /mnt/empty | wc -l'
check "directories of this host, and an empty one" is $'there\nkept\n0/0'
check "what was written is on this host" test "$(cat "$work/share/new" "$work/share/file")" = $'back\nthere'
out=$(cd "$work" && "$crumble" run -v ./share:/mnt cc/busybox cat /mnt/file)
check "a relative one" test "$out" = there
run -v "$work/nothing:/mnt" cc/busybox true
check "one that is not there: 125" is /125
run -v name:/mnt cc/busybox true
check "a volume by a name: 125" is /125
run cc/busybox nothing-of-that-name
check "a command that is not there: 127" is /127
run cc/busybox /etc
check "one that cannot be executed: 126" is /126
run cc/busybox sh -c 'kill -9 $$'
check "one that a signal ends: 128 + 9" is /137
run --entrypoint /bin/echo cc/busybox x
check "another entrypoint" is x/0
run ./build/tests/busybox.tar echo from-a-file
check "an image by its path" is from-a-file/0
run --kernel /nonexistent cc/busybox true
check "no kernel: 125" is /125
