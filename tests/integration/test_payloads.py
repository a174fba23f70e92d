"""What payloads may ask for, each on a real Chromium."""

from __future__ import annotations

import json
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from swarm.browse.directory_store import DirectoryStore
from swarm.browse.engine import Engine
from swarm.browse.errors import ErrorCode, JobError
from swarm.browse.payload import parse_browser_job
from swarm.browse.result import Artifact, JobResult
from swarm.browse.secrets import Secrets
from swarm.browse.visit import Deployment
from swarm.settings import BrowserSettings
from tests.integration.pages import Site
from tests.programs import CHROMIUM, need

SECRETS = """
token: {type: text, value: the-secret-token, hosts: ["127.0.0.1"]}
elsewhere: {type: text, value: another-secret, hosts: ["*.example.org"]}
login: {type: storage_state, hosts: ["127.0.0.1"], state: {cookies: [
  {name: session, value: the-session-cookie, domain: 127.0.0.1, path: /}], origins: []}}
"""
FORM = """<title>Form</title><form onsubmit="return false">
<input id="name"><select id="kind"><option>one</option><option>two</option></select>
<button onclick="out.textContent = document.getElementById('name').value + ' ' + kind.value">
Send</button></form><p id="out"></p><p id="far" style="margin-top: 3000px">far</p>"""
SEEN = """() => ({agent: navigator.userAgent, language: navigator.language,
  zone: Intl.DateTimeFormat().resolvedOptions().timeZone, width: innerWidth,
  dark: matchMedia('(prefers-color-scheme: dark)').matches, cookie: document.cookie})"""


class Desk:
    """An engine and what it takes home."""

    def __init__(self, directory: Path, site: Site) -> None:
        self.site = site
        settings = BrowserSettings(sandbox=False, allow_evaluate=True, inline_result_bytes=50_000)
        secrets = Secrets.parse(SECRETS, where="secrets")
        store = DirectoryStore(directory, host="here")
        self.engine = Engine(Deployment(settings, store, secrets))

    def run(self, *actions: dict[str, Any], path: str = "/page/2", **fields: Any) -> JobResult:
        payload: dict[str, Any] = {"actions": list(actions), **fields}
        if "html" not in fields:
            payload.setdefault("url", self.site.url(path))
        return self.engine.run(parse_browser_job(payload))

    def fail(self, *actions: dict[str, Any], **fields: Any) -> tuple[ErrorCode, dict[str, Any]]:
        with pytest.raises(JobError) as caught:
            self.run(*actions, **fields)
        assert caught.value.result is not None
        return caught.value.code, dict(caught.value.result)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Desk]:
    need(CHROMIUM, "chromium-headless-shell")
    before = set(psutil.Process().children(recursive=True))
    desk = Desk(tmp_path_factory.mktemp("artifacts"), site)
    desk.engine.start()
    yield desk
    desk.engine.stop()
    assert set(psutil.Process().children(recursive=True)) <= before


def content(artifact: Artifact | dict[str, Any]) -> bytes:
    url = artifact["url"] if isinstance(artifact, dict) else artifact.url
    return Path(urlsplit(url).path).read_bytes()


def only(result: JobResult, kind: str) -> Artifact:
    [artifact] = [artifact for artifact in result.artifacts if artifact.kind == kind]
    return artifact


def evaluate(script: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "evaluate", "script": script, **fields}


