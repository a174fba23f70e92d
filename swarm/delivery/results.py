"""The result backend: Celery's Redis backend, ending each task in one step.

Whoever ends a task, the pool child or the parent that saw it fail, calls one of the `mark_as_*`
methods. What they would store and publish is collected, and committed by one script that does
nothing if the message is no longer held.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import redis
from celery import states
from celery.backends import redis as celery_redis
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import GroupResult, allow_join_result
from vine import promise

from swarm.brokers import QUIET
from swarm.delivery import outcome as outcomes
from swarm.delivery.commit import DONE_S, commit
from swarm.delivery.connections import patient
from swarm.delivery.outcome import Outcome
from swarm.delivery.waiting import Mailboxes, ResultConsumer

log = logging.getLogger(__name__)

#: Bounds of the time between two calls of `on_interval`, in seconds: a look at the parents of the
#: result that is waited for, and once, as vine's promises do it, a callback of the user's.
_FIRST_INTERVAL_S, _LONGEST_INTERVAL_S = 1.0, 30.0
COMPLETE_CHORD = "swarm.complete_chord"


class ResultBackend(celery_redis.RedisBackend):
    """Stores results as stock Celery does, and commits tasks with them."""

    ResultConsumer = ResultConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connparams.update(QUIET)
        self._mailboxes = Mailboxes()

    def _get_pool(self, **params: Any) -> Any:
        """Connections of a producer that is promised an answer in time."""
        connection_class = patient(params.get("connection_class", redis.Connection))
        return super()._get_pool(**{**params, "connection_class": connection_class})

    def ensure(self, fun: Callable[..., Any], args: Any, **policy: Any) -> Any:
        """Celery tries for 20 s: inside a task. A producer is told at once, unless set up else."""
        if outcomes.is_collecting() or "retry_policy" in self._transport_options:
            return super().ensure(fun, args, **policy)
        return fun(*args)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Called by `apply_async` before it publishes.

        Stock subscribes to the task's channel here, so that submitting needs a second connection
        and three more commands, and hangs on it when Redis is away. Here the subscription waits
        until somebody waits for the result.
        """

    # -- the ends of a task

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        if _has_ended(request):
            return
        with self._ending(request):
            super().mark_as_done(task_id, result, request, store_result, state)

    def mark_as_failure(self, task_id: str, exc: Any, *args: Any, **kwargs: Any) -> None:
        if _has_ended(kwargs.get("request")):
            return
        # What a success would have published is void.
        with self._ending(kwargs.get("request"), anew=True):
            super().mark_as_failure(task_id, exc, *args, **kwargs)

    def mark_as_revoked(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        if _has_ended(kwargs.get("request")):
            return
        with self._ending(kwargs.get("request"), anew=True):
            super().mark_as_revoked(task_id, *args, **kwargs)

    def mark_as_retry(self, task_id: str, exc: Any, *args: Any, **kwargs: Any) -> Any:
        if _has_ended(kwargs.get("request")):
            return None
        with self._ending(kwargs.get("request")) as outcome:
            if outcome is not None:
                outcome.goes_on = True
            return super().mark_as_retry(task_id, exc, *args, **kwargs)

    def process_cleanup(self) -> None:
        """Called when the trace of a task is over: ends what ended without a result."""
        outcome = outcomes.collecting()
        outcomes.end()
        # SIGTERM and the like raise in the midst of a body or its end: that is a death.
        was_interrupted = sys.exc_info()[0] is not None
        if outcome is not None and not outcome.is_closed and not was_interrupted:
            commit(outcome, self.client)
        super().process_cleanup()

    @contextmanager
    def _ending(self, request: Any, *, anew: bool = False) -> Iterator[Outcome | None]:
        """Collect what happens inside for the request and commit it.

        Inside another end (an errback's, a chord's) it only collects.
        """
        outcome = outcomes.collecting()
        if outcome is not None and outcome is not getattr(request, "outcome", None):
            yield None
            return
        with outcomes.collected(request, anew=anew) as outcome:
            yield outcome
        if outcome is not None:
            commit(outcome, self.client)
            outcomes.end()

    # -- what is stored meanwhile

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        outcome = outcomes.collecting()
        if outcome is None:
            return super()._store_result(
                task_id, result, state, traceback, request=request, **kwargs
            )
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = task_id
        key, value = self.get_key_for_task(task_id), self.encode(meta)
        expires = self.failure_expires if state == states.FAILURE else self.expires
        outcome.store(key, value, expires or DONE_S)
        outcome.answer(key, value)
        return result

    def _set_chord_key(self, key: Any, value: Any) -> None:
        outcome = outcomes.collecting()
        if outcome is None:
            super()._set_chord_key(key, value)
        else:
            outcome.store(key, value, self.chord_expires or DONE_S)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        outcome = outcomes.collecting()
        if outcome is None:
            super().set_chord_size(group_id, chord_size)
        else:
            outcome.delete(self.get_key_for_group(group_id, ".c"))
            self._set_chord_key(self.get_key_for_group(group_id, ".s"), chord_size)

    def add_to_chord(self, group_id: str, result: Any) -> None:
        outcome = outcomes.collecting()
        if outcome is None:
            super().add_to_chord(group_id, result)
        else:
            ttl_s = self.chord_expires or DONE_S
            outcome.add(self.get_key_for_group(group_id, ".t"), 1, ttl_s)

    # -- waiting

    def wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_message: Any = None,
        on_interval: Any = None,
        callback: Any = None,
        propagate: bool = True,
        **kwargs: Any,
    ) -> Any:
        """What `AsyncResult.get` does: who waits for one result needs no subscription."""
        self._ensure_not_eager()
        value = self._wait(result, timeout, on_interval)
        self.remove_pending_result(result)
        if value is None:
            raise CeleryTimeoutError("The operation timed out.")
        meta = self.decode_result(value)
        if on_message is not None:
            on_message(meta)
        result._maybe_set_cache(meta)  # noqa: SLF001 - as Celery's own backends do
        return result.maybe_throw(callback=callback, propagate=propagate)

    def _wait(self, result: Any, timeout_s: float | None, on_interval: Any) -> bytes | None:
        """The stored result, or None. `on_interval` raises a parent's failure, or is the user's."""
        mailbox = self._mailboxes.mine(self._waiting_pool)
        key = self.get_key_for_task(result.id)
        if not _leads_somewhere(on_interval):
            return mailbox.wait(self.client, key, timeout_s)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        interval_s = _FIRST_INTERVAL_S
        while True:
            left_s = interval_s if deadline is None else deadline - time.monotonic()
            value = mailbox.wait(self.client, key, max(0.0, min(interval_s, left_s)))
            on_interval()
            if value is not None or (deadline is not None and time.monotonic() >= deadline):
                return value
            interval_s = min(2 * interval_s, _LONGEST_INTERVAL_S)

    @cached_property
    def _waiting_pool(self) -> redis.ConnectionPool:
        return redis.ConnectionPool(**self.connparams)

    # -- chords

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> None:
        """Add a part to its group; the last one starts the task that completes the chord.

        Stock joins the parts and publishes the chord's body here, after the part is stored: a
        worker that dies in between has ended the chord for good.
        """
        outcome = outcomes.collecting()
        if outcome is None:
            super().on_chord_part_return(request, state, result, propagate, **kwargs)
            return
        task_id, group_id = request.id, request.group
        if not group_id or not task_id:
            return
        member = self.encode([1, task_id, state, self.encode_result(result, state)])
        outcome.add_part(
            self.get_key_for_group(group_id),
            "+inf" if request.group_index is None else request.group_index,
            member,
            self.chord_expires or DONE_S,
            self._completion(group_id, request),
        )

    def _completion(self, group_id: str, request: Any) -> outcomes.Successor:
        signature = self.app.signature(
            COMPLETE_CHORD,
            args=(group_id, request.chord),
            immutable=True,
            task_id=outcomes.successor_id(group_id, "chord"),
        )
        options: dict[str, Any] = {}
        queue = (getattr(request, "delivery_info", None) or {}).get("routing_key")
        if queue in self.app.amqp.queues:
            # Workers of this queue are there, and any of them can do it.
            options["queue"] = queue
        with outcomes.captured() as messages:
            signature.apply_async(add_to_parent=False, ignore_result=True, **options)
        return messages[0]

    def complete_chord(self, group_id: str, body: Any, request: Any) -> None:
        """Publish a chord's body with the results of its parts, or fail it with theirs.

        `request` is that of the completing task, whose parent is the chord's last part.
        """
        callback = maybe_signature(body, app=self.app)
        spent = [".s"]
        try:
            results = self._chord_results(group_id)
            callback.apply_async((results,), parent_id=request.parent_id, root_id=request.root_id)
            spent += [".j", ".t", ".d"]
        except ChordError as exc:
            self.chord_error_from_stack(callback, exc)
        except (redis.RedisError, OSError):
            raise
        except Exception as exc:
            log.exception("a chord could not be completed", extra={"fields": {"group": group_id}})
            self.chord_error_from_stack(callback, ChordError(f"Callback error: {exc!r}"))
        outcome = outcomes.collecting()
        if outcome is not None:
            for suffix in spent:
                outcome.delete(self.get_key_for_group(group_id, suffix))

    def _chord_results(self, group_id: str) -> list[Any]:
        header = GroupResult.restore(group_id, app=self.app)
        if header is not None:
            # Saved by `apply_chord` because a part is a group itself.
            header.on_ready()
            with allow_join_result():
                joined: list[Any] = header.join_native(
                    timeout=self.app.conf.result_chord_join_timeout, propagate=True
                )
            return joined
        parts = self.client.zrange(self.get_key_for_group(group_id, ".j"), 0, -1)
        return [self._unpack_chord_result(part, self.decode) for part in parts]


def _has_ended(request: Any) -> bool:
    """Whether the request's end is committed, or handed over to be.

    Celery tells of some ends twice: of a hard time limit as a failure and as a timeout.
    """
    outcome = getattr(request, "outcome", None)
    return outcome is not None and outcome.is_closed and outcomes.collecting() in (None, outcome)


def _leads_somewhere(on_interval: Any) -> bool:
    """Whether a call does anything: `AsyncResult.get` gives a promise that may be empty."""
    if isinstance(on_interval, promise):
        return on_interval.fun is not None or any(on_interval.listeners)
    return on_interval is not None
