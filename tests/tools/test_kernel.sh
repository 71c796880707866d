#!/usr/bin/env bash
# @timeout 180
# tools/kernel: the bundles, the ELF taken out of a bzImage in each of its compressions, refusals of bad ones.
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

stock=$(tools/kernel fetch)
check "fetch gives a bundle" test -s "$stock/vmlinuz" -a -s "$stock/vmlinux" -a -s "$stock/origin"
check "fetching again gives the same" same "$(tools/kernel fetch)" "$stock"
check "path agrees with fetch" same "$(tools/kernel path stock)" "$stock"
check "the stock kernel's modules have their dependencies" test -s "$stock/modules/modules.dep" -a \
    -s "$stock/modules/modules.builtin" -a -s "$stock/modules/modules.softdep"
check "vsock's module is there" grep -q '/vmw_vsock_virtio_transport\.ko' "$stock/modules/modules.dep"
check "the package is not installed" test ! -e "/lib/modules/$(sed 's/^linux-image-//; s/_.*//' "$stock/origin")"

for name in stock guest rig; do
    if ! bundle=$(tools/kernel path --cached $name); then
        echo "skip the $name kernel: it is neither built nor prebuilt"
        continue
    fi
    check "$name: a bzImage" same "$(head -c 518 "$bundle/vmlinuz" | tail -c 4)" HdrS
    check "$name: the ELF enters by PVH" tools/kernel pvh "$bundle/vmlinux" >/dev/null
done
check "an empty cache has nothing" same "$(CC_TOOLS_CACHE=$work/none tools/kernel path --cached stock; echo $?)" 1

# Small bzImages around an ELF of our own, compressed as the kernel's build does it.
python3 - "$work" <<'END'
import gzip, lzma, bz2, shutil, struct, subprocess, sys
elf = b"\x7fELF" + bytes(range(256)) * 3000
size = struct.pack("<I", len(elf))

def save(name, payload):
    head = bytearray(2 * 512)
    head[0x1f1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    open(f"{sys.argv[1]}/{name}", "wb").write(bytes(head) + b"\x90" * 100 + payload + b"tail")

def run(*command):
    return subprocess.run(command, input=elf, stdout=subprocess.PIPE, check=True).stdout

open(sys.argv[1] + "/elf", "wb").write(elf)
save("gzip", gzip.compress(elf))
save("xz", lzma.compress(elf) + size)
save("lzma", lzma.compress(elf, lzma.FORMAT_ALONE) + size)
save("bzip2", bz2.compress(elf) + size)
for name, command in (("lz4", ("lz4", "-l", "-9", "-c")), ("zstd", ("zstd", "-q", "-c"))):
    if shutil.which(command[0]):
        save(name, run(*command) + size)
save("bad-unknown", b"what is this")
save("bad-not-elf", gzip.compress(b"no ELF file"))
save("bad-cut", gzip.compress(elf)[:-900])
END
for one in gzip xz lzma bzip2 lz4 zstd; do
    rm -f "$work/out"
    if [ -e "$work/$one" ]; then
        tools/kernel extract "$work/$one" "$work/out"
        check "$one: the ELF comes out whole" cmp -s "$work/out" "$work/elf"
    else
        echo "skip $one: no such program here"
    fi
done
mkdir "$work/bin"
python=$(python3 -c 'import sys; print(sys.executable)')
rm -f "$work/out"
PATH=$work/bin "$python" tools/kernel extract "$work/lz4" "$work/out"
check "lz4 without the program: the ELF comes out whole" cmp -s "$work/out" "$work/elf"
for one in unknown not-elf cut; do
    got=$(tools/kernel extract "$work/bad-$one" "$work/out" 2>&1)
    check "bad-$one is refused" same "$? ${got%%:*}" "1 kernel"
done
got=$(tools/kernel extract "$work/elf" "$work/out" 2>&1)
check "what is no bzImage is refused" same "$? ${got%%:*}" "1 kernel"

check "no setting is given twice" same "$(sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=.*/\1/p' guest/kernel/rig-x86_64.config |
    sort | uniq -d)" ""
if ls /usr/src/linux-source-*.tar.* >/dev/null 2>&1; then
    config=$(tools/kernel build rig --configure-only 2>/dev/null) # the guest's settings and some more
    for setting in VIRTIO_VSOCKETS VIRTIO_MMIO PVH EROFS_FS OVERLAY_FS KVM_AMD 9P_FS; do
        check "the source takes CONFIG_$setting" grep -q "^CONFIG_$setting=y" "$config"
    done
    check "the rig's kernel has no jump labels" same "$(grep -c '^CONFIG_JUMP_LABEL=y' "$config")" 0
else
    echo "skip building: needs the package linux-source (tools/setup --for kernel)"
fi
