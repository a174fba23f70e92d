"""A host over a channel: what is believed of it, for how long, and what is never done on less."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from swarm.scaler.adapters import channel
from swarm.scaler.adapters.channel import SILENCE_S, WatchedUnits
from swarm.scaler.adapters.picture import LONGEST_LINE, HostClock, Lines, Picture
from swarm.scaler.adapters.systemd import MALFORMED
from swarm.scaler.limits import Orders, Override
from swarm.scaler.model import (
    Action,
    Draining,
    HostReport,
    Instance,
    InstanceState,
    Outcome,
    Unknown,
)
from swarm.scaler.ports import BrokerSide, CommandError, CommandRefusedError, Listener, Watch
from swarm.scaler.reconcile import NO_ORDERS, Reconciler
from swarm.witness import Witness
from tests.builders import AT, NOW, make_settings
from tests.fakes import FakeQueues, FakeView
from tests.host_lines import HOST_NOW, entry, line


class TestLines:
    def test_output_is_cut_at_the_ends_of_lines(self) -> None:
        lines = Lines()
        assert lines.feed(b"one\ntw") == [b"one"]
        assert lines.feed(b"o") == []
        assert lines.feed(b"\n\nthree\n") == [b"two", b"", b"three"]

    @pytest.mark.parametrize("end", [b"", b"\n"])
    def test_a_line_without_end_is_given_up(self, end: bytes) -> None:
        lines = Lines()
        assert lines.feed(b"x" * LONGEST_LINE) == []
        with pytest.raises(ValueError, match="a line too long"):
            lines.feed(b"x" + end)


class TestHostClock:
    def test_a_line_that_is_late_shows_its_age(self) -> None:
        clock = HostClock()
        assert clock.ours(100.0, at=1000.1) == pytest.approx(1000.1)
        assert clock.ours(105.0, at=1005.0) == pytest.approx(1005.0)
        assert clock.ours(110.0, at=1040.0) == pytest.approx(1010.0, abs=0.05)

    def test_clocks_that_go_apart_slowly_are_followed(self) -> None:
        clock = HostClock()
        for tick in range(0, 86_400, 5):
            ours = clock.ours(tick * (1 - 4e-4), at=1000.0 + tick)
            assert ours == pytest.approx(1000.0 + tick)

    @pytest.mark.parametrize("step", [1000.0, -1000.0])
    def test_after_a_step_of_either_clock_nothing_looks_fresher_than_it_is(
        self, step: float
    ) -> None:
        clock = HostClock()
        clock.ours(100.0, at=1000.0)
        clock.ours(105.0 + step, at=1005.0)
        # And now the network holds lines up for a minute.
        assert clock.ours(110.0 + step, at=1070.0) <= 1010.1


class TestPicture:
    def tell(self, picture: Picture, *lines: bytes) -> list[bool]:
        """Each line comes a second after the one before."""
        return [picture.tell(each, at=NOW + second) for second, each in enumerate(lines)]

    def instances(self, picture: Picture) -> tuple[Instance, ...]:
        assert picture.report is not None
        return picture.report.instances

    @pytest.fixture
    def picture(self) -> Picture:
        return Picture("h1", report_max_age_s=15)

    def test_what_is_not_named_stays_the_same_value(self, picture: Picture) -> None:
        self.tell(picture, line(instances=[entry(1), entry(2)]))
        before = self.instances(picture)
        assert [i.idle_since for i in before] == [NOW - 60, NOW - 60]
        changed = entry(2, word={"done": 154, "written_at": 100.5})
        second = line(1, now=101.0, instances=[changed])
        assert picture.tell(second, at=NOW + 1) is False
        after = self.instances(picture)
        assert after[0] is before[0]
        assert (before[1].tasks_ended, after[1].tasks_ended) == (155, 156)
        picture.tell(line(2, now=102.0), at=NOW + 2)
        assert self.instances(picture) is after
        assert picture.report is not None
        assert picture.report.seen_at == NOW + 2

    @pytest.mark.parametrize(
        ("change", "state"),
        [
            ({"word": {"active": 1}}, InstanceState.BUSY),
            ({"active_state": "failed"}, InstanceState.FAILED),
            ({"word": {"broker": "away"}}, InstanceState.IDLE),
            ({"status": None}, InstanceState.UNREPORTED),
        ],
    )
    def test_a_change_of_state_is_worth_a_turn(
        self, picture: Picture, change: dict[str, Any], state: InstanceState
    ) -> None:
        second = line(1, now=101.0, instances=[entry(1, **change)])
        assert self.tell(picture, line(instances=[entry(1)]), second) == [True, True]
        assert self.instances(picture)[0].state is state

    def test_an_instance_that_is_gone_or_inactive_is_none(self, picture: Picture) -> None:
        lines = [
            line(instances=[entry(1), entry(2), entry(3)]),
            line(1, now=101.0, gone=[["browser", 1], ["browser", 9]]),
            line(2, now=102.0, instances=[entry(3, active_state="inactive")]),
        ]
        assert self.tell(picture, *lines) == [True, True, True]
        assert [i.number for i in self.instances(picture)] == [2]

    def test_a_word_that_grew_old_is_believed_less_and_less(self, picture: Picture) -> None:
        """Written at 99 s, and told again because it was not renewed."""
        picture.tell(line(instances=[entry(1)]), at=NOW)
        for sequence, (now, waits, state) in enumerate(
            [(106.5, False, "idle"), (114.0, False, "idle"), (114.5, False, "unreported")], start=1
        ):
            told = line(sequence, now=now, instances=[entry(1)])
            picture.tell(told, at=NOW + now - HOST_NOW)
            [instance] = self.instances(picture)
            assert (instance.waits, instance.state.value) == (waits, state)

    @pytest.mark.parametrize(
        "second",
        [
            b"",
            b"null",
            b"hello",
            b"[" * 100_000,
            b'{"sequence": 1}',
            line(1, now="soon"),  # type: ignore[arg-type]
            line(2),
            line(0),
            line(1, instances=[3]),
            line(1, instances=[{"number": 1}]),
            line(1, instances=[{**entry(1), "number": float("inf")}]),
            line(1, gone=["browser"]),
            line(1, instances=[entry(n) for n in range(1, 1100)]),
        ],
    )
    def test_what_is_not_understood_is_an_error_of_the_listed_kinds(
        self, picture: Picture, second: bytes
    ) -> None:
        picture.tell(line(instances=[entry(1)]), at=NOW)
        with pytest.raises(MALFORMED):
            picture.tell(second, at=NOW + 1)

    def test_another_version_is_refused(self, picture: Picture) -> None:
        with pytest.raises(ValueError, match="protocol version 2, expected 1"):
            picture.tell(line(version=2), at=NOW)


class FakeRunner:
    """A `CommandRunner` whose host says what a test lets it say."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.asked: list[str] = []
        self.commands: list[str] = []
        self.watches = 0
        self.error: CommandError | None = None
        """Why no watch can be started."""
        self.on_command: Callable[[], None] = lambda: None
        self.answers_looks = self.drains = self.tells_of_drains = True
        self.sequence = 0
        self.watched = asyncio.Event()
        self.opens = asyncio.Event()
        self.opens.set()
        self.lists: list[str] = []
        self.clock: Callable[[], float] = lambda: NOW

    async def run(self, *words: str) -> str:
        self.commands.append(" ".join(words))
        if words[0] == "drain":
            return self.drain(*words[1:])
        if words == ("list",):
            if not self.lists:
                raise CommandError("no list")
            return self.lists[-1]
        self.on_command()
        return "{}"

    def drain(self, pool: str, number: str) -> str:
        """The instance says it at its socket and in its status file."""
        if not self.drains:
            raise CommandError(f"{pool}-{number} does not answer: Connection refused")
        drain = {"state": "idle", "sequence": 3, "since": HOST_NOW}
        now = HOST_NOW + self.clock() - NOW
        word = {"drain": drain, "written_at": now}
        if self.tells_of_drains:
            self.tell(instances=[entry(int(number), word=word)])
        witness = {"processes": 4, "renderers": 0, "cpu_s": 1.0}
        own = {"pid": 1000 + int(number), "state": "idle", "sequence": 3}
        return json.dumps({"version": 1, "now": now, **own, "witness": witness})

    async def watch(self, listener: Listener) -> Watch:
        self.watches += 1
        await self.opens.wait()
        if self.error is not None:
            raise self.error
        self.listener = listener
        self.sequence = 0
        self.watched.set()
        return self

    def ask(self, request: str) -> None:
        self.asked.append(request)
        if self.answers_looks:
            self.tell(look=int(request.removeprefix("look ")))

    def close(self) -> None:
        self.listener = None
        self.watched.clear()

    def tell(self, *, late_s: float = 0.0, **fields: Any) -> None:
        """A line, written `late_s` ago."""
        assert self.listener is not None
        now = HOST_NOW + self.clock() - NOW - late_s
        self.listener.heard(line(self.sequence, now=now, **fields) + b"\n")
        self.sequence += 1


