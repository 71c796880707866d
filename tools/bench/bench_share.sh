#!/bin/bash
# Our FUSE server through /dev/fuse against libfuse's example passthrough_ll, on the same tree, as root. Both cache for one
# second and answer on several threads. The host's page cache is warm, the mount is fresh for each measurement, so the
# client's cache is cold. fio goes through the client's page cache, which asks the server for each page at random. libfuse
# can move what is written from /dev/fuse to the file by splice; ours answers from plain memory, which is where a virtual
# machine's guest has it, so here it has to read it first. The peer is measured without splice, and in the row
# share_write_1M_splice with it. Seconds of a walk (find with sizes) and of `git status` are of a checkout of 12,000 files.
# Medians of five, alternating.
set -eu
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "needs root to mount" >&2; exit 1; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/bench-share.XXXXXX")
trap 'umount -l "$dir/at" 2>/dev/null || :; rm -rf "$dir"' EXIT
mkdir "$dir/host" "$dir/at"

${CC:-cc} -std=c11 -O2 -Wno-unused-function -I. tests/share/fuse_mount.c -o "$dir/ours" -lpthread
examples=/usr/share/doc/libfuse3-dev/examples
cp $examples/passthrough_ll.c $examples/passthrough_helpers.h "$dir"
${CC:-cc} -O2 -w -D_FILE_OFFSET_BITS=64 -I/usr/include/fuse3 "$dir/passthrough_ll.c" -o "$dir/splice" -lfuse3 -lpthread
sed -i '/^static void lo_init/,/^}/s/struct lo_data \*lo = (struct lo_data\*) userdata;/&\n\tconn->want \&= ~(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);/' \
    "$dir/passthrough_ll.c"
${CC:-cc} -O2 -w -D_FILE_OFFSET_BITS=64 -I/usr/include/fuse3 "$dir/passthrough_ll.c" -o "$dir/peer" -lfuse3 -lpthread

dd if=/dev/urandom of="$dir/host/big" bs=1M count=256 status=none
(
    cd "$dir/host"
    git init -q repo
    cd repo
    for i in $(seq 120); do
        mkdir -p "src/$((i % 10))/d$i"
        for j in $(seq 100); do echo "file $i $j" >"src/$((i % 10))/d$i/f$j.c"; done
    done
    git add -A
    git -c user.name=b -c user.email=b@example.org commit -qm bench
)

cat >"$dir/clock.sh" <<'END'
case $1 in
fio*) $1 --output-format=terse | awk -F';' '{ print ($9 + $50) * 1000 }' ;; # its own clock: it takes long to start
*) start=$(date +%s%N); sh -c "$1" >/dev/null 2>&1; end=$(date +%s%N); echo $(((end - start) / 1000)) ;;
esac
END
# in_mount SERVER COMMAND: microseconds that the command took in a fresh mount.
in_mount() {
    sleep 0.1
    if [ "$1" = ours ]; then
        "$dir/ours" "$dir/host" "$dir/at" sh -c "cd $dir/at && sh $dir/clock.sh '$2'"
        return
    fi
    "$dir/$1" -f -o "source=$dir/host,timeout=1,default_permissions,allow_other" "$dir/at" &
    local server=$!
    until mountpoint -q "$dir/at"; do sleep 0.02; done
    (cd "$dir/at" && sh "$dir/clock.sh" "$2")
    umount -l "$dir/at" # whatever has not quite let go of it yet: the server ends after that
    wait $server || true
}
fio_line() {
    echo "fio --name=x --filename=big --direct=0 --invalidate=0 --rw=$1 --bs=4k --size=256m --io_size=200m --randseed=1 --ioengine=psync"
}
# row NAME COMMAND UNIT AMOUNT [PEER]: AMOUNT per second if it is not 0, else seconds.
row() {
    rm -f "$dir"/t.*
    for _ in 1 2 3 4 5; do
        in_mount ours "$2" >>"$dir/t.ours"
        in_mount "${5:-peer}" "$2" >>"$dir/t.peer"
    done
    awk -v name="$1" -v unit="$3" -v n="$4" -v o="$(sort -n "$dir/t.ours" | sed -n 3p)" -v p="$(sort -n "$dir/t.peer" | sed -n 3p)" '
        BEGIN { if (n) printf "bench %s ours=%.0f peer=%.0f unit=%s ratio=%.2f\n", name, n * 1e6 / o, n * 1e6 / p, unit, p / o
                else printf "bench %s ours=%.3f peer=%.3f unit=%s ratio=%.2f\n", name, o / 1e6, p / 1e6, unit, o / p }'
}
row share_read_1M "dd if=big of=/dev/null bs=1M" MB/s 268
row share_write_1M "dd if=/dev/zero of=out bs=1M count=256 conv=notrunc" MB/s 268
row share_write_1M_splice "dd if=/dev/zero of=out bs=1M count=256 conv=notrunc" MB/s 268 splice
row share_random_read_4k "$(fio_line randread)" IOPS 51200
row share_random_write_4k "$(fio_line randwrite)" IOPS 51200
row share_walk "find repo -type f -printf %s" s 0
row share_git_status "cd repo && git status" s 0
