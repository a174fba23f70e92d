"""A task that the deployed release does not know, as the next one would bring it."""

from __future__ import annotations

from swarm.celery_app import app

NAME = "analysis.next"


@app.task(name=NAME)
def answer(number: int) -> int:
    """What a task of the next release answers."""
    return number
