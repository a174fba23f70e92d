"""One key of each kind that the swarm keeps in Redis."""

from __future__ import annotations

from typing import Any

#: kombu's list for messages of a higher priority.
URGENT = "browser\x06\x163"
#: Each key of the contract with a value of its type.
KEYS: dict[str, tuple[Any, ...]] = {
    "browser": ("RPUSH", "browser", "m1", "m2", "m3"),
    URGENT: ("RPUSH", URGENT, "m1", "m2", "m3"),
    "swarm:bell:browser": ("RPUSH", "swarm:bell:browser", "1"),
    "swarm:scheduled:browser": ("ZADD", "swarm:scheduled:browser", "1", "m1"),
    "swarm:held:h": ("RPUSH", "swarm:held:h", "m1", "m2"),
    "swarm:lease:h": ("SET", "swarm:lease:h", "1"),
    "swarm:holders": ("HSET", "swarm:holders", "h", "browser"),
    "swarm:deaths:t": ("RPUSH", "swarm:deaths:t", "killed"),
    "swarm:dead": ("HSET", "swarm:dead", "t", "{}"),
    "swarm:done:i": ("SET", "swarm:done:i", "1"),
    "swarm:sent:t": ("SET", "swarm:sent:t", "1"),
    "swarm:claim:k": ("SET", "swarm:claim:k", "i"),
    "swarm:revoked:i": ("SET", "swarm:revoked:i", "1"),
    "celery-task-meta-i": ("SET", "celery-task-meta-i", "{}"),
    "celery-taskset-meta-g": ("SET", "celery-taskset-meta-g", "{}"),
    "_kombu.binding.browser": ("SADD", "_kombu.binding.browser", "b"),
    "elsewhere": ("SET", "elsewhere", "1"),
}
EVENTS = "/0.celeryev/worker.heartbeat"
RESULT = "celery-task-meta-i"
