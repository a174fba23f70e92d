#!/bin/bash
# Print where a secret can be read: secrets.sh search SECRET... The program and its arguments come
# over stdin (`bash -s`), so that neither is in the process list.
# secrets.sh plant CANARY puts CANARY where a secret must not be, and then looks for it.
set -euo pipefail

mode=$1
shift
patterns=$(mktemp)
trap 'rm -f "$patterns" /etc/swarm/canary; [ -z "${planted:-}" ] || systemctl stop "$planted"' EXIT
printf '%s\n' "$@" >"$patterns"

if [ "$mode" = plant ]; then
    planted=swarm-canary.service
    # shellcheck disable=SC2016
    systemd-run --quiet --collect --unit="$planted" --setenv="CANARY=$1" \
        sh -c 'echo "$CANARY" >&2; sleep 60' "$1"
    install -m 0644 "$patterns" /etc/swarm/canary
    journalctl --sync
fi

# It reads to the end: with -q the writer would die of SIGPIPE, and a find would count as none.
found() { grep -caF -f "$patterns" >/dev/null; }

journalctl --quiet --output=export | found && echo "journal"
systemctl show '*' | found && echo "systemctl show"
for process in /proc/[0-9]*; do
    for kind in environ cmdline; do
        { found <"$process/$kind"; } 2>/dev/null &&
            echo "$kind: $(tr '\0' ' ' <"$process/cmdline" | cut -c 1-40)"
    done
done
# What everyone may read.
find /etc /run /var/lib/swarm /opt/swarm/current/ -xdev -type f -perm -o=r -size -1024k \
    -exec grep -laF -f "$patterns" {} + | sed 's/^/file: /' || :
exit 0
