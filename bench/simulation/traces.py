"""What happens to the fleet: when which tasks arrive, and what of it cannot be seen.

A trace and a seed give the same arrivals for every model. All task times are drawn with a
coefficient of variation of a half, unless a trace says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import log, pi, sin, sqrt
from random import Random

_SERVICE_S = 5.0
_VARIATION = 0.5
#: Seconds for which the rate of arrivals is constant.
_SLOT_S = 60.0
#: Seconds after the last arrivals in which the fleet may become small again.
_TAIL_S = 1200.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One task."""

    at: float
    service_s: float


class Loss(StrEnum):
    """What cannot be seen for a while; work goes on."""

    QUEUE = "queue"
    """How much waits, for whoever scales."""
    HOST = "host"
    """A host: neither its instances nor a command to it."""
    REPORTS = "reports"
    """A host's status files are out of date; its units are seen and obey."""


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which a signal is lost."""

    loss: Loss
    begin: float
    end: float
    host: int = 0
    """Which one, by its place in the fleet."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One history of the world outside."""

    name: str
    horizon_s: float
    """How long it is watched; long enough for every task to end, if nobody kills it."""
    arrivals: tuple[Arrival, ...]
    spells: tuple[Spell, ...] = ()
    task_time_limit_s: int = 120
    """The pool's."""


def burst(seed: int) -> Trace:
    """120 tasks at once, and nothing before or after."""
    rng = Random(f"burst {seed}")
    arrivals = tuple(Arrival(60.0, _service_s(rng)) for _ in range(120))
    return Trace("burst", 60.0 + _TAIL_S, arrivals)


def ramp(seed: int) -> Trace:
    """From nothing to 8 tasks a second in 20 minutes, and back in as long."""
    rng = Random(f"ramp {seed}")
    rise_s = 1200.0
    arrivals = _arrivals(rng, lambda t: 8 * (1 - abs(t - rise_s) / rise_s), until=2 * rise_s)
    return Trace("ramp", 2 * rise_s + _TAIL_S, tuple(arrivals))


def bursts(seed: int) -> Trace:
    """40 tasks every 240 s for an hour: longer gaps than the scaler keeps idle instances for."""
    rng = Random(f"bursts {seed}")
    arrivals = [Arrival(60.0 + 240.0 * n, _service_s(rng)) for n in range(15) for _ in range(40)]
    return Trace("bursts", 3600.0 + _TAIL_S, tuple(arrivals))


def day(seed: int) -> Trace:
    """A day with a busy noon and a quiet night, noise, and 24 bursts of 20 to 80 tasks."""
    rng = Random(f"day {seed}")
    length_s = 86_400.0
    noise = [rng.lognormvariate(0.0, 0.5) for _ in range(int(length_s / 300) + 1)]
    arrivals = list(
        _arrivals(
            rng,
            lambda t: (0.02 + 2.5 * sin(pi * t / length_s) ** 2) * noise[int(t / 300)],
            until=length_s - _TAIL_S,
        )
    )
    for _ in range(24):
        at = rng.uniform(0, length_s - _TAIL_S)
        arrivals += [Arrival(at, _service_s(rng)) for _ in range(rng.randint(20, 80))]
    return Trace("day", length_s, tuple(sorted(arrivals, key=lambda arrival: arrival.at)))


def mixed(seed: int) -> Trace:
    """A task in two seconds for ten minutes of every twenty; one in ten takes 1 to 10 minutes."""
    rng = Random(f"mixed {seed}")

    def service_s() -> float:
        return rng.uniform(60, 600) if rng.random() < 0.1 else _service_s(rng, mean_s=2.0)

    arrivals = _arrivals(
        rng, lambda t: 0.5 if t % 1200 < 600 else 0.0, until=4800.0, service_s=service_s
    )
    return Trace("mixed", 4800.0 + _TAIL_S, tuple(arrivals), task_time_limit_s=900)


def stuck(seed: int) -> Trace:
    """A task a second for an hour; those of a quarter of an hour hang until their time limit.

    120 places would be busy with them, and the fleet has fewer: the queue is stuck, and then there
    is a backlog.
    """
    rng = Random(f"stuck {seed}")
    limit_s = 120
    arrivals = tuple(
        Arrival(arrival.at, float(limit_s)) if 600 <= arrival.at < 1500 else arrival
        for arrival in _arrivals(rng, lambda _: 1.0, until=3600.0)
    )
    return Trace("stuck", 3600.0 + _TAIL_S, arrivals, task_time_limit_s=limit_s)


