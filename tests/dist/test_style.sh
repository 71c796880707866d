#!/bin/sh
# Every C file is laid out as .clang-format says.
# @timeout 120
cd "$(dirname "$0")/../.." || exit 2
wrong=$(git ls-files '*.c' '*.h' | grep -v guest/initramfs_ | xargs clang-format --dry-run -Werror 2>&1 | sed -n 's/: error:.*//p' | head -n 20)
if [ -z "$wrong" ]; then
    echo "ok layout"
else
    echo "not ok layout"
    echo "$wrong" | sed 's/^/# /'
    exit 1
fi
