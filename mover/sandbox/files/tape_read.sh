#!/bin/sh
# FRM's copy command from tape: $1 on tape to $2 in the disk buffer.
set -e
from=${1#/proc/self/cwd/}
to=${2#/proc/self/cwd/}
waited=0
while [ -e control/DRIVE_BUSY ]; do
    [ "$waited" -lt 6000 ] || exit 5
    waited=$((waited + 1))
    sleep 0.1
done
[ ! -e control/DRIVE_BROKEN ] || exit 5
cp "$from" "$to"
touch -r "$from" "$to"
