#!/bin/sh
# An instance that names no kernel, with an empty cache: one is fetched over TLS from a mirror, verified, unpacked and booted,
# modules and all; the next instance finds it in the cache.
# @vm
# @timeout 90
# @setup tools/mkimage busybox build/tests/busybox.tar
# @setup python3 tests/api/apk_mirror.py make "$(tools/kernel path stock)" build/tests/apk_mirror x86_64
# @setup python3 tests/api/kernel_build.py app build/tests build/tests/kernel_default
set -u
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
mirror=$CC_BUILD/apk_mirror
mkfifo "$dir/in" "$dir/port"
python3 "$CC_ROOT/tests/api/apk_mirror.py" serve "$mirror" <"$dir/in" >"$dir/port" &
exec 3>"$dir/in"
read -r port <"$dir/port"

# run NAME PATTERN: its output has to match
run() {
    out=$(env -u CC_KERNEL CC_KERNEL_MIRROR="https://127.0.0.1:$port/main" CC_KERNEL_KEY="$mirror/key.pub" SSL_CERT_FILE="$mirror/ca.pem" \
        "$CC_BUILD/kernel_default/version_app" "$CC_BUILD/busybox.tar" "$dir/cache")
    code=$?
    echo "$out"
    case $code:$out in
    $2) echo "ok $1" ;;
    *) echo "not ok $1" ;;
    esac
}
run fetched_and_booted '0:*fetching https://*linux-virt-*cache/kernel/vmlinuz*Linux version*'
exec 3>&-
wait
run booted_from_the_cache '0:*cache/kernel/vmlinuz*Linux version*'
