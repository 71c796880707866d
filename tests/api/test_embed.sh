#!/bin/sh
# A program compiled with CC_EMBED_KERNEL carries its guest kernel with it: it needs no file, option or variable.
# @vm
# @kernel own
# @timeout 60
# @setup tools/mkimage busybox build/tests/busybox.tar
# @setup python3 tests/api/kernel_build.py embed "$(tools/kernel path --cached guest)/vmlinuz" build/tests/embed
set -u
cache=$(mktemp -d) || exit 2
out=$(env -u CC_KERNEL "$CC_BUILD/embed/version_app" "$CC_BUILD/busybox.tar" "$cache")
code=$?
rm -rf "$cache"
echo "$out"
case $code:$out in
0:*"kernel (the kernel compiled in)"*"Linux version"*) echo "ok embedded_kernel_runs" ;;
*) echo "not ok embedded_kernel_runs" ;;
esac
