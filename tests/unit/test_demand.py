"""How many instances the work needs, and how many are worth keeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.scaler.demand import Needs, reckon, times_s, worth_keeping
from swarm.scaler.limits import effective
from swarm.scaler.model import Inputs, Instance, PoolMemory, Reckoning
from swarm.settings import PoolSettings
from tests.builders import (
    AT,
    NOW,
    make_inputs,
    make_instance,
    make_instances,
    make_observation,
    make_pool,
    make_scaler,
)


def reckoned(
    waiting: int,
    instances: Sequence[Instance] = (),
    pool: PoolSettings | None = None,
    *,
    memory: PoolMemory | None = None,
    scaler: dict[str, Any] | None = None,
) -> Reckoning:
    pool = pool or make_pool()
    inputs = make_inputs(make_observation(waiting, instances), pool)
    reckoning, _ = reckon(
        pool,
        make_scaler(**{"target_wait_s": 15, **(scaler or {})}),
        inputs,
        effective(pool, AT),
        waiting,
        memory or PoolMemory(),
    )
    return reckoning


@pytest.mark.parametrize(
    ("waiting", "fleet", "pool", "need"),
    [
        # Service 5 s, boot 3 s, target 15 s: k = 2, so a new instance takes 3 tasks in time.
        (0, {}, {}, 0),
        (1, {}, {}, 1),
        (3, {}, {}, 1),
        (4, {}, {}, 2),
        (30, {}, {}, 10),
        (0, {"busy": 2}, {}, 2),
        (1, {"busy": 2}, {}, 3),
        # Idle and starting instances are what the need is compared with, not part of it.
        (0, {"idle": 3}, {}, 0),
        (4, {"idle": 1, "starting": 1}, {}, 2),
        # A task of a minute: one each.
        (7, {}, {"expected_service_time_s": 60}, 7),
        # Starts slower than the target: what waits needs a place at once.
        (5, {"busy": 1}, {"expected_boot_time_s": 15}, 6),
        (10, {}, {"concurrency": 4, "expected_service_time_s": 600}, 3),
        # What will never start or cannot be seen is no capacity.
        (4, {"failed": 3, "stopping": 2, "unreported": 2}, {}, 2),
        # What it is not known of says nothing of how many places one has.
        (10, {"failed": 1, "starting": 1}, {"concurrency": 4, "expected_service_time_s": 600}, 3),
    ],
)
def test_need(waiting: int, fleet: dict[str, int], pool: dict[str, Any], need: int) -> None:
    assert reckoned(waiting, make_instances(**fleet), make_pool(**pool)).need == need


def test_open_places_of_a_busy_instance_are_used_first() -> None:
    half_busy = make_instance(1, "busy", capacity=4, active=2)
    slow = make_pool(expected_service_time_s=600)
    assert reckoned(2, (half_busy,), slow).need == 1
    assert reckoned(3, (half_busy,), slow).need == 2


def test_an_instance_that_scales_itself_counts_with_the_most_it_scales_to() -> None:
    one_of_ten = make_instance(1, "busy", capacity=10, active=1)
    slow = make_pool(expected_service_time_s=600)
    assert reckoned(9, (one_of_ten,), slow).need == 1
    assert reckoned(19, (one_of_ten,), slow).need == 2


def ending(tasks: int, *, busy: int = 10) -> Reckoning:
    """With 100 tasks waiting while so many have ended in the last five seconds."""
    instances = [make_instance(n, "busy", tasks_ended=50) for n in range(1, busy + 1)]
    memory = PoolMemory(ends=((NOW - 5, 50 * busy - tasks),))
    return reckoned(100, instances, memory=memory, scaler={"target_wait_s": 3})


def test_what_the_instances_end_in_time_needs_nobody_else() -> None:
    # Two tasks a second: of a hundred, six begin within three seconds.
    assert (ending(10).pace, ending(10).need) == (2.0, 10 + 94)


def test_instances_that_end_nothing_are_no_help() -> None:
    assert (ending(0).pace, ending(0).need) == (0.0, 110)


def test_a_pace_is_not_believed_that_the_instances_cannot_have() -> None:
    """A host that answers again brings all that its instances have done in their lives."""
    assert ending(500).pace == 2.0, "ten instances, five seconds a task"


def test_an_instance_that_is_gone_takes_what_it_has_done_with_it() -> None:
    memory = PoolMemory(ends=((NOW - 4, 900), (NOW - 2, 46)))
    instances = [make_instance(1, "busy", tasks_ended=48)]
    assert reckoned(9, instances, memory=memory).pace == pytest.approx(0.2)


def test_measured_times_replace_the_configured_ones() -> None:
    def times(*instances: Instance) -> tuple[float, float]:
        pool = make_pool()
        return times_s(pool, make_inputs(make_observation(0, instances), pool))

    measured = (
        make_instance(1, service_time_s=1.0, boot_time_s=1.0),
        make_instance(2, service_time_s=3.0, boot_time_s=4.0),
        make_instance(3),
    )
    assert times(*measured) == (2.0, 4.0)
    assert times() == (5.0, 3.0)
    assert times(make_instance(service_time_s=0.0))[0] > 0


def worth(needs: Needs, *, now: float = NOW, window_s: float = 60, reserve: float = 1.5) -> int:
    return worth_keeping(needs, now, make_scaler(stabilisation_s=window_s, reserve=reserve))


def test_a_steady_need_is_kept_with_a_reserve() -> None:
    assert worth([(0.0, 16)]) == 16 + 6
    assert worth([(0.0, 16)], reserve=0) == 16
    assert worth([(0.0, 400)]) == 400 + 30
    assert worth([(0.0, 0)]) == 0


def test_of_a_burst_that_is_over_nothing_is_kept() -> None:
    assert worth([(0.0, 0), (NOW - 20, 100), (NOW - 10, 0)]) == 0


def test_of_a_need_that_ends_less_and_less_is_kept() -> None:
    kept = [worth([(0.0, 16), (NOW - ago, 0)]) for ago in range(0, 70, 10)]
    assert kept == sorted(kept, reverse=True)
    assert (kept[0], kept[-1]) == (22, 0)


def test_nothing_is_known_before_the_first_turn_is_over() -> None:
    assert worth([]) == worth([(NOW, 9)]) == 0


@given(
    steps=st.lists(st.tuples(st.floats(0.5, 100), st.integers(0, 200)), min_size=1, max_size=20),
    window_s=st.floats(1, 300),
    reserve=st.floats(0, 5),
)
def test_the_most_instances_that_are_worth_it_are_kept(
    steps: list[tuple[float, int]], window_s: float, reserve: float
) -> None:
    """Against every count, each looked at by itself."""
    needs = []
    at = NOW - sum(seconds for seconds, _ in steps)
    for seconds, need in steps:
        needs.append((at, need))
        at += seconds

    def is_worth(count: int, slack: float) -> bool:
        begin = max(NOW - window_s, needs[0][0])
        ends = [each for each, _ in needs[1:]] + [NOW]
        in_use = sum(
            min(need, count) * max(0.0, until - max(since, begin))
            for (since, need), until in zip(needs, ends, strict=True)
        )
        mean = in_use / (NOW - begin)
        return count <= mean + reserve * sqrt(mean) + slack

    kept = worth(needs, window_s=window_s, reserve=reserve)
    assert is_worth(kept, 1e-6)
    assert not is_worth(kept + 1, -1e-6)


def test_the_memory_is_no_longer_than_the_window() -> None:
    pool, memory = make_pool(), PoolMemory()
    now = NOW
    for turn in range(400):
        now += 2
        inputs = replace(Inputs(now, turn % 7), busy=turn % 3)
        _, memory = reckon(pool, make_scaler(), inputs, effective(pool, AT), turn % 7, memory)
    assert memory.needs[1][0] >= now - 60
    assert len(memory.ends) <= 4
