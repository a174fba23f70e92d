"""What the service answers by itself: its limit, what it lacks, what it has forgotten."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Literal

from lab.hosted.offer import refusal
from lab.hosted.wire import Request, encode, error

#: Seconds without a byte after which the service closes a connection, a blocked one as well.
#: Assumed; the documents name no figure.
IDLE_S = 300.0
_NEVER_LOADED = b"f" * 40

Reach = Literal["open", "refused", "silent"]
"""`refused`: no connection is accepted. `silent`: all are, and nothing is ever answered."""


@dataclass(slots=True)
class Faults:
    """What is wrong now."""

    reach: Reach = "open"
    slow_s: float = 0.0
    """Seconds by which each reply is late; the request itself is done at once."""
    cuts: int = 0
    """Replies to come of which half is sent before the connection is cut."""
    idle_s: float = IDLE_S
    limit: int | None = None
    """Requests after which every other one is refused, whatever it asks; None: no limit."""


@dataclass(slots=True)
class Rules:
    """One service's; used on its thread only."""

    faults: Faults = field(default_factory=Faults)
    used: int = 0
    """Requests that count towards the limit."""
    counts: Counter[str] = field(default_factory=Counter)
    """The same by command."""
    scripts: set[bytes] = field(default_factory=set)
    """Hashes of the scripts that it knows; Redis itself may know more."""

    def meet(self, request: Request) -> tuple[Request, bytes | None]:
        """Count a request; what to ask Redis for it, and the answer if Redis is not to be asked.

        Every command is a request, those inside of MULTI or a pipeline too ("each command inside a
        pipeline or transaction is still billed individually", redis/overall/billing in Upstash's
        documents). Assumed: MULTI, EXEC, AUTH, SELECT and those that fail count like others; a
        script counts once, whatever it does; what is refused at the limit does not count.
        """
        limit = self.faults.limit
        if limit is not None and self.used >= limit:
            return request, error(
                f"ERR max requests limit exceeded. Limit: {limit}, Usage: {self.used}"
            )
        self.used += 1
        self.counts[request.name] += 1
        return self._with_script(request), refusal(request)

    def _with_script(self, request: Request) -> Request:
        """Learn its script; one that was forgotten is asked for by a hash that nobody has."""
        words = request.words
        named = f"{request.name} {request.subcommand}"
        if request.name in {"EVAL", "EVAL_RO"} and len(words) > 1:
            self.scripts.add(_sha(words[1]))
        elif named == "SCRIPT LOAD" and len(words) > 2:
            self.scripts.add(_sha(words[2]))
        elif named == "SCRIPT FLUSH":
            self.scripts.clear()
        elif named == "SCRIPT EXISTS":
            return encode([*words[:2], *map(self._known, words[2:])])
        elif request.name in {"EVALSHA", "EVALSHA_RO"} and len(words) > 1:
            return encode([words[0], self._known(words[1]), *words[2:]])
        return request

    def _known(self, sha: bytes) -> bytes:
        return sha if sha.lower() in self.scripts else _NEVER_LOADED


def _sha(text: bytes) -> bytes:
    return sha1(text, usedforsecurity=False).hexdigest().encode()
