#!/bin/sh
# Managed by Ansible: changes made here are overwritten.
# Puts into the packet filter what may change without a deployment: the addresses of the name servers,
# and those of the destinations that have a name. And puts the filter back where it was taken away.
#
# /etc/swarm/egress.names has a line for each: "resolver ADDRESS" (none: those of /etc/resolv.conf)
# and "destination NAME PORT".
set -eu

# Whoever loads /etc/nftables.conf anew may flush every table, this one too.
nft list table inet swarm_egress >/dev/null 2>&1 || nft --file /etc/swarm/egress.nft

names=/etc/swarm/egress.names
# Longer than between two runs; an address that is no longer named is forgotten.
lifetime=10m

learn() { # learn SET ELEMENT
    printf 'add element inet swarm_egress %s { %s }\n' "$1" "$2"
    printf 'delete element inet swarm_egress %s { %s }\n' "$1" "$2"
    printf 'add element inet swarm_egress %s { %s timeout %s }\n' "$1" "$2" "$lifetime"
}
family() { case $1 in *:*) echo 6 ;; *) echo 4 ;; esac; }
resolvers() {
    if grep -q '^resolver ' "$names"; then
        sed -n 's/^resolver //p' "$names"
    else
        sed -n 's/^nameserver[[:space:]]\{1,\}\([^[:space:]%]*\).*/\1/p' /etc/resolv.conf
    fi
}

{
    for address in $(resolvers); do
        learn "resolvers$(family "$address")" "$address"
    done
    sed -n 's/^destination //p' "$names" | while read -r name port; do
        getent ahosts "$name" | awk '{ print $1 }' | sort -u | while read -r address; do
            learn "destinations$(family "$address")" "$address . $port"
        done
    done
} | nft --file -
