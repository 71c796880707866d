#!/bin/bash
# Shares in a guest, in the rig: ours against QEMU's microvm with virtiofsd, on the same guest kernel, files and program
# (share_guest.c), one CPU, 512 MB. Both cache for one second and write through. Five alternating runs, medians.
# `git status` is of a checkout of 4,000 files, by this machine's git, which the program copies into the guest's memory.
#
# bench_share_vm.sh IMAGE.tar KERNEL
set -eu
cd "$(dirname "$0")/../.."
if [ -z "${CC_RIG:-}" ]; then
    mkdir -p build/bench
    ${CC:-cc} -std=c11 -O2 -Wno-unused-function -I. tools/bench/share_vm.c -o build/bench/share_vm -lpthread -l:libbearssl.a
    musl-gcc -static -O2 tools/bench/share_guest.c -o build/bench/share_guest
    exec tools/rig --cpus 1 --timeout 500 "$0" "$@"
fi
dir=$(mktemp -d /tmp/bench-share.XXXXXX)
files=$dir/files
mkdir -p "$files/tree" "$dir/init"
cp build/bench/share_guest "$files/"
cp build/bench/share_guest "$dir/init/init"
(cd "$dir/init" && echo init | cpio -o -H newc >"$dir/initrd" 2>/dev/null)
head -c 25165824 /dev/urandom >"$files/big"
head -c 25165824 /dev/urandom >"$files/more"
for i in $(seq 40); do
    mkdir "$files/tree/d$i"
    (cd "$files/tree/d$i" && touch $(seq -f f%g 30))
done
mkdir "$files/tools"
cp $(ldd "$(command -v git)" | grep -o '/[^ ]*') "$(command -v git)" "$files/tools/"
mv "$files"/tools/ld-linux* "$files/tools/ld.so"
(
    git init -q "$files/repo"
    cd "$files/repo"
    for i in $(seq 50); do
        mkdir -p "src/$((i % 10))/d$i"
        (cd "src/$((i % 10))/d$i" && echo "file $i" | tee $(seq -f f%g.c 80) >/dev/null)
    done
    git add -A
    git -c user.name=b -c user.email=b@example.org commit -qm bench
    sleep 1.1 # files as old as the index would be read again
    touch .git/index
    git status >/dev/null
)
export CC_CACHE_DIR=$dir/cache

ours() { build/bench/share_vm "$1" "$2" "$files"; }
peer() {
    /usr/lib/qemu/virtiofsd --socket-path="$dir/socket" -o "source=$files,cache=auto,sandbox=chroot" >"$dir/log" 2>&1 &
    local server=$!
    until [ -S "$dir/socket" ]; do sleep 0.05; done
    timeout 60 qemu-system-x86_64 -no-user-config -nodefaults -no-reboot -display none -M microvm,acpi=off,memory-backend=mem -accel kvm \
        -global virtio-mmio.force-legacy=false -cpu host -m 512 -object memory-backend-memfd,id=mem,size=512M,share=on -kernel "$2" -initrd "$dir/initrd" \
        -append "quiet reboot=t panic=-1 console=ttyS0" -chardev "socket,id=c,path=$dir/socket" \
        -device vhost-user-fs-device,chardev=c,tag=bench -serial stdio </dev/null | tr -d '\r' || true
    kill $server 2>/dev/null || true
    wait $server || true
    rm -f "$dir/socket"
}
for _ in 1 2 3 4 5; do
    ours "$@" >>"$dir/ours"
    peer "$@" >>"$dir/peer"
done
for side in ours peer; do
    [ "$(grep -c "^share git_status" "$dir/$side")" = 5 ] || { cat "$dir/$side" "$dir/log" >&2; exit 1; }
done
median() { awk -v name="$2" '$1 == "share" && $2 == name { print $3 }' "$dir/$1" | sort -g | sed -n 3p; }
for row in read_1M:MB/s write_1M:MB/s random_read_4k:IOPS random_write_4k:IOPS walk:s git_status:s; do
    awk -v name="${row%%:*}" -v unit="${row#*:}" -v o="$(median ours "${row%%:*}")" -v p="$(median peer "${row%%:*}")" 'BEGIN {
        printf "bench share_vm_%s ours=%s peer=%s unit=%s ratio=%.2f\n", name, o, p, unit, o / p }'
done
