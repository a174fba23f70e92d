"""The results of a producer with two brokers: each is asked for where its task is.

Where that is, this process knows of what it has submitted; else the id names the broker. What the
primary does not know may be on the fallback all the same: a task with an id of somebody's own, or a
part of a workflow that was ready when the primary refused it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from operator import methodcaller
from typing import Any

import redis
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from kombu.exceptions import OperationalError

from swarm.brokers import BrokerName, classify
from swarm.delivery.submission import Submission

_AWAY = (OperationalError, redis.RedisError)
#: Bounds of the time in seconds between two looks at the broker where a task is probably not, while
#: its result is waited for on the other one. Each is two requests there.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 5.0, 60.0
#: Bounds of the pause after a broker did not answer, in seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0
_PENDING = {"status": states.PENDING, "result": None}


class RoutedBackend:
    """A result backend for `AsyncResult` and the canvas; what is not here is the primary's."""

    def __init__(self, submission: Submission, primary: Any) -> None:
        self._submission = submission
        self._failover = submission.failover
        self.primary = primary

    def __getattr__(self, name: str) -> Any:
        return getattr(self.primary, name)

    # -- one result

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Celery's
        """What is stored for a task.

        Raises:
            RedisError, OSError: the broker that has it is away, or may have it.
        """
        meta: dict[str, Any] = self._found(
            task_id,
            lambda backend: backend.get_task_meta(task_id, cache=cache),
            lambda meta: meta["status"] != states.PENDING,
            dict(_PENDING),
        )
        return meta

    def task_result_exists(self, task_id: str) -> bool:
        return bool(self.get_task_meta(task_id, cache=False)["status"] != states.PENDING)

    def reload_task_result(self, task_id: str) -> None:
        self.get_task_meta(task_id, cache=False)

    def get_state(self, task_id: str) -> Any:
        return self.get_task_meta(task_id)["status"]

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        return self.get_task_meta(task_id).get("result")

    def get_traceback(self, task_id: str) -> Any:
        return self.get_task_meta(task_id).get("traceback")

    def get_children(self, task_id: str) -> Any:
        return self.get_task_meta(task_id).get("children")

    def is_cached(self, task_id: str) -> bool:
        return any(
            self._backend(name).is_cached(task_id) for name in self._submission.places(task_id)
        )

    def forget(self, task_id: str) -> None:
        for name in self._submission.places(task_id):
            self._backend(name).forget(task_id)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing, as with one broker."""

    # -- waiting

    def add_pending_result(self, result: Any, *args: Any, **options: Any) -> Any:
        return self._backend(self._submission.places(result.id)[0]).add_pending_result(
            result, *args, **options
        )

    def add_pending_results(self, results: Iterable[Any], weak: bool = False) -> list[Any]:  # noqa: FBT001, FBT002 - Celery's
        return [self.add_pending_result(result, weak=weak) for result in results]

    def remove_pending_result(self, result: Any) -> Any:
        return self._backend(self._submission.places(result.id)[0]).remove_pending_result(result)

    def wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        callback: Any = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's
        **options: Any,
    ) -> Any:
        """What `AsyncResult.get` does; a broker that is away is waited for as long as `timeout`.

        Raises:
            celery.exceptions.TimeoutError: there is no result in time.
            RedisError: the broker is away, at the end of `timeout` or without one.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                self._wait(result, deadline, options)
                break
            except _AWAY:
                if deadline is None or time.monotonic() + pause_s >= deadline:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return result.maybe_throw(callback=callback, propagate=propagate)

    def _wait(self, result: Any, deadline: float | None, options: dict[str, Any]) -> None:
        """Until the result is in `result`'s own cache."""
        place, *elsewhere = self._submission.places(result.id)
        look_s = _FIRST_LOOK_S
        while True:
            for name in elsewhere:
                meta = self._look(name, result.id)
                if meta["status"] in states.READY_STATES:
                    result._maybe_set_cache(meta)  # noqa: SLF001 - as Celery's own backends do
                    return
            left_s = _left(deadline)
            wait_s = left_s
            if elsewhere:
                wait_s = look_s if left_s is None else min(look_s, left_s)
            try:
                self._insist(place)
                wait = {"timeout": wait_s, "propagate": False, **options}
                self._observed(
                    place, methodcaller("wait_for_pending", result, **wait), is_wait=True
                )
            except CeleryTimeoutError:
                if not elsewhere or (left_s is not None and left_s <= look_s):
                    raise
            else:
                return
            look_s = min(2 * look_s, _LONGEST_LOOK_S)

    def _look(self, name: BrokerName, task_id: str) -> dict[str, Any]:
        """What is stored where the task is probably not."""
        try:
            self._insist(name)
            meta: dict[str, Any] = self._observed(
                name, lambda backend: backend.get_task_meta(task_id, cache=False)
            )
        except _AWAY:
            return _PENDING
        return meta

    # -- several results

    def get_many(self, task_ids: Iterable[str], **options: Any) -> Iterator[tuple[str, Any]]:
        """The results that are there, or come; Celery's own of each broker, one after the other."""
        found: dict[BrokerName, set[str]] = {}
        for task_id in task_ids:
            found.setdefault(self._submission.places(task_id)[0], set()).add(task_id)
        for name, own in found.items():
            yield from self._backend(name).get_many(own, **options)

    def iter_native(self, result: Any, **options: Any) -> Iterator[tuple[str, Any]]:
        """The results of a set as they come; one after the other if it may be on both brokers."""
        brokers = {name for each in result.results for name in self._submission.places(each.id)}
        if len(brokers) == 1:
            yield from self._backend(brokers.pop()).iter_native(result, **options)
            return
        timeout = options.get("timeout")
        deadline = None if timeout is None else time.monotonic() + timeout
        for each in result.results:
            each.get(timeout=_left(deadline), propagate=False, disable_sync_subtasks=False)
            yield each.id, each.children if hasattr(each, "results") else each._cache  # noqa: SLF001 - as Celery's own do

    # -- groups and chords

    def restore_group(self, group_id: str, cache: bool = True) -> Any:  # noqa: FBT001, FBT002 - Celery's
        return self._found(
            group_id,
            lambda backend: backend.restore_group(group_id, cache=cache),
            lambda found: found is not None,
            None,
        )

    def save_group(self, group_id: str, result: Any) -> Any:
        return self._backend(self._submission.places(group_id)[0]).save_group(group_id, result)

    def delete_group(self, group_id: str) -> None:
        for name in self._submission.places(group_id):
            self._backend(name).delete_group(group_id)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """What a chord begins with: where this is done, its parts go too."""
        self._submission.call(lambda backend: backend.set_chord_size(group_id, chord_size))

    def apply_chord(self, header_result_args: Any, body: Any, **options: Any) -> None:
        self._submission.call(
            lambda backend: backend.apply_chord(header_result_args, body, **options)
        )

    # -- where

    def _backend(self, name: BrokerName) -> Any:
        return self._submission.backend(name)

    def _found(
        self,
        task_id: str,
        read: Callable[[Any], Any],
        is_found: Callable[[Any], bool],
        nothing: Any,
    ) -> Any:
        """What is read on the first broker that has it.

        Raises:
            RedisError: the one that probably has it is away, and the other has not.
        """
        away: Exception | None = None
        for at, name in enumerate(self._submission.places(task_id)):
            try:
                self._insist(name)
                value = self._observed(name, read)
            except _AWAY as exc:
                away = exc if at == 0 else away
                continue
            if is_found(value):
                return value
        if away is not None:
            raise away
        return nothing

    def _insist(self, name: BrokerName) -> None:
        """Do not wait again and again for a broker that is away.

        Raises:
            redis.ConnectionError: it is.
        """
        if not self._failover.may_read(name):
            raise redis.ConnectionError(self._failover.reason(name))

    def _observed(
        self, name: BrokerName, read: Callable[[Any], Any], *, is_wait: bool = False
    ) -> Any:
        """Read there, and take note of how that went.

        A wait for a result says nothing of how fast the broker is.
        """
        begun = time.monotonic()
        try:
            value = read(self._backend(name))
        except _AWAY as exc:
            self._failover.tell(name, classify(exc), time.monotonic() - begun)
            raise
        if not is_wait:
            self._failover.tell(name, classify(None), time.monotonic() - begun)
        return value


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
