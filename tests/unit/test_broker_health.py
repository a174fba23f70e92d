"""States of a broker on virtual time: left at once, come back to slowly, and seldom changed."""

from __future__ import annotations

import itertools
import os
import signal
import threading

from hypothesis import given
from hypothesis import strategies as st

from swarm.brokers import Verdict
from swarm.brokers.health import Health, HealthRules, observe
from swarm.brokers.watch import Change, Watch

RULES = HealthRules()
OK = Verdict("ok")
TIMEOUT = Verdict("slow", "Timeout reading", uncertain=True)
LOST = Verdict("down", "Connection closed by server.", uncertain=True)
UNREACHABLE = Verdict("down", "Connection refused.")
LIMITED = Verdict("limited", "max requests limit exceeded")
REFUSED = Verdict("refused", "WRONGPASS", "a password")
ENDS = [OK, TIMEOUT, LOST, UNREACHABLE, LIMITED, REFUSED]
STEPS = st.lists(st.tuples(st.sampled_from(ENDS), st.floats(0, 5), st.floats(0, 30)), max_size=200)


class Broker:
    """One broker and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.changes: list[Change] = []
        self.watch = Watch("primary", self.changes.append, clock=lambda: self.now)

    @property
    def state(self) -> str:
        return self.watch.health.state

    def ends(
        self, verdict: Verdict, *, took: float = 0.01, times: int = 1, every: float = 0
    ) -> None:
        for _ in range(times):
            self.now += every
            self.watch.tell(verdict, took)


def test_one_timeout_is_enough_to_go_elsewhere() -> None:
    broker = Broker()
    broker.ends(TIMEOUT, took=2.5)
    assert broker.state == "slow"
    assert broker.watch.permit() == "avoid"


def test_one_lost_connection_is_not_two_are() -> None:
    broker = Broker()
    for _ in range(5):
        broker.ends(LOST)
        assert broker.state == "ok"
        broker.ends(OK)
    broker.ends(LOST, times=2)
    assert broker.state == "down"


def test_unreachable_limited_and_refused_count_at_once() -> None:
    for verdict in (UNREACHABLE, LIMITED, REFUSED):
        broker = Broker()
        broker.ends(verdict)
        assert broker.state == verdict.state
        assert broker.watch.health.reason == verdict.reason


def test_slow_answers_must_follow_one_another() -> None:
    broker = Broker()
    broker.ends(OK, took=1.5, times=2)
    broker.ends(OK, took=0.1)
    broker.ends(OK, took=1.5, times=2)
    assert broker.state == "ok"
    broker.ends(OK, took=1.5)
    assert broker.state == "slow"
    # Neither slow nor fast: it stays.
    broker.ends(OK, took=0.8, times=50, every=5)
    assert broker.state == "slow"


def test_no_answer_for_long_is_down() -> None:
    broker = Broker()
    broker.ends(TIMEOUT, times=4, every=20)
    assert broker.state == "down"


def test_the_way_back_takes_its_time_and_needs_no_hand() -> None:
    broker = Broker()
    broker.ends(UNREACHABLE)
    trials = []
    while broker.state != "ok":
        assert broker.now < 300
        broker.now += 0.5
        if broker.watch.permit() == "trial":
            trials.append(broker.now)
            broker.ends(OK if broker.now > 100 else UNREACHABLE)
    pauses = [later - sooner for sooner, later in itertools.pairwise(trials)]
    assert pauses[:4] == [10, 20, 40, 60]
    assert broker.now - 100 < RULES.last_trial_s + RULES.stable_s + 10
    assert [(change.before, change.after) for change in broker.changes] == [
        ("ok", "down"),
        ("down", "ok"),
    ]
    assert broker.changes[1].lasted_s == broker.now


def test_one_of_many_is_given_the_trial() -> None:
    broker = Broker()
    broker.ends(LIMITED)
    broker.now += RULES.first_trial_s
    assert [broker.watch.permit() for _ in range(3)] == ["trial", "avoid", "avoid"]
    # It never came back.
    broker.now += RULES.last_trial_s
    assert broker.watch.permit() == "trial"


def test_a_process_that_forks_while_a_change_is_told_goes_on_in_both() -> None:
    is_telling, may_end = threading.Event(), threading.Event()

    def listen(_change: Change) -> None:
        is_telling.set()
        may_end.wait(20)

    watch = Watch("primary", listen)
    telling = threading.Thread(target=watch.tell, args=(UNREACHABLE, 0.1))
    telling.start()
    assert is_telling.wait(20)
    if not (child := os.fork()):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        watch.tell(OK, 0.1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    may_end.set()
    telling.join()
    assert watch.health.state == "down"


def test_a_failure_on_the_way_back_begins_it_anew() -> None:
    broker = Broker()
    broker.ends(UNREACHABLE)
    broker.ends(OK, times=4, every=4)
    broker.ends(UNREACHABLE)
    broker.ends(OK, times=3, every=4)
    assert broker.state == "down"
    broker.ends(OK, every=4)
    assert broker.state == "ok"


@given(st.lists(st.sampled_from(ENDS), min_size=2, max_size=4))
def test_ends_that_alternate_change_it_twice_in_a_dwell(ends: list[Verdict]) -> None:
    broker = Broker()
    while broker.now < 10 * RULES.dwell_s:
        for verdict in ends:
            broker.ends(verdict, every=0.1)
    assert len(broker.changes) <= 22


@given(STEPS)
def test_changes_are_bounded_whatever_happens(steps: list[tuple[Verdict, float, float]]) -> None:
    broker = Broker()
    for verdict, took, pause in steps:
        broker.ends(verdict, took=took, every=pause)
    # Each state but ok lasts, and ok is entered from such a state only.
    assert len(broker.changes) <= 2 * (broker.now / RULES.dwell_s) + 2


@given(STEPS)
def test_refused_is_left_by_an_answer_only_and_never_fails_over(
    steps: list[tuple[Verdict, float, float]],
) -> None:
    broker = Broker()
    for verdict, took, pause in steps:
        before = broker.state
        broker.ends(verdict, took=took, every=pause)
        if before == "refused":
            assert broker.state == "refused" or (verdict == OK and broker.state == "ok")
        if broker.state == "refused":
            assert not broker.watch.health.fails_over
            assert broker.watch.permit() == "use"


@given(STEPS, st.sampled_from([TIMEOUT, UNREACHABLE, LIMITED]))
def test_from_ok_no_second_operation_waits(
    steps: list[tuple[Verdict, float, float]], verdict: Verdict
) -> None:
    broker = Broker()
    for step, took, pause in steps:
        broker.ends(step, took=took, every=pause)
    if broker.state == "ok":
        broker.ends(verdict, took=2.5)
        assert broker.watch.permit() == "avoid"


@given(STEPS)
def test_a_broker_that_is_well_again_is_used_again(
    steps: list[tuple[Verdict, float, float]],
) -> None:
    broker = Broker()
    for verdict, took, pause in steps:
        broker.ends(verdict, took=took, every=pause)
    broker.ends(OK, times=10, every=5)
    assert broker.state == "ok"


@given(STEPS)
def test_the_same_operations_give_the_same_health(
    steps: list[tuple[Verdict, float, float]],
) -> None:
    def play() -> Health:
        health, now = Health("ok", 0.0), 0.0
        for verdict, took, pause in steps:
            now += pause
            health = observe(health, verdict, took, now, RULES)
        return health

    assert play() == play()