def test_steps_fill_choose_click_and_assert(desk: Desk) -> None:
    result = desk.run(
        {"kind": "text", "selector": "#out"},
        html=FORM,
        steps=[
            {"kind": "fill", "selector": "#name", "value": "Ada"},
            {"kind": "press", "selector": "#name", "key": "End"},
            {"kind": "press", "key": "!"},
            {"kind": "select", "selector": "#kind", "values": ["two"]},
            {"kind": "hover", "selector": "button"},
            {"kind": "click", "selector": "button"},
            {"kind": "wait_for", "selector": "#out:not(:empty)", "state": "attached"},
            {"kind": "assert", "selector": "#out", "text": "Ada! two", "count": 1},
            {"kind": "scroll", "selector": "#far"},
            evaluate("() => scrollY > 1000", name="scrolled"),
            {"kind": "scroll", "to": "top"},
            evaluate("() => scrollY", name="at_top"),
        ],
    )
    assert result.data == {"text": "Ada! two", "scrolled": True, "at_top": 0}
    assert {step.status for step in result.steps} == {"ok"}
    assert [step.kind for step in result.steps][:3] == ["fill", "press", "press"]
    assert all(step.ms > 0 for step in result.steps)


def test_another_page_is_opened_and_waited_for(desk: Desk) -> None:
    steps = [
        {"kind": "click", "selector": "#next"},
        {"kind": "wait_for", "url": "**/page/3"},
        {"kind": "goto", "url": desk.site.url("/page/4")},
        {"kind": "assert", "url": "/page/4"},
    ]
    assert desk.run({"kind": "links"}, steps=steps).final_url == desk.site.url("/page/4")


def test_an_assertion_that_does_not_hold_fails_with_what_was_done(desk: Desk) -> None:
    steps = [{"kind": "hover", "selector": "h1"}, {"kind": "assert", "selector": ".none"}]
    code, result = desk.fail({"kind": "text"}, steps=steps)
    assert code is ErrorCode.ACTION_FAILED
    assert [step["status"] for step in result["steps"]] == ["ok", "failed", "skipped"]
    assert result["error"]["stage"] == "steps.1.assert"
    [picture] = result["artifacts"]
    assert picture["kind"] == "failure-screenshot"
    assert content(picture).startswith(b"\xff\xd8")


def test_what_is_optional_makes_a_result_partial(desk: Desk) -> None:
    absent = {"kind": "click", "selector": ".none", "optional": True, "timeout_s": 0.2}
    result = desk.run({"kind": "text"}, steps=[absent])
    assert result.status == "partial"
    assert result.error is not None
    assert result.error.code == "SELECTOR_TIMEOUT"
    assert "orchard" in result.data["text"]


def test_a_script_that_never_returns_ends_at_its_own_limit(desk: Desk) -> None:
    step = evaluate("() => new Promise(() => {})", timeout_s=0.3)
    code, _ = desk.fail(steps=[step])
    assert code is ErrorCode.ACTION_FAILED


def test_a_page_that_loops_ends_at_the_deadline_with_what_was_done(desk: Desk) -> None:
    code, result = desk.fail(
        steps=[evaluate("() => 1"), evaluate("() => { while (true) {} }", name="loop")],
        limits={"deadline_s": 1},
    )
    assert code is ErrorCode.DEADLINE
    assert result["data"] == {"evaluate": 1}
    assert desk.run({"kind": "text"}).status == "ok"


def test_a_page_in_every_form(desk: Desk) -> None:
    kinds = ("pdf", "html", "text", "markdown", "links", "metadata")
    whole = {"kind": "markdown", "name": "whole", "main_content": False}
    result = desk.run(*[{"kind": kind} for kind in kinds], whole)
    assert content(only(result, "pdf")).startswith(b"%PDF")
    assert result.data["html"].startswith("<!DOCTYPE html>")
    assert result.data["whole"].startswith("# 2: The lantern and the orchard")
    assert "| lantern | 6.85 |" in result.data["whole"]
    assert f"[Next]({desk.site.url('/page/3')})" in result.data["whole"]
    assert "lantern" in result.data["markdown"]
    assert {"href": desk.site.url("/page/3"), "text": "Next"} in result.data["links"]
    assert result.data["metadata"]["meta"]["author"] == "Chiara Lund"
    assert result.data["metadata"]["language"] == "en"


