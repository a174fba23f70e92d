"""A host's instances over one lasting channel to `swarm-unitctl watch`.

The host tells of changes by itself, so a turn looks at what is here already. A task keeps the
channel:

    opening ──> told (a picture, a line every few seconds) ──> ended ──> pause ──> opening ...
       └── the host's release has no `watch`: it is asked for its list every other second instead

While there is no picture, or its last line is older than `SILENCE_S`, the host is Unknown.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, Self

from swarm.scaler.adapters.picture import Lines, Picture
from swarm.scaler.adapters.systemd import MALFORMED, parse_list, parse_reading
from swarm.scaler.clock import since_boot
from swarm.scaler.model import DrainReading, HostReport, Instance, InstanceState, Unknown
from swarm.scaler.ports import CommandError, CommandRefusedError, CommandRunner, Watch
from swarm.unit_watch import HEARTBEAT_S

log = logging.getLogger(__name__)

#: Age in seconds of the last line beyond which nothing of a host is believed: a heartbeat, and half
#: of one for the way.
SILENCE_S = 1.5 * HEARTBEAT_S
#: Seconds of silence after which the channel is opened anew. Longer than the former: this process
#: may have been held up itself, and would then open all of them at once.
_GIVE_UP_S = 2 * SILENCE_S
#: Seconds that a command waits until the picture shows what it did. Usually it takes a tenth; an
#: instance tells of a drain after up to a quarter.
_CATCH_UP_S = 1.0
#: Longest pause in seconds before a channel is opened again. Pauses are drawn from zero to a bound
#: that doubles from one second ("full jitter"), so that a thousand hosts do not come at once.
_LONGEST_PAUSE_S = 30.0
#: Failures in a row after which the bound is the longest; the power of many more is no float.
_LAST_DOUBLING = 5
#: Seconds between two lists of a host without `watch`, and until `watch` is tried there again.
_LIST_PAUSE_S = 2.0
_LISTS_S = 60.0

_SILENT = f"nothing was heard of it for more than {SILENCE_S:g} s"


class WatchedUnits:
    """A `UnitManager` for one host, at work while it is entered."""

    def __init__(
        self,
        host: str,
        runner: CommandRunner,
        *,
        report_max_age_s: float,
        on_news: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        """`on_news` is called when the picture changes in a way that is worth a turn."""
        self._host = host
        self._runner = runner
        self._report_max_age_s = report_max_age_s
        self._on_news = on_news
        self._clock = clock
        self._channel: _Channel | None = None
        self._shown: HostReport | Unknown = Unknown("nothing was heard of it yet")
        # The picture is of a look that began at the first or later. Only one that began after the
        # last command ended has what that did.
        self._looked_at = self._commanded_at = 0.0
        self._moved = asyncio.Event()
        self._hurry = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name=f"channel to {self._host}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def settled(self) -> None:
        """Return when the first attempt to hear of the host has come to something."""
        await self._settled.wait()

    async def report(self) -> HostReport | Unknown:
        shown = self._shown
        if self._channel is not None:
            self._channel.check()
        if isinstance(shown, Unknown):
            return shown
        if not is_fresh(shown, self._clock()):
            return Unknown(_SILENT)
        if self._looked_at < self._commanded_at:
            return Unknown("it does not show yet what the last command did")
        return shown

    async def start(self, pool: str, number: int) -> None:
        await self._command("start", pool, number)

    async def stop(self, pool: str, number: int, proved: DrainReading) -> None:
        await self._command("stop", pool, number, proved.pid, proved.sequence)

    async def drain(self, pool: str, number: int) -> DrainReading:
        answer = await self._runner.run("drain", pool, str(number))
        try:
            reading = parse_reading(answer)
        except MALFORMED as exc:
            raise _not_understood(exc) from exc
        await self._in_the_picture(pool, number, _is_told_to_drain)
        return reading

    async def undrain(self, pool: str, number: int) -> None:
        await self._runner.run("undrain", pool, str(number))
        await self._in_the_picture(pool, number, lambda shown: shown.draining is None)

    async def _in_the_picture(
        self, pool: str, number: int, is_told: Callable[[Instance], bool]
    ) -> None:
        """Wait for the instance's own word of it, but not for long: it comes sooner or later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S):
                while (shown := self._shown_of(pool, number)) is not None and not is_told(shown):
                    self._moved.clear()
                    await self._moved.wait()

    def _shown_of(self, pool: str, number: int) -> Instance | None:
        if isinstance(self._shown, Unknown):
            return None
        same = (
            each for each in self._shown.instances if (each.pool, each.number) == (pool, number)
        )
        return next(same, None)

    async def _command(self, *words: str | int) -> None:
        try:
            await self._runner.run(*map(str, words))
        finally:
            # One that failed may have done its work all the same.
            self._commanded_at = self._clock()
            self._hurry.set()
            if self._channel is not None:
                self._channel.look(self._commanded_at)
            with suppress(TimeoutError):
                async with asyncio.timeout(_CATCH_UP_S):
                    await self._caught_up()

    async def _caught_up(self) -> None:
        while isinstance(self._shown, HostReport) and self._looked_at < self._commanded_at:
            self._moved.clear()
            await self._moved.wait()

    def _show(self, report: HostReport, *, looked_at: float, news: bool) -> None:
        is_back = isinstance(self._shown, Unknown)
        self._shown, self._looked_at = report, looked_at
        self._moved.set()
        self._settled.set()
        if news or is_back:
            self._on_news()

    def _lose(self, error: CommandError) -> None:
        was_there = isinstance(self._shown, HostReport)
        self._shown = Unknown(str(error))
        self._moved.set()
        self._settled.set()
        if was_there:
            self._on_news()

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                await self._hear()
            except CommandError as exc:
                error = exc
            except Exception as exc:
                # Else the host would be unknown for good, and nobody would learn why.
                log.exception("%s: the channel ended on an error of the scaler's own", self._host)
                error = CommandError(f"an error of the scaler's own: {exc!r}")
            else:
                continue
            failures = 0 if isinstance(self._shown, HostReport) else failures + 1
            self._lose(error)
            longest_s = min(_LONGEST_PAUSE_S, 2.0 ** min(failures, _LAST_DOUBLING))
            await asyncio.sleep(random.uniform(0, longest_s))  # noqa: S311 - spreads, hides nothing

    async def _hear(self) -> None:
        """Hear of the host for as long as that goes well.

        Raises:
            CommandError: it went no longer.
        """
        channel = self._channel = _Channel(
            Picture(self._host, report_max_age_s=self._report_max_age_s), self._show, self._clock
        )
        try:
            channel.opened(await self._runner.watch(channel))
            await channel.lasts()
        except CommandRefusedError:
            self._channel = None
            await self._ask_for_lists()
        finally:
            self._channel = None
            channel.close()

    async def _ask_for_lists(self) -> None:
        """What `watch` does, for a while, on a host whose release does not know it.

        Raises:
            CommandError: the host is away, or answers what is not understood.
        """
        until = self._clock() + _LISTS_S
        while self._clock() < until:
            self._hurry.clear()
            began_at = self._clock()
            answer = await self._runner.run("list")
            try:
                report = parse_list(
                    answer,
                    host=self._host,
                    report_max_age_s=self._report_max_age_s,
                    at=self._clock(),
                )
            except MALFORMED as exc:
                raise _not_understood(exc) from exc
            # Old values for moments, new ones for what they are compared with.
            self._show(replace(report, seen_at=began_at), looked_at=began_at, news=False)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LIST_PAUSE_S):
                    await self._hurry.wait()


