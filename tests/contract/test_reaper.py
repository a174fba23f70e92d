"""The reaper over a real Redis, as the user that the scaler is there. Its clock is the test's."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis

from swarm.brokers import connect, parse_broker
from swarm.delivery import keys, scripts
from swarm.delivery.holder import LEASE_S, Holder, HolderName
from swarm.delivery.reaper import GivenBack, Reaper
from swarm.delivery.release import DEATHS
from swarm.delivery.survey import Attention, Patience, Rhythm, Survey
from tests.loopback import wait_until
from tests.role_redis import RoleRedis

GONE, HERE = "h1:browser:1:a", "h2:browser:1:b"
WHY = "its worker vanished: no lease for 60 s"


@dataclass
class Rig:
    """A reaper whose time passes by `after`."""

    server: RoleRedis
    admin: redis.Redis
    now: float = 1000.0
    reply_s: float = 0.0
    ahead_s: float = 0.0
    """By how much the broker's clock was put forward."""
    reaper: Reaper = field(init=False)

    def __post_init__(self) -> None:
        broker = parse_broker("primary", self.server.url("scaler"), variable="REDIS_URL")
        self.reaper = Reaper(lambda: connect(broker), ["browser", "analysis"], clock=self._clock)
        ask = self.reaper._ask
        # Redis' own clock does not make the test's leaps.
        self.reaper._ask = lambda: replace(ask(), broker_s=self.now + self.ahead_s)  # type: ignore[method-assign]

    def _clock(self) -> float:
        self.now += self.reply_s
        return self.now

    def look(self, *, after: float = 10.0) -> tuple[GivenBack, ...]:
        self.now += after
        return self.reaper.look().given

    def looks(self, count: int) -> list[GivenBack]:
        return [each for _ in range(count) for each in self.look()]

    def publish(self, tag: str, queue: str = "browser") -> None:
        message = json.dumps({"headers": {"id": f"id-{tag}"}, "properties": {"delivery_tag": tag}})
        scripts.PUBLISH.run(self.admin, tag, queue, message, "", "", 60, f"id-{tag}", 60)

    def take(self, *tags: str, holder: str = GONE) -> None:
        for tag in tags:
            self.publish(tag)
        scripts.TAKE.run(self.admin, holder, len(tags), "0", "browser", "browser")

    def lease(self, seconds: int = 3600, holder: str = GONE) -> None:
        self.admin.set(keys.lease(holder), "1", ex=seconds)

    def waiting(self) -> list[str]:
        """Tags, in the order in which they will be taken."""
        found: Any = self.admin.lrange("browser", 0, -1)
        return [json.loads(each)["properties"]["delivery_tag"] for each in reversed(found)]

    def held(self, holder: str = GONE) -> int:
        return int(self.admin.llen(keys.held(holder)))


@pytest.fixture
def rig(role_redis: RoleRedis) -> Iterator[Rig]:
    with role_redis.connect("admin") as admin:
        admin.flushdb()
        rig = Rig(role_redis, admin)
        yield rig
        rig.reaper.close()


def test_what_a_vanished_holder_had_goes_back_in_its_order(rig: Rig) -> None:
    rig.take("t1", "t2")
    rig.publish("t3")
    assert rig.looks(6) == []
    assert rig.look() == (GivenBack(GONE, 2, 0, WHY),)
    assert rig.waiting() == ["t1", "t2", "t3"]
    assert rig.admin.hkeys(keys.HOLDERS) == []
    assert rig.admin.llen(keys.bell("browser")) == 1
    assert rig.admin.llen("swarm:deaths:t1") == 1
    assert rig.looks(10) == []


def test_a_lease_keeps_everything_and_its_end_gives_everything_back(rig: Rig) -> None:
    rig.take("t1")
    rig.lease()
    assert rig.looks(50) == []
    rig.admin.delete(keys.lease(GONE))
    assert rig.look() == (GivenBack(GONE, 1, 0, WHY),)


