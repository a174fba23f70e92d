"""Gives up a task that this instance has, in whichever process it runs.

With prefork the main process leaves the task's id in the shared orders and signals the child that
runs it; with threads and solo the engine is at hand. Only browser jobs can be given up: nothing
stops plain Python from outside that would not stop its process too.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import psutil
from celery.worker import state as celery_state

from swarm.worker import process
from swarm.worker.orders import Answer, Orders

Outcome = Literal["cancelled", "revoked", "ended", "absent", "uninterruptible", "no-answer"]

#: Free: Celery and billiard use SIGUSR1, and SIGUSR2 only for a debugger.
SIGNAL = signal.SIGUSR2
#: Seconds for a task that has begun to reach its engine, or to leave it for good.
_PATIENCE_S = 3.0
#: Seconds for a pool process to answer; one that is frozen never does.
_ANSWER_S = 2.0
_PAUSE_S = 0.02


class Canceller:
    """For the main process; `prefork` says whether tasks run in children.

    `gives_up` is how a task of this process is given up, in which case it returns True.
    """

    def __init__(
        self,
        orders: Orders,
        *,
        prefork: bool,
        has_browsers: bool,
        gives_up: Callable[[str], bool] = process.cancel,
    ) -> None:
        self._orders = orders
        self._prefork = prefork
        self._has_browsers = has_browsers
        self._gives_up = gives_up
        self._one_at_a_time = threading.Lock()

    def cancel(self, task_id: str) -> Outcome:
        """Give up the task, if it is here; returns within about five seconds.

        `revoked`: it was taken and has not begun, and will not. `ended`: it was about to.
        """
        with self._one_at_a_time:
            return self._cancel(task_id)

    def _cancel(self, task_id: str) -> Outcome:
        # Whatever becomes of it now, this instance does not begin it again.
        celery_state.revoked.add(task_id)
        deadline = time.monotonic() + _PATIENCE_S
        was_active = False
        while True:
            request = _find(celery_state.active_requests, task_id)
            if request is None:
                if was_active:
                    return "ended"
                waits = _find(celery_state.reserved_requests, task_id) is not None
                return "revoked" if waits else "absent"
            was_active = True
            if not self._has_browsers:
                return "uninterruptible"
            answer = self._call_child(request.worker_pid, task_id) if self._prefork else None
            if answer is Answer.NONE:
                return "no-answer"
            if answer is Answer.CANCELLED or (answer is None and self._gives_up(task_id)):
                return "cancelled"
            if time.monotonic() > deadline:
                return "uninterruptible"
            time.sleep(_PAUSE_S)

    def _call_child(self, pid: int, task_id: str) -> Answer:
        self._orders.to_cancel = task_id
        if not _is_own_child(pid):
            return Answer.NOT_HERE
        os.kill(pid, SIGNAL)
        deadline = time.monotonic() + _ANSWER_S
        while self._orders.answer is Answer.NONE and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        return self._orders.answer


def listen_in_child(orders: Orders) -> None:
    """In a pool process, before it starts threads: answer the main process's calls.

    By a thread, because a Python handler runs in the main thread only, and that waits for its task:
    it is not woken where the kernel gives the signal to another.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})

    def listen() -> None:
        while True:
            signal.sigwait({SIGNAL})
            given_up = process.cancel(orders.to_cancel)
            orders.answer = Answer.CANCELLED if given_up else Answer.NOT_HERE

    threading.Thread(target=listen, name="orders", daemon=True).start()


def _find(requests: Any, task_id: str) -> Any:
    while True:
        try:
            return next((request for request in tuple(requests) if request.id == task_id), None)
        except RuntimeError:
            # Celery's loop has changed the set in between.
            continue


def _is_own_child(pid: int) -> bool:
    try:
        return psutil.Process(pid).ppid() == os.getpid()
    except (psutil.Error, TypeError, ValueError):
        return False
