"""What decides in `make chaos BROKERS=2`: the schedule, the calls, the judgement over two files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.two_brokers.calls import (
    Call,
    CallLog,
    Window,
    blocked_again,
    come_back,
    gone_over,
    read_calls,
)
from chaos.two_brokers.conclusion import RunRecord, find_problems, returns, summarise
from chaos.two_brokers.handles import Answer
from chaos.two_brokers.judgement import judge_both
from chaos.two_brokers.schedule import GAP_S, LASTS_S, Kind, Strike, make_strikes
from chaos.two_brokers.stand import trusting
from chaos.witness import Evidence
from swarm.brokers import BrokerName
from swarm.delivery import ids

HOSTS = ("worker1", "worker2")
seeds = st.integers(min_value=0, max_value=10_000)
#: The same in every process that collects these tests. The version's digit names the broker.
P, Q = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
F = "00000000-0000-8000-8000-000000000003"


def call(*task_ids: str, job: int = 0, **fields: Any) -> Call:
    fields = {"status": "accepted", "kind": "page", "at": float(job), **fields}
    return Call(producer=fields.pop("producer", 0), job=job, seconds=0.1, ids=task_ids, **fields)


def done(*task_ids: str, status: str = "SUCCESS") -> Evidence:
    counts = Counter(task_ids)
    finals = {task_id: [status] * count for task_id, count in counts.items()}
    return Evidence(commits=counts, finals=finals)


def files(primary: Evidence, fallback: Evidence | None = None) -> dict[BrokerName, Evidence]:
    return {"primary": primary, "fallback": fallback or Evidence()}


# -- the schedule


@given(seeds)
def test_each_way_to_fail_comes_once_and_long_enough(seed: int) -> None:
    strikes = make_strikes(seed, HOSTS)
    assert strikes == make_strikes(seed, HOSTS)
    assert sorted(strike.kind for strike in strikes) == sorted(get_args(Kind))
    assert all(LASTS_S[0] <= strike.lasts_s <= LASTS_S[1] for strike in strikes)
    assert all(GAP_S[0] <= strike.gap_s <= GAP_S[1] for strike in strikes)


@given(seeds)
def test_workers_die_on_both_brokers_and_each_blow_is_within_its_time(seed: int) -> None:
    strikes = make_strikes(seed, HOSTS)
    names = {blow.name for strike in strikes for blow in strike.blows}
    assert names == {
        "kill_worker_of_primary",
        "kill_child_of_primary",
        "kill_worker_of_fallback",
        "kill_child_of_fallback",
        "kill_scaler",
        "restart_hosted",
    }
    for strike in strikes:
        assert all(0 < blow.at_s < strike.lasts_s for blow in strike.meanwhile)
        assert all(0 < blow.at_s < strike.gap_s for blow in strike.afterwards)


def test_another_seed_gives_another_order() -> None:
    assert len({tuple(s.kind for s in make_strikes(seed, HOSTS)) for seed in range(20)}) > 10


# -- the calls


def test_calls_are_read_as_they_were_written(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls")
    calls = [call(P, F, kind="chord", hidden=("x",), uncertain=True), call(job=1, status="unknown")]
    for each in calls:
        log.write(each)
    log.close()
    assert read_calls(tmp_path / "calls") == calls


WINDOW = Window("silent", 10.0, 40.0, frozenset({0}))


@pytest.mark.parametrize(
    ("made", "went", "came"),
    [
        (call(F, job=20, broker="fallback"), {0}, set()),
        (call(F, job=41, broker="fallback"), set(), set()),
        (call(P, job=20, broker="primary"), set(), set()),
        (call(P, job=41, broker="primary"), set(), {0}),
        (call(P, job=61, broker="primary"), set(), set()),
        (call(P, job=41, broker="primary", status="unknown"), set(), set()),
        (call(P, job=41, broker=""), set(), set()),
    ],
    ids=["over", "over too late", "stays", "back", "back too late", "not accepted", "no name"],
)
def test_who_goes_over_and_who_comes_back(made: Call, went: set[int], came: set[int]) -> None:
    assert gone_over([made], WINDOW) == went
    assert come_back([made], WINDOW, 60.0) == came


def test_a_producer_may_be_blocked_once_by_each_strike() -> None:
    windows = [WINDOW, replace(WINDOW, kind="slow", begun=100.0, ended=130.0)]
    blocked = [
        # Under way when the strike came.
        replace(call(job=0), at=9.0, seconds=2.5),
        replace(call(job=1), at=101.0, seconds=2.5),
        replace(call(job=2, producer=1), at=12.0, seconds=2.5),
    ]
    assert blocked_again(blocked, windows) == []
    again = replace(call(job=3), at=60.0, seconds=1.2)
    (told,) = blocked_again([*blocked, again], windows)
    assert told == "producer 0 was blocked 2 times by silent: 2.50, 1.20 s"


# -- the judgement


def test_a_task_may_end_on_either_broker() -> None:
    found = judge_both([call(P), call(F, job=1)], files(done(P), done(F)))
    assert (found.verdict.accepted, found.verdict.committed, found.verdict.lost) == (2, 2, ())
    assert (found.verdict.committed_twice, found.uncertain, found.done_on_both) == ((), 0, 0)
    assert found.due == (P, F)


def test_the_copy_of_an_accepted_task_is_not_the_task() -> None:
    copy = ids.named(P, "fallback")
    assert judge_both([call(P, uncertain=True)], files(Evidence(), done(copy))).verdict.lost == (P,)


@pytest.mark.parametrize("own_id", [False, True], ids=["another digit", "the same id"])
def test_what_broke_off_may_end_once_on_each_broker(*, own_id: bool) -> None:
    copy = P if own_id else ids.named(P, "fallback")
    found = judge_both([call(copy, uncertain=True)], files(done(P), done(copy)))
    assert (found.verdict.committed_twice, found.uncertain, found.done_on_both) == ((), 1, 1)
    # The same without an excuse.
    found = judge_both([call(copy)], files(done(P), done(copy)))
    assert set(found.verdict.committed_twice) == {P, copy}
    assert (found.uncertain, found.done_on_both) == (0, 0)


@pytest.mark.parametrize(
    "evidence",
    [
        files(done(P, P)),
        files(Evidence(), done(P, P)),
        files(done(P, ids.named(P, "fallback"))),
        files(done(P, P), done(ids.named(P, "fallback"))),
    ],
    ids=["primary", "fallback", "both ids on one broker", "twice and a copy"],
)
def test_no_excuse_for_a_second_commit_on_one_broker(
    evidence: dict[BrokerName, Evidence],
) -> None:
    assert P in judge_both([call(P, uncertain=True)], evidence).verdict.committed_twice


def test_the_end_of_a_chord_comes_with_it() -> None:
    chord = call(P, Q, kind="chord", hidden=("completion",), uncertain=True)
    both = done(P, Q, "completion")
    assert judge_both([chord], files(both, both)).verdict.committed_twice == ()
    certain = replace(chord, uncertain=False)
    assert "completion" in judge_both([certain], files(both, both)).verdict.committed_twice


def test_a_task_that_nobody_knows_of_may_end_and_need_not() -> None:
    unknown = call(P, status="unknown", uncertain=True)
    for evidence in (files(Evidence()), files(done(P)), files(done(P), done(P))):
        found = judge_both([unknown], evidence)
        assert (found.verdict.accepted, found.verdict.lost) == (0, ())
        assert found.verdict.committed_twice == ()


def test_a_task_that_was_refused_and_sent_again_is_one() -> None:
    calls = [call(status="refused", at=1.0), call(P, at=2.0)]
    found = judge_both(calls, files(done(P)))
    assert (found.verdict.accepted, found.verdict.lost) == (1, ())


def test_behind_a_failure_nothing_of_a_chain_is_due() -> None:
    found = judge_both([call(P, Q, kind="chain")], files(done(P, status="FAILURE")))
    assert (found.verdict.lost, found.due) == ((), (P,))


def test_an_id_that_names_the_wrong_broker_is_told() -> None:
    named = call(P, broker="primary")
    assert judge_both([named], files(Evidence(), done(P))).elsewhere == (P,)
    assert judge_both([named], files(done(P), done(P))).elsewhere == ()
    assert judge_both([call(P)], files(Evidence(), done(P))).elsewhere == ()


# -- whether a run was good

STRIKES = (Strike("silent", 30.0, 10.0),)
STRUCK = {"silent": 1}
CALLS = (
    call(F, job=20, broker="fallback"),
    call(P, job=45, broker="primary"),
)


def run(calls: Sequence[Call] = CALLS, **fields: Any) -> RunRecord:
    good = RunRecord(
        seconds=60.0,
        tasks_a_minute=2.0,
        calls=calls,
        windows=[WINDOW],
        verdict=judge_both(calls, files(done(P), done(F))),
        early=[Answer(F, "SUCCESS", 1.0, 30.0)],
        late=[Answer(P, "FAILURE", 1.0, 90.0)],
        unanswered=[],
        left={},
        spooled=[],
        failed_units=[],
    )
    return replace(good, **fields)


def test_a_good_run_has_no_problem() -> None:
    assert find_problems(STRIKES, STRUCK, run()) == []
    told = summarise(1, STRUCK, run())
    assert (told["accepted"], told["lost"], told["returns"]) == (2, 0, 1)
    assert (told["handles_checked"], told["handles_failed"]) == (2, 0)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (run(tasks_a_minute=3.0), "2 tasks accepted, expected 2 or more"),
        (run([replace(CALLS[0], seconds=3.01), CALLS[1]]), "producer 0 was blocked for 3.01 s"),
        (run(verdict=judge_both(CALLS, files(done(P)))), f"lost: {F}"),
        (run(verdict=judge_both(CALLS, files(done(P, P), done(F)))), f"committed twice: {P}"),
        (run([CALLS[0]] * 2), "silent: producer 0 did not come back"),
        (run([CALLS[1]] * 2), "silent: producer 0 did not go over"),
        (run(late=[]), "no handle was asked for at the end"),
        (run(late=[Answer(P, "", 20.0, 90.0, "TimeoutError")]), f"handle {P}: TimeoutError"),
        (run(late=[Answer(P, "PENDING", 20.0, 90.0)]), f"handle {P}: PENDING"),
        (run(unanswered=[P]), f"handle {P}: no word"),
        (run(early=[Answer(F, "SUCCESS", 1.0, 41.0)]), "silent: no result of the fallback came"),
        (run(left={"primary": {"held": 1}}), "left in the primary: {'held': 1}"),
        (run(spooled=["worker1: /x"]), "not sent: worker1: /x"),
        (run(failed_units=["worker1: x"]), "failed: worker1: x"),
    ],
)
def test_each_failing_of_a_run_is_a_problem(record: RunRecord, problem: str) -> None:
    told = find_problems(STRIKES, STRUCK, record)
    if problem.startswith("2 tasks"):
        # 95 of 100 is enough.
        assert told == []
        return
    assert len(told) == 1
    assert told[0].startswith(problem)


def test_fewer_tasks_than_arrive_are_a_problem() -> None:
    assert find_problems(STRIKES, STRUCK, run(tasks_a_minute=4.0)) == [
        "2 tasks accepted, expected 3 or more"
    ]


def test_a_strike_or_a_blow_that_missed_is_a_problem() -> None:
    assert find_problems(STRIKES, {}, run()) == ["no silent struck"]
    strikes = make_strikes(1, HOSTS)
    told = find_problems(strikes, {}, run())
    assert "no kill_worker_of_fallback struck" in told
    assert "no restart_hosted struck" in told


def test_a_run_without_a_return_says_so() -> None:
    assert returns(run([CALLS[0]] * 2)) == 0


# -- the primary's address


def test_this_machine_has_the_authority_elsewhere() -> None:
    url = (
        "rediss://default:pw@hosted.lab:6380?ssl_ca_certs=/etc/swarm/ca.pem&ssl_cert_reqs=required"
    )
    told = trusting(url, "/home/x/ca.pem")
    assert told.startswith("rediss://default:pw@hosted.lab:6380?")
    assert "ssl_ca_certs=%2Fhome%2Fx%2Fca.pem" in told
    assert "/etc/swarm" not in told
