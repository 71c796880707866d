#!/bin/sh
# ACPI's own compiler reads our tables, finds nothing wrong, and makes the same bytes of what it read.
set -u
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0

result() { # STATUS NAME
    if [ "$1" = 0 ]; then echo "ok $2"; else echo "not ok $2"; failed=1; fi
}

if ! ${CC:-cc} -std=c11 -Wall -Wextra -Wno-unused-function -o "$dir/dump" "$here/acpi_dump.c"; then
    echo "not ok acpi_dump_compiles"
    exit 1
fi

# One set of tables: CPUS DEVICES. Each table disassembled, compiled again, compared.
check() {
    where="$dir/$1-$2"
    mkdir "$where"
    "$dir/dump" "$where" "$1" "$2" || return 1
    for table in XSDT FACP APIC DSDT; do
        file="$where/$table"
        iasl -d "$file.dat" > "$file.log" 2>&1 || { sed 's/^/# /' "$file.log"; return 1; }
        if grep -iE 'error|warning|incorrect|invalid' "$file.log" "$file.dsl"; then return 1; fi
        iasl -ve -p "$file-new" "$file.dsl" > "$file.log" 2>&1 || { sed 's/^/# /' "$file.log"; return 1; }
        # The compiler names and numbers itself in bytes 28 to 35, and the checksum in byte 9 follows.
        cmp -l "$file.dat" "$file-new.aml" > "$file.diff" 2>&1
        grep -q EOF "$file.diff" && { echo "# $table has another length"; return 1; }
        if awk '$1 != 10 && ($1 < 29 || $1 > 36) { print "# '$table' differs at byte " $1; bad = 1 }
                END { exit bad }' "$file.diff"; then :; else return 1; fi
    done
}

for set in "1 0" "4 5" "254 19"; do
    # shellcheck disable=SC2086
    check $set
    result $? "iasl_agrees_on_$(echo "$set" | tr ' ' _)"
done

dsdt="$dir/4-5/DSDT.dsl"
grep -q '"LNRO0005"' "$dsdt" && grep -q 'EisaId ("PNP0501")' "$dsdt" && grep -q '0xD0004000' "$dsdt" &&
    grep -q '_S5' "$dsdt" && [ "$(grep -c 'Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive' "$dsdt")" = 6 ]
result $? dsdt_has_devices
fadt="$dir/4-5/FACP.dsl"
grep -q 'Hardware Reduced (V5) : 1' "$fadt" && grep -q 'Reset Register Supported (V2) : 1' "$fadt" &&
    grep -q 'VGA Not Present (V4) : 1' "$fadt" && grep -q 'CMOS RTC Not Present (V5) : 1' "$fadt"
result $? fadt_is_hardware_reduced
[ "$(grep -c 'Processor Local APIC' "$dir/4-5/APIC.dsl")" = 4 ] && grep -q 'I/O APIC' "$dir/4-5/APIC.dsl"
result $? madt_has_cpus
exit $failed
