r"""Names in Redis. What is not listed here is kombu's or Celery's own.

| key                              | type             | what                                   |
|----------------------------------|------------------|----------------------------------------|
| `<queue>`, `<queue>\x06\x16<N>`   | list             | waiting, by priority, as kombu does it |
| `swarm:bell:<queue>`             | list of 0 or 1   | idle workers wait for it               |
| `swarm:scheduled:<list>`         | sorted set       | messages with an ETA, by epoch ms      |
| `swarm:held:<holder>`            | list             | taken, not committed                   |
| `swarm:lease:<holder>`           | string, expires  | it lives, and has held something long  |
| `swarm:holders`                  | hash             | holder -> its queues                   |
| `swarm:deaths:<delivery tag>`    | list, expires    | workers that died under the message    |
| `swarm:dead`                     | hash             | dead letters: delivery tag -> entry    |
| `swarm:done:<task id>`           | string, expires  | the task is committed                  |
| `swarm:sent:<delivery tag>:<key>`| string, expires  | the message was published              |
| `swarm:claim:<idempotency key>`  | string, expires  | the task that has it                   |
| `swarm:revoked:<task id>`        | string, expires  | not to be started                      |
| `swarm:waiting:<result key>`     | set, expires     | mailboxes of those who wait for it     |
| `swarm:mailbox:<id>`             | list, expires    | results for one who waits              |
| `swarm:usage`                    | number           | requests of producers, if metered      |
| `swarm:closed`                   | string, expires  | why producers are to go elsewhere      |
"""

from __future__ import annotations

HOLDERS = "swarm:holders"
DEAD = "swarm:dead"
USAGE = "swarm:usage"
CLOSED = "swarm:closed"


def bell(queue: str) -> str:
    """A queue's bell."""
    return f"swarm:bell:{queue}"


def held(holder: str) -> str:
    """What a holder has."""
    return f"swarm:held:{holder}"


def lease(holder: str) -> str:
    """A holder's lease."""
    return f"swarm:lease:{holder}"


def revoked(task_id: str) -> str:
    """The mark of a revoked task."""
    return f"swarm:revoked:{task_id}"
