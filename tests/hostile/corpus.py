"""What hostile pages must come to: one row each, for the engine on loopback and for the lab.

A row's codes are all the ends that are right; `ok` is one of them where the page does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.browse.errors import ErrorCode
from tests.hostile.pages import FORBIDDEN_HOSTS

OK = "ok"
DEADLINE = ErrorCode.DEADLINE
LIMIT = ErrorCode.RESOURCE_LIMIT
CRASH = ErrorCode.PAGE_CRASH
NAVIGATION = ErrorCode.NAVIGATION
NAV_TIMEOUT = ErrorCode.NAV_TIMEOUT
FAILED = ErrorCode.ACTION_FAILED
SELECTOR = ErrorCode.SELECTOR_TIMEOUT

TEXT: Mapping[str, Any] = {"kind": "text"}


@dataclass(frozen=True, slots=True)
class Row:
    """A page, what is done on it, and the ends that are right."""

    name: str
    path: str
    codes: frozenset[str]
    job: Mapping[str, Any]
    deadline_s: float
    base: str = "plain"
    alone: bool = False
    """It takes so much memory or time of all that others are not to be measured beside it."""

    def payload(self, bases: Mapping[str, str]) -> dict[str, Any]:
        """`bases` are URLs of servers, without a path, by what is wrong with them."""
        job = {"actions": [TEXT], **self.job}
        limits = {"deadline_s": self.deadline_s, **job.pop("limits", {})}
        return {"url": bases[self.base] + self.path, "limits": limits, **job}


_OWN = frozenset({"deadline_s", "alone", "base"})


def wait(seconds: float) -> dict[str, Any]:
    return {"kind": "wait_for", "ms": round(seconds * 1000)}


def _page(name: str, *codes: str, path: str = "", label: str = "", **options: Any) -> Row:
    job = {key: options.pop(key) for key in tuple(options) if key not in _OWN}
    # What is to be done in time gets the time that a busy machine needs.
    options.setdefault("deadline_s", 4.0 if DEADLINE in codes else 15.0)
    return Row(label or name, path or f"/page/{name}", frozenset(codes), job, **options)


def _answer(path: str, *codes: str, **options: Any) -> Row:
    return _page(path, *codes, path=f"/{path}", **options)


def _evaluate(script: str, **options: Any) -> dict[str, Any]:
    return {"kind": "evaluate", "script": script, **options}


_PRESS = {"kind": "click", "selector": "button"}
_SHORT: Mapping[str, Any] = {"limits": {"navigation_timeout_s": 2}}

LOOPS = (
    _page("loop", DEADLINE),
    _page("loop", NAV_TIMEOUT, label="loop, with a limit", **_SHORT),
    # Before what is taken home: a fast job would be done before the loop begins.
    _page("later-loop", DEADLINE, steps=[wait(1)]),
    _page("loop-at-end", OK),
    _page("regex", DEADLINE),
    _page("promises", DEADLINE),
    _page("frames", OK, steps=[wait(1)], actions=[TEXT, {"kind": "screenshot"}]),
    _page("reload", OK, DEADLINE, NAVIGATION, FAILED),
    _page("refresh", OK, DEADLINE, steps=[wait(1)]),
    _answer("refresh-header", OK, DEADLINE, steps=[wait(1)]),
    _page("history", OK, DEADLINE, alone=True),
    _page("write", OK, DEADLINE, steps=[wait(1)]),
    _page("workers", OK, DEADLINE, steps=[wait(1)], alone=True),
    _page("nested-workers", OK, DEADLINE, steps=[wait(1)], alone=True),
)
GROWTH = (
    _page(
        "scroll",
        LIMIT,
        steps=[wait(1), {"kind": "scroll", "to": "bottom"}],
        actions=[{"kind": "screenshot", "full_page": True}],
    ),
    _page("dom", OK, LIMIT, DEADLINE, actions=[{"kind": "html"}, TEXT, {"kind": "links"}]),
    _page("deep-dom", CRASH),
    _page("deep-text", OK, CRASH, actions=[{"kind": "html"}]),
    _page("nested-text", OK, FAILED, actions=[{"kind": "markdown", "main_content": False}]),
    _page("nested-text", OK, FAILED, label="nested-article", actions=[{"kind": "markdown"}]),
    _page("wide-text", OK, LIMIT, DEADLINE, actions=[{"kind": "markdown"}]),
    _page("big-text", OK, LIMIT, deadline_s=10),
    _page("big-text", LIMIT, label="big-article", actions=[{"kind": "markdown"}], deadline_s=10),
    _page("huge-text", CRASH, LIMIT, DEADLINE, alone=True),
    _page("huge-title", OK),
    _page("huge-url", OK),
    _page("huge-links", OK, LIMIT, DEADLINE, FAILED, actions=[{"kind": "links"}], alone=True),
    _page("memory", LIMIT, steps=[wait(60)], alone=True, deadline_s=10),
    _page("heap", LIMIT, CRASH, alone=True, deadline_s=10),
    _page("worker-memory", LIMIT, CRASH, steps=[wait(60)], alone=True, deadline_s=10),
    _page("frame-memory", OK, LIMIT, steps=[wait(4)], alone=True, deadline_s=10),
    _page("blobs", OK, LIMIT, steps=[wait(5)], alone=True, deadline_s=10),
    _page("storage", OK, LIMIT, steps=[wait(5)], alone=True, deadline_s=10),
    _page("canvas", OK, LIMIT, CRASH, steps=[wait(3)], alone=True, deadline_s=10),
)
STORMS = (
    _page("alerts", OK),
    _page("endless-alerts", DEADLINE, alone=True),
    _page("later-alerts", OK, DEADLINE, steps=[wait(1)]),
    _page("stay", OK, label="beforeunload", steps=[_PRESS, {"kind": "press", "key": "F5"}]),
    _page("popups", LIMIT, OK, DEADLINE, steps=[_PRESS, wait(1)]),
    _page("print", OK, steps=[wait(1)]),
    _page("permissions", OK, steps=[wait(1)]),
    _page("console", OK, DEADLINE, alone=True),
    _page("endless-console", OK, DEADLINE, steps=[wait(1)], alone=True),
    _page("huge-console", OK, DEADLINE, steps=[wait(1)], alone=True),
    _page("errors", LIMIT, OK, DEADLINE, steps=[wait(1)], alone=True),
    _page("fetches", LIMIT, DEADLINE, steps=[wait(60)], deadline_s=6, alone=True),
    _page("sockets", OK, LIMIT, DEADLINE, steps=[wait(2)], alone=True),
    _page("processes", OK, DEADLINE, steps=[wait(1)], alone=True),
    _page("nested-frames", OK, LIMIT, DEADLINE, steps=[wait(1)], alone=True),
    _page("inner-auth", OK),
)
FILES = (
    _page("downloads", OK, steps=[wait(1)]),
    _page(
        "ask-for-file",
        LIMIT,
        label="endless file",
        actions=[{"kind": "download", "selector": "#file"}],
        limits={"bytes": 1_000_000},
    ),
    _page(
        "ask-for-file",
        DEADLINE,
        LIMIT,
        label="endless file, no limit",
        actions=[{"kind": "download", "selector": "#file"}],
    ),
    _page("odd-name", OK, actions=[{"kind": "download", "selector": "#file"}]),
    _page(
        "downloads",
        LIMIT,
        label="many endless files",
        steps=[wait(60)],
        actions=[{"kind": "download"}],
        limits={"bytes": 1_000_000},
    ),
    _answer("endless-file", NAVIGATION, label="a file for a page"),
)
ANSWERS = (
    _answer("endless-redirect", LIMIT),
    _answer("gigabyte", LIMIT, limits={"bytes": 100_000_000}),
    _answer("endless-body", LIMIT, DEADLINE, alone=True),
    _answer("bomb", LIMIT, DEADLINE, CRASH, alone=True, deadline_s=10),
    _answer("drip-headers", NAV_TIMEOUT, **_SHORT),
    _answer("drip-headers", DEADLINE, label="drip-headers, no limit"),
    _answer("drip-body", NAV_TIMEOUT, **_SHORT),
    _answer("drip-body", DEADLINE, label="drip-body, no limit"),
    _answer("never", NAV_TIMEOUT, **_SHORT),
    _answer("cut", NAVIGATION, NAV_TIMEOUT, **_SHORT),
    _answer("garbage", NAVIGATION),
    _answer("headers", NAVIGATION),
    _answer("cookies", OK),
    _answer("odd-status", ErrorCode.HTTP_STATUS, OK, NAVIGATION),
    _answer("nothing", NAVIGATION),
    _answer("auth", ErrorCode.HTTP_STATUS),
    _answer("proxy-auth", NAVIGATION),
)
ENDS = (
    _page("close", OK, FAILED, steps=[wait(2)]),
    _page("close-at-once", FAILED, NAVIGATION, OK, steps=[wait(1)]),
    _page("remove", SELECTOR, actions=[{**TEXT, "timeout_s": 1}]),
    _page(
        "remove",
        OK,
        FAILED,
        SELECTOR,
        label="remove, taken whole",
        actions=[{"kind": "html", "timeout_s": 1}, {"kind": "links"}, {"kind": "metadata"}],
    ),
    *(
        _page("lies", OK, FAILED, SELECTOR, label=f"lies to {action['kind']}", actions=[action])
        for action in (
            {"kind": "html", "timeout_s": 1},
            {"kind": "links", "timeout_s": 1},
            {"kind": "metadata", "timeout_s": 1},
            {"kind": "markdown", "timeout_s": 1},
            {"kind": "screenshot", "full_page": True, "timeout_s": 1},
            {"kind": "extract", "fields": {"a": {"selector": "a"}}, "timeout_s": 1},
        )
    ),
)
PLACES = (
    _page("places", OK, DEADLINE, steps=[wait(0.5)]),
    _page("inner-places", OK, DEADLINE, actions=[{"kind": "html"}, TEXT]),
    _page("blob", OK),
    _page("webrtc", OK, steps=[wait(2)]),
    *(
        _answer(f"redirect?to={place}", NAVIGATION, ErrorCode.URL_BLOCKED, label=f"to {place}")
        for place in (
            "file:///etc/passwd",
            "data:text/html,x",
            "view-source:file:///etc/passwd",
            "javascript:1",
            "about:blank",
            "blob:null/1",
            "chrome://version",
            "chrome://crash",
            "ftp://127.0.0.1/",
            "http://",
            "//",
        )
    ),
)
#: Tries every way to addresses that no page may reach. Only where something holds it back.
REACH = tuple(
    _page("reach", OK, path=f"/page/reach?part={number}", label=host, steps=[wait(3)])
    for number, host in enumerate(FORBIDDEN_HOSTS)
)
#: By what is wrong with the server.
TLS = tuple(
    _answer(f"empty?over={base}", NAVIGATION, label=f"tls, {base}", base=base)
    for base in ("self-signed", "expired", "other-host", "no-tls")
)
#: Of the deployment's own scripts.
SCRIPTS = tuple(
    _page(f"evaluate {label}", *codes, path="/empty", steps=[_evaluate(script)])
    for label, script, codes in (
        ("never", "() => new Promise(() => {})", {DEADLINE}),
        ("loop", "() => { while (true) {} }", {DEADLINE}),
        ("throw", "() => { throw null }", {FAILED}),
        ("nan", "() => [NaN, Infinity, -Infinity, -0]", {OK}),
        (
            "odd",
            "() => [new Date(), 10n ** 30n, /x/, new Map(), undefined, Symbol('x')]",
            {OK, FAILED},
        ),
        (
            "error",
            "() => ({a: new Error('x'), b: new URL('http://h/'), c: new Uint8Array(3)})",
            {OK},
        ),
        ("cycle", "() => { const a = {}; a.a = a; return a; }", {OK, FAILED}),
        (
            "deep",
            "() => { let a = []; for (let i = 0; i < 5000; i++) a = [a]; return a; }",
            {OK, FAILED},
        ),
        ("surrogate", r"() => ['\ud800', '\udc00x', '\u0000', {'\ud800': 1}]", {OK}),
        ("window", "() => window", {OK, FAILED}),
        ("large", "() => 'x'.repeat(2e7)", {OK, LIMIT}),
        ("wide", "() => new Array(1e6).fill(0).map((_, i) => ({i}))", {OK, LIMIT, DEADLINE}),
        (
            "crash",
            "() => { const m = []; while (true) m.push(new Array(1e6).fill(m)); }",
            {LIMIT, CRASH, DEADLINE},
        ),
    )
)

CORPUS: tuple[Row, ...] = (
    *LOOPS,
    *GROWTH,
    *STORMS,
    *FILES,
    *ANSWERS,
    *ENDS,
    *PLACES,
    *TLS,
    *SCRIPTS,
)
