"""Workers whose hosted broker refuses, is silent or does not know them: what is done stays done."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from lab.hosted import HostedRedis
from tests.integration.hosted_stage import HostedStage
from tests.loopback import PASSWORD, wait_until

STRIKES: dict[str, Callable[[HostedRedis], None]] = {
    "refused": lambda service: service.reach("refused"),
    "silent": lambda service: service.reach("silent"),
    "limited": lambda service: service.reach_limit(),
}


@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("celery_pool", ["prefork", "threads"])
def test_what_ends_meanwhile_is_kept_on_the_disk_and_told_later(
    hosted: HostedStage,
    strike: str,
    celery_pool: str,
) -> None:
    instance = hosted.worker(CELERY_POOL=celery_pool)
    result = hosted.delivery.send("note", "long", 2)
    wait_until(lambda: hosted.delivery.runs() == ["long"], what="its run")
    STRIKES[strike](hosted.service)
    wait_until(hosted.spooled, timeout_s=30, what="its end on the disk")
    # It is free again: nothing waits for the broker but the disk.
    wait_until(lambda: instance.status()["active"] == 0, timeout_s=10, what="its idleness")
    assert result.state == "PENDING"
    hosted.service.heal()
    assert result.get(timeout=40) == "long"
    wait_until(lambda: not hosted.spooled(), what="an empty disk")
    assert hosted.delivery.send("note", "next").get(timeout=40) == "next"
    assert hosted.delivery.runs() == ["long", "next"]
    assert hosted.delivery.held() == 0
    # One line for its loss, if the consumer had to connect anew, and one for its return.
    lost = instance.log.count("the primary broker is down") + instance.log.count(
        "the primary broker is limited"
    )
    assert lost <= 1
    assert instance.log.count("the primary broker is ok again") == lost


def test_a_worker_may_stop_meanwhile_and_the_next_one_tells_what_it_left(
    hosted: HostedStage,
) -> None:
    first = hosted.worker(INVOCATION_ID="first")
    result = hosted.delivery.send("note", "long", 2)
    wait_until(lambda: hosted.delivery.runs() == ["long"], what="its run")
    hosted.service.reach_limit()
    wait_until(hosted.spooled, timeout_s=30, what="its end on the disk")
    wait_until(lambda: first.status()["broker"] == "limited", timeout_s=10, what="its word")
    first.process.send_signal(signal.SIGTERM)
    assert first.wait_exit(timeout_s=30) == 0
    assert len(hosted.spooled()) == 1
    hosted.service.heal()
    # Of another instance, and of the same one.
    hosted.worker(2, INVOCATION_ID="second")
    assert result.get(timeout=20) == "long"
    hosted.worker(1, INVOCATION_ID="third")
    assert hosted.delivery.send("note", "next").get(timeout=20) == "next"
    assert hosted.delivery.runs() == ["long", "next"]


def test_where_no_worker_runs_any_more_the_broker_is_told_all_the_same(hosted: HostedStage) -> None:
    worker = hosted.worker(INVOCATION_ID="first")
    result = hosted.delivery.send("note", "long", 2)
    wait_until(lambda: hosted.delivery.runs() == ["long"], what="its run")
    hosted.service.reach_limit()
    wait_until(hosted.spooled, timeout_s=30, what="its end on the disk")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait_exit(timeout_s=30) == 0
    sender = subprocess.Popen(
        [sys.executable, "-m", "swarm.delivery.send_ends"],
        env={**hosted.delivery.stage.environ, "REDIS_URL": hosted.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(3)
    assert sender.poll() is None
    hosted.service.heal()
    said, complaints = sender.communicate(timeout=30)
    assert sender.returncode == 0
    assert said == "told the primary broker of 1 ended tasks\n"
    assert complaints.count("the primary broker is still away: max requests limit exceeded") == 1
    assert result.get(timeout=5) == "long"
    assert hosted.delivery.held() == 0


def test_a_stop_tells_the_broker_what_was_on_the_disk_before_it_gives_back(
    hosted: HostedStage,
) -> None:
    hosted.worker(INVOCATION_ID="first")
    result = hosted.delivery.send("note", "long", 2)
    wait_until(lambda: hosted.delivery.runs() == ["long"], what="its run")
    hosted.service.reach_limit()
    wait_until(hosted.spooled, timeout_s=30, what="its end on the disk")
    hosted.delivery.stage.workers[-1].kill()
    # What the unit's ExecStopPost runs; it reaches the broker again.
    assert "given back" not in hosted.delivery.give_back("first").stdout
    assert result.get(timeout=5) == "long"
    assert hosted.spooled() == []


def test_what_cannot_be_kept_is_waited_with(hosted: HostedStage) -> None:
    instance = hosted.worker()
    # Root writes wherever it likes, but not into a file.
    (hosted.delivery.stage.directory / "spool" / "primary").write_text("no directory")
    result = hosted.delivery.send("note", "long", 1)
    wait_until(lambda: hosted.delivery.runs() == ["long"], what="its run")
    hosted.service.reach_limit()
    said = "a task's end cannot be left on the disk"
    wait_until(lambda: said in instance.log, timeout_s=30, what="a word about it")
    hosted.service.heal()
    assert result.get(timeout=40) == "long"
    assert hosted.delivery.runs() == ["long"]
    assert instance.log.count(said) == 1


def test_an_idle_worker_takes_tasks_again_after_the_wall(hosted: HostedStage) -> None:
    instance = hosted.worker()
    # What waits for a bell is refused at its next question only; a cut makes it ask.
    hosted.service.reach_limit()
    hosted.service.restart()
    wait_until(lambda: instance.status()["broker"] == "limited", timeout_s=20, what="its word")
    instance.wait_told("redis primary limited")
    result = hosted.delivery.send("note", "waiting")
    time.sleep(3)
    assert hosted.delivery.runs() == []
    assert instance.process.poll() is None
    hosted.service.heal()
    assert result.get(timeout=40) == "waiting"


@pytest.mark.parametrize("wrong", ["password", "certificate"])
def test_a_worker_that_is_not_let_in_ends_at_once_and_names_the_variable(
    hosted: HostedStage, wrong: str
) -> None:
    urls = {
        "password": hosted.service.url("", "wrong", ssl_ca_certs=hosted.certificates.authority),
        "certificate": hosted.service.url("", PASSWORD),
    }
    before = hosted.service.used
    instance = hosted.delivery.stage.start("analysis", 1, REDIS_URL=urls[wrong])
    # 2 is what the unit does not start again for.
    assert instance.wait_exit() == 2
    assert "REDIS_URL: got rediss://127.0.0.1" in instance.log
    assert PASSWORD not in instance.log
    assert "Traceback" not in instance.log
    assert hosted.service.used - before <= 3


def test_a_worker_whose_password_changes_says_so_and_ends_what_it_does(hosted: HostedStage) -> None:
    instance = hosted.worker()
    result = hosted.delivery.send("note", "long", 2)
    wait_until(lambda: hosted.delivery.runs() == ["long"], what="its run")
    with hosted.delivery.stage.redis.connect() as redis:
        redis.config_set("requirepass", "another")
        try:
            hosted.service.restart()
            wait_until(lambda: instance.status()["broker"] == "refused", what="its word")
            wait_until(hosted.spooled, timeout_s=30, what="its end on the disk")
        finally:
            redis.config_set("requirepass", PASSWORD)
    assert result.get(timeout=40) == "long"
    assert hosted.delivery.runs() == ["long"]
    assert instance.log.count("the primary broker refuses us. REDIS_URL: got") == 1