class Host:
    """A `WatchedUnits` over a fake runner, on a clock that a test turns."""

    def __init__(self) -> None:
        self.now = NOW
        self.runner = FakeRunner()
        self.runner.clock = lambda: self.now
        self.news = 0
        self.units = WatchedUnits(
            "h1",
            self.runner,  # type: ignore[arg-type]
            report_max_age_s=15,
            on_news=self._count,
            clock=lambda: self.now,
        )
        settings = make_settings(
            hosts={"h1": {"address": "local", "max_instances": 4}},
            scaler={"stabilisation_s": 0},
        )
        self.orders = Orders({"browser": (Override("kept", minimum=2),)})
        self.queues = FakeQueues({"browser": 0, "analysis": 0})
        side = BrokerSide(self.queues, FakeView(self.queues))
        self.reconciler = Reconciler(settings, {"primary": side}, {"h1": self.units})

    def release(self) -> None:
        """From now on one of two is too many."""
        self.orders = NO_ORDERS

    async def turn(self) -> Outcome:
        return await self.reconciler.turn(self.now, at=AT, orders=self.orders)

    def _count(self) -> None:
        self.news += 1

    async def heard(self, *entries: dict[str, Any]) -> None:
        """The channel is open and has told these instances."""
        await self.opened()
        self.runner.tell(instances=list(entries))

    async def opened(self) -> None:
        async with asyncio.timeout(5):
            await self.runner.watched.wait()
        await asyncio.sleep(0)

    async def report(self) -> HostReport | Unknown:
        return await self.units.report()

    async def turns(self, seconds: float, *, lines: bool = False) -> list[Outcome]:
        """A turn every two seconds; with `lines` the host tells each time that nothing changed."""
        outcomes = []
        for _ in range(int(seconds / 2)):
            self.now += 2
            if lines:
                self.runner.tell()
            outcomes.append(await self.turn())
            await asyncio.sleep(0)
        return outcomes

    async def drained(self) -> None:
        """One of two idle instances drains and has answered once; from now on it does not."""
        await self.heard(entry(1), entry(2))
        await self.turns(20, lines=True)
        assert self.acts == []
        self.release()
        await self.turns(4, lines=True)
        assert self.acts == ["drain browser 2"]
        self.runner.drains = False

    async def turns_in_vain(self, seconds: float) -> list[Outcome]:
        """Nothing is stopped; and when the host has been silent, it is not even asked."""
        outcomes = await self.turns(10)
        assert set(self.acts) == {"drain browser 2"}
        self.runner.commands.clear()
        outcomes += await self.turns(seconds)
        assert self.acts == []
        return outcomes

    @property
    def acts(self) -> list[str]:
        """What it was told; of a stop, without what was proved."""
        commands = (command for command in self.runner.commands if command != "list")
        return [" ".join(command.split()[:3]) for command in commands]


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """It opens its channel again without a pause."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    host = Host()
    async with host.units:
        yield host


@pytest.fixture
def bounds(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of the pauses that the channel of `host` made, none of which takes time."""
    found: list[float] = []

    def uniform(_: float, longest: float) -> float:
        found.append(longest)
        return 0.0

    monkeypatch.setattr(random, "uniform", uniform)
    return found


