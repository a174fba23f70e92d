"""Names in Redis. What is not listed here is kombu's or Celery's own.

| key                          | type              | what                                            |
|------------------------------|-------------------|-------------------------------------------------|
| `<queue>`, `<queue>\\x06\\x16N` | list              | waiting messages by priority, as kombu has them |
| `swarm:bell:<queue>`         | list of 0 or 1    | idle workers wait for it                        |
| `swarm:scheduled:<queue>`    | sorted set        | messages with an ETA, by due time in epoch ms   |
| `swarm:held:<holder>`        | list              | taken, not committed                            |
| `swarm:lease:<holder>`       | string, expires   | the holder lives, and holds something for long  |
| `swarm:holders`              | hash              | holder -> its queues                            |
| `swarm:deaths:<tag>`         | list, expires     | workers that died under the message             |
| `swarm:dead`                 | hash              | dead letters: tag -> entry                      |
| `swarm:done:<task id>`       | string, expires   | the task is committed                           |
| `swarm:sent:<tag>`           | string, expires   | the message was published                       |
| `swarm:claim:<key>`          | string, expires   | idempotency key -> task id                      |
| `swarm:revoked:<task id>`    | string, expires   | the task is not to be started                   |
"""

from __future__ import annotations

HOLDERS = "swarm:holders"
DEAD = "swarm:dead"


def bell(queue: str) -> str:
    return f"swarm:bell:{queue}"


def held(holder: str) -> str:
    return f"swarm:held:{holder}"


def lease(holder: str) -> str:
    return f"swarm:lease:{holder}"


def revoked(task_id: str) -> str:
    return f"swarm:revoked:{task_id}"
