"""What we compare with: Celery's own Redis transport and result backend.

Its broker comes from Celery's variables `CELERY_BROKER_URL` and `CELERY_RESULT_BACKEND`. Nothing
of swarm is imported: that would put swarm's transport in the place of kombu's.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from bench.page import CHROMIUM, ELEMENTS
from bench.unprivileged import can_sandbox


def clock() -> float:
    """When the body ran: CLOCK_MONOTONIC is one clock for all processes of a machine."""
    return time.monotonic()


def nap(seconds: float) -> float:
    """Take this long."""
    time.sleep(seconds)
    return time.monotonic()


def picture(url: str, path: str, arguments: list[str]) -> float:
    """Open, count, picture, with a browser for this task alone, as most do it.

    Raises:
        RuntimeError: it is another page.
    """
    # Only who draws needs it.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=can_sandbox(), args=arguments
        )
        page = browser.new_page()
        page.goto(url)
        if page.locator("li").count() != ELEMENTS:
            raise RuntimeError(f"{url} has not {ELEMENTS} elements")
        page.screenshot(path=path)
        browser.close()
    return time.monotonic()


def make_app(name: str, **configuration: Any) -> Celery:
    """An app with all the tasks."""
    app = Celery(name, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, **configuration)
    app.task(name="analysis.clock")(clock)
    app.task(name="analysis.nap")(nap)
    app.task(name="browser.picture")(picture)
    return app


#: As Celery comes.
defaults = make_app("stock")
#: As careful as stock can be: what our instances promise at the least.
careful = make_app("careful", task_acks_late=True, worker_prefetch_multiplier=1)
#: As most use it for pages: each task starts a browser.
browsing = make_app("browsing")
