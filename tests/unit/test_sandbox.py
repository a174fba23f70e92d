"""What the kernel's files say of a renderer, and what Chromium says when it has no sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.async_api import Error as PlaywrightError

from swarm.browse.sandbox import SandboxMissingError, missing, reason

BROWSER, RENDERER = 10, 20
OUTSIDE = {"user": "user:[1]", "pid": "pid:[1]", "net": "net:[1]"}
INSIDE = {"user": "user:[2]", "pid": "pid:[2]", "net": "net:[2]"}
NO_FILTER = "no seccomp filter of its own"


def write(proc: Path, pid: int, namespaces: Mapping[str, str], seccomp: str) -> None:
    (proc / str(pid) / "ns").mkdir(parents=True)
    for name, target in namespaces.items():
        (proc / str(pid) / "ns" / name).symlink_to(target)
    (proc / str(pid) / "status").write_text(f"Name:\tchromium\nUid:\t1\t1\t1\t1\n{seccomp}")


def filters(count: int, *, mode: int = 2) -> str:
    return f"Seccomp:\t{mode}\nSeccomp_filters:\t{count}\n"


@pytest.mark.parametrize(
    ("namespaces", "browser", "renderer", "expected"),
    [
        (INSIDE, filters(0, mode=0), filters(1), []),
        # As in a unit, whose own filters each of its processes has.
        (INSIDE, filters(32), filters(33), []),
        (INSIDE, filters(32), filters(32), [NO_FILTER]),
        (INSIDE, filters(0, mode=0), filters(0, mode=0), [NO_FILTER]),
        (INSIDE | {"net": "net:[1]"}, filters(0), filters(1), ["no net namespace of its own"]),
        (
            OUTSIDE,
            filters(0, mode=0),
            filters(0, mode=0),
            [*(f"no {name} namespace of its own" for name in OUTSIDE), NO_FILTER],
        ),
    ],
)
def test_what_is_lacking_is_told(
    tmp_path: Path,
    namespaces: Mapping[str, str],
    browser: str,
    renderer: str,
    expected: list[str],
) -> None:
    write(tmp_path, BROWSER, OUTSIDE, browser)
    write(tmp_path, RENDERER, namespaces, renderer)
    assert missing(BROWSER, RENDERER, proc=tmp_path) == expected


def test_a_renderer_that_cannot_be_seen_counts_as_unconfined(tmp_path: Path) -> None:
    write(tmp_path, BROWSER, OUTSIDE, filters(0))
    [lacking] = missing(BROWSER, RENDERER, proc=tmp_path)
    assert "nothing that can be seen" in lacking


def test_a_kernel_that_counts_no_filters_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path, BROWSER, OUTSIDE, "Seccomp:\t2\n")
    write(tmp_path, RENDERER, INSIDE, "Seccomp:\t2\n")
    [lacking] = missing(BROWSER, RENDERER, proc=tmp_path)
    assert "older than 5.9" in lacking


def test_the_reason_says_what_to_do() -> None:
    refusal = PlaywrightError("BrowserType.launch: x\nChromium sandboxing failed!\n====")
    for error in (refusal, SandboxMissingError(NO_FILTER)):
        said = reason(error)
        assert said is not None
        assert "browser.sandbox: false" in said


def test_other_failures_are_not_the_sandbox() -> None:
    assert reason(PlaywrightError("BrowserType.launch: spawn ENOMEM")) is None
