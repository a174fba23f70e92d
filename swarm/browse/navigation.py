"""Opens pages for a job, and knows how they were reached."""

from __future__ import annotations

from collections.abc import AsyncIterator

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page, Request, Response

from swarm.browse import egress
from swarm.browse.errors import ErrorCode, job_error
from swarm.browse.payload import BrowserJob
from swarm.browse.payload.steps import WaitUntil
from swarm.browse.result import Redirect


class Navigator:
    """Opens URLs on one page; remembers status and redirects of the last that was opened."""

    def __init__(self, page: Page, job: BrowserJob, *, proxy: str | None = None) -> None:
        self._page = page
        self._job = job
        self._proxy = proxy
        self._asked_last = ""
        self.http_status: int | None = None
        self.redirects: tuple[Redirect, ...] = ()

    async def open_first(self, *, stage: str) -> None:
        """Open what the job names: its URL or its markup."""
        timeout_ms = self._job.limits.navigation_timeout_s * 1000
        if self._job.url is not None:
            await self.open(self._job.url, self._job.wait_until, timeout_ms=timeout_ms, stage=stage)
        elif self._job.html is not None:
            await self._page.set_content(
                self._job.html, wait_until=self._job.wait_until, timeout=timeout_ms
            )

    async def open(self, url: str, until: WaitUntil, *, timeout_ms: float, stage: str) -> None:
        """Open a URL.

        Raises:
            JobError: the server answered an error, or by too many redirects.
            playwright.async_api.Error: it could not be reached, or not in time.
        """
        response = await self._go(url, until, timeout_ms=timeout_ms, stage=stage)
        self.http_status = response.status if response is not None else None
        self.redirects = tuple([hop async for hop in _hops(response)]) if response else ()
        self._check_redirects(stage)
        if (
            self._proxy is not None
            and response is not None
            and (refused := egress.refusal(response.headers, response.url, stage=stage))
        ):
            raise refused
        self._check_status(stage)

    async def _go(
        self, url: str, until: WaitUntil, *, timeout_ms: float, stage: str
    ) -> Response | None:
        if self._proxy is None:
            return await self._page.goto(url, wait_until=until, timeout=timeout_ms)
        self._asked_last = url
        self._page.on("request", self._on_request)
        try:
            return await self._page.goto(url, wait_until=until, timeout=timeout_ms)
        except PlaywrightError as exc:
            if egress.TUNNEL_TEXT in exc.message:
                # Of what a redirect led to, maybe.
                asked = self._asked_last
                if refused := await egress.refusal_of_tunnel(self._proxy, asked, stage=stage):
                    raise refused from exc
            raise
        finally:
            self._page.remove_listener("request", self._on_request)

    def _on_request(self, request: Request) -> None:
        if request.is_navigation_request() and request.frame == self._page.main_frame:
            self._asked_last = request.url

    def _check_redirects(self, stage: str) -> None:
        allowed = self._job.limits.redirects
        if len(self.redirects) > allowed:
            message = f"{len(self.redirects)} redirects, at most {allowed} are allowed"
            raise job_error(ErrorCode.RESOURCE_LIMIT, message, stage=stage)

    def _check_status(self, stage: str) -> None:
        status = self.http_status
        if status is None or status < 400 or not self._job.fail_on_http_status:
            return
        raise job_error(
            ErrorCode.HTTP_STATUS,
            f"the page answered {status}",
            stage=stage,
            # The server's own trouble, or "too many requests", may pass; other 4xx will not.
            retryable=status >= 500 or status == 429,
        )


async def _hops(response: Response) -> AsyncIterator[Redirect]:
    """The redirects that led to this answer, in their order."""
    chain: list[Request] = []
    request = response.request.redirected_from
    while request is not None:
        chain.append(request)
        request = request.redirected_from
    for request in reversed(chain):
        answer = await request.response()
        yield Redirect(request.url, answer.status if answer is not None else None)
