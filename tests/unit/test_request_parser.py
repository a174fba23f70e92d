"""The benchmarks' counting proxy: requests are found in any cut of the bytes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.proxy import RequestParser, difference


def encode(*words: bytes) -> bytes:
    bulks = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%s" % (len(words), bulks)


def parse(*chunks: bytes) -> list[str]:
    names: list[str] = []
    parser = RequestParser(names.append)
    for chunk in chunks:
        parser.feed(chunk)
    return names


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (encode(b"PING"), ["PING"]),
        (encode(b"blpop", b"a", b"b", b"240"), ["BLPOP"]),
        (encode(b"client", b"setinfo", b"LIB-NAME", b"x"), ["CLIENT SETINFO"]),
        (encode(b"CLIENT"), ["CLIENT"]),
        (encode(b"SET", b"client", b"id"), ["SET"]),
        (encode(b"MULTI") + encode(b"SET", b"k", b"") + encode(b"EXEC"), ["MULTI", "SET", "EXEC"]),
        (b"PING\r\nconfig get maxmemory\r\n", ["PING", "CONFIG GET"]),
        (b"\r\n*0\r\n" + encode(b"PING"), ["PING"]),
        (encode(b"SET", b"k", b"*1\r\n$4\r\nPING\r\n") + encode(b"GET", b"k"), ["SET", "GET"]),
        (encode(b"SET", b"*1\r\n$4\r\nPING\r\n", b"v"), ["SET"]),
        (encode(b"SET", b"k" * 100, b"v" * 100_000) + encode(b"DEL", b"k"), ["SET", "DEL"]),
        (encode(b"PING")[:-1], []),
    ],
)
def test_requests_are_named_in_their_order(sent: bytes, expected: list[str]) -> None:
    assert parse(sent) == expected
    assert parse(*(sent[at : at + 1] for at in range(len(sent)))) == expected


@given(
    st.lists(st.lists(st.binary(max_size=200), min_size=1, max_size=5), max_size=10),
    st.lists(st.integers(min_value=1, max_value=300), min_size=1),
)
def test_any_words_in_any_cut_are_one_request_each(
    tails: list[list[bytes]], sizes: list[int]
) -> None:
    sent = b"".join(encode(b"EVALSHA", *tail) for tail in tails)
    chunks: list[bytes] = []
    while sent:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(sent[:size])
        sent = sent[size:]
    assert parse(*chunks) == ["EVALSHA"] * len(tails)


@pytest.mark.parametrize("sent", [b"*x\r\n", b"*1\r\nPING\r\n", b"*1\r\n$x\r\n", b"a" * 70_000])
def test_what_is_no_request_is_refused(sent: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(sent)


def test_a_difference_has_only_what_came_since() -> None:
    before = {"worker": Counter(PING=2, GET=1)}
    after = {"worker": Counter(PING=5, GET=1)}
    assert difference(after, before) == {"worker": Counter(PING=3)}
