"""The Lua scripts: every change of who has a message is one of them, and atomic.

`publish` is refused when Redis is full (maxmemory). The others say `allow-oom`: they drain, and a
full broker that could not be drained would stay full.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any

import redis

from swarm.brokers import classify

_LUA = files("swarm.delivery") / "lua"
_COMMON = (_LUA / "common.lua").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text and the hash by which Redis knows it."""

    text: str
    sha: str

    def run(self, client: redis.Redis, *arguments: Any) -> Any:
        """Run it by its hash; a server that does not know it yet is told its text.

        Raises:
            redis.RedisError: as redis-py raises it. A refusal may leave what came before it in the
                script; a message moves last.
        """
        try:
            return client.evalsha(self.sha, 0, *arguments)
        except redis.exceptions.NoScriptError:
            return client.eval(self.text, 0, *arguments)

    def command(self, *arguments: Any, known: bool) -> tuple[Any, ...]:
        """The command to send for it; `known` says whether the server knows its hash."""
        if known:
            return ("EVALSHA", self.sha, 0, *arguments)
        return ("EVAL", self.text, 0, *arguments)


def is_transient(exc: Exception) -> bool:
    """Whether a script that ended so may run later as it is."""
    if isinstance(exc, redis.exceptions.ResponseError):
        return classify(exc).state in {"slow", "down", "limited"}
    return isinstance(
        exc, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError | OSError
    )


def _load(name: str, *, drains: bool) -> Script:
    flags = " flags=allow-oom" if drains else ""
    body = (_LUA / f"{name}.lua").read_text(encoding="utf-8")
    text = f"#!lua{flags}\n{_COMMON}\n{body}"
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


PUBLISH = _load("publish", drains=False)
TAKE = _load("take", drains=True)
COMMIT = _load("commit", drains=True)
RELEASE = _load("release", drains=True)
REGISTER = _load("register", drains=True)
AWAIT = _load("await", drains=True)
SURVEY = _load("survey", drains=True)
RENEW = _load("renew", drains=True)
REPLAY = _load("replay", drains=False)
FIND = _load("find", drains=True)
