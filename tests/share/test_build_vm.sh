#!/bin/sh
# A repository of the host is cloned, built and compared in a guest, all of it on a share.
# @vm
# @timeout 200
# @kernel own
# @setup tools/mkimage gcc build/tests/gcc.tar
# @setup cc -std=c11 -O1 -I. tools/crumble.c -o build/tests/crumble -lpthread -l:libbearssl.a
# @setup CC_CACHE_DIR=build/tests/gcc-cache build/tests/crumble load build/tests/gcc.tar >/dev/null
# @setup rm -rf build/tests/build-repo && git init -q build/tests/build-repo && cp tests/share/*.h build/tests/build-repo && git -C build/tests/build-repo add -A && git -C build/tests/build-repo -c user.name=t -c user.email=t@example.org commit -qm test
set -u
status=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/share"
cp -r build/tests/gcc-cache "$work/cache" # the image is unpacked already: that takes minutes in an emulated machine
cp -r build/tests/build-repo "$work/share/repo"
for i in 1 2 3 4 5 6; do
    echo "int f$i(void); int f$i(void) { return $i; }" >"$work/share/repo/f$i.c"
done
cat >"$work/share/work.sh" <<'INNER'
set -e
export HOME=/tmp
git config --global --add safe.directory '*'
cd /share
git clone -q repo clone
printf 'int main(void) { return 0; }\n' >clone/main.c
cp repo/f*.c clone
printf 'main: $(patsubst %%.c,%%.o,main.c $(wildcard f*.c))\n\tcc -static -o $@ $^\n' >clone/Makefile
make -s -j2 -C clone
clone/main
git -C clone status --porcelain -uno
git -C clone fsck --strict 2>/dev/null
rsync -ac clone/ copy/
rsync -nacci --delete clone/ copy/
echo done
INNER
out=$(CC_CACHE_DIR="$work/cache" build/tests/crumble run -v "$work/share:/share" cc/gcc:latest sh /share/work.sh 2>&1)
check() {
    if [ "$2" = "$3" ]; then
        echo "ok $1"
    else
        echo "not ok $1"
        echo "# got: $2" | head -n 20
        status=1
    fi
}
check "clone, build and compare in the guest" "$out" done
check "the program runs here" "$("$work/share/clone/main" && echo yes)" yes
check "the copy is the same here" "$(diff -r "$work/share/clone" "$work/share/copy" && echo same)" same
check "nothing of it was changed" "$(git -C "$work/share/clone" -c safe.directory='*' status --porcelain -uno 2>&1)" ""
exit $status
