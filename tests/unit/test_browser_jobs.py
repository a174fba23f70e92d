"""Browser payloads: what is refused at submit, and errors on their way through Celery."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import Backend
from hypothesis import given
from hypothesis import strategies as st

from swarm.browse.errors import (
    ErrorCode,
    JobError,
    PermanentJobError,
    TransientJobError,
    job_error,
)
from swarm.browse.payload import parse_browser_job
from swarm.browse.payload.actions import Screenshot, Text
from swarm.errors import ConfigError, PermanentError, TransientError

TEXT = {"kind": "text"}


def job(**fields: Any) -> dict[str, Any]:
    return {"url": "http://pages.lab/page/3", "actions": [TEXT], **fields}


def limited(**limits: Any) -> dict[str, Any]:
    return job(limits=limits)


def seen_by(**context: Any) -> dict[str, Any]:
    return job(context=context)


def stepping(*steps: dict[str, Any]) -> dict[str, Any]:
    return job(steps=list(steps))


def problems(payload: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_browser_job(payload)
    return {problem.where: problem.expected for problem in caught.value.problems}


def test_the_documented_example_is_taken() -> None:
    parsed = parse_browser_job(
        json.loads(
            '{"url": "http://pages.lab:8080/page/3",'
            ' "actions": [{"kind": "screenshot"}, {"kind": "text"}]}'
        )
    )
    assert parsed.url == "http://pages.lab:8080/page/3"
    assert parsed.actions == (Screenshot(kind="screenshot"), Text(kind="text"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://h/", "scheme is http or https"),
        ("file:///etc/passwd", "scheme is http or https"),
        ("javascript:alert(1)", "scheme is http or https"),
        ("data:text/html,x", "scheme is http or https"),
        ("about:blank", "scheme is http or https"),
        ("chrome://version", "scheme is http or https"),
        ("//h/path", "scheme is http or https"),
        ("", "scheme is http or https"),
        ("http://", "a URL with a host"),
        ("http:///path", "a URL with a host"),
        ("http://h:port/", "a URL that can be parsed"),
        ("http://h:99999/", "a URL that can be parsed"),
        ("http://[::1/", "a URL that can be parsed"),
        ("http://user:secret@h/", "a URL without user and password"),
        ("http://user@h/", "a URL without user and password"),
        ("http://@h/", "a URL without user and password"),
        ("http://h/a b", "without spaces and control characters"),
        (" http://h/", "without spaces and control characters"),
        ("java\nscript:x", "without spaces and control characters"),
        ("http://h/" + "x" * 8192, "at most 8192 characters"),
        (7, "valid string"),
    ],
)
def test_a_wrong_url_is_refused_with_the_reason(url: object, expected: str) -> None:
    found = problems(job(url=url))
    assert list(found) == ["payload: url"]
    assert expected in found["payload: url"]


def test_a_refusal_does_not_repeat_the_password_of_a_url() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_browser_job(job(url="http://user:s3cret@h/"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        (job(colour="red"), "payload: colour"),
        (job(version=2), "payload: version"),
        (job(actions=[]), "payload: (top level)"),
        (job(actions=[TEXT] * 51), "payload: actions"),
        (job(actions="text"), "payload: actions"),
        (job(actions=[{"kind": "dance"}]), "payload: actions.0"),
        (job(actions=[{}]), "payload: actions.0"),
        (job(actions=[{"kind": "text", "colour": "red"}]), "payload: actions.0.text.colour"),
        (job(actions=[{"kind": "text", "selector": ""}]), "payload: actions.0.text.selector"),
        (job(actions=[{"kind": "text", "name": "1"}]), "payload: actions.0.text.name"),
        (job(actions=[{"kind": "extract", "fields": {}}]), "payload: actions.0.extract.fields"),
        (limited(deadline_s=0), "payload: limits.deadline_s"),
        (limited(deadline_s=601), "payload: limits.deadline_s"),
        (limited(deadline_s=float("nan")), "payload"),
        (limited(deadline_s="60"), "payload: limits.deadline_s"),
        (limited(deadline_s=True), "payload: limits.deadline_s"),
        (limited(navigation_timeout_s=-1), "payload: limits.navigation_timeout_s"),
        (limited(redirects=21), "payload: limits.redirects"),
        (seen_by(viewport={"width": 99}), "payload: context.viewport.width"),
        (seen_by(viewport={"height": 4097}), "payload: context.viewport.height"),
        (seen_by(permissions=["root"]), "payload: context.permissions.0"),
        (seen_by(headers={"X-A": "a\r\nX-B: b"}), "payload: context"),
        (seen_by(headers={"X A": "a"}), "payload: context.headers.X A"),
        (stepping({"kind": "click"}), "payload: steps.0.click.selector"),
        (stepping({"kind": "scroll"}), "payload: steps.0.scroll"),
        (stepping({"kind": "wait_for", "ms": 5, "url": "x"}), "payload: steps.0.wait_for"),
        (stepping({"kind": "assert"}), "payload: steps.0.assert"),
        (stepping({"kind": "goto", "url": "file:///x"}), "payload: steps.0.goto.url"),
        (stepping(*[{"kind": "press", "key": "a"}] * 201), "payload: steps"),
        ({"actions": [TEXT]}, "payload: (top level)"),
        (job(html="<p>"), "payload: (top level)"),
        ({"url": "http://h/"}, "payload: (top level)"),
        (job(html="x" * 2_000_001), "payload"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(payload: object, where: str) -> None:
    assert list(problems(payload)) == [where]


@pytest.mark.parametrize("payload", [None, 3, "text", [job()]])
def test_what_is_no_object_is_refused(payload: object) -> None:
    assert len(problems(payload)) == 1


def test_every_wrong_field_is_named_at_once() -> None:
    limits = {"deadline_s": -1}
    found = problems({"url": "ftp://h", "actions": [{"kind": "x"}], "colour": 1, "limits": limits})
    assert len(found) == 4


@pytest.mark.parametrize("name", ["launch", "navigation", "deadline"])
def test_an_action_is_not_named_like_a_stage(name: str) -> None:
    found = problems(job(actions=[{"kind": "text", "name": name}]))
    assert f"another name than {name}" in " ".join(found.values())


def test_two_outcomes_of_one_name_are_refused() -> None:
    found = problems(job(actions=[TEXT, {"kind": "html", "name": "text"}]))
    assert "repeated: text" in " ".join(found.values())
    parse_browser_job(job(actions=[TEXT, {"kind": "text", "name": "title", "selector": "h1"}]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda values: (
            st.lists(values, max_size=3)
            | st.dictionaries(
                st.sampled_from(["url", "actions", "kind", "fields", "name", "version"])
                | st.text(max_size=5),
                values,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_taken_or_refused_and_never_crashes(payload: object) -> None:
    with suppress(ConfigError):
        parse_browser_job(payload)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_the_code_decides_whether_an_error_is_retried(code: ErrorCode) -> None:
    error = job_error(code, "why", stage="navigation")
    assert isinstance(error, TransientError) is code.retryable
    assert isinstance(error, PermanentError) is not code.retryable
    assert str(error) == f"{code.value} in navigation: why"


@pytest.mark.parametrize("kind", [TransientJobError, PermanentJobError])
def test_an_error_survives_celerys_json(kind: type[JobError]) -> None:
    """As the worker stores it and the client reads it back."""
    app = Celery(set_as_current=False)
    error = kind(ErrorCode.NAV_TIMEOUT, 'it said "no"\nand é', "navigation")
    backend: Any = Backend(app, serializer="json")
    stored = json.loads(json.dumps(backend.prepare_exception(error)))
    read = backend.exception_to_python(stored)
    assert type(read) is kind
    assert read.code is ErrorCode.NAV_TIMEOUT
    assert (read.message, read.stage) == (error.message, error.stage)
    assert str(read) == str(error)
