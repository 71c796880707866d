#!/bin/sh
# The agent as PID 1, under our own kernel and under the distribution's: mounts, identity, files, what a workload can do.
# @timeout 300
set -u
cd "$(dirname "$0")/../.." || exit 2
dir=build/tests/guest
mkdir -p $dir
status=0
if ! tools/mkimage busybox $dir/busybox.tar >$dir/log 2>&1 ||
    ! ${CC:-cc} -std=c11 -O1 -Wall -Wextra -I. tests/guest/in_guest.c -o $dir/in_guest -lpthread -lbearssl >>$dir/log 2>&1 ||
    ! ${CC:-cc} -O1 -I. tests/kvmprobe.c -o $dir/kvmprobe -lpthread -lbearssl >>$dir/log 2>&1 ||
    ! musl-gcc -static -Os -idirafter /usr/include -idirafter "/usr/include/$(uname -m)-linux-gnu" tests/guest/poke.c -o $dir/poke >>$dir/log 2>&1; then
    echo "not ok build"
    sed 's/^/# /' $dir/log | head -n 40
    exit 1
fi
where=
$dir/kvmprobe >/dev/null 2>&1 || where="tools/rig --timeout 250"

for kernel in guest stock; do
    if ! bundle=$(tools/kernel path --cached $kernel 2>/dev/null); then
        echo "skip kernel_$kernel: not in the cache (tools/kernel path $kernel)"
        continue
    fi
    # shellcheck disable=SC2016
    $where sh -c 'mkdir -p /tmp/cc-guest && CC_KERNEL=$1 CC_CACHE_DIR=/tmp/cc-guest exec "$2/in_guest" "$2/busybox.tar" "$2/poke"' \
        sh "$bundle" "$dir" >$dir/out 2>&1 </dev/null || status=1
    sed "s/^\(ok\|not ok\|skip\) test_/\1 ${kernel}_/" $dir/out
    grep -q "^ok test_power_off" $dir/out || { echo "not ok kernel_$kernel"; status=1; }
done
exit $status
