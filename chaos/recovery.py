"""How long it takes until what a victim held is back in its queue, as seen in Redis.

The time runs from just before the kill to the first look at which the message is no longer the
victim's, without the seconds in which Redis was away on purpose. What the victim committed before
it died was not recovered, and is no sample. Which bound a sample has to keep: `chaos.waits`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import redis

from chaos.waits import Outage, Sample, VictimKind, measure

#: Seconds between two looks.
PAUSE_S = 0.05
#: Holder, delivery tag, task id, how many workers died under it; for everything held.
_LOOK = """
local reply = {}
for _, holder in ipairs(redis.call('HKEYS', 'swarm:holders')) do
  for _, envelope in ipairs(redis.call('LRANGE', 'swarm:held:' .. holder, 0, -1)) do
    local tag = string.match(envelope, '"delivery_tag":%s*"([^"]+)"') or ''
    reply[#reply + 1] = holder
    reply[#reply + 1] = tag
    reply[#reply + 1] = string.match(envelope, '"id":%s*"([^"]+)"') or ''
    reply[#reply + 1] = redis.call('LLEN', 'swarm:deaths:' .. tag)
  end
end
return reply
"""


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """One message with its holder."""

    holder: str
    tag: str
    task_id: str
    deaths: int


@dataclass(slots=True)
class _Victim:
    kind: VictimKind
    fault: str
    struck_at: float
    message: HeldMessage


def look(client: redis.Redis) -> list[HeldMessage]:
    """Everything that is held now.

    Raises:
        redis.RedisError: the broker is away.
    """
    reply: list[Any] = client.eval(_LOOK, 0)
    rows = zip(reply[0::4], reply[1::4], reply[2::4], reply[3::4], strict=True)
    return [
        HeldMessage(holder.decode(), tag.decode(), task_id.decode(), deaths)
        for holder, tag, task_id, deaths in rows
    ]


@dataclass(slots=True)
class Watch:
    """Looks until it is closed; a context manager around its thread."""

    connect: Callable[[], redis.Redis]
    samples: list[Sample] = field(default_factory=list)
    _outages: list[Outage] = field(default_factory=list)
    _victims: list[_Victim] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def note_victims(
        self, kind: VictimKind, fault: str, messages: Iterable[HeldMessage], struck_at: float
    ) -> None:
        """These were held by what was struck at this moment."""
        with self._lock:
            self._victims += [_Victim(kind, fault, struck_at, message) for message in messages]

    @contextlib.contextmanager
    def outage(self, prefix: str = "", *, recovery_grace_s: float) -> Iterator[None]:
        """Redis is away in this block for holders with this prefix: one host's, or all."""
        outage = Outage(time.monotonic(), recovery_grace_s=recovery_grace_s, prefix=prefix)
        with self._lock:
            self._outages.append(outage)
        try:
            yield
        finally:
            outage.end = time.monotonic()

    def open_victims(self, fault: str = "") -> int:
        """How many messages have not come back yet."""
        with self._lock:
            return sum(not fault or victim.fault == fault for victim in self._victims)

    def _run(self) -> None:
        client = self.connect()
        while not self._closed.wait(PAUSE_S):
            if not self._victims:
                continue
            try:
                held = {(each.holder, each.tag): each for each in look(client)}
                now = time.monotonic()
                self._resolve_victims(client, held, now)
            except (redis.RedisError, OSError):
                continue
        client.close()

    def _resolve_victims(
        self, client: redis.Redis, held: dict[tuple[str, str], HeldMessage], now: float
    ) -> None:
        with self._lock:
            victims = list(self._victims)
        for victim in victims:
            message = victim.message
            there = held.get((message.holder, message.tag))
            # Its own instance may have taken it again already: then a death more is counted.
            if there is not None and there.deaths <= message.deaths:
                continue
            mark = client.get(f"swarm:done:{message.task_id}")
            with self._lock:
                self._victims.remove(victim)
                if mark == f"{message.holder} {message.tag}".encode() and there is None:
                    continue
                wait = (victim.struck_at, now)
                self.samples.append(
                    measure(victim.kind, victim.fault, message.holder, wait, self._outages)
                )


def held_by(messages: Iterable[HeldMessage], prefix: str) -> list[HeldMessage]:
    """What holders with this prefix have: `<host>:` or `<host>:<pool>:<N>:`."""
    return [message for message in messages if message.holder.startswith(prefix)]
