"""Journal lines: one sentence, then fields, with the priority journald reads."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator

import pytest

from swarm.logs import format_fields, setup


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"host": "w1", "n": 3}, "host=w1 n=3"),
        ({"why": "no room", "empty": ""}, 'why="no room" empty=""'),
        ({"seconds": 1.25}, "seconds=1.2"),
    ],
)
def test_fields(fields: dict[str, object], text: str) -> None:
    assert format_fields(fields) == text


def test_a_line_is_a_sentence_then_its_fields() -> None:
    stream = io.StringIO()
    setup("info", stream=stream, under_systemd=False)
    log = logging.getLogger("swarm.test")
    log.info("ready", extra={"fields": {"boot_s": 0.8}})
    log.debug("not told")
    assert stream.getvalue() == "ready boot_s=0.8\n"


def test_under_systemd_every_line_has_its_priority() -> None:
    stream = io.StringIO()
    setup("debug", stream=stream, under_systemd=True)
    log = logging.getLogger("swarm.test")
    log.warning("first\nsecond")
    log.error("third")
    log.debug("fourth")
    assert stream.getvalue() == "<4>first\n<4>second\n<3>third\n<7>fourth\n"


def test_warnings_reach_the_log() -> None:
    stream = io.StringIO()
    setup("info", stream=stream, under_systemd=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old way", UserWarning, stacklevel=1)
    assert "old way" in stream.getvalue()
