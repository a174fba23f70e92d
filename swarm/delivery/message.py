"""A message: what kombu prepares and expects, and what the scripts are told of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kombu.utils.json import dumps, loads

from swarm.delivery.outcome import Successor

#: The header that carries a task's idempotency key.
IDEMPOTENCY_HEADER = "idempotency_key"
#: The property that says how long a taken message waited.
WAITED_PROPERTY = "waited_s"
#: An ETA this close is now; the broker's clock said that it is due.
_DUE_WITHIN_S = 1.0


def successor_for(key: str, message: dict[str, Any]) -> Successor:
    """A message, as kombu prepares it, on its way into the list `key`."""
    headers = message.get("headers") or {}
    return Successor(
        key=key,
        message=dumps(message),
        due=_due(headers),
        task_id=str(headers.get("id") or ""),
    )


def decode(message: bytes) -> dict[str, Any]:
    """A message as kombu expects it. Whoever released it has said so in its properties.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no message.
    """
    payload: dict[str, Any] = loads(message.decode())
    properties = payload["properties"]
    if properties.pop("redelivered", False):
        payload.setdefault("headers", {})["redelivered"] = True
        properties.setdefault("delivery_info", {})["redelivered"] = True
    return payload


def note_wait(payload: dict[str, Any], now: int) -> None:
    """Turn the time since when a message waits into seconds, for whoever runs its task.

    `now` is the broker's clock in epoch milliseconds, as is what the message carries; a stepped
    clock makes no negative wait. Who publishes with stock kombu leaves no time.
    """
    properties = payload["properties"]
    properties.pop(WAITED_PROPERTY, None)
    since = properties.pop("waits_since", None)
    if isinstance(since, int):
        properties[WAITED_PROPERTY] = max(0, now - since) / 1000


def waited_s(request: Any) -> float | None:
    """Seconds that a running task's message waited until it was taken; None where nobody knows."""
    waited = (getattr(request, "properties", None) or {}).get(WAITED_PROPERTY)
    return waited if isinstance(waited, float) else None


def idempotency_key(message: dict[str, Any]) -> str:
    """The key under which the task is to be queued once; "" for none."""
    return str((message.get("headers") or {}).get(IDEMPOTENCY_HEADER) or "")


def payloads_key(args: Any, kwargs: Any) -> str:
    """The key that a task's payload itself carries as `idempotency_key`; "" for none."""
    first = args[0] if isinstance(args, list | tuple) and args else None
    for holder in (first, kwargs):
        if isinstance(holder, dict) and isinstance(holder.get(IDEMPOTENCY_HEADER), str):
            return str(holder[IDEMPOTENCY_HEADER])
    return ""


def _due(headers: dict[str, Any]) -> str:
    """When a message is due, in epoch milliseconds; "" for now, or when nobody can tell."""
    eta = _eta(headers)
    if eta is None or eta <= datetime.now(UTC):
        return ""
    return str(int(eta.timestamp() * 1000))


def is_due(headers: dict[str, Any]) -> bool:
    """Whether an ETA, which the message still carries, has come."""
    eta = _eta(headers)
    return eta is not None and (eta - datetime.now(UTC)).total_seconds() <= _DUE_WITHIN_S


def _eta(headers: dict[str, Any]) -> datetime | None:
    try:
        eta = datetime.fromisoformat(headers["eta"])
    except (KeyError, TypeError, ValueError):
        return None
    return eta if eta.tzinfo else eta.replace(tzinfo=UTC)