def reason(report: HostReport | Unknown) -> str:
    assert isinstance(report, Unknown), report
    return report.reason


async def test_a_host_is_unknown_until_it_is_heard(host: Host) -> None:
    assert reason(await host.report()) == "nothing was heard of it yet"
    await host.heard(entry(1))
    report = await host.report()
    assert isinstance(report, HostReport)
    assert [instance.number for instance in report.instances] == [1]
    assert report.seen_at == NOW
    await host.units.settled()


async def test_idle_instances_are_stopped_while_the_channel_lives(host: Host) -> None:
    """That nothing is stopped in the tests below is because of what is wrong there."""
    await host.heard(entry(1), entry(2))
    await host.turns(40, lines=True)
    assert host.acts == []
    host.release()
    outcomes = await host.turns(12, lines=True)
    assert host.acts[:3] == ["drain browser 2", "drain browser 2", "stop browser 2"]
    assert isinstance(outcomes[-1].observation.hosts["h1"], HostReport)


async def test_a_watcher_that_is_frozen_is_not_believed_and_nothing_is_done(host: Host) -> None:
    """One drains, and would prove that it is idle while it is frozen."""
    await host.drained()
    host.runner.error = CommandError("no answer in 10 s")
    before = await host.turns(6)
    assert isinstance(before[-1].observation.hosts["h1"], HostReport)
    host.queues.lengths["browser"] = 50
    host.now += 1.6
    outcomes = await host.turns_in_vain(400)
    assert "nothing was heard of it for more than 7.5 s" in reason(
        outcomes[0].observation.hosts["h1"]
    )
    assert reason(outcomes[-1].observation.hosts["h1"]) == "no answer in 10 s"


