#!/bin/sh
# The committed initramfs is what the sources give, twice the same, and what PID 1 needs is in it.
# @timeout 120
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
status=0

for arch in x86_64 aarch64; do
    line=$("$root/guest/build" --check $arch 2>&1)
    case $? in
    0) case $line in skip:*) echo "skip check_$arch: ${line#skip: }" ;; *) echo "ok check_$arch" ;; esac ;;
    *) echo "not ok check_$arch"; echo "$line" | sed 's/^/# /'; status=1 ;;
    esac
    cat >"$dir/dump.c" <<C
#include <stdio.h>
#include "$root/guest/initramfs_$arch.h"
int main(void) { return fwrite(cci_initramfs_$arch, 1, sizeof(cci_initramfs_$arch), stdout) ? 0 : 1; }
C
    if ${CC:-cc} -std=c11 -Wall -Wextra -Werror "$dir/dump.c" -o "$dir/dump" && "$dir/dump" >"$dir/archive" &&
        [ "$(cpio -t <"$dir/archive" 2>/dev/null | tr '\n' ' ')" = "dev dev/console dev/null lower upper root init " ] &&
        [ $(($(wc -c <"$dir/archive") % 4)) = 0 ]; then
        echo "ok archive_$arch"
    else
        echo "not ok archive_$arch"
        status=1
    fi
done

# Static, and needs no interpreter.
(cd "$dir" && cpio -i --quiet init <archive)
if file -b "$dir/init" 2>/dev/null | grep -q 'statically linked' || ! grep -q 'ld-musl\|ld-linux' "$dir/init"; then
    echo "ok static"
else
    echo "not ok static"
    status=1
fi
exit $status
