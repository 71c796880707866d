#!/bin/sh
# @timeout 120
# The ARMv8 versions of SHA-256 and CRC-32, the decompressor and the tar reader in an emulated processor, against
# sha256sum, gzip and the same reader here.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0

check() {
    if [ "$2" = "$3" ]; then
        echo "ok $1"
    else
        echo "# got $2, not $3"
        echo "not ok $1"
        status=1
    fi
}

for name in codec_arm tar_dump; do
    aarch64-linux-gnu-gcc -std=c11 -O2 -Wall -Wextra -Wshadow -Wconversion -Wno-unused-function -Werror -static \
        -I"$root" "$root/tests/image/$name.c" -o "$tmp/$name"
done
cat "$root"/src/image/*.h >"$tmp/text"
for size in 0 1 7 63 64 65 1000 100000; do
    head -c "$size" "$tmp/text" >"$tmp/part"
    crc=$(gzip -c "$tmp/part" | tail -c 8 | od -An -tx4 --endian=little -N4 | tr -d ' ')
    want="$(sha256sum <"$tmp/part" | cut -d ' ' -f 1) $crc"
    for version in NATIVE PORTABLE; do
        check "$version of $size bytes" "$(qemu-aarch64-static "$tmp/codec_arm" "$version" <"$tmp/part")" "$want"
    done
done
for level in 1 6 9; do
    gzip "-$level" -c "$tmp/text" >"$tmp/gz"
    check "gunzip level $level" "$(qemu-aarch64-static "$tmp/codec_arm" GUNZIP <"$tmp/gz" | sha256sum)" \
        "$(sha256sum <"$tmp/text")"
done
tar -C "$root" --sort=name -cf "$tmp/tar" src/image
cc -std=c11 -O2 -Wno-unused-function -I"$root" "$root/tests/image/tar_dump.c" -o "$tmp/tar_dump_here"
qemu-aarch64-static "$tmp/tar_dump" <"$tmp/tar" | sha256sum >"$tmp/there"
"$tmp/tar_dump_here" <"$tmp/tar" | sha256sum >"$tmp/here"
check "tar archive read alike" "$(cat "$tmp/there")" "$(cat "$tmp/here")"
exit $status
