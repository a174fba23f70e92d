"""What a worker's error looks like to whoever reads the result."""

from __future__ import annotations

from celery import Celery
from celery.backends.base import Backend

from swarm.errors import ConfigError, DuplicateTaskError, Problem


def _through_a_result(error: Exception) -> BaseException:
    backend = Backend(Celery("test", set_as_current=False, result_serializer="json"))
    told = backend.decode(backend.encode(backend.prepare_exception(error, "json")))
    made: BaseException = backend.exception_to_python(told)
    return made


def test_an_error_of_the_configuration_reads_the_same_from_a_result() -> None:
    error = ConfigError([Problem("a", "1", "two"), Problem("b", "nothing", "three")])
    made = _through_a_result(error)
    assert (type(made), str(made)) == (ConfigError, str(error))


def test_a_duplicate_names_its_task_from_a_result() -> None:
    made = _through_a_result(DuplicateTaskError("some-id"))
    assert isinstance(made, DuplicateTaskError)
    assert (made.task_id, str(made)) == ("some-id", "the idempotency key belongs to task some-id")
