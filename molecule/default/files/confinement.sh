#!/bin/bash
# First a canary: do these hosts enforce what a unit asks for? In a container without the rights
# they do not, and say nothing. Then the same questions to the running worker celery-browser@98.
set -euo pipefail

failures=0
fail() { echo "$*"; failures=1; }
run() { systemd-run --quiet --wait --pipe --collect "$@"; }

touch /tmp/swarm-canary
trap 'rm -f /tmp/swarm-canary' EXIT

# Without confinement a unit can do both; else the refusals below would prove nothing.
run sh -c 'test -e /tmp/swarm-canary && touch /usr/swarm-canary && rm /usr/swarm-canary' ||
    fail "canary: an unconfined unit cannot even write"
# shellcheck disable=SC2251
! run -p ProtectSystem=strict touch /usr/swarm-canary 2>/dev/null ||
    fail "canary: ProtectSystem=strict is not enforced on this host"
! run -p PrivateTmp=true test -e /tmp/swarm-canary ||
    fail "canary: PrivateTmp is not enforced on this host"
secret=$(mktemp)
echo canary >"$secret"
# shellcheck disable=SC2016
[ "$(run -p "LoadCredential=canary:$secret" sh -c 'cat "$CREDENTIALS_DIRECTORY/canary"')" = canary ] ||
    fail "canary: LoadCredential gives nothing on this host"
rm -f "$secret"

pid=$(systemctl show -P MainPID celery-browser@98.service)
[ "$pid" -gt 0 ] || { fail "celery-browser@98 does not run"; exit 1; }
# In the worker's view of the file system, as root even: the mounts forbid it, not the modes.
inside() { nsenter --mount --target "$pid" -- "$@"; }

for directory in /usr /etc /var/lib /opt/swarm /home /root; do
    ! inside touch "$directory/swarm-canary" 2>/dev/null || fail "worker: $directory is writable"
done
! inside test -e /tmp/swarm-canary || fail "worker: it sees the host's /tmp"
[ -z "$(inside ls -A /root)" ] || fail "worker: it sees /root"
! inside test -e /dev/tty1 || fail "worker: it sees the host's devices"
for directory in /run/swarm/instances /run/swarm/control /var/lib/swarm/artifacts; do
    inside touch "$directory/.canary" || fail "worker: it cannot write to $directory"
    rm -f "$directory/.canary"
done
control=/run/swarm/control/browser-98.sock
[ "$(stat -c '%F %a %U %G' $control)" = "socket 660 swarm-worker swarm-scaler" ] ||
    fail "worker: $control is $(stat -c '%F %a %U %G' $control)"
as() { runuser -u "$1" -- "${@:2}"; }
! as swarm-worker chmod 3777 /run/swarm/control 2>/dev/null ||
    fail "worker: it can open the directory of its sockets to others"
! as swarm-scaler touch /run/swarm/control/.canary 2>/dev/null ||
    fail "scaler: it can write to the directory of the sockets"
! as nobody ls /run/swarm/control >/dev/null 2>&1 || fail "anybody sees the sockets"
as swarm-scaler ls /run/swarm/control >/dev/null || fail "scaler: it does not get to the sockets"

status() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$pid/status"; }
[ "$(status NoNewPrivs)" = 1 ] || fail "worker: new privileges are allowed"
[ "$(status Seccomp)" = 2 ] || fail "worker: no seccomp filter"
for set in CapEff CapPrm CapBnd CapAmb; do
    [ "$(status $set)" = 0000000000000000 ] || fail "worker: $set is not empty"
done
[ "$(stat -c %U "/proc/$pid")" = swarm-worker ] || fail "worker: wrong user"
case $(cat "/proc/$pid/cgroup") in
*/swarm.slice/celery-browser@98.service*) ;;
*) fail "worker: not in swarm.slice" ;;
esac

# Enforced by the kernel under cgroup v2 only; asked for in any case.
[ "$(systemctl show -P MemoryMax celery-browser@98.service)" != infinity ] || fail "no MemoryMax"

# Chromium's own sandbox: what runs pages stands in namespaces of its own, without capabilities.
cgroup=$(systemctl show -P ControlGroup celery-browser@98.service)
sandboxed=0
for process in /proc/[0-9]*; do
    grep -qsF "$cgroup" "$process/cgroup" || continue
    command=$(tr '\0' ' ' <"$process/cmdline")
    case $command in
    *--type=zygote*--no-zygote-sandbox* | *--no-zygote-sandbox*--type=zygote*) continue ;;
    *--no-sandbox*) fail "chromium runs with --no-sandbox" ;;
    *--type=zygote* | *--type=renderer*) ;;
    *) continue ;;
    esac
    for kind in user pid net; do
        [ "$(readlink "$process/ns/$kind")" != "$(readlink "/proc/$pid/ns/$kind")" ] || continue 2
    done
    sandboxed=$((sandboxed + 1))
done
[ "$sandboxed" -gt 0 ] || fail "chromium: no process in namespaces of its own"

runuser -u swarm-scaler -- systemctl --no-ask-password stop celery-browser@98.service
exit "$failures"
