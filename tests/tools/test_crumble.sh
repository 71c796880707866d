#!/usr/bin/env bash
# @timeout 120
# @root
# crumble without a machine: images come, are listed, looked at, exported and go; arguments that make no sense.
set -u
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CC_CACHE_DIR=$work/cache
crumble=$work/crumble
cc -std=c11 -g -O1 -fsanitize=address,undefined -I. tools/crumble.c -o "$crumble" -lpthread -l:libbearssl.a || exit 1
tools/mkimage busybox "$work/busybox.tar"
cd "$work" || exit 1

check() {
    local name=$1
    shift
    if "$@"; then echo "ok $name"; else echo "not ok $name"; fi
}
run() { # STATUS ARGUMENT...: runs crumble; its output is in $out, its messages in $err
    local want=$1
    shift
    out=$("$crumble" "$@" 2>err)
    local got=$?
    err=$(cat err)
    [ $got = "$want" ] || { echo "# exit status $got in place of $want: $err"; return 1; }
}
says() { case $1 in *"$2"*) ;; *) echo "# it says: $1"; return 1 ;; esac }

check "help" run 0 --help
check "no command" run 2
check "an unknown command" run 2 frobnicate
check "an unknown option" run 2 run --frobnicate x
check "an option without its value" run 2 run --cpus
check "a number that is none" run 2 run --cpus two x
check "a size that is none" run 2 run --memory much x
check "-v says that it is not there yet" run 2 run -v /a:/b x
check "and says why" says "$err" "shares no directories"

check "an empty cache" run 0 images -q
check "has no images" test -z "$out"
check "an image that is not there" run 125 inspect cc/busybox
check "the message says so" says "$err" "not in the cache"
check "load a file" run 0 load ./busybox.tar
check "it is listed" run 0 images
check "under its name" says "$out" docker.io/cc/busybox:latest
check "inspect by its short name" run 0 inspect cc/busybox
check "as JSON" test "$(echo "$out" | python3 -c 'import json,sys; print(json.load(sys.stdin)["Cmd"])')" = "['sh']"
check "load for another platform" run 125 load --platform linux/arm64 ./busybox.tar
check "says what there is" says "$err" "linux/amd64"

check "export" run 0 export cc/busybox layout
check "skopeo reads it" skopeo inspect oci:layout
check "not into a directory with something in it" run 125 export cc/busybox layout
mkdir -p tree/bin && cp /bin/busybox tree/bin/sh
check "load a tree" run 0 load ./tree
check "load an image layout" run 0 load ./layout
check "load what is not there" run 125 load ./nothing
check "the message has the path" says "$err" nothing

check "prune takes the tree's layer" run 0 prune
check "and says so" says "$out" "1 layers"
id=$("$crumble" images -q)
check "rm by ID" run 0 rm "${id:7:12}"
check "rm again" run 125 rm cc/busybox
check "prune takes the rest" run 0 prune
check "nothing is left" test -z "$(find cache -type f)"
