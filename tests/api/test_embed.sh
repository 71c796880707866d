#!/bin/sh
# A program compiled with CC_EMBED_KERNEL carries its guest kernel with it: it needs no file, option or variable.
# @vm
# @kernel own
# @timeout 60
# @setup tools/mkimage busybox build/tests/busybox.tar
# @setup python3 tests/api/embed_build.py "$(tools/kernel path --cached guest)/vmlinuz" build/tests/embed
set -u
cache=$(mktemp -d) || exit 2
env -u CC_KERNEL "$CC_BUILD/embed/embed_app" "$CC_BUILD/busybox.tar" "$cache"
code=$?
rm -rf "$cache"
exit $code
