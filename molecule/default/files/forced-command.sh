#!/bin/bash
# What the scaler's key opens on a worker host: forced-command.sh ADDRESS
set -euo pipefail

address=$1
failures=0
fail() { echo "$address: $*"; failures=1; }

connect() {
    ssh -i /etc/swarm/scaler/id_ed25519 -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR \
        -o UserKnownHostsFile=/etc/swarm/scaler/known_hosts -o StrictHostKeyChecking=yes \
        -o ConnectTimeout=10 "$@" </dev/null
}

answer=$(connect "swarm-scaler@$address" list)
python3 -c 'import json, sys; json.loads(sys.argv[1])["instances"]' "$answer" ||
    fail "list is no JSON object with instances: $answer"

answer=$(connect "swarm-scaler@$address" cancel no-such-task)
python3 - "$answer" <<'EOF' || fail "cancel is not answered as it should be: $answer"
import json, sys
instances = json.loads(sys.argv[1])["instances"]
assert all(instance.get("outcome") == "absent" for instance in instances)
EOF

# Exit 2 and one line on stderr: it was understood, and refused.
refused() {
    status=0
    out=$(connect "swarm-scaler@$address" "$@" 2>&1 >/dev/null) || status=$?
    [ "$status" -eq 2 ] || fail "exit $status instead of 2: $*"
    [ "$(wc -l <<<"$out")" -eq 1 ] || fail "not one line on stderr: $*: $out"
}

refused
refused id
refused /bin/sh
refused "list; id"
refused "list extra"
refused cancel
refused "cancel a b"
refused "cancel ../x"
refused "start browser 0"
refused "start browser 100"
refused "start browser 1 2"
refused "start browser -1"
refused "start browser 1; id"
# shellcheck disable=SC2016
refused 'start $(id) 1'
refused 'start ../browser 1'
refused "start ssh.service 1"
refused "restart browser 1"
refused "stop no_pool 1"
refused $'list\nid'

# No terminal, no forwarding, no other user, no file transfer.
! connect -W "$address:22" "swarm-scaler@$address" 2>/dev/null || fail "forwards ports"
! connect -s "swarm-scaler@$address" sftp >/dev/null 2>&1 || fail "serves sftp"
for user in root swarm-worker; do
    ! connect "$user@$address" list 2>/dev/null || fail "opens $user"
done
exit "$failures"
