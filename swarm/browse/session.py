"""One job's open page with all that its steps and actions work with."""

from __future__ import annotations

from dataclasses import dataclass

from playwright.async_api import Page

from swarm.browse.downloads import Downloads
from swarm.browse.navigation import Navigator
from swarm.browse.outbox import Outbox
from swarm.browse.payload import BrowserJob
from swarm.browse.payload.parts import SecretText
from swarm.browse.reading import Reader
from swarm.browse.secrets import Redactor, Secrets
from swarm.settings import BrowserSettings


@dataclass(frozen=True, slots=True)
class Session:
    """Lives as long as the page."""

    job: BrowserJob
    page: Page
    reader: Reader
    navigator: Navigator
    downloads: Downloads
    outbox: Outbox
    secrets: Secrets
    redactor: Redactor
    settings: BrowserSettings

    def reveal(self, value: SecretText, *, stage: str) -> str:
        """A text of the payload; of a secret its value, which is redacted from now on.

        Raises:
            JobError: INVALID, no such secret, or not for the page that is open.
        """
        text = self.secrets.text_for(value, self.page.url, stage=stage)
        if not isinstance(value, str):
            self.redactor.hide([text])
        return text
