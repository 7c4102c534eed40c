#!/bin/sh
# What Slurm runs: its arguments are the command. Slurm puts a copy of this on the node.
ulimit -c 0
exec "$@"
