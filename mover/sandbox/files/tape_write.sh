#!/bin/sh
# FRM's copy command towards tape: $1 in the disk buffer to $2 on tape, whole or not at all.
set -e
# Relative names: `mkdir -p` changes its directory on the way, and /proc/self/cwd would go with it.
from=${1#/proc/self/cwd/}
to=${2#/proc/self/cwd/}
waited=0
while [ -e control/DRIVE_BUSY ]; do
    [ "$waited" -lt 6000 ] || exit 5
    waited=$((waited + 1))
    sleep 0.1
done
[ ! -e control/DRIVE_BROKEN ] || exit 5
mkdir -p "$(dirname "$to")"
# Never exec the copy: FRM kills a command whose standard output is closed.
cp "$from" "$to.part"
sync "$to.part"
# The exact time tells the stat plug-in that the copy is of this very content.
touch -r "$from" "$to.part"
mv "$to.part" "$to"
# Removed meanwhile, when there was nothing to remove from tape yet.
[ -e "$from" ] || { rm -f "$to"; exit 5; }
