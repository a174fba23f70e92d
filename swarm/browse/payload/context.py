"""As whom and with what the page is opened: the browser context of a job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from swarm.browse.payload.parts import Part, SecretName, SecretText

HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")]
Permission = Literal[
    "accelerometer",
    "ambient-light-sensor",
    "camera",
    "clipboard-read",
    "clipboard-write",
    "geolocation",
    "gyroscope",
    "magnetometer",
    "microphone",
    "midi",
    "notifications",
    "payment-handler",
    "storage-access",
]


class Viewport(Part):
    """The size of the page's window in CSS pixels."""

    width: int = Field(default=1280, ge=100, le=4096)
    height: int = Field(default=800, ge=100, le=4096)
    scale: float = Field(default=1, ge=0.5, le=4)
    """Device pixels for each CSS pixel."""


class Geolocation(Part):
    """Where the page is told to be; give the permission `geolocation` too."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    accuracy_m: float = Field(default=10, ge=0)


class Cookie(Part):
    """A cookie that the page finds. One that must stay secret belongs into a storage state."""

    name: str = Field(min_length=1, max_length=4096)
    value: str = Field(max_length=4096)
    domain: str | None = Field(default=None, max_length=253)
    """The job's host when not given."""
    path: str = Field(default="/", max_length=1024)
    secure: bool = False
    http_only: bool = False
    same_site: Literal["Strict", "Lax", "None"] = "Lax"


class ContextOptions(Part):
    """What the page sees of its visitor."""

    viewport: Viewport | None = None
    """1280 by 800, or the device's."""
    device: str | None = Field(default=None, min_length=1, max_length=100)
    """A device that Playwright knows, such as `Pixel 7`: its viewport, user agent and touch."""
    user_agent: str | None = Field(default=None, min_length=1, max_length=1000)
    locale: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    timezone: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_+/-]{1,64}$")
    """A name of the tz database, such as `Europe/Zurich`."""
    geolocation: Geolocation | None = None
    permissions: tuple[Permission, ...] = Field(default=(), strict=False)
    color_scheme: Literal["light", "dark", "no-preference"] | None = None
    javascript: bool = True
    headers: dict[HeaderName, SecretText] = Field(default_factory=dict, max_length=100)
    """Sent with every request of the page; those from a secret only to the secret's own hosts."""
    http_auth: SecretName | None = None
    """A secret of type `http_auth`, for the server that the job's URL names."""
    cookies: tuple[Cookie, ...] = Field(default=(), max_length=200, strict=False)
    storage_state: SecretName | None = None
    """A secret of type `storage_state`: cookies and local storage of a login."""

    @model_validator(mode="after")
    def _headers_are_lines(self) -> ContextOptions:
        for name, value in self.headers.items():
            if isinstance(value, str) and any(character in value for character in "\r\n\0"):
                raise ValueError(f"headers without line breaks (headers.{name})")
        return self