def test_a_lease_that_was_renewed_after_the_survey_keeps_everything(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The survey is a moment old when the release comes: Redis looks again."""
    rig.take("t1")
    rig.looks(6)
    ask = rig.reaper._ask

    def ask_and_be_overtaken() -> Survey:
        survey = ask()
        rig.lease()
        return survey

    monkeypatch.setattr(rig.reaper, "_ask", ask_and_be_overtaken)
    assert rig.look() == ()
    assert rig.held() == 1


def test_others_keep_what_they_hold(rig: Rig) -> None:
    rig.take("t1")
    rig.looks(3)
    rig.take("t2", holder=HERE)
    assert rig.looks(4) == [GivenBack(GONE, 1, 0, WHY)]
    rig.lease(holder=HERE)
    assert rig.looks(10) == []
    assert rig.held(HERE) == 1


def test_a_younger_message_of_the_same_holder_stays(rig: Rig) -> None:
    rig.take("t1")
    rig.looks(4)
    rig.take("t2")
    assert rig.looks(3) == [GivenBack(GONE, 1, 0, WHY)]
    assert rig.held() == 1


def test_the_third_death_makes_a_dead_letter(rig: Rig) -> None:
    rig.take("t1")
    for death in range(1, DEATHS + 1):
        given = rig.looks(7)
        assert [(each.returned, each.dead) for each in given] == [
            (int(death < DEATHS), int(death == DEATHS))
        ]
        scripts.TAKE.run(rig.admin, GONE, 1, "0", "browser", "browser")
        rig.admin.delete(keys.lease(GONE))
    assert rig.admin.hexists(keys.DEAD, "t1")
    assert rig.admin.get("celery-task-meta-id-t1") is not None


def test_a_message_that_nobody_can_read_goes_back_too(rig: Rig) -> None:
    rig.admin.lpush("browser", b"\xff no message")
    scripts.TAKE.run(rig.admin, GONE, 1, "0", "browser", "browser")
    assert rig.looks(7) == [GivenBack(GONE, 1, 0, WHY)]
    assert rig.admin.lrange("browser", 0, -1) == [b"\xff no message"]


def test_a_restart_of_the_broker_starts_all_sightings_anew(rig: Rig) -> None:
    rig.take("t1")
    rig.looks(6)
    rig.server.stop()
    rig.server.start()
    assert rig.looks(6) == []
    assert rig.look() == (GivenBack(GONE, 1, 0, WHY),)


def test_a_lost_connection_starts_all_sightings_anew(rig: Rig) -> None:
    rig.take("t1")
    rig.looks(6)
    rig.admin.client_kill_filter(user="scaler")
    assert rig.looks(6) == []
    assert rig.look() == (GivenBack(GONE, 1, 0, WHY),)


def test_a_broker_that_was_away_starts_all_sightings_anew(rig: Rig) -> None:
    rig.take("t1")
    rig.looks(6)
    rig.server.stop()
    with pytest.raises(redis.ConnectionError):
        rig.look()
    assert rig.reaper.pause_s(Attention(), Rhythm()) == Rhythm().close_s
    rig.server.start()
    assert rig.looks(6) == []
    assert rig.look() == (GivenBack(GONE, 1, 0, WHY),)


def test_a_slow_reply_starts_all_sightings_anew(rig: Rig) -> None:
    rig.take("t1")
    rig.looks(6)
    rig.reply_s = 1.5
    assert rig.look() == ()
    rig.reply_s = 0.0
    assert rig.looks(5) == []
    assert rig.looks(2) != []


def test_a_jump_of_the_brokers_clock_starts_all_sightings_anew(rig: Rig) -> None:
    rig.take("t1")
    rig.looks(6)
    rig.ahead_s = 60.0
    assert rig.looks(6) == []
    assert rig.look() == (GivenBack(GONE, 1, 0, WHY),)


def test_a_survey_tells_the_brokers_clock(rig: Rig) -> None:
    broker = parse_broker("primary", rig.server.url("scaler"), variable="REDIS_URL")
    reaper = Reaper(lambda: connect(broker), ["browser"])
    try:
        assert reaper.look().survey.broker_s == pytest.approx(time.time(), abs=2)
    finally:
        reaper.close()


def test_a_frozen_broker_is_given_up_in_seconds(rig: Rig) -> None:
    rig.look()
    process = rig.server.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    resume = threading.Timer(10, process.send_signal, [signal.SIGCONT])
    resume.start()
    try:
        with pytest.raises(redis.TimeoutError):
            rig.look()
        assert resume.is_alive()
    finally:
        resume.cancel()
        process.send_signal(signal.SIGCONT)


def test_what_a_revived_worker_commits_is_not_done_twice(rig: Rig) -> None:
    """Given up for dead, it finds its message gone."""
    rig.take("t1")
    rig.looks(7)
    arguments = (GONE, "t1", "id-t1", 60, "store", "celery-task-meta-id-t1", "{}", 60)
    assert scripts.COMMIT.run(rig.admin, *arguments) == b"gone"
    assert rig.admin.get("celery-task-meta-id-t1") is None


def test_a_holder_of_ours_keeps_its_lease_before_the_reaper_gives_it_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that keeps leases, and the reaper, at a hundred times their speed."""
    monkeypatch.setattr("swarm.delivery.holder.RENEWAL_S", 0.2)
    monkeypatch.setattr("swarm.delivery.holder.LEASE_AFTER_S", 0.15)
    broker = parse_broker("primary", rig.server.url("worker"), variable="REDIS_URL")
    holder = Holder(HolderName("h1:browser:1:", "a", is_unit=True))
    rig.take("t1")
    holder.took("t1", lambda: connect(broker), again=False)
    reaper = Reaper(
        lambda: connect(parse_broker("primary", rig.server.url("scaler"), variable="REDIS_URL")),
        ["browser"],
        patience=Patience(lease_s=0.6, gap_s=0.5),
    )
    pause = threading.Event()
    try:
        for _ in range(40):
            assert reaper.look().given == ()
            pause.wait(0.05)
        assert rig.admin.exists(keys.lease(GONE)) == 1
        holder.ended("t1")
        # It vanished: nobody renews, and the minute that the lease lasts is over.
        rig.admin.delete(keys.lease(GONE))
        assert [each.returned for each in reaper.look().given] == [1]
    finally:
        reaper.close()


def test_a_full_broker_renews_leases(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it answers the reaper, and lets it give back."""
    monkeypatch.setattr("swarm.delivery.holder.RENEWAL_S", 0.05)
    broker = parse_broker("primary", rig.server.url("worker"), variable="REDIS_URL")
    holder = Holder(HolderName("h1:browser:1:", "a", is_unit=True))
    rig.take("t1")
    rig.admin.config_set("maxmemory", 1)
    try:
        holder.took("t1", lambda: connect(broker), again=True)
        wait_until(lambda: rig.admin.exists(keys.lease(GONE)) == 1, what="its lease")
        assert 0 < rig.admin.ttl(keys.lease(GONE)) <= LEASE_S
    finally:
        holder.close()
        rig.admin.config_set("maxmemory", rig.server.mark)


def test_names_of_connections_that_hold_nothing_go_after_an_hour_and_instances_stay(
    rig: Rig,
) -> None:
    passing = "h1:channel:4711:c"
    for holder in (passing, GONE):
        rig.admin.hset(keys.HOLDERS, holder, "browser")
    for _ in range(13):
        assert rig.admin.hexists(keys.HOLDERS, passing)
        rig.look(after=301)
    assert rig.admin.hkeys(keys.HOLDERS) == [GONE.encode()]


def test_a_holder_of_which_nothing_may_be_given_back_keeps_no_other_from_it(rig: Rig) -> None:
    elsewhere = b'other\n{"properties": {"delivery_tag": "t2"}}'
    rig.admin.hset(keys.HOLDERS, HERE, "other")
    rig.admin.rpush(keys.held(HERE), elsewhere)
    rig.take("t1")
    rig.looks(6)
    rig.now += 10
    findings = rig.reaper.look()
    assert findings.given == (GivenBack(GONE, 1, 0, WHY),)
    assert list(findings.refused) == [HERE]
