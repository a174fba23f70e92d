"""What a fault gets to see and to touch, and the tasks that faults submit themselves."""

from __future__ import annotations

import time
from dataclasses import dataclass

from chaos.deployed_lab import DeployedLab
from chaos.producers import Producers
from chaos.proxy import TrapProxy
from chaos.recovery import Watch
from chaos.schedule import Fault, Schedule
from chaos.submissions import Entry, SubmissionLog
from swarm.celery_app import app
from swarm.delivery.publish import RefusedError


@dataclass(slots=True)
class FaultContext:
    """All that a fault can touch."""

    lab: DeployedLab
    schedule: Schedule
    proxy: TrapProxy
    watch: Watch
    producers: Producers
    submissions: SubmissionLog
    """Of the tasks that faults submit themselves."""
    _sent: int = 0

    def send(self, task: str, argument: object, kind: str) -> bool:
        """Submit one task and write it down; False when it was refused, as by a full Redis.

        Raises:
            UncertainError: the broker broke off; it is written down as unknown.
        """
        # Numbers that no producer has.
        number = -1 - self._sent
        self._sent += 1
        signature = app.signature(task, args=(argument,))
        task_id = signature.freeze().id
        self.submissions.write(Entry(number, "sending", kind, (task_id,)))
        try:
            signature.apply_async()
        except RefusedError:
            self.submissions.write(Entry(number, "refused", kind, (task_id,)))
            return False
        self.submissions.write(Entry(number, "accepted", kind, (task_id,)))
        return True


def wait_for_reaper(context: FaultContext, fault: Fault, until: float) -> None:
    """Until others have what its victims held, or until this moment, monotonic."""
    while context.watch.open_victims(fault) and time.monotonic() < until:
        time.sleep(0.2)
