"""The dead-letter list: what could not be done, whole, with its history."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from swarm.delivery import keys, scripts
from swarm.errors import PermanentError

#: About how many letters one reply brings. All at once may be more than the broker sends within
#: its time limit, while everybody else waits.
_PORTION = 100


class NoSuchLetterError(PermanentError):
    """No dead letter has this tag or task id."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message: where it came from, why it is here, who died under it."""

    tag: str
    """Its delivery tag, or a hash of a message that has none."""
    task_id: str
    task: str
    key: str
    """The list in Redis from which it was taken, and into which a replay puts it."""
    reason: str
    at: datetime
    history: tuple[str, ...]
    """A line for each worker that died under it."""
    message: str
    """As it was published. Bytes that are no UTF-8 stand as surrogate escapes."""

    @property
    def queue(self) -> str:
        return self.key.partition("\x06")[0]

    def arguments(self) -> Any:
        """The task's arguments, `[args, kwargs, embedded]`; None when they cannot be read."""
        try:
            body = base64.b64decode(json.loads(self.message)["body"])
            return json.loads(body)
        except (ValueError, KeyError, TypeError):
            return None


class DeadLetters:
    """Reads and empties the list on one broker. Every method raises redis.RedisError."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def all(self) -> list[DeadLetter]:
        """The oldest first."""
        return sorted(self._read(), key=lambda letter: letter.at)

    def find(self, name: str) -> DeadLetter:
        """A letter by its tag or its task id.

        Raises:
            NoSuchLetterError: there is none.
        """
        entry = self._client.hget(keys.DEAD, name)
        if entry is not None:
            return _parse(entry)
        found = [letter for letter in self._read() if letter.task_id == name]
        if not found:
            raise NoSuchLetterError(
                f"no dead letter {name}; `swarm dead list` shows those there are"
            )
        return min(found, key=lambda letter: letter.at)

    def replay(self, letter: DeadLetter) -> bool:
        """Back to the tail of its queue, its deaths forgiven; False if it was gone already."""
        return bool(scripts.REPLAY.run(self._client, letter.tag))

    def drop(self, letter: DeadLetter) -> bool:
        """For good; False if it was gone already."""
        return bool(self._client.hdel(keys.DEAD, letter.tag))

    def _read(self) -> Iterator[DeadLetter]:
        seen = set()
        for tag, entry in self._client.hscan_iter(keys.DEAD, count=_PORTION):
            # A scan may bring one twice.
            if tag not in seen:
                seen.add(tag)
                yield _parse(entry)


def _parse(entry: Any) -> DeadLetter:
    document = json.loads(entry.decode("utf-8", "surrogateescape"), strict=False)
    return DeadLetter(
        tag=document["tag"],
        task_id=document["task_id"],
        task=document["task"],
        key=document["key"],
        reason=document["reason"],
        at=datetime.fromtimestamp(document["at"] / 1000, UTC),
        # cjson writes an empty list as {}.
        history=tuple(document["history"]),
        message=document["message"],
    )