async def test_a_silence_stops_nothing_even_before_it_is_noticed(host: Host) -> None:
    """The last picture shows an instance that is drained; it does not answer."""
    await host.drained()
    host.runner.error = CommandError("no answer in 10 s")
    await host.turns_in_vain(300)


async def test_lines_that_come_late_are_as_old_as_they_are(host: Host) -> None:
    await host.drained()
    host.runner.error = CommandError("gone")
    host.release()
    host.now += 60
    for _ in range(100):
        host.now += 2
        if host.runner.listener is not None:
            host.runner.tell(late_s=60.0)
        outcome = await host.turn()
        assert isinstance(outcome.observation.hosts["h1"], Unknown)
        await asyncio.sleep(0)
    assert host.acts == ["drain browser 2"]


async def test_a_first_line_that_comes_late_is_not_believed(host: Host) -> None:
    await host.opened()
    host.runner.error = CommandError("gone")
    host.now += SILENCE_S + 0.1
    host.runner.tell(late_s=SILENCE_S, instances=[entry(1)])
    assert isinstance(await host.report(), Unknown)


async def test_a_channel_that_was_held_up_for_a_moment_goes_on(host: Host) -> None:
    await host.heard(entry(1))
    host.now += SILENCE_S + 0.1
    assert "nothing was heard" in reason(await host.report())
    host.runner.tell()
    assert isinstance(await host.report(), HostReport)
    assert host.runner.watches == 1


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_a_step_of_the_hosts_clock_makes_no_old_picture_fresh(
    host: Host, step: float
) -> None:
    await host.drained()
    host.runner.tell(late_s=step)
    host.runner.error = CommandError("gone")
    await host.turns_in_vain(300)
    assert isinstance(await host.report(), Unknown)


TEN_YEARS_S = 10 * 365 * 86_400.0


@pytest.mark.parametrize("step", [TEN_YEARS_S, -90.0])
async def test_a_leap_of_the_hosts_clock_by_years_stops_and_starts_nothing(
    host: Host, step: float
) -> None:
    """Two are idle, and both are kept; by the new clock they were so for ten years, or never."""
    await host.heard(entry(1), entry(2))
    await host.turns(20, lines=True)
    for _ in range(30):
        host.now += 2
        written_at = HOST_NOW + host.now - NOW + step
        words = [entry(number, word={"written_at": written_at}) for number in (1, 2)]
        if host.runner.listener is not None:
            host.runner.tell(late_s=-step, instances=words)
        await host.turn()
        await asyncio.sleep(0)
    assert host.acts == []
    report = await host.report()
    assert isinstance(report, HostReport), "a clock that leapt is the host's clock from then on"
    assert {instance.state for instance in report.instances} == {InstanceState.IDLE}


