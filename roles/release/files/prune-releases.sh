#!/bin/sh
# Remove all but the newest KEEP releases, and never one that is current or that a process runs
# from: prune-releases.sh KEEP. Prints what it removed.
set -eu

keep=$1
cd /opt/swarm/releases
current=$(basename "$(readlink -f /opt/swarm/current)")

# Newest first; a directory without its marker is a remainder of an interrupted installation.
complete=$(find . -mindepth 2 -maxdepth 2 -name .complete -printf '%T@ %h\n' | sort -rn |
    sed 's|.* \./||')

for release in *; do
    [ "$release" != "$current" ] || continue
    position=$(echo "$complete" | grep -nxF "$release" | cut -d : -f 1 || echo 0)
    [ "${position:-0}" -eq 0 ] || [ "$position" -gt "$keep" ] || continue
    # A script's interpreter stands in the command line with its whole path.
    ! grep -qsaF "/opt/swarm/releases/$release/" /proc/[0-9]*/cmdline || continue
    rm -rf "/opt/swarm/releases/$release"
    echo "$release"
done
