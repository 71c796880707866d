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
root=$PWD
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
check "help of a command" run 0 pull --help
check "the version" run 0 version
check "is a version" says "$out" "$(sed -n 's/^#define CC_VERSION_STRING "\(.*\)"/\1/p' "$root/cc.h")"
check "an unknown option" run 2 images --frobnicate
check "an option of another command" run 2 images --cpus 2
check "is named" says "$err" "images has no option --cpus"
check "too many arguments" run 2 pull one two
check "pull of a path" run 2 pull ./busybox.tar
check "says what does that" says "$err" "crumble load"
check "of run, 2 may be the command's: an unknown option" run 125 run --frobnicate x
check "an unknown letter" run 125 run -Z x
check "an option without its value" run 125 run --cpus
check "a letter without its value" run 125 run -e
check "a value where none is taken" run 125 run --rm=x image
check "a number that is none" run 125 run --cpus two x
check "a size that is none" run 125 run --memory much x
check "a platform that is none" run 125 run --platform amd64 x
check "a policy that is none" run 125 run --pull sometimes x
check "an empty value" run 125 run -w "" x
check "run without an image" run 125 run

check "an empty cache" run 0 images -q
check "has no images" test -z "$out"
check "an image that is not there" run 1 inspect cc/busybox
check "the message says so" says "$err" "not in the cache"
check "what is printed is JSON all the same" test "$out" = "[]"
check "load a file" run 0 load ./busybox.tar
check "its names are said" test "$out" = "Loaded image: docker.io/cc/busybox:latest"
check "it is listed" run 0 images
line=$(echo "$out" | sed -n 2p)
check "in columns" test "$(echo "$out" | sed -n 1p | tr -s ' ')" = "REFERENCE PLATFORM ID SIZE LAST USED"
check "by name, platform, ID, size and time" test "$(echo "$line" | tr -s ' ' | sed 's/ [0-9a-f]\{12\} [0-9.]* MB / ID SIZE /')" = \
    "docker.io/cc/busybox:latest linux/amd64 ID SIZE just now"
json() { echo "$out" | python3 -c "import json, sys; v = json.load(sys.stdin); print($1)"; }
check "inspect by its short name" run 0 inspect cc/busybox
check "as JSON" test "$(json 'v[0]["Config"]["Cmd"], v[0]["RepoTags"], v[0]["Architecture"], len(v)')" = \
    "['sh'] ['docker.io/cc/busybox:latest'] amd64 1"
check "with its ID" test "$(json 'v[0]["Id"]')" = "$("$crumble" images -q)"
check "inspect two, one of which is not there" run 1 inspect ./busybox.tar nothing
check "gives the other" test "$(json 'len(v)')" = 1
check "load for another platform" run 1 load --platform linux/arm64 ./busybox.tar
check "says what there is" says "$err" "linux/amd64"

check "export" run 0 export cc/busybox layout
check "skopeo reads it" skopeo inspect oci:layout
check "not into a directory with something in it" run 1 export cc/busybox layout
mkdir -p tree/bin && cp /bin/busybox tree/bin/sh
check "load a tree" run 0 load ./tree
check "has an ID and no name" says "$out" "Loaded image ID: sha256:"
check "load an image layout" run 0 load ./layout
cp -r layout names && python3 - <<'END' || exit 1
import json
with open("names/index.json") as f:
    index = json.load(f)
only = index["manifests"][0]
names = ["../../up:1", "docker.io/library/Upper:1", "docker.io/library/by@" + only["digest"], "docker.io/library/good:1"]
index["manifests"] = [dict(only, annotations={"io.containerd.image.name": n}) for n in names]
with open("names/index.json", "w") as f:
    json.dump(index, f)
END
check "load an image with names that are no references" run 0 load ./names
check "it goes by the one that is" test "$out" = "Loaded image: docker.io/library/good:1"
check "and is found by it" run 0 inspect --pull never good:1
check "rm by that" run 0 rm good:1
check "load what is not there" run 1 load ./nothing
check "the message has the path" says "$err" nothing
echo "not an image, but longer than one block of a tar would be, if there were one: $(seq 300)" >text
check "load what is no image" run 1 load ./text
check "the message has its path and says so" says "$err" "crumble: ./text: this is no image file"
mkdir empty && echo '{"imageLayoutVersion": "1.0.0"}' >empty/oci-layout && echo '{"schemaVersion": 2, "manifests": []}' >empty/index.json
check "load an image layout of nothing" run 1 load ./empty
check "the message says what it lacks" says "$err" "lists no images"
# A file of an image whose name would colour the terminal, and that cannot be taken: too many attributes.
python3 - "$PWD/red.tar" <<'END' || exit 1
import hashlib, io, json, sys, tarfile
def tar(name, data, **pax):
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = len(data), pax
    return info.tobuf(tarfile.PAX_FORMAT) + data + b"\0" * (-len(data) % 512)
xattrs = {f"SCHILY.xattr.user.{n}": "x" * 40000 for n in "ab"}
layer = tar("\033[31mred", b"1", **xattrs) + b"\0" * 1024
config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
manifest = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}]
with open(sys.argv[1], "wb") as f:
    for name, data in ("manifest.json", json.dumps(manifest).encode()), ("c.json", json.dumps(config).encode()), ("l.tar", layer):
        f.write(tar(name, data))
    f.write(b"\0" * 1024)
END
check "load a file with a name of control characters" run 1 load --platform linux/amd64 ./red.tar
check "it is quoted once, and does not reach the terminal" test "${err%%: *}: $(tr -dc '\033' <err | wc -c) ${err##*: }" = 'crumble: 0 "?[31mred"'
check "nor anywhere else in the message" test "$(grep -o red err | wc -l)" = 1

check "prune takes the tree's layer" run 0 prune
check "and says so" says "$out" "1 layers"
id=$("$crumble" images -q)
check "rm by ID" run 0 rm "${id:7:12}"
check "rm again" run 1 rm cc/busybox
check "prune takes the rest" run 0 prune
check "nothing is left" test -z "$(find cache -type f)"