@pytest.mark.parametrize("step", [TEN_YEARS_S, -TEN_YEARS_S])
async def test_a_leap_of_the_hosts_clock_between_two_answers_stops_nothing(
    host: Host, step: float
) -> None:
    """The answers lie ten years apart by that clock, or the second one lies before the first."""
    await host.heard(entry(1), entry(2))
    await host.turns(20, lines=True)
    host.release()
    await host.turns(4, lines=True)
    assert host.acts == ["drain browser 2"]
    told = host.runner.drain

    def leapt(pool: str, number: str) -> str:
        answer = json.loads(told(pool, number))
        return json.dumps({**answer, "now": answer["now"] + step})

    host.runner.drain = leapt  # type: ignore[method-assign]
    # One answer by the new clock is no more than a first one, however often it leaps.
    await host.turns(4, lines=True)
    assert host.acts == ["drain browser 2", "drain browser 2"]
    step = -step
    await host.turns(4, lines=True)
    assert "stop browser 2" not in host.acts
    # It stays as it is: two answers by the same clock prove it.
    await host.turns(8, lines=True)
    assert host.acts[-1] == "stop browser 2"


async def test_a_step_back_of_our_own_clock_makes_no_old_picture_fresh(host: Host) -> None:
    await host.drained()
    host.runner.error = CommandError("gone")
    host.release()
    host.now -= 3600
    assert isinstance(await host.report(), Unknown)
    await host.turns_in_vain(300)


async def test_an_instance_that_is_frozen_is_not_stopped(host: Host) -> None:
    """Its host tells on: that its word is not renewed. At its socket nobody answers."""
    await host.heard(entry(1), entry(2))
    host.runner.drains = False
    for turn in range(100):
        if turn == 10:
            host.release()
        host.now += 2
        is_late = host.now - NOW + HOST_NOW - 99.0 > 7.0
        host.runner.tell(instances=[entry(1), entry(2)] if is_late else [])
        await host.turn()
    assert set(host.acts) <= {"drain browser 1", "drain browser 2"}
    report = await host.report()
    assert isinstance(report, HostReport)
    assert {instance.state for instance in report.instances} == {InstanceState.UNREPORTED}


async def test_a_host_that_accepts_and_tells_nothing_is_told_so(host: Host) -> None:
    await host.opened()
    await host.turns(SILENCE_S + 2)
    host.runner.error = CommandError("SSH: Connection refused")
    await asyncio.sleep(0)
    assert host.runner.watches >= 2
    await host.turns(200)
    assert host.acts == []


@pytest.mark.parametrize(
    ("garbage", "told"),
    [
        (b"hello\n", "not understood: Expecting value"),
        (b"\xff\xfe\x00\n", "not understood"),
        (b'{"sequence": 1}\n', "not understood: 'now'"),
        (line(5) + b"\n", "not understood: line 5, expected 1"),
        (b"x" * (LONGEST_LINE + 1), "not understood: a line too long"),
    ],
)
async def test_garbage_ends_the_channel_with_its_reason(
    host: Host, monkeypatch: pytest.MonkeyPatch, garbage: bytes, told: str
) -> None:
    await host.heard(entry(1), entry(2))
    monkeypatch.setattr(random, "uniform", lambda *_: 3600.0)
    listener = host.runner.listener
    assert listener is not None
    for _ in range(100):
        listener.heard(garbage)
    await asyncio.sleep(0)
    assert host.runner.listener is None, "its channel is left open"
    outcomes = await host.turns(200)
    assert told in reason(outcomes[-1].observation.hosts["h1"])
    assert host.acts == []


