"""Whether Chromium's sandbox is really there: what the kernel says of a renderer, not of a switch.

Chromium starts without its sandbox when something on the way adds `--no-sandbox`: a wrapper in
place of the executable, a file in /etc/chromium.d. Pages would then run as the worker's user.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from playwright.async_api import Browser, CDPSession
from playwright.async_api import Error as PlaywrightError

#: Kinds of namespaces that a renderer shares with no other process than renderers.
_NAMESPACES = ("user", "pid", "net")
_FILTER_MODE = "2"
#: Playwright 1.65, server/chromium/chromium.ts: what it makes of Chromium's words for no user
#: namespaces to be had, and for being root.
_REFUSED_TEXT = "Chromium sandboxing failed!"
_REMEDY = (
    "run it as a user who is not root, where kernel and unit allow user namespaces; look for "
    "--no-sandbox in the executable and in /etc/chromium.d; or say browser.sandbox: false if "
    "every page may do what the worker may"
)


class SandboxMissingError(PlaywrightError):
    """Chromium's sandbox is not there, though browser.sandbox wants it.

    One of Playwright's errors to all who lend browsers: none is to be had.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"no sandbox, as {what}: {_REMEDY}")


def reason(error: PlaywrightError) -> str | None:
    """Why a browser was not launched, if it was for its sandbox, and what to do about it."""
    if isinstance(error, SandboxMissingError):
        return error.message
    if _REFUSED_TEXT in error.message:
        return SandboxMissingError("Chromium can have none here").message
    return None


async def check(
    browser: Browser, control: CDPSession, browser_pid: int, *, timeout_s: float
) -> None:
    """Open a page and look at the processes that run pages.

    Raises:
        SandboxMissingError: one of them is not confined, or there is none to look at.
        playwright.async_api.Error: the browser is gone, or has no page in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await _look(browser, control, browser_pid)
    except TimeoutError as exc:
        raise PlaywrightError(f"no page within {timeout_s:g} s") from exc


async def _look(browser: Browser, control: CDPSession, browser_pid: int) -> None:
    page = await browser.new_page()
    try:
        # It has entered its sandbox before it runs any script.
        await page.evaluate("0")
        answer = await control.send("SystemInfo.getProcessInfo")
        pids = [int(entry["id"]) for entry in answer["processInfo"] if entry["type"] == "renderer"]
        if not pids:
            raise SandboxMissingError("there is no renderer of its own to look at")
        for pid in pids:
            if lacking := missing(browser_pid, pid):
                raise SandboxMissingError(f"a renderer has {', '.join(lacking)}")
    finally:
        await page.close()


def missing(browser_pid: int, renderer_pid: int, *, proc: Path = Path("/proc")) -> list[str]:
    """What a renderer lacks of its sandbox, in words; what cannot be seen is lacking."""
    outside, inside = proc / str(browser_pid), proc / str(renderer_pid)
    try:
        shared = [name for name in _NAMESPACES if _is_shared(inside, outside, name)]
        filtered = _filters(inside) > _filters(outside)
    except (OSError, ValueError) as exc:
        return [f"nothing that can be seen ({exc})"]
    lacking = [f"no {name} namespace of its own" for name in shared]
    return lacking if filtered else [*lacking, "no seccomp filter of its own"]


def _is_shared(inside: Path, outside: Path, name: str) -> bool:
    return (inside / "ns" / name).readlink() == (outside / "ns" / name).readlink()


def _filters(process: Path) -> int:
    """How many seccomp filters a process has: systemd gives a unit's processes some already.

    Raises:
        ValueError: the kernel does not say.
    """
    fields = dict(
        line.split(":", 1) for line in (process / "status").read_text("utf-8").splitlines()
    )
    if fields.get("Seccomp", "").strip() != _FILTER_MODE:
        return 0
    if "Seccomp_filters" not in fields:
        raise ValueError("the kernel does not count seccomp filters: it is older than 5.9")
    return int(fields["Seccomp_filters"])