def signals(seed: int) -> Trace:
    """Waves of work for two hours, during which signals are lost for 20 s to 4 minutes each."""
    rng = Random(f"signals {seed}")
    length_s = 7200.0
    arrivals = _arrivals(rng, lambda t: 1.5 + 1.4 * sin(2 * pi * t / 900), until=length_s)
    return Trace(
        "signals", length_s + _TAIL_S, tuple(arrivals), _spells(rng, until=length_s, every_s=240.0)
    )


def steady(seed: int) -> Trace:
    """Two tasks a second for an hour, and nothing but chance in it."""
    rng = Random(f"steady {seed}")
    arrivals = _arrivals(rng, lambda _: 2.0, until=3600.0)
    return Trace("steady", 3600.0 + _TAIL_S, tuple(arrivals))


def short(seed: int) -> Trace:
    """Tasks of half a second for an hour: waves of 2 to 22 a second, and 8 bursts of 100 to 300."""
    rng = Random(f"short {seed}")
    length_s = 3600.0

    def service_s() -> float:
        return _service_s(rng, mean_s=0.5)

    arrivals = list(
        _arrivals(
            rng,
            lambda t: 12 + 10 * sin(2 * pi * t / 1200),
            until=length_s,
            service_s=service_s,
        )
    )
    for _ in range(8):
        at = rng.uniform(0, length_s)
        arrivals += [Arrival(at, service_s()) for _ in range(rng.randint(100, 300))]
    arrivals.sort(key=lambda arrival: arrival.at)
    return Trace("short", length_s + _TAIL_S, tuple(arrivals))


#: In the order of the report.
TRACES: dict[str, Callable[[int], Trace]] = {
    make.__name__: make for make in (burst, ramp, bursts, day, mixed, stuck, signals, steady, short)
}


def anything(seed: int) -> Trace:
    """An hour and a half of bursts and waves of tasks of any length, with signals lost."""
    rng = Random(f"anything {seed}")
    length_s, mean_s = 5400.0, rng.choice((1.0, 3.0, 8.0, 20.0))
    period_s, load = rng.uniform(60, 600), rng.uniform(2, 40)

    def service_s() -> float:
        return _service_s(rng, mean_s=mean_s, variation=1.0)

    arrivals = list(
        _arrivals(
            rng,
            lambda t: load / mean_s * max(0.0, sin(2 * pi * t / period_s)),
            until=length_s,
            service_s=service_s,
            slot_s=period_s / 12,
        )
    )
    for _ in range(20):
        at = rng.uniform(0, length_s)
        arrivals += [Arrival(at, service_s()) for _ in range(rng.randint(1, 60))]
    return Trace(
        f"anything {seed}",
        length_s + 300.0,
        tuple(sorted(arrivals, key=lambda arrival: arrival.at)),
        _spells(rng, until=length_s, every_s=600.0),
        task_time_limit_s=600,
    )


def _service_s(rng: Random, *, mean_s: float = _SERVICE_S, variation: float = _VARIATION) -> float:
    """Log-normal: most tasks are a little shorter than the mean, a few much longer."""
    spread = sqrt(log(1 + variation**2))
    return rng.lognormvariate(log(mean_s) - spread**2 / 2, spread)


def _arrivals(
    rng: Random,
    rate: Callable[[float], float],
    *,
    until: float,
    service_s: Callable[[], float] | None = None,
    slot_s: float = _SLOT_S,
) -> Iterator[Arrival]:
    """A Poisson process whose rate a second is that in the middle of each slot."""
    draw = service_s or (lambda: _service_s(rng))
    for slot in range(int(until / slot_s)):
        begin = slot * slot_s
        tasks_a_second = rate(begin + slot_s / 2)
        if tasks_a_second <= 0:
            continue
        at = begin + rng.expovariate(tasks_a_second)
        while at < begin + slot_s:
            yield Arrival(at, draw())
            at += rng.expovariate(tasks_a_second)


def _spells(rng: Random, *, until: float, every_s: float) -> tuple[Spell, ...]:
    """One after the other, of all kinds in turn."""
    spells: list[Spell] = []
    kinds = list(Loss)
    begin = rng.uniform(0, every_s)
    while begin < until:
        end = begin + rng.uniform(20, 240)
        spells.append(Spell(kinds[len(spells) % len(kinds)], begin, end, rng.randrange(100)))
        begin += rng.expovariate(1 / every_s)
    return tuple(spells)
