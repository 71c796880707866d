#!/bin/bash
# @root
# @timeout 100
# A checkout is cloned, built and compared through our FUSE server, by several at once.
set -u
cd "$(dirname "$0")/../.."
dir=$(mktemp -d "${TMPDIR:-/tmp}/cc-share-build.XXXXXX")
trap 'umount -l "$dir/at" 2>/dev/null; rm -rf "$dir"' EXIT
mkdir "$dir/host" "$dir/at" "$dir/repo"
failed=0
check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$dir/log" 2>&1; then echo "ok $name"; else echo "not ok $name"; sed 's/^/# /' "$dir/log"; failed=1; fi
}
gcc -std=c11 -O1 -Wno-unused-function -I. tests/share/fuse_mount.c -o "$dir/fuse_mount" -lpthread || exit 1
(
    cd "$dir/repo" && git init -q . || exit 1
    for i in $(seq 60); do
        mkdir -p "d$((i % 7))"
        echo "int f$i(void); int f$i(void) { return $i; }" >"d$((i % 7))/f$i.c"
    done
    { echo "int main(void) { return 0; }"; } >main.c
    { echo 'O = $(patsubst %.c,%.o,$(wildcard *.c */*.c))'; echo 'main: $(O)'; printf '\t$(CC) -o $@ $(O)\n'; } >Makefile
    git add -A && git -c user.name=t -c user.email=t@example.org commit -qm test
) || exit 1
cat >"$dir/work.sh" <<'END'
set -e
cd "$1/at"
one() { git clone -q "$2/repo" "c$1" && make -s -C "c$1" && "./c$1/main" && git -C "c$1" status --porcelain -uno >"s$1" && test ! -s "s$1"; }
one 1 "$1" & a=$!
one 2 "$1" & b=$!
cp -a "$1/repo" copy & c=$!
wait $a && wait $b && wait $c
rsync -ac --delete copy/ again/
test -z "$(rsync -nacci --delete "$1/repo/" again/)"
git -C c1 fsck --strict
END
check clone_build_copy "$dir/fuse_mount" "$dir/host" "$dir/at" bash "$dir/work.sh" "$dir"
check the_host_has_the_same test -z "$(rsync -naci --delete "$dir/repo/" "$dir/host/copy/" 2>&1)"
check the_program_runs "$dir/host/c2/main"
cat >"$dir/remove.sh" <<'END'
rm -rf "$1/at/c1" "$1/at/c2" & rm -rf "$1/at/copy" "$1/at/again" & wait
rm "$1/at/s1" "$1/at/s2"
test -z "$(ls -A "$1/at")"
END
check removed_at_once "$dir/fuse_mount" "$dir/host" "$dir/at" bash "$dir/remove.sh" "$dir"
exit $failed
