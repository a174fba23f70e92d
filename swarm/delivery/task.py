"""The base of every task: marks where its own code ends and its end begins."""

from __future__ import annotations

from typing import Any

import celery
from celery.exceptions import ImproperlyConfigured, Reject

from swarm.delivery import outcome as outcomes


class Task(celery.Task[Any, Any]):
    """A task whose successors are part of its commit."""

    abstract = True
    Request = "swarm.delivery.request:Request"
    #: Characters of a result in the event that Flower shows: each costs the worker, and the broker.
    resultrepr_maxsize = 200

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Called when the task's settings are known.

        Raises:
            ImproperlyConfigured: unlike the others it wants to be acknowledged before it runs, and
                would then be held without a lease.
        """
        super().on_bound(app)
        if app.conf.task_acks_late and not cls.acks_late:
            raise ImproperlyConfigured(
                f"task {cls.name}: acks_late is False, but every task here is over when it is "
                "committed; remove it, and make its body harmless to repeat"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request: Any = self.request
        # Also true when the task calls itself as a function.
        is_call_of_code = request.called_directly or getattr(request, "body_began", False)
        if is_call_of_code or outcomes.delivery_tag(request) is None:
            return super().__call__(*args, **kwargs)
        request.body_began = True
        try:
            result = self.run(*args, **kwargs)
        except Reject:
            # The parent answers for the message.
            raise
        except Exception:
            self._begin_end(request)
            raise
        self._begin_end(request)
        return result

    @staticmethod
    def _begin_end(request: Any) -> None:
        for role in ("callbacks", "errbacks"):
            for at, signature in enumerate(getattr(request, role, None) or ()):
                options = signature.setdefault("options", {})
                if not signature.get("subtask_type"):
                    options.setdefault("task_id", outcomes.successor_id(request.id, f"{role}:{at}"))
        outcomes.begin(request)

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        with outcomes.collected(self.request):
            return super().retry(*args, **kwargs)

    def replace(self, sig: Any) -> Any:
        with outcomes.collected(self.request) as outcome:
            if outcome is not None:
                outcome.goes_on = True
            return super().replace(sig)

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        with outcomes.collected(self.request):
            return super().add_to_chord(sig, lazy)  # type: ignore[call-overload]
