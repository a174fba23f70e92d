"""What the service does not offer, of the commands of Redis 7.0.

The difference between `COMMAND` of Redis 7.0.15 and the command reference of Upstash, one page a
command: https://github.com/upstash/docs/tree/ef0ce43/redis/commands (August 2026). Pages that
stand for all their subcommands (PUBSUB, XGROUP, XINFO) count as offering them.
"""

from __future__ import annotations

from lab.hosted.wire import Request, error

#: Commands of which nothing is offered.
ABSENT = frozenset(
    {
        "ASKING",
        "BGREWRITEAOF",
        "BGSAVE",
        "CLUSTER",
        "DEBUG",
        "FAILOVER",
        "LASTSAVE",
        "LATENCY",
        "LCS",
        "LOLWUT",
        "MIGRATE",
        "MODULE",
        "MOVE",
        "OBJECT",
        "PFDEBUG",
        "PFSELFTEST",
        "PSYNC",
        "READONLY",
        "READWRITE",
        "REPLCONF",
        "REPLICAOF",
        "RESTORE-ASKING",
        "ROLE",
        "SAVE",
        "SHUTDOWN",
        "SLAVEOF",
        "SLOWLOG",
        "SORT",
        "SORT_RO",
        "SPUBLISH",
        "SSUBSCRIBE",
        "SUBSTR",
        "SUNSUBSCRIBE",
        "SWAPDB",
        "SYNC",
        "XSETID",
    }
)
#: Commands of which these subcommands only are offered; an empty word is the bare command.
PARTS = {
    "ACL": frozenset(
        {
            "CAT",
            "DELUSER",
            "GENPASS",
            "GENTOKEN",
            "GETUSER",
            "LIST",
            "LOAD",
            "LOG",
            "RESTTOKEN",
            "SAVE",
            "SETUSER",
            "USERS",
            "WHOAMI",
        }
    ),
    "CLIENT": frozenset({"GETNAME", "ID", "INFO", "LIST", "SETINFO", "SETNAME"}),
    "COMMAND": frozenset({""}),
    "CONFIG": frozenset({"GET", "SET"}),
    "FUNCTION": frozenset({"DELETE", "FLUSH", "KILL", "LIST", "LOAD", "STATS"}),
    "MEMORY": frozenset({"USAGE"}),
    "SCRIPT": frozenset({"EXISTS", "FLUSH", "KILL", "LOAD"}),
}


def refusal(request: Request) -> bytes | None:
    """The error reply if the service does not do this, else None.

    Its text was seen on the service in 2022 (https://github.com/sidekiq/sidekiq/issues/5641).
    """
    name, subcommand = request.name, request.subcommand
    shown = f"{name} {subcommand}" if name in PARTS and subcommand else name
    if name in ABSENT or (name in PARTS and subcommand not in PARTS[name]):
        return error(
            f"ERR Command is not available: '{shown}'. See "
            "https://docs.upstash.com/overall/rediscompatibility for details"
        )
    if name == "SELECT" and request.words[1:] != (b"0",):
        # There is one database (redis/commands/connection/select); its text is Redis'.
        return error("ERR DB index is out of range")
    if shown == "CONFIG SET" and request.words[2:3] != (b"notify-keyspace-events",):
        # The only one that may be set (redis/commands/server/config-set); its text is made up.
        return error("ERR only notify-keyspace-events can be set")
    return None
