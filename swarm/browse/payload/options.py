"""What a job's page may load, what is recorded of it, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swarm.browse.payload.parts import Part, Seconds, SecretName

ResourceType = Literal[
    "stylesheet",
    "image",
    "media",
    "font",
    "script",
    "texttrack",
    "xhr",
    "fetch",
    "eventsource",
    "websocket",
    "manifest",
    "other",
]


class NetworkOptions(Part):
    """Which requests of the page are sent, and by which way."""

    block_resources: tuple[ResourceType, ...] = Field(default=(), strict=False)
    """Types that are not loaded; each request of the page then costs about a millisecond."""
    block_patterns: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field(
        default=(), max_length=200, strict=False
    )
    """Globs of URLs that are not loaded, such as `**/*.mp4` or `*://ads.example.net/**`."""
    proxy: SecretName | None = None
    """A secret of type `proxy` that the page's requests go through."""


class CaptureOptions(Part):
    """What is recorded while the job runs, each as an artifact of the result."""

    har: bool = False
    """All requests and answers, with their bodies."""
    video: bool = False
    """The page as it was seen, as WebM; needs the Debian package ffmpeg on the worker hosts."""
    trace: Literal["off", "on", "on_failure"] = "off"
    """Playwright's trace, for `playwright show-trace`."""
    console: bool = False
    """The page's console also when the job succeeds; of a failed job it is always kept."""
    screenshot_on_failure: bool = True


class Limits(Part):
    """What a job may cost."""

    deadline_s: float = Field(default=60, gt=0, le=600)
    """Seconds for everything, after which the page is given up whatever it does."""
    navigation_timeout_s: Seconds = 30
    """Seconds until a page must have loaded."""
    step_timeout_s: Seconds = 30
    """Seconds that one step or action may take."""
    bytes: int | None = Field(default=None, ge=1024, le=10_000_000_000)
    """Bytes that the page may receive; `browser.max_bytes` when not given, and never above it."""
    redirects: int = Field(default=20, ge=0, le=20)
    """Redirects on the way to a page."""