def is_fresh(report: HostReport, now: float, *, for_s: float = SILENCE_S) -> bool:
    """Whether no more time has gone since. One of the future, by a clock that stepped, is not."""
    return report.seen_at is not None and 0 <= now - report.seen_at <= for_s


def _is_told_to_drain(shown: Instance) -> bool:
    """Whether it says so, or cannot say it: what stops, failed or does not report."""
    consumes = {InstanceState.IDLE, InstanceState.BUSY, InstanceState.PAUSED}
    return shown.state not in consumes


def _not_understood(exc: Exception) -> CommandError:
    return CommandError(f"swarm-unitctl's answer is not understood: {exc}")


class _Show(Protocol):
    def __call__(self, report: HostReport, *, looked_at: float, news: bool) -> None: ...


class _Channel:
    """A `Listener`: one run of `swarm-unitctl watch`, from its start to its end."""

    def __init__(self, picture: Picture, show: _Show, clock: Callable[[], float]) -> None:
        self._picture = picture
        self._show = show
        self._clock = clock
        self._lines = Lines()
        self._watch: Watch | None = None
        self._end: asyncio.Future[CommandError] = asyncio.get_running_loop().create_future()
        self._opened_at = self._looked_at = clock()
        self._looks: dict[int, float] = {}
        self._last_look = 0

    def opened(self, watch: Watch) -> None:
        """Ask from now on; what was asked before is caught up on."""
        self._watch = watch
        self._opened_at = self._clock()
        if self._looks:
            watch.ask(f"look {self._last_look}")

    async def lasts(self) -> None:
        """Wait for its end.

        Raises:
            CommandError: it has come, and why.
        """
        raise await self._end

    def close(self) -> None:
        self._end.cancel()
        if self._watch is not None:
            self._watch.close()

    def look(self, at: float) -> None:
        """Have the host look again; a picture that has this is of a look that began after `at`."""
        self._last_look += 1
        self._looks[self._last_look] = at
        if self._watch is not None:
            self._watch.ask(f"look {self._last_look}")

    def check(self) -> None:
        """End it when it should have told something by now."""
        if self._watch is None:
            # Opening has a time limit of its own.
            return
        report, now = self._picture.report, self._clock()
        if report is None and now - self._opened_at > SILENCE_S:
            self.ended(CommandError("it accepted the connection and told nothing in time"))
        elif report is not None and not is_fresh(report, now, for_s=_GIVE_UP_S):
            self.ended(CommandError(_SILENT))

    def heard(self, output: bytes) -> None:
        if self._picture.report is None:
            # How long a first line was under way cannot be told from it.
            self.check()
        if self._end.done():
            return
        at = self._clock()
        try:
            news = [self._picture.tell(line, at=at) for line in self._lines.feed(output)]
        except MALFORMED as exc:
            self.ended(_not_understood(exc))
            return
        if self._picture.report is not None and news:
            self._note_looks()
            self._show(self._picture.report, looked_at=self._looked_at, news=any(news))

    def ended(self, error: CommandError) -> None:
        if not self._end.done():
            self._end.set_result(error)

    def _note_looks(self) -> None:
        for number in [each for each in self._looks if each <= self._picture.looked]:
            self._looked_at = max(self._looked_at, self._looks.pop(number))
