"""What becomes of browsers, for those who count it and for the journal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

log = logging.getLogger(__name__)

BrowserEvent = Literal["launched", "lost", "retired", "killed", "page-crashed"]
#: Called with the event and its cause, a word of a short list or "".
OnEvent = Callable[[BrowserEvent, str], None]
#: Called with the number of contexts that are open, whenever it changes.
OnContexts = Callable[[int], None]

KillCause = Literal["close", "probe", "driver", "deadline", "stop"]
#: What the journal says of each.
_REASONS: dict[KillCause, str] = {
    "close": "its page does not close",
    "probe": "no sign of life",
    "driver": "the driver gives no sign of life",
    "deadline": "the engine's loop is stuck",
    "stop": "it does not close",
}


def log_killed(what: str, cause: KillCause, processes: int) -> None:
    """One line; `cause` as in the event, `processes` how many there were."""
    fields = {"reason": _REASONS[cause], "processes": processes}
    log.warning("%s killed", what, extra={"fields": fields})
