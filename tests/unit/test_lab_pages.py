"""The demo's site answers the same way every time, and as its users rely on."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from lab.pages import make_server, page_delay_s, respond


@contextmanager
def serving(slept: list[float]) -> Iterator[str]:
    with make_server("127.0.0.1", 0, sleep=slept.append) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_half_of_the_pages_take_one_to_three_seconds() -> None:
    delays = [page_delay_s(number) for number in range(1, 201)]
    assert all(1 <= delay <= 3 for delay in delays[::2])
    assert set(delays[1::2]) == {0.0}
    assert len(set(delays[::2])) > 50


def test_a_page_is_the_same_every_time_and_unlike_the_others() -> None:
    assert respond("/page/7") == respond("/page/7")
    assert len({respond(f"/page/{number}").body for number in range(1, 101)}) == 100


@pytest.mark.parametrize("parity", [0, 1])
def test_slow_and_fast_pages_come_in_every_kind(parity: int) -> None:
    bodies = [respond(f"/page/{number}").body for number in range(10 + parity, 30, 2)]
    for mark in ("<article>", "<table>", "<form", "<svg", '<div id="app">'):
        assert any(mark in body for body in bodies), mark


def test_text_of_a_scripted_page_is_not_in_its_markup() -> None:
    body = respond("/page/8").body
    assert "Loading" in body
    assert '<p id="rendered">' not in body


def test_pages_have_metadata() -> None:
    body = respond("/page/10").body
    assert '<meta name="description" content="10: ' in body
    assert '<meta name="author" content="Ada Marsh">' in body


@pytest.mark.parametrize("target", ["/page/0", "/page/x", "/page/-1", "/nowhere", "/status/99"])
def test_unknown_addresses_are_not_found(target: str) -> None:
    assert respond(target).status == 404


@pytest.mark.parametrize("target", ["/slow?ms=60001", "/slow?ms=x", "/redirect/51"])
def test_out_of_range_parameters_are_not_found(target: str) -> None:
    assert respond(target).status == 404


def test_redirects_count_down_to_a_page() -> None:
    assert respond("/redirect/3").location == "/redirect/2"
    assert respond("/redirect/1").location == "/page/2"


def test_what_a_form_sends_is_escaped() -> None:
    body = respond("/echo?name=%3Cb%3E").body
    assert "&lt;b&gt;" in body
    assert "<b>" not in body


def test_served_over_http_with_delay_and_redirect() -> None:
    slept: list[float] = []
    with serving(slept) as base:
        with urllib.request.urlopen(f"{base}/redirect/2") as answer:
            assert answer.url == f"{base}/page/2"
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        with urllib.request.urlopen(f"{base}/page/3") as answer:
            assert b"<title>3: " in answer.read()
        with urllib.request.urlopen(f"{base}/slow?ms=250") as answer:
            assert b"250 ms" in answer.read()
        request = urllib.request.Request(f"{base}/page/2", method="HEAD")
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == b""
            assert int(answer.headers["Content-Length"]) > 100
    assert slept == [page_delay_s(3), 0.25]


@pytest.mark.parametrize("code", [204, 404, 503])
def test_status_is_what_was_asked_for(code: int) -> None:
    with serving([]) as base:
        connection = HTTPConnection(base.removeprefix("http://"))
        connection.request("GET", f"/status/{code}")
        assert connection.getresponse().status == code
        connection.close()
