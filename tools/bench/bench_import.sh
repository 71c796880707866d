#!/bin/bash
# Import of one gzip layer of about 120 MB into the store, against `umoci unpack` of the same image and against
# `gzip -dc | tee >(sha256sum) | tar x`. MB are of uncompressed tar. Ours ends with fsync, the peers do not wait for the disk.
#
# The layer is made from files of this machine's /usr in an order that only their names decide. Five alternating runs, medians.
set -eu
cd "$(dirname "$0")/../.."
dir=$(mktemp -d "${TMPDIR:-/tmp}/bench-import.XXXXXX")
trap 'rm -rf "$dir"' EXIT

${CC:-cc} -std=c11 -O2 -Wno-unused-function tests/image/load_tar.c -o "$dir/load_tar" -lpthread

find /usr/bin /usr/lib /usr/share -xdev -type f -size -8192k -printf '%s %p\n' 2>/dev/null | LC_ALL=C sort -k2 |
    LC_ALL=C sort -R --random-source=/dev/zero |
    awk '{ n += $1; if (n > 345000000) exit; sub(/^[0-9]+ /, ""); print }' >"$dir/files"
tar -C / --format=pax -cf "$dir/layer.tar" -T "$dir/files" 2>/dev/null
mb=$(($(stat -c %s "$dir/layer.tar") / 1000))
umoci init --layout "$dir/oci"
umoci new --image "$dir/oci:latest"
umoci raw add-layer --image "$dir/oci:latest" "$dir/layer.tar"
gz=$(find "$dir/oci/blobs" -type f -size +1M)
tar -C "$dir/oci" -cf "$dir/image.tar" oci-layout index.json blobs
echo "# $(wc -l <"$dir/files") files, $((mb / 1000)) MB of tar, $(($(stat -c %s "$gz") / 1000000)) MB compressed"
rm "$dir/layer.tar"

rootless=
[ "$(id -u)" = 0 ] || rootless=--rootless

ours() { QUIET=1 "$dir/load_tar" "$dir/out" "$dir/image.tar" >"$dir/log" || { cat "$dir/log" >&2; return 1; }; }
umoci_unpack() { umoci unpack $rootless --image "$dir/oci:latest" "$dir/out" >/dev/null 2>&1; }
gzip_tar() { mkdir "$dir/out"; gzip -dc "$gz" | tee >(sha256sum >/dev/null) | tar x -C "$dir/out"; }

# timed NAME: one run, its milliseconds appended to the file NAME.
timed() {
    sync
    local start end
    start=$(date +%s%N)
    "$1"
    end=$(date +%s%N)
    echo $(((end - start) / 1000000)) >>"$dir/$1"
    chmod -R u+w "$dir/out"
    rm -rf "$dir/out"
}

for _ in 1 2 3 4 5; do
    timed ours
    timed umoci_unpack
    timed gzip_tar
done
median() { sort -n "$dir/$1" | sed -n 3p; }
report() {
    awk -v mb="$mb" -v ours="$(median ours)" -v peer="$(median "$2")" -v name="$1" 'BEGIN {
        printf "bench %s ours=%.0f peer=%.0f unit=MB/s ratio=%.2f\n", name, mb / ours, mb / peer, peer / ours }'
}
report import_vs_umoci umoci_unpack
report import_vs_gzip_sha256sum_tar gzip_tar