def test_pictures_of_an_element_of_a_part_and_as_jpeg(desk: Desk) -> None:
    result = desk.run(
        {"kind": "screenshot", "name": "element", "selector": "h1"},
        {"kind": "screenshot", "name": "part", "clip": {"x": 0, "y": 0, "width": 8, "height": 9}},
        {"kind": "screenshot", "name": "small", "format": "jpeg", "quality": 20},
    )
    assert [artifact.mime for artifact in result.artifacts] == [
        "image/png",
        "image/png",
        "image/jpeg",
    ]
    # A PNG says its size in bytes 16 to 24.
    assert content(result.artifacts[1])[16:24] == bytes([0, 0, 0, 8, 0, 0, 0, 9])


def test_the_page_sees_the_visitor_that_the_payload_describes(desk: Desk) -> None:
    result = desk.run(
        steps=[evaluate(SEEN)],
        context={
            "viewport": {"width": 500, "height": 400},
            "user_agent": "Visitor/1",
            "locale": "de-CH",
            "timezone": "Europe/Zurich",
            "color_scheme": "dark",
            "cookies": [{"name": "a", "value": "b"}],
        },
    )
    assert result.data["evaluate"] == {
        "agent": "Visitor/1",
        "language": "de-CH",
        "zone": "Europe/Zurich",
        "width": 500,
        "dark": True,
        "cookie": "a=b",
    }


def test_a_device_is_known_by_name_and_another_refused(desk: Desk) -> None:
    seen = desk.run(steps=[evaluate(SEEN)], context={"device": "Pixel 7"}).data["evaluate"]
    assert "Pixel 7" in seen["agent"]
    code, _ = desk.fail(steps=[evaluate("() => 1")], context={"device": "Abacus"})
    assert code is ErrorCode.INVALID


def test_without_javascript_the_page_is_as_it_was_sent(desk: Desk) -> None:
    markup = "<p>sent</p><script>document.querySelector('p').textContent = 'run'</script>"
    result = desk.run({"kind": "text"}, html=markup, context={"javascript": False})
    assert result.data["text"] == "sent"


def test_secrets_are_used_and_never_shown(desk: Desk, tmp_path: Path) -> None:
    result = desk.run(
        {"kind": "text", "selector": "#out"},
        path="/page/2",
        context={"storage_state": "login", "headers": {"X-Token": {"secret": "token"}}},
        capture={"har": True, "trace": "on", "console": True},
        steps=[
            evaluate(f"() => {{ document.body.innerHTML = `{FORM}` }}"),
            {"kind": "fill", "selector": "#name", "value": {"secret": "token"}},
            {"kind": "click", "selector": "button"},
            evaluate("() => { console.log(document.cookie); return document.cookie }", name="c"),
        ],
    )
    assert result.data["text"] == "*** one"
    assert result.data["c"] == "session=***"
    assert result.console[-1].text == "session=***"
    har = content(only(result, "har"))
    assert b"X-Token" in har or b"x-token" in har
    archive = tmp_path / "trace.zip"
    archive.write_bytes(content(only(result, "trace")))
    with zipfile.ZipFile(archive) as trace:
        members = [trace.read(name) for name in trace.namelist()]
    for kept in (har, *members):
        assert b"the-secret-token" not in kept
        assert b"the-session-cookie" not in kept


def test_an_error_that_quotes_a_secret_does_not_tell_it(desk: Desk) -> None:
    with pytest.raises(JobError, match=r"session=\*\*\*") as caught:
        desk.run(
            context={"storage_state": "login"},
            steps=[evaluate("() => { throw new Error(document.cookie) }")],
        )
    # As Celery stores it and the journal shows it.
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "the-session-cookie" not in told


