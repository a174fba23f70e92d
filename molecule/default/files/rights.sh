#!/bin/sh
# What polkit lets the scaler's user do. Leaves celery-browser@98 running for the next check.
set -eu

failures=0
as() { user=$1; shift; runuser -u "$user" -- systemctl --no-ask-password "$@"; }

allowed() {
    as swarm-scaler "$@" || { echo "refused, though it is the scaler's work: $*"; failures=1; }
}

denied() {
    if out=$(as "$@" 2>&1); then
        echo "let through: $*"
        failures=1
    else
        # Another error would prove nothing.
        case $out in
        *"Access denied"* | *"authentication required"*) ;;
        *) echo "failed for another reason: $*: $out"; failures=1 ;;
        esac
    fi
}

allowed start celery-browser@98.service
allowed stop celery-browser@98.service
allowed start celery-analysis@98.service
allowed restart celery-analysis@98.service
allowed stop celery-analysis@98.service

for unit in ssh.service dbus.service systemd-journald.service swarm.slice basic.target; do
    denied swarm-scaler start "$unit"
    denied swarm-scaler stop "$unit"
    denied swarm-scaler restart "$unit"
done
for unit in celery-browser@0.service celery-browser@100.service celery-browser@x.service \
    celery-browser@1-1.service celery-Browser@1.service; do
    denied swarm-scaler start "$unit"
done
denied swarm-scaler enable celery-browser@98.service
denied swarm-scaler mask celery-browser@98.service
denied swarm-scaler daemon-reload
denied swarm-scaler set-environment A=b
denied nobody start celery-browser@98.service
denied swarm-worker start celery-browser@98.service

systemctl is-active --quiet ssh.service || { echo "ssh is down"; failures=1; }

# These ask about a unit that systemd has in memory.
allowed start celery-browser@98.service
allowed reset-failed celery-browser@98.service
denied swarm-scaler kill celery-browser@98.service
denied swarm-scaler set-property --runtime celery-browser@98.service MemoryMax=1G
exit "$failures"
