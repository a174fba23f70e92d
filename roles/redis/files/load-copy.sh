#!/bin/sh
# Load a copy of the data into a Redis of its own that nobody can reach, and print what is in it:
#   load-copy.sh DIRECTORY [rewrite]        (DIRECTORY/appendonlydir is the copy)
# One line of JSON: all keys, those that never expire, whose number no passing time changes, and
# those that the base file brought. If the copy ends in half a command, Redis cuts that off, as
# it would after a crash. With `rewrite` all of it is in the base file afterwards.
set -eu

directory=$1
socket=$directory/socket
answer() { redis-cli -s "$socket" "$@"; }

redis-server --port 0 --unixsocket "$socket" --unixsocketperm 700 --dir "$directory" \
    --appendonly yes --appenddirname appendonlydir --save '' --daemonize no \
    --logfile "$directory/log" &
server=$!
trap 'kill "$server" 2>/dev/null || :; wait "$server" 2>/dev/null || :; rm -f "$socket"' EXIT

# It answers LOADING until it has read everything, and ends when it cannot.
until [ "$(answer ping 2>/dev/null)" = PONG ]; do
    kill -0 "$server" 2>/dev/null || { tail -n 3 "$directory/log" >&2; exit 1; }
    sleep 0.1
done
if [ "${2:-}" = rewrite ]; then
    answer bgrewriteaof >/dev/null
    until answer info persistence | grep -q '^aof_rewrite_in_progress:0'; do sleep 0.1; done
    answer info persistence | grep -q '^aof_last_bgrewrite_status:ok' ||
        { echo "the copy could not be rewritten" >&2; exit 1; }
fi
{ answer info keyspace; answer info persistence; } | tr -d '\r' | awk -F '[:=,]' '
    /^db[0-9]+:/ { keys += $3; lasting += $3 - $5 }
    /^rdb_last_load_keys_loaded:/ { base = $2 }
    END { printf "{\"keys\": %d, \"lasting\": %d, \"base\": %d}\n", keys, lasting, base }'