def test_a_secret_header_goes_to_the_secrets_hosts_only(desk: Desk) -> None:
    result = desk.run(
        {"kind": "text"},
        context={"headers": {"X-Token": {"secret": "elsewhere"}}},
        capture={"har": True},
    )
    assert b"another-secret" not in content(only(result, "har"))
    assert b"x-token" not in content(only(result, "har")).lower()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"context": {"storage_state": "none"}}, "no secret 'none' of type storage_state"),
        ({"context": {"storage_state": "token"}}, "no secret 'token' of type storage_state"),
        (
            {"steps": [{"kind": "fill", "selector": "h1", "value": {"secret": "elsewhere"}}]},
            "the secret 'elsewhere' is not meant for",
        ),
    ],
)
def test_a_secret_that_is_not_for_this_page_is_refused(
    desk: Desk, fields: dict[str, Any], message: str
) -> None:
    code, result = desk.fail({"kind": "text"}, **fields)
    assert code is ErrorCode.INVALID
    assert message in result["error"]["message"]


def test_what_is_blocked_is_not_asked_for(desk: Desk) -> None:
    before = len(desk.site.visits)
    link, picture = desk.site.url("/a.css"), desk.site.url("/b.png")
    result = desk.run(
        {"kind": "html"},
        html=f"<link rel=stylesheet href={link}><img src={picture}>",
        network={"block_resources": ["image"], "block_patterns": ["**/*.css"]},
    )
    assert len(desk.site.visits) == before
    assert (result.network.requests, result.network.blocked) == (2, 2)


def test_a_page_that_sends_too_much_is_given_up(desk: Desk) -> None:
    code, _ = desk.fail({"kind": "text"}, path="/big", limits={"bytes": 100_000})
    assert code is ErrorCode.RESOURCE_LIMIT
    assert desk.run({"kind": "text"}, path="/big").network.bytes > 500_000


def test_redirects_are_told_and_bounded(desk: Desk) -> None:
    result = desk.run({"kind": "text"}, path="/redirect/2")
    assert [hop.status for hop in result.redirects] == [302, 302]
    code, _ = desk.fail({"kind": "text"}, path="/redirect/2", limits={"redirects": 1})
    assert code is ErrorCode.RESOURCE_LIMIT


def test_a_page_of_an_error_can_be_wanted(desk: Desk) -> None:
    result = desk.run({"kind": "text"}, path="/status/404", fail_on_http_status=False)
    assert (result.status, result.http_status) == ("ok", 404)


def test_a_file_is_taken_home(desk: Desk) -> None:
    result = desk.run(
        {"kind": "download", "selector": "a"},
        html="<a download=f.txt href='data:text/plain,hello'>x</a>",
    )
    assert content(only(result, "download")) == b"hello"


def test_a_har_and_a_trace_are_kept_when_asked_for(desk: Desk) -> None:
    result = desk.run({"kind": "text"}, capture={"har": True, "trace": "on"})
    entries = json.loads(content(only(result, "har")))["log"]["entries"]
    assert entries[0]["request"]["url"] == desk.site.url("/page/2")
    assert content(only(result, "trace")).startswith(b"PK")


def test_a_trace_of_failures_is_kept_of_failures_only(desk: Desk) -> None:
    capture = {"trace": "on_failure"}
    assert desk.run({"kind": "text"}, capture=capture).artifacts == ()
    absent = {"kind": "text", "selector": ".none", "timeout_s": 0.2}
    _, result = desk.fail(absent, capture=capture)
    assert [artifact["kind"] for artifact in result["artifacts"]] == [
        "failure-screenshot",
        "trace",
    ]


def test_the_console_of_a_failed_job_is_kept(desk: Desk) -> None:
    markup = "<script>console.error('it broke')</script>"
    _, result = desk.fail({"kind": "text", "selector": ".x", "timeout_s": 0.2}, html=markup)
    assert list(result["console"]) == [{"kind": "error", "text": "it broke"}]


def test_windows_that_a_page_opens_are_closed(desk: Desk) -> None:
    script = "() => { for (let i = 0; i < 5; i++) window.open('about:blank'); return 1 }"
    result = desk.run({"kind": "text"}, steps=[evaluate(script)])
    assert result.status == "ok"
