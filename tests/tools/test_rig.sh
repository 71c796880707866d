#!/usr/bin/env bash
# @timeout 240
# What tools/rig promises: a command's output and status as if it ran here, with KVM, and nothing left behind.
set -u
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work" "build/rig-test.$$"' EXIT
rig=tools/rig

# check NAME CONDITION…: one line of output for one case.
check() {
    local name=$1
    shift
    if "$@"; then echo "ok $name"; else echo "not ok $name"; fi
}
same() { [ "$1" = "$2" ] || { echo "# got: $1"; echo "# not: $2"; return 1; }; }

# Whether a QEMU that was started with this mark in its environment is still alive.
mark=CC_RIG_TEST_MARK=$$.$RANDOM
export "${mark?}"
machine_left() {
    local one
    for one in /proc/[0-9]*/environ; do
        if grep -qsaF "$mark" "$one" && grep -qsa qemu-system "${one%environ}cmdline"; then return 0; fi
    done
    return 1
}
# Waits up to a minute for a condition: processes of others tell nobody when they begin or end.
within() {
    for _ in $(seq 600); do
        "$@" && return 0
        sleep 0.1
    done
    return 1
}
no_machine_left() { ! machine_left; }

started=$(CC_RIG_VERBOSE=1 $rig true 2>&1) || { echo "# $started"; echo "not ok the rig runs a command"; exit 1; }
echo "ok the rig runs a command"
echo "# $(CC_RIG_VERBOSE=1 $rig true 2>&1 | grep started)"

got=$($rig sh -c 'echo to stdout; echo to stderr >&2; exit 42' 2>"$work/err")
check "the exit status is the command's" same $? 42
check "standard output passes" same "$got" "to stdout"
check "standard error passes apart" same "$(cat "$work/err")" "to stderr"
$rig sh -c 'kill -TERM $$'
check "a signal is 128 and its number" same $? 143
$rig ./no-such-program 2>/dev/null
check "a missing program is 127" same $? 127
$rig ./README.md 2>/dev/null
check "a file that is no program is 126" same $? 126

want=$(seq 400000 | cksum)
check "megabytes of output arrive whole" same "$($rig seq 400000 | cksum)" "$want"
check "standard input passes with -i" same "$(seq 50000 | $rig -i cksum)" "$(seq 50000 | cksum)"
check "standard input is empty without -i" same "$(echo x | $rig cat)" ""
$rig seq 10000000 | head -n 1 >"$work/first"
check "a reader that goes ends the run" same "$(cat "$work/first")" 1

check "the directory is this one" same "$(cd tests && ../$rig pwd)" "$PWD/tests"
check "arguments arrive as given" same "$($rig printf '[%s]' '' 'a b' "c'd" '*' $'e\nf')" "[][a b][c'd][*]"$'[e\nf]'
check "CC_ variables pass" same "$(CC_SOME_NAME='a b' $rig sh -c 'echo "$CC_SOME_NAME $CC_RIG"')" "a b 1"
check "--env passes another" same "$(OTHER=x $rig --env OTHER --env NEW=y sh -c 'echo $OTHER$NEW')" xy
check "the files of the checkout are there" $rig cmp -s "$PWD/tools/riginit.c" tools/riginit.c
check "/dev/kvm makes a virtual machine" $rig python3 -c '
import fcntl, os
kvm = os.open("/dev/kvm", os.O_RDWR)
assert fcntl.ioctl(kvm, 0xae00) == 12
vm = fcntl.ioctl(kvm, 0xae01)
assert fcntl.ioctl(vm, 0xae41) >= 0'

mkdir -p "build/rig-test.$$"
$rig sh -c "echo written in the rig > build/rig-test.$$/file; echo lost > '$work/lost'"
check "build/ is written through" same "$(cat "build/rig-test.$$/file")" "written in the rig"
check "writes elsewhere stay inside" test ! -e "$work/lost"
mkdir "$work/shared"
$rig --share "$work/shared" sh -c "dd if=/dev/zero of='$work/shared/file' bs=1M count=3 2>/dev/null"
check "--share is written through" same "$(stat -c %s "$work/shared/file")" 3145728

one=$($rig head -c 16 /dev/urandom | cksum) two=$($rig head -c 16 /dev/urandom | cksum)
check "two runs draw different random numbers" test "$one" != "$two"
here=$(date +%s) there=$($rig date +%s)
check "the clock is right" test $((there - here)) -ge 0 -a $((there - here)) -le 20
check "the clock source is fine-grained" same "$($rig sh -c 'cat /sys/devices/system/clocksource/*/current_clocksource' |
    cut -c1-3)" tsc
check "processors as asked" same "$($rig --cpus 1 nproc)" 1

before=$(date +%s)
$rig --timeout 3 sleep 100 2>/dev/null
check "the time limit is 124" same $? 124
check "the time limit is kept" test $(($(date +%s) - before)) -le 12
check "nothing is left after a time limit" within no_machine_left

# INT, TERM and KILL: whatever ends tools/rig, QEMU goes with it. (A background process of a shell ignores INT.)
for signal in INT TERM KILL; do
    rm -f "build/rig-test.$$/up"
    python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.execvp(sys.argv[1], sys.argv[1:])' $rig sh -c "echo > build/rig-test.$$/up; sleep 100" &
    pid=$!
    within test -e "build/rig-test.$$/up"
    check "a machine runs before SIG$signal" machine_left
    kill -s $signal $pid
    wait $pid 2>/dev/null
    status=$?
    check "SIG$signal gives its status" same $status $((128 + $(kill -l $signal)))
    check "nothing is left after SIG$signal" within no_machine_left
done

# A cache of its own (the kernels lent): two first uses at once, then a spoiled saved machine.
cache=${CC_TOOLS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cc.h-tools}
mkdir "$work/cache"
ln -s "$cache/kernel" "$work/cache/kernel"
for number in 1 2; do
    CC_TOOLS_CACHE=$work/cache $rig echo $number >"$work/out.$number" 2>&1 &
done
wait
check "two first uses at once both work" same "$(cat "$work"/out.*)" $'1\n2'
saved=$(echo "$work"/cache/rig/template-*)
check "they made one saved machine" test -d "$saved"
for part in state mem; do
    truncate -s 1000 "$saved/$part"
    check "a spoiled $part is made anew" same "$(CC_TOOLS_CACHE=$work/cache $rig echo works 2>&1)" works
done
size=$(stat -c %s "$saved/mem")
truncate -s 0 "$saved/mem"
truncate -s "$size" "$saved/mem"
check "a machine saved without its memory is made anew" same \
    "$(CC_TOOLS_CACHE=$work/cache $rig echo works 2>&1)" works
check "the mended one is kept" same "$(CC_TOOLS_CACHE=$work/cache CC_RIG_VERBOSE=1 $rig true 2>&1 | grep -c 'booted')" 0
check "a cold boot works too" same "$($rig --cold echo cold)" cold

cat >"$work/count.c" <<'END'
#include <stdio.h>
#include <x86intrin.h>
int main(void)
{
    unsigned long long start = __rdtsc();
    FILE *file = fopen("/etc/hostname", "r");
    printf("%llu %llu %d\n", start, __rdtsc() - start, file != NULL);
    return 7;
}
END
cc -O1 -o "$work/count" "$work/count.c"
one=$($rig --icount --file /etc/hostname "$work/count")
check "virtual time: the exit status passes" same $? 7
two=$($rig --icount --file /etc/hostname "$work/count")
check "virtual time: named files are there" same "${one##* }" 1
check "virtual time: two runs count alike" same "$one" "$two"
check "the check says it works" $rig --check
