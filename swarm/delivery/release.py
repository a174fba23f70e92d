"""Letting go of held messages: back to their queues, or to the dead-letter list."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

import redis

from swarm.delivery import scripts
from swarm.delivery.holder import HolderName

#: Deaths of workers under one message that make it poison.
DEATHS = 3
#: Seconds a result lasts.
RESULT_S = 24 * 3600

Mode = Literal["return", "died", "dead", "forget"]
Choice = Literal["all", "only", "except", "unleased"]


def release(
    client: redis.Redis,
    holder: str,
    mode: Mode,
    reason: str,
    *,
    choice: Choice,
    needles: Iterable[str] = (),
) -> tuple[int, int]:
    """Release what a holder has; returns how many went to their queues and how many are dead.

    `mode` is why: `return` for what was never begun, `died` for what a worker died under (the
    third death makes it a dead letter), `dead` for what can never be done here,
    `forget` for what its consumer has acknowledged.
    `choice` is which: `all`, those whose tag or text is among `needles` (`only`), the others
    (`except`), or those among `needles` if the holder has no lease (`unleased`).

    Raises:
        redis.RedisError: what was not released by then is still held.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    returned, dead = scripts.RELEASE.run(
        client, holder, mode, reason, DEATHS, date, RESULT_S, choice, *needles
    )
    return returned, dead


def resume(
    client: redis.Redis, name: HolderName, queues: Iterable[str], running: set[str]
) -> tuple[int, int]:
    """Make a holder known; return what it does not run, and what its predecessors left.

    systemd runs one process a unit, so whatever an earlier invocation held has lost its worker.
    """
    prefix = name.instance if name.is_unit else ""
    earlier = scripts.REGISTER.run(client, str(name), ",".join(queues), prefix)
    returned, dead = release(
        client, str(name), "return", "reconnected", choice="except", needles=running
    )
    for predecessor in earlier:
        counts = release(client, predecessor, "died", "its instance restarted", choice="all")
        returned, dead = returned + counts[0], dead + counts[1]
    return returned, dead
