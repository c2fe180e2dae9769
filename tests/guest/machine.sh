#!/bin/sh
# machine.sh HOLON ENGINE GUEST.elf [CPUS]: runs a guest in the whole machine. Port 0xf4 written with 0
# is exit status 1.
out=$(timeout 60 "$1" run --engine "$2" --debug-exit --memory 64M --cpus "${4:-1}" --kernel "$3" </dev/null 2>&1)
status=$?
echo "$out"
[ $status -eq 1 ] && echo "$out" | grep -q ' 0x0 failed'
