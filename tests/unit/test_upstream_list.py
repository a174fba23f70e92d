"""The list of upstream's tests that do not apply can neither rot nor hide anything."""

from __future__ import annotations

import pytest

from tests.upstream.listing import Entry, read_list
from tests.upstream.run import judge

ENTRY = Entry("kombu/t/test_a.py::test_*[x]", "looks into a hash", ("ours",))


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({"kombu/t/test_a.py::test_1[x]": ["failed", "no hash"]}, []),
        ({"kombu/t/test_a.py::test_1[x]": ["skipped", "no hash"]}, []),
        ({"kombu/t/test_a.py::test_1[x]": ["passed", ""]}, ["passes, but is listed"]),
        (
            {
                "kombu/t/test_a.py::test_1[x]": ["failed", ""],
                "kombu/t/test_a.py::test_1[y]": ["failed", "lost"],
                "kombu/t/test_a.py::test_2[y]": ["skipped", "no server"],
            },
            ["failed: ", "skipped: "],
        ),
        ({"kombu/t/test_a.py::test_1[y]": ["passed", ""]}, ["listed, but there is no such test"]),
    ],
    ids=["fails", "skipped", "passes", "not-listed", "gone"],
)
def test_whatever_is_not_as_listed_is_told(
    outcomes: dict[str, list[str]], expected: list[str]
) -> None:
    wrong = judge(outcomes, [ENTRY])
    assert len(wrong) == len(expected)
    assert all(line.startswith(start) for line, start in zip(wrong, expected, strict=True))


def test_what_upstream_leaves_to_chance_may_pass() -> None:
    [entry] = read_list("ours", "either kombu/test_a  # fails now and then\n")
    for outcome in ("passed", "failed"):
        assert judge({"kombu/test_a": [outcome, ""]}, [entry]) == []


def test_an_entry_says_where_it_holds_and_why() -> None:
    text = "# about hashes\n\nours kombu/test_a  # no hash\nboth celery/test_b  # no server\n"
    assert [entry.pattern for entry in read_list("ours", text)] == ["kombu/test_a", "celery/test_b"]
    assert [entry.reason for entry in read_list("stock", text)] == ["no server"]


@pytest.mark.parametrize("line", ["ours kombu/test_a", "never kombu/test_a  # why", "ours # why"])
def test_an_entry_without_a_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"expected '.* TEST # REASON'"):
        read_list("ours", line)


def test_the_list_can_be_read() -> None:
    assert read_list("ours")
