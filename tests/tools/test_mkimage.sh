#!/usr/bin/env bash
# @timeout 120
# @root
# tools/mkimage: the same bytes each time, and other tools read what it writes as it was meant.
set -u
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() {
    local name=$1
    shift
    if "$@"; then echo "ok $name"; else echo "not ok $name"; fi
}
same() { [ "$1" = "$2" ] || { echo "# got: $1"; echo "# not: $2"; return 1; }; }

for form in docker oci; do
    for kind in busybox multi; do
        tools/mkimage $kind "$work/$kind.$form" --format $form
        tools/mkimage $kind "$work/again" --format $form
        check "$kind, $form: the same bytes again" cmp -s "$work/$kind.$form" "$work/again"
    done
done
inspect() { skopeo inspect --config "$1" | python3 -c 'import json,sys; c=json.load(sys.stdin); print(c["config"]["Cmd"], c["architecture"])'; }
check "skopeo reads the docker form" same "$(inspect "docker-archive:$work/busybox.docker")" "['sh'] amd64"
check "skopeo reads the OCI form" same "$(inspect "oci-archive:$work/busybox.oci")" "['sh'] amd64"
check "skopeo finds an image by its tag" same "$(inspect "docker-archive:$work/multi.docker:cc/two:v2")" \
    "['cat', '/name'] amd64"
check "skopeo chooses a platform" same "$(skopeo --override-arch arm64 inspect --config \
    "oci-archive:$work/multi.oci:cc/platforms:latest" | grep -c '"architecture": "arm64"')" 1

tools/mkimage matrix "$work/matrix"
tools/mkimage matrix "$work/matrix2"
check "matrix: the same bytes again" diff -r "$work/matrix" "$work/matrix2"
rm -rf "$work/matrix2"

# Two independent readers must agree on each image, else it is the image that is wrong.
good=$work/matrix/good
while IFS=$'\t' read -r name reference; do
    [ "$reference" = umoci ] || continue
    umoci unpack --image "$good/$name:latest" "$work/umoci.$name" >"$work/log" 2>&1
    check "$name: umoci unpacks it" test $? = 0
    mapfile -t layers < <(tar -tf "$good/$name.docker.tar" | grep layer.tar)
    [ ${#layers[@]} = 1 ] || continue
    mkdir "$work/tar.$name"
    tar -xOf "$good/$name.docker.tar" "${layers[0]}" |
        tar -C "$work/tar.$name" --xattrs --xattrs-include='*' --numeric-owner --delay-directory-restore -xpf - 2>/dev/null
    times=--times
    [ "$name" != implied ] || times=--omit-dir-times
    differs=$(rsync -nrlpgoDHAX -c $times --delete --out-format='%i %n' "$work/umoci.$name/rootfs/" "$work/tar.$name/")
    check "$name: umoci and tar agree" same "$differs" ""
done <"$good/list"

mkdir "$work/old"
tar -xOf "$good/sparse-old.docker.tar" "$(tar -tf "$good/sparse-old.docker.tar" | grep layer.tar)" | tar -C "$work/old" -xf -
for shape in middle start hole unaligned many large; do
    check "sparse-old: $shape is as in the pax form" cmp -s "$work/old/sparse-old-$shape" \
        "$work/umoci.sparse/rootfs/sparse-1.0-$shape"
done
check "crowd: 20,000 entries less 20" same "$(find "$work/umoci.crowd/rootfs/crowd" -type f | wc -l)" 19980
root=$work/umoci.whiteouts/rootfs
check "whiteouts: what is hidden is gone" test ! -e "$root/hide/file" -a ! -e "$root/opaque/old" -a ! -e "$root/early/old"
check "whiteouts: what is re-added is back" same "$(cat "$root/again/file")" back
check "hostile: each has its verdict" same "$(cut -f 2 "$work/matrix/hostile/list" | sort -u | xargs)" "contained error"
check "hostile: each has its file" same "$(cut -f 1 "$work/matrix/hostile/list" | sort)" \
    "$(cd "$work/matrix/hostile" && ls ./*.tar | sed 's/^..//; s/\.tar$//' | sort)"
