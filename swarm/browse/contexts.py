"""The browser context of a job: its options in Playwright's words, secrets filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Playwright

from swarm.browse import secrets as kinds
from swarm.browse.errors import ErrorCode, job_error
from swarm.browse.payload import BrowserJob
from swarm.browse.payload.context import ContextOptions
from swarm.browse.secrets import Redactor, Secrets, check_host

_STAGE = "payload"
#: Used where a job has markup in place of a URL: no secret is meant for it.
_NO_URL = "about:blank"


class ContextPlan:
    """What `new_context` is to be called with for one job.

    Raises:
        JobError: INVALID, an unknown device or a secret that is not there or not for this page.
    """

    def __init__(
        self,
        job: BrowserJob,
        secrets: Secrets,
        redactor: Redactor,
        devices: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._job = job
        self._url = job.url or _NO_URL
        self._secrets = secrets
        self._redactor = redactor
        self.options = self._plain_options(job.context, devices)
        self._add_secrets(job)
        self.secret_headers = self._secret_headers(job.context)

    def _plain_options(
        self, wanted: ContextOptions, devices: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        # A service worker outlives its page and hides requests from routing.
        options: dict[str, Any] = {"service_workers": "block"}
        options["accept_downloads"] = self._job.downloads
        options |= _device(wanted.device, devices)
        if wanted.viewport is not None:
            size = {"width": wanted.viewport.width, "height": wanted.viewport.height}
            options |= {"viewport": size, "screen": size}
            options["device_scale_factor"] = wanted.viewport.scale
        elif wanted.device is None:
            options["viewport"] = {"width": 1280, "height": 800}
        chosen = {
            "user_agent": wanted.user_agent,
            "locale": wanted.locale,
            "timezone_id": wanted.timezone,
            "color_scheme": wanted.color_scheme,
            "permissions": list(wanted.permissions) or None,
            "java_script_enabled": None if wanted.javascript else False,
        }
        options |= {name: value for name, value in chosen.items() if value is not None}
        if wanted.geolocation is not None:
            options["geolocation"] = {
                "latitude": wanted.geolocation.latitude,
                "longitude": wanted.geolocation.longitude,
                "accuracy": wanted.geolocation.accuracy_m,
            }
        plain = {name: text for name, text in wanted.headers.items() if isinstance(text, str)}
        if plain:
            options["extra_http_headers"] = plain
        return options

    def _add_secrets(self, job: BrowserJob) -> None:
        context = job.context
        if context.http_auth is not None:
            auth = self._secrets.find(context.http_auth, kinds.HttpAuth, stage=_STAGE)
            check_host(auth.hosts, self._url, name=context.http_auth, stage=_STAGE)
            self._redactor.hide(auth.values())
            self.options["http_credentials"] = {
                "username": auth.username,
                "password": auth.password,
                "origin": _origin(self._url),
            }
        if context.storage_state is not None:
            state = self._secrets.find(context.storage_state, kinds.StorageState, stage=_STAGE)
            check_host(state.hosts, self._url, name=context.storage_state, stage=_STAGE)
            self._redactor.hide(state.values())
            self.options["storage_state"] = state.state
        if job.network.proxy is not None:
            proxy = self._secrets.find(job.network.proxy, kinds.Proxy, stage=_STAGE)
            self._redactor.hide(proxy.values())
            self.options["proxy"] = proxy.model_dump(exclude={"type"}, exclude_none=True)

    def _secret_headers(self, wanted: ContextOptions) -> dict[str, kinds.Text]:
        """Headers that go to their secret's hosts only, wherever the page sends requests."""
        headers: dict[str, kinds.Text] = {}
        for name, value in wanted.headers.items():
            if not isinstance(value, str):
                secret = self._secrets.find(value.secret, kinds.Text, stage=_STAGE)
                self._redactor.hide(secret.values())
                headers[name] = secret
        return headers

    def cookies(self) -> list[Any]:
        """The payload's own cookies; those without a domain are for the job's URL."""
        cookies = []
        for cookie in self._job.context.cookies:
            place = (
                {"url": self._url}
                if cookie.domain is None
                else {"domain": cookie.domain, "path": cookie.path}
            )
            cookies.append(
                {
                    "name": cookie.name,
                    "value": cookie.value,
                    "secure": cookie.secure,
                    "httpOnly": cookie.http_only,
                    "sameSite": cookie.same_site,
                    **place,
                }
            )
        return cookies


def devices_of(playwright: Playwright) -> Mapping[str, Mapping[str, Any]]:
    """Playwright's devices: names to options of `new_context`."""
    devices: Mapping[str, Mapping[str, Any]] = playwright.devices
    return devices


def _device(name: str | None, devices: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if name is None:
        return {}
    if name not in devices:
        message = f"no device {name!r}; Playwright's names are such as 'Pixel 7' and 'iPad Mini'"
        raise job_error(ErrorCode.INVALID, message, stage=_STAGE)
    # Which engine it has is not for a job to choose.
    return {key: value for key, value in devices[name].items() if key != "default_browser_type"}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
