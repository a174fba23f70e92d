"""What decides in `make chaos`: the schedule, the work, the submissions, the witness."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.conclusion import RunRecord, describe, find_late, find_problems
from chaos.proxy import holder_in, split_requests
from chaos.schedule import (
    AT_THE_PROXY,
    FULL,
    SHORT,
    Fault,
    Plan,
    Schedule,
    Strike,
    make_schedule,
)
from chaos.submissions import (
    Entry,
    FinalStatuses,
    SubmissionLog,
    read_submissions,
    resolve_statuses,
)
from chaos.waits import P95_S, Bound, Outage, Sample, VictimKind, covered_s, measure, p95
from chaos.witness import Evidence, examine, judge, read_commands
from chaos.work import make_jobs
from swarm.delivery import scripts

HOSTS = ("worker1", "worker2")
HOLDER = "worker1:browser:1:x"
#: Redis does not answer everybody, or refuses, until they are undone.
OF_THE_BROKER: set[Fault] = {"kill_redis", "restart_redis", "pause_redis", "fill_redis"}
#: A host is away until they are undone.
OF_A_HOST: set[Fault] = {"kill_host", "cut_long", "cut_short"}
seeds = st.integers(min_value=0, max_value=10_000)
plans = st.sampled_from([FULL, SHORT])


def overlap(one: Strike, other: Strike) -> bool:
    return one.at_s < other.until_s and other.at_s < one.until_s


# -- the schedule


@given(seeds, plans)
def test_a_seed_gives_the_same_schedule_every_time(seed: int, plan: Plan) -> None:
    assert make_schedule(seed, plan, HOSTS) == make_schedule(seed, plan, HOSTS)


def test_another_seed_gives_another_schedule() -> None:
    assert len({make_schedule(seed, FULL, HOSTS).strikes for seed in range(20)}) == 20


@given(seeds)
def test_a_full_run_has_every_fault(seed: int) -> None:
    faults = {strike.fault for strike in make_schedule(seed, FULL, HOSTS).strikes}
    assert faults == set(get_args(Fault))


@given(seeds, plans)
def test_redis_is_well_while_something_waits_for_the_reaper(seed: int, plan: Plan) -> None:
    strikes = make_schedule(seed, plan, HOSTS).strikes
    waits: set[Fault] = {"kill_host", "cut_long", "freeze_worker"}
    for long in (strike for strike in strikes if strike.fault in waits):
        for other in strikes:
            assert other.fault not in OF_THE_BROKER | {"cut_short"} or not overlap(long, other)


@given(seeds, plans)
def test_faults_of_the_broker_come_one_after_the_other(seed: int, plan: Plan) -> None:
    strikes = make_schedule(seed, plan, HOSTS).strikes
    broker = [strike for strike in strikes if strike.fault in OF_THE_BROKER]
    assert all(one.until_s < other.at_s for one, other in pairwise(broker))


@given(seeds, plans)
def test_at_most_one_host_is_away_and_no_process_dies_on_it(seed: int, plan: Plan) -> None:
    strikes = make_schedule(seed, plan, HOSTS).strikes
    for away in (s for s in strikes if s.fault in OF_A_HOST - {"cut_short"}):
        for other in strikes:
            if other is not away and overlap(away, other):
                assert other.fault not in OF_A_HOST | {"upgrade"}
                assert other.host != away.host or other.fault == "kill_producer"


@given(seeds, plans)
def test_kills_between_two_steps_are_where_the_proxy_is(seed: int, plan: Plan) -> None:
    schedule = make_schedule(seed, plan, HOSTS)
    assert {s.host for s in schedule.strikes if s.fault in AT_THE_PROXY} <= {schedule.proxied}


@given(seeds, plans)
def test_a_run_is_bounded(seed: int, plan: Plan) -> None:
    schedule = make_schedule(seed, plan, HOSTS)
    assert schedule.lasts_s <= (480 if plan is FULL else 120)
    assert all(s.at_s >= 0 and s.until_s <= schedule.lasts_s for s in schedule.strikes)


# -- the work


@given(seeds, st.integers(min_value=1, max_value=500))
def test_work_is_repeatable_but_for_its_ids(seed: int, tasks: int) -> None:
    one, other = make_jobs(seed, tasks, "one"), make_jobs(seed, tasks, "other")
    assert one == make_jobs(seed, tasks, "one")
    ids = [task_id for job in one for task_id in job.ids]
    assert len(set(ids)) == len(ids) >= tasks
    assert not set(ids) & {task_id for job in other for task_id in job.ids}
    assert [(job.kind, job.countdown_s) for job in one] == [
        (job.kind, job.countdown_s) for job in other
    ]


# -- the submissions


def test_the_last_line_on_a_job_counts(tmp_path: Path) -> None:
    log = SubmissionLog(tmp_path / "log")
    for job, statuses in enumerate([["accepted"], ["refused"], ["unknown"], []]):
        for status in ["sending", *statuses]:
            log.write(Entry(job, status, "page", (f"id-{job}",)))  # type: ignore[arg-type]
    log.close()
    final = resolve_statuses(read_submissions(tmp_path / "log"))
    assert final.accepted_ids == ("id-0",)
    assert [entry.job for entry in final.unknown] == [2, 3]


# -- the witness


def command(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def done(task_id: str) -> bytes:
    return command("SET", f"swarm:done:{task_id}", "holder tag", "PXAT", "1")


def result(task_id: str, status: str = "SUCCESS", value: str = "1") -> bytes:
    text = f'{{"status": "{status}", "result": "{value}"}}'
    return command("SET", f"celery-task-meta-{task_id}", text, "PXAT", "1")


def accepted(*ids: str, kind: str = "page") -> FinalStatuses:
    return FinalStatuses((Entry(0, "accepted", kind, ids),), ())


def examined(*commands: bytes) -> Evidence:
    return examine(read_commands(b"".join(commands)))


def test_a_task_that_is_committed_once_is_neither_lost_nor_done_twice() -> None:
    verdict = judge(accepted("a"), examined(result("a"), done("a")))
    assert (verdict.accepted, verdict.committed, verdict.lost) == (1, 1, ())
    assert verdict.committed_twice == ()


def test_a_task_without_an_end_is_lost() -> None:
    verdict = judge(accepted("a", kind="page"), examined(result("a", "RETRY"), done("b")))
    assert verdict.lost == ("a",)


@pytest.mark.parametrize(
    "twice", [[done("a"), done("a")], [done("a"), result("a"), result("a")]], ids=["mark", "result"]
)
def test_a_second_commit_is_seen_although_the_key_is_the_same(twice: list[bytes]) -> None:
    assert judge(accepted("a"), examined(*twice)).committed_twice == ("a",)


def test_a_second_commit_counts_even_of_what_nobody_accepted() -> None:
    assert judge(FinalStatuses((), ()), examined(done("a"), done("a"))).committed_twice == ("a",)


def test_a_dead_letter_is_no_end_until_it_is_replayed_and_done() -> None:
    buried = result("a", "FAILURE", "DeadLetteredError")
    assert judge(accepted("a"), examined(buried)).lost == ("a",)
    verdict = judge(accepted("a"), examined(buried, result("a"), done("a")))
    assert (verdict.lost, verdict.committed_twice, verdict.burials) == ((), (), 1)


def test_behind_a_failure_a_chain_is_not_due() -> None:
    failed = [result("a", "FAILURE"), done("a")]
    verdict = judge(accepted("a", "b", "c", kind="chain"), examined(*failed))
    assert (verdict.accepted, verdict.lost, verdict.void, verdict.failed) == (1, (), 2, 1)
    verdict = judge(accepted("a", "b", kind="chain"), examined(result("a"), done("a")))
    assert verdict.lost == ("b",)


def test_each_take_is_counted() -> None:
    held = command("RPUSH", "swarm:held:h:browser:1:x", 'browser\n{"headers": {"id": "a"}}')
    verdict = judge(accepted("a"), examined(held, held, done("a")))
    assert verdict.retaken == 1


def test_what_redis_had_not_written_whole_is_passed_over() -> None:
    data = b"#TS:1700000000\r\n" + done("a") + done("b")
    whole = len(list(read_commands(data)))
    assert whole == 2
    for cut in range(len(data) - len(done("b")), len(data)):
        assert len(list(read_commands(data[:cut]))) == 1


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a command at byte"):
        list(read_commands(b"REDIS0010\r\n"))


# -- the proxy's reading


@given(st.integers(min_value=1, max_value=40))
def test_requests_are_found_however_they_are_cut(size: int) -> None:
    take = command("EVALSHA", scripts.TAKE.sha, "0", "worker1:browser:1:x", "1")
    data = command("PING") + take + command("BLPOP", "swarm:bell:browser", "240")
    buffer = bytearray()
    found = []
    for at in range(0, len(data), size):
        buffer += data[at : at + size]
        found += list(split_requests(buffer))
    assert b"".join(raw for raw, _ in found) == data
    holders = [holder_in(words, scripts.TAKE.sha) for _, words in found]
    assert holders == [None, "worker1:browser:1:x", None]


def test_a_script_is_known_by_its_text_too() -> None:
    take = [b"EVAL", scripts.TAKE.text.encode(), b"0", b"worker1:browser:1:x"]
    assert holder_in(take, scripts.TAKE.sha) == "worker1:browser:1:x"
    assert holder_in(take, scripts.COMMIT.sha) is None


# -- how long a victim waited, and who had to give it back


@pytest.mark.parametrize(
    ("seconds", "expected"), [([], None), ([2.0], 2.0), ([float(n) for n in range(100)], 94.0)]
)
def test_the_percentile_is_one_of_the_samples(seconds: list[float], expected: float | None) -> None:
    assert p95(seconds) == expected


@pytest.mark.parametrize(
    ("kind", "back_at", "outages", "bound", "seconds"),
    [
        ("process", 101.0, [], "process", 1.0),
        ("process", 101.0, [(101.5, 130.0)], "process", 1.0),
        ("process", 120.0, [(104.0, 114.0)], "process", 10.0),
        ("process", 101.0, [(60.0, 99.0)], "process", 1.0),
        ("process", 140.0, [(90.0, 130.0)], "reaper", 10.0),
        ("process", 140.0, [(102.0, 130.0)], "reaper", 12.0),
        ("process", 140.0, [(90.0, 110.0), (105.0, 120.0), (130.0, 135.0)], "reaper", 15.0),
        ("process", 110.0, [(99.0, math.inf)], "reaper", 0.0),
        ("host", 190.0, [(120.0, 150.0)], "host", 60.0),
        ("lease", 160.0, [], "reaper", 60.0),
    ],
    ids=[
        "no outage",
        "back before the outage",
        "late before the outage began",
        "the outage was over",
        "struck in an outage",
        "given back in an outage",
        "several outages",
        "the outage lasts",
        "a host",
        "a frozen worker",
    ],
)
def test_an_outage_takes_its_own_time_off_a_wait_and_no_more(
    kind: VictimKind,
    back_at: float,
    outages: list[tuple[float, float]],
    bound: Bound,
    seconds: float,
) -> None:
    sample = measure(kind, "kill", HOLDER, (100.0, back_at), [Outage(*each) for each in outages])
    assert (sample.bound, sample.seconds) == (bound, seconds)
    assert sample.seconds + sample.away_s == back_at - 100.0


def test_a_host_that_is_cut_off_excuses_its_own_victims_only() -> None:
    outages = [Outage(90.0, 130.0, prefix="worker2:")]
    here = measure("process", "kill", HOLDER, (100.0, 140.0), outages)
    there = measure("process", "kill", "worker2:browser:1:x", (100.0, 140.0), outages)
    assert (here.bound, here.seconds) == ("process", 40.0)
    assert (there.bound, there.seconds) == ("reaper", 10.0)


def test_the_time_in_which_clients_come_back_is_no_outage_but_changes_the_bound() -> None:
    outages = [Outage(60.0, 99.0, recovery_grace_s=3.0)]
    soon = measure("process", "kill", HOLDER, (100.0, 105.0), outages)
    later = measure("process", "kill", HOLDER, (102.5, 105.0), outages)
    assert (soon.bound, soon.seconds) == ("reaper", 5.0)
    assert (later.bound, later.seconds) == ("process", 2.5)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6))
def test_overlapping_outages_count_once(times: list[tuple[int, int]]) -> None:
    outages = [Outage(min(pair), max(pair)) for pair in times]
    seconds = {n for each in outages for n in range(int(each.begin), int(each.end))}
    assert covered_s(outages, 10, 50) == len(seconds & set(range(10, 50)))


def sample(bound: Bound, seconds: float, away_s: float = 0.0) -> Sample:
    return Sample("kill_worker", bound, away_s, seconds)


@pytest.mark.parametrize("bound", ["process", "host", "reaper"])
def test_each_bound_is_kept_by_its_own_samples(bound: Bound) -> None:
    good = [sample("process", 1.0), sample("host", 60.0), sample("reaper", 60.0)]
    assert find_late(good, host_killed=True) == []
    (problem,) = find_late([*good, sample(bound, P95_S[bound] + 1)], host_killed=True)
    assert f"expected p95 <= {P95_S[bound]:g} s" in problem


def test_what_was_struck_in_an_outage_proves_nothing_about_the_3_s() -> None:
    (problem,) = find_late([sample("reaper", 1.0)], host_killed=False)
    assert problem.endswith("got nothing measured")


def test_no_sample_is_left_untold() -> None:
    samples = [sample("process", 1.25), sample("reaper", 4.5, 30.25), sample("host", 61.0)]
    told = "\n".join(describe(samples))
    assert "kill_worker: 1.25 s" in told
    assert "kill_worker: 4.50 (+30.25 away) s" in told
    assert "kill_worker: 61.00 s" in told
    assert told.count("1 back, p95") == 3


# -- whether a run was good


def problems_of(
    record: RunRecord, *, struck: dict[str, int] | None = None, tasks: int = 1
) -> list[str]:
    plan = Plan(tasks=tasks, strewn={}, acts=("quiet",))
    schedule = Schedule(1, HOSTS[0], 60.0, (Strike(8.0, "kill_worker", HOSTS[0], 0.5),))
    verdict = judge(record.statuses, record.evidence)
    struck = {"kill_worker": 1} if struck is None else struck
    return find_problems(plan, schedule, struck, verdict, record)


def good_run() -> RunRecord:
    evidence = examined(result("a"), done("a"))
    return RunRecord(accepted("a"), evidence, [sample("process", 1.0)], 0, 0, {})


def test_a_good_run_has_no_problem() -> None:
    assert problems_of(good_run()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"statuses": accepted("a", "b")}, "lost: b"),
        ({"evidence": examined(result("a"), done("a"), done("a"))}, "committed twice: a"),
        ({"evidence": examined(done("a"))}, "lost: a"),
        ({"left": {"held": 2}}, "left in Redis: {'held': 2}"),
        ({"never_back": 3}, "3 messages of victims never came back"),
        ({"samples": []}, "recovery from a process's death: expected p95 <= 3 s"),
    ],
    ids=["lost", "committed twice", "without a result", "left", "never back", "unmeasured"],
)
def test_each_failing_of_a_run_is_a_problem(change: dict[str, Any], problem: str) -> None:
    (told,) = problems_of(replace(good_run(), **change))
    assert told.startswith(problem)


def test_a_fault_that_always_missed_is_a_problem() -> None:
    assert problems_of(good_run(), struck={}) == ["no kill_worker struck"]


def test_fewer_tasks_than_planned_are_a_problem() -> None:
    assert problems_of(good_run(), tasks=2) == ["1 tasks accepted, expected 2 or more"]
