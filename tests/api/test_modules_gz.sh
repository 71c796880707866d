#!/bin/sh
# The distribution's kernel with its modules gzipped, as some distributions ship them: the host unpacks those that the guest
# needs, and the agent loads them.
# @vm
# @kernel stock
# @timeout 60
# @setup tools/mkimage busybox build/tests/busybox.tar
# @setup python3 tests/api/kernel_build.py gz "$(tools/kernel path stock)" build/tests/modules_gz
set -u
cache=$(mktemp -d) || exit 2
out=$(CC_KERNEL="$CC_BUILD/modules_gz" "$CC_BUILD/modules_gz/version_app" "$CC_BUILD/busybox.tar" "$cache")
code=$?
rm -rf "$cache"
echo "$out"
case $code:$out in
0:*"/modules_gz/vmlinux"*"Linux version"*) echo "ok gzipped_modules_load" ;;
*) echo "not ok gzipped_modules_load" ;;
esac
