"""Payloads that no honest client sends: each is refused in words, and quickly.

By `swarm submit` and `Client.submit`, and by a worker that got one all the same, as INVALID.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarm.browse.errors import ErrorCode, PermanentJobError
from swarm.browse.payload import parse_browser_job
from swarm.errors import ConfigError
from swarm.tasks.browser import _browse

URL = "http://h.example/"
TEXT = {"kind": "text"}
STEP = {"kind": "wait_for", "ms": 1}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def job(**fields: Any) -> dict[str, Any]:
    return {"url": URL, "actions": [TEXT], **fields}


ADDRESSES = (
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "view-source:file:///etc/passwd",
    "view-source:http://h/",
    "data:text/html,x",
    "javascript:alert(1)",
    "about:blank",
    "blob:http://h/1",
    "chrome://crash",
    "chrome-extension://x/",
    "devtools://devtools/",
    "filesystem:http://h/temporary/x",
    "jar:http://h/x!/y",
    "ftp://h/",
    "gopher://h/",
    "ws://h/",
    "http:h",
    "http:///h/",
    "//h/",
    "h",
    "",
    " http://h/",
    "http://h/ x",
    "http://h/\n",
    "http://h/\x00",
    "http://user@h/",
    "http://user:password@h/",
    "http://h:70000/",
    "http://[::1/",
    "http://[::ffff:10.0.0.1/",
    "http://1.2.3.4.5.6.7.8.300/",
    "http://" + "a" * 9000 + "/",
    "http://h\ud800/",
    "\u202ehttp://h/",
)
PAYLOADS: dict[str, Any] = {
    "nothing": None,
    "a list": [],
    "a text": "http://h/",
    "a number": 7,
    "an empty object": {},
    "no purpose": {"url": URL},
    "two pages": job(html="<p>x"),
    "an unknown field": job(urls=[URL]),
    "an unknown field inside": job(limits={"deadline": 1}),
    "fields of an object's own": job(__class__="x", __proto__={"a": 1}),
    "a version to come": job(version=2),
    "an unknown action": job(actions=[{"kind": "shell", "command": "id"}]),
    "an action without kind": job(actions=[{}]),
    "a step that is none": job(steps=["click"]),
    "a URL that is a list": job(url=[URL]),
    "a URL that is an object": job(url={"href": URL}),
    "a deadline that is a text": job(limits={"deadline_s": "60"}),
    "a deadline that is true": job(limits={"deadline_s": True}),
    "a deadline of none": job(limits={"deadline_s": 0}),
    "a negative deadline": job(limits={"deadline_s": -1}),
    "an endless deadline": job(limits={"deadline_s": float("inf")}),
    "a deadline that is no number": job(limits={"deadline_s": float("nan")}),
    "a deadline beyond all": job(limits={"deadline_s": 1e308}),
    "bytes beyond all": job(limits={"bytes": 10**400}),
    "a viewport like a wall": job(context={"viewport": {"width": 10**9, "height": 10**9}}),
    "a picture of nothing": job(
        actions=[{"kind": "screenshot", "clip": {"x": 0, "y": 0, "width": 0, "height": 0}}]
    ),
    "pages of a lifetime": job(steps=[{"kind": "wait_for", "ms": 10**15}]),
    "too many steps": job(steps=[STEP] * 100_000),
    "ten megabytes of steps": job(steps=[{"kind": "click", "selector": "x" * 100}] * 80_000),
    "ten megabytes of markup": {"html": "x" * 10_000_000, "actions": [TEXT]},
    "ten megabytes of a name": job(**{"x" * 10_000_000: 1}),
    "a lone surrogate": {"html": "<p>\ud800</p>", "actions": [TEXT]},
    "a giant selector": job(actions=[{"kind": "text", "selector": "x" * 1_900_000}]),
    "a giant key": job(idempotency_key="x" * 1_900_000),
    "many unknown fields": job(**{f"x{number}": 1 for number in range(50_000)}),
    "a header with a line break": job(context={"headers": {"X": "1\r\nHost: elsewhere"}}),
    "a header's name with a line break": job(context={"headers": {"X\r\nY": "1"}}),
    "deep nesting": job(steps=nested(100_000)),
    "nesting where anything goes": job(
        steps=[{"kind": "evaluate", "script": "1", "argument": nested(100_000)}]
    ),
    "bytes": job(idempotency_key=b"x"),
    "a set": job(actions={"text"}),
    "a path for a secret": job(network={"proxy": "../../etc/passwd"}),
    "a proxy of one's own": job(network={"proxy": {"server": "http://h:1"}}),
    **{f"address {number}": job(url=url) for number, url in enumerate(ADDRESSES)},
    **{
        f"a step to address {number}": job(steps=[{"kind": "goto", "url": url}])
        for number, url in enumerate(ADDRESSES)
    },
}
#: Odd, and allowed: what they are is for the page or the engine to say.
ODD: dict[str, Any] = {
    "NUL in a selector": job(actions=[{"kind": "text", "selector": "a\x00b"}]),
    "a decimal host": job(url="http://2130706433/"),
    "a hex host": job(url="http://0x7f.1/"),
    "an octal host": job(url="http://0177.0.0.01/"),
    "a mapped host": job(url="http://[::ffff:10.0.0.1]/"),
    "an argument within reason": job(
        steps=[{"kind": "evaluate", "script": "1", "argument": nested(50)}]
    ),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_wrong_payload_is_refused_in_few_words(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_browser_job(PAYLOADS[name])
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_worker_that_got_it_all_the_same_fails_it_for_good(name: str) -> None:
    with pytest.raises(PermanentJobError) as caught:
        _browse("some-id", PAYLOADS[name])
    assert caught.value.code is ErrorCode.INVALID
    # Celery stores it as JSON.
    assert len(json.dumps(caught.value.args)) < 50_000


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_and_allowed_is_a_job(name: str) -> None:
    assert parse_browser_job(ODD[name]) is not None