async def test_a_host_that_is_away_is_tried_again_with_growing_pauses(
    host: Host, bounds: list[float]
) -> None:
    await host.heard(entry(1))
    host.runner.error = CommandError("SSH: Host key is not trusted: 10.0.0.1 port 22 has another")
    assert host.runner.listener is not None
    host.runner.listener.ended(CommandError("SSH: connection lost"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert bounds[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert "Host key is not trusted" in reason(await host.report())
    assert host.news == 2
    host.runner.error = None
    await host.heard(entry(1))
    assert isinstance(await host.report(), HostReport)
    assert host.news == 3


async def test_a_host_that_was_away_for_days_is_heard_again(
    host: Host, bounds: list[float]
) -> None:
    await host.heard(entry(1))
    host.runner.error = CommandError("SSH: Connection refused")
    assert host.runner.listener is not None
    host.runner.listener.ended(host.runner.error)
    for _ in range(20_000):
        await asyncio.sleep(0)
    assert len(bounds) > 2000
    assert max(bounds) == 30
    assert reason(await host.report()) == "SSH: Connection refused"
    host.runner.error = None
    await host.heard(entry(1))
    assert isinstance(await host.report(), HostReport)


async def test_an_error_of_our_own_does_not_end_the_channel(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def watch(_: Listener) -> Watch:
        raise KeyError("nobody thought of it")

    await host.heard(entry(1))
    assert host.runner.listener is not None
    with monkeypatch.context() as broken:
        broken.setattr(host.runner, "watch", watch)
        host.runner.listener.ended(CommandError("SSH: connection lost"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert "nobody thought of it" in reason(await host.report())
    assert "the channel ended on an error of the scaler's own" in caplog.text
    await host.heard(entry(1))
    assert isinstance(await host.report(), HostReport)


async def test_what_was_just_started_is_seen_at_once(host: Host) -> None:
    await host.heard(entry(1))

    def starts() -> None:
        host.now += 0.1
        host.runner.tell(instances=[entry(2, active_state="activating", status=None)])

    host.runner.on_command = starts
    await host.units.start("browser", 2)
    report = await host.report()
    assert isinstance(report, HostReport)
    assert [i.state.value for i in report.instances] == ["idle", "starting"]
    assert host.runner.asked == ["look 1"]


@pytest.mark.parametrize("fails", [False, True])
async def test_no_picture_is_believed_that_may_be_older_than_the_last_command(
    host: Host, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """A command that failed may have done its work."""
    monkeypatch.setattr(channel, "_CATCH_UP_S", 0.01)
    host.runner.answers_looks = False
    await host.heard(entry(1))

    def takes() -> None:
        host.now += 0.1
        if fails:
            raise CommandError("no answer in 10 s")

    host.runner.on_command = takes
    try:
        await host.units.start("browser", 2)
    except CommandError:
        assert fails
    host.runner.tell()
    assert "does not show yet" in reason(await host.report())
    host.queues.lengths["browser"] = 50
    outcome = await host.turn()
    assert outcome.results == ()
    host.runner.tell(look=1, instances=[entry(2, active_state="activating", status=None)])
    report = await host.report()
    assert isinstance(report, HostReport)
    assert len(report.instances) == 2


async def test_a_command_during_the_opening_is_in_the_first_picture_or_asked_for(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_CATCH_UP_S", 0.01)
    host.runner.answers_looks = False
    await host.heard(entry(1))
    host.runner.opens.clear()
    assert host.runner.listener is not None
    host.runner.listener.ended(CommandError("SSH: connection lost"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert host.runner.watches == 2
    host.now += 0.1
    await host.units.start("browser", 2)
    assert host.runner.asked == []
    host.runner.opens.set()
    await host.opened()
    assert host.runner.asked == ["look 1"]
    host.runner.tell()
    assert "does not show yet" in reason(await host.report())
    host.runner.tell(look=1)
    assert isinstance(await host.report(), HostReport)


async def test_a_drain_is_in_the_picture_when_its_answer_has_come(host: Host) -> None:
    await host.heard(entry(1), entry(2))
    reading = await host.units.drain("browser", 2)
    assert (reading.at, reading.pid, reading.is_idle, reading.sequence) == (HOST_NOW, 1002, True, 3)
    assert reading.witness == Witness(processes=4, renderers=0, cpu_s=1.0)
    report = await host.report()
    assert isinstance(report, HostReport)
    assert [each.state.value for each in report.instances] == ["idle", "draining"]
    assert report.instances[1].draining == Draining(is_idle=True, sequence=3, since=NOW)
    assert host.runner.asked == [], "systemd need not be asked for it"


async def test_an_instance_that_tells_of_its_drain_late_is_not_waited_for(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_CATCH_UP_S", 0.01)
    host.runner.tells_of_drains = False
    await host.heard(entry(1), entry(2))
    assert (await host.units.drain("browser", 2)).is_idle
    assert isinstance(await host.report(), HostReport)
    host.runner.tells_of_drains = True
    await host.units.drain("browser", 2)
    await host.units.undrain("browser", 2)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"witness": {}},
        {"witness": {"processes": 1, "renderers": "none", "cpu_s": 1}},
        {"sequence": None},
        {"pid": "x"},
        {"now": []},
    ],
    ids=str,
)
async def test_an_answer_to_a_drain_that_is_not_understood_proves_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    await host.heard(entry(1))
    answer = json.loads(host.runner.drain("browser", "1"))
    for told in (json.dumps({**answer, **change}), "{}", "no", "[]"):
        monkeypatch.setattr(host.runner, "drain", lambda *_, told=told: told)
        with pytest.raises(CommandError, match="not understood"):
            await host.units.drain("browser", 1)


async def test_that_the_last_task_of_a_drain_has_ended_is_news(host: Host) -> None:
    drain = {"state": "stopping", "sequence": 2, "since": 99.0}
    await host.heard(entry(1, word={"active": 1, "drain": drain}))
    before = host.news
    host.runner.tell(instances=[entry(1, word={"drain": {**drain, "state": "idle"}})])
    assert host.news == before + 1


async def test_news_is_what_changes_a_state(host: Host) -> None:
    await host.heard(entry(1))
    assert host.news == 1
    host.runner.tell()
    host.runner.tell(instances=[entry(1, word={"done": 154})])
    assert host.news == 1
    host.runner.tell(instances=[entry(1, word={"active": 1})])
    assert host.news == 2


async def test_a_host_of_an_earlier_release_is_asked_for_its_list(host: Host) -> None:
    """Whoever is deployed first, hosts or scaler, nothing is interrupted."""
    listed = {"version": 1, "now": HOST_NOW, "instances": [entry(1)]}
    host.runner.lists.append(json.dumps(listed))
    await host.opened()
    assert host.runner.listener is not None
    host.runner.error = CommandRefusedError("refused: 'watch'; expected: list | start POOL N")
    host.runner.listener.ended(host.runner.error)
    await host.units.settled()
    report = await host.report()
    assert isinstance(report, HostReport)
    assert report.seen_at == NOW
    assert [instance.idle_since for instance in report.instances] == [NOW - 60]
    host.runner.lists.append(json.dumps({**listed, "instances": [entry(1), entry(2)]}))
    host.now += 1
    await host.units.start("browser", 2)
    report = await host.report()
    assert isinstance(report, HostReport)
    assert len(report.instances) == 2
    host.now += SILENCE_S + 1
    assert isinstance(await host.report(), Unknown)


async def test_a_full_fleet_is_started_once(host: Host) -> None:
    """Turns as close as they come: what is started and not yet seen is not started again."""
    host.queues.lengths["browser"] = 50
    await host.heard()
    started: list[dict[str, Any]] = []

    def starts() -> None:
        number = int(host.runner.commands[-1].split()[-1])
        started.append(entry(number, active_state="activating", status=None))

    def look(request: str) -> None:
        host.runner.tell(look=int(request.split()[1]), instances=started)

    host.runner.on_command = starts
    host.runner.ask = look  # type: ignore[method-assign]
    seen: list[Action] = []
    for _ in range(10):
        host.now += 0.5
        host.runner.tell()
        outcome = await host.turn()
        seen += [result.action for result in outcome.results]
    assert len(seen) == len(set(seen)) == 4
