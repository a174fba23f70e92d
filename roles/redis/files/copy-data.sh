#!/bin/sh
# Copy the append-only files of a running Redis:  copy-data.sh PORT DIRECTORY <ADMIN'S PASSWORD
# The copy is DIRECTORY/appendonlydir. Redis goes on working meanwhile.
set -eu

port=$1 directory=$2
read -r password
# By stdin: an argument or a variable of the environment would show in the process list.
ask() { printf 'AUTH admin "%s"\n%s\n' "$password" "$*" | redis-cli -p "$port" | tail -n +2 | tr -d '\r'; }
expect() { # expect WHAT COMMAND...
    wanted=$1 && shift && said=$(ask "$@")
    [ "$said" = "$wanted" ] || { echo "$*: $said" >&2; exit 1; }
}
persistence() { ask info persistence | sed -n "s/^$1://p"; }
wait_for_rewrite() {
    while [ "$(persistence aof_rewrite_in_progress)$(persistence aof_rewrite_scheduled)" != 00 ]; do
        sleep 0.2
    done
}

expect PONG ping
wait_for_rewrite
expect "Background append only file rewriting started" bgrewriteaof
wait_for_rewrite
[ "$(persistence aof_last_bgrewrite_status)" = ok ] || { echo "the rewrite failed" >&2; exit 1; }

# A rewrite would replace the files while they are copied. A restart of Redis sets it right, too.
percentage=$(ask config get auto-aof-rewrite-percentage | sed -n 2p)
trap 'expect OK config set auto-aof-rewrite-percentage "$percentage"' EXIT
expect OK config set auto-aof-rewrite-percentage 0
wait_for_rewrite

rm -rf "$directory"
install -d -m 0700 "$directory"
cp -a /var/lib/redis/appendonlydir "$directory/"
