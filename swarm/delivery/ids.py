"""Task ids that tell which broker has the task.

A new id is a UUID whose version says it: 4, as Celery makes them, for the primary, and 8, which
RFC 9562 leaves to applications, for the fallback. A task that one broker refuses keeps all other
digits on the other one. What has an id from elsewhere, or was frozen into a workflow before its
broker refused it, cannot be told by its id: it is looked for on both.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import uuid4

from swarm.brokers import BrokerName

_VERSION_AT: Final = 14
_VERSIONS: Final[dict[BrokerName, str]] = {"primary": "4", "fallback": "8"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[48][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_id(broker: BrokerName) -> str:
    """An id that nobody else has."""
    return named(str(uuid4()), broker)


def named(task_id: str, broker: BrokerName) -> str:
    """The same id, if it is one of ours, for another broker."""
    if _UUID.fullmatch(task_id) is None:
        return task_id
    return task_id[:_VERSION_AT] + _VERSIONS[broker] + task_id[_VERSION_AT + 1 :]


def broker_of(task_id: str) -> BrokerName:
    """The broker that an id names: the primary unless it says otherwise."""
    if _UUID.fullmatch(task_id) and task_id[_VERSION_AT] == _VERSIONS["fallback"]:
        return "fallback"
    return "primary"
