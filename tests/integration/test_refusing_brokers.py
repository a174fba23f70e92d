"""Workers whose hosted broker refuses, is silent or does not know them: what is done stays done."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.hosted import Certificates, HostedRedis, make_certificates
from tests.integration.delivery_stage import DeliveryStage
from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import PASSWORD, wait_until


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def service(stage: Stage, certificates: Certificates) -> Iterator[HostedRedis]:
    tls = certificates.server_context(ask_clients=False)
    with HostedRedis(("127.0.0.1", stage.redis.port), tls=tls) as service:
        yield service


@pytest.fixture
def delivery(stage: Stage) -> Iterator[DeliveryStage]:
    """Its client reaches the Redis behind the service, whatever that does."""
    delivery = DeliveryStage(stage)
    yield delivery
    delivery.app.close()


@pytest.fixture
def worker(
    delivery: DeliveryStage, service: HostedRedis, certificates: Certificates
) -> Callable[..., WorkerProcess]:
    url = service.url("", PASSWORD, ssl_ca_certs=certificates.authority)

    def start(number: int = 1, **environ: str) -> WorkerProcess:
        return delivery.worker(number, REDIS_URL=url, **environ)

    return start


def spooled(delivery: DeliveryStage) -> list[Path]:
    return list((delivery.stage.directory / "spool" / "primary").glob("*.json"))


STRIKES: dict[str, Callable[[HostedRedis], None]] = {
    "refused": lambda service: service.reach("refused"),
    "silent": lambda service: service.reach("silent"),
    "limited": lambda service: service.reach_limit(),
}


@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("celery_pool", ["prefork", "threads"])
def test_what_ends_meanwhile_is_kept_on_the_disk_and_told_later(
    delivery: DeliveryStage,
    service: HostedRedis,
    worker: Callable[..., WorkerProcess],
    strike: str,
    celery_pool: str,
) -> None:
    instance = worker(CELERY_POOL=celery_pool)
    result = delivery.send("note", "long", 2)
    wait_until(lambda: delivery.runs() == ["long"], what="its run")
    STRIKES[strike](service)
    wait_until(lambda: spooled(delivery), timeout_s=30, what="its end on the disk")
    # It is free again: nothing waits for the broker but the disk.
    wait_until(lambda: instance.status()["active"] == 0, timeout_s=10, what="its idleness")
    assert result.state == "PENDING"
    service.heal()
    assert result.get(timeout=40) == "long"
    wait_until(lambda: not spooled(delivery), what="an empty disk")
    assert delivery.send("note", "next").get(timeout=40) == "next"
    assert delivery.runs() == ["long", "next"]
    assert delivery.held() == 0
    # One line for its loss, if the consumer had to connect anew, and one for its return.
    lost = instance.log.count("the primary broker is down") + instance.log.count(
        "the primary broker is limited"
    )
    assert lost <= 1
    assert instance.log.count("the primary broker is ok again") == lost


def test_a_worker_may_stop_meanwhile_and_the_next_one_tells_what_it_left(
    delivery: DeliveryStage, service: HostedRedis, worker: Callable[..., WorkerProcess]
) -> None:
    first = worker(INVOCATION_ID="first")
    result = delivery.send("note", "long", 2)
    wait_until(lambda: delivery.runs() == ["long"], what="its run")
    service.reach_limit()
    wait_until(lambda: spooled(delivery), timeout_s=30, what="its end on the disk")
    wait_until(lambda: first.status()["broker"] == "limited", timeout_s=10, what="its word")
    first.process.send_signal(signal.SIGTERM)
    assert first.wait_exit(timeout_s=30) == 0
    assert len(spooled(delivery)) == 1
    service.heal()
    # Of another instance, and of the same one.
    worker(2, INVOCATION_ID="second")
    assert result.get(timeout=20) == "long"
    worker(1, INVOCATION_ID="third")
    assert delivery.send("note", "next").get(timeout=20) == "next"
    assert delivery.runs() == ["long", "next"]


def test_what_cannot_be_kept_is_waited_with(
    delivery: DeliveryStage, service: HostedRedis, worker: Callable[..., WorkerProcess]
) -> None:
    instance = worker()
    # Root writes wherever it likes, but not into a file.
    (delivery.stage.directory / "spool" / "primary").write_text("no directory")
    result = delivery.send("note", "long", 1)
    wait_until(lambda: delivery.runs() == ["long"], what="its run")
    service.reach_limit()
    said = "a task's end cannot be left on the disk"
    wait_until(lambda: said in instance.log, timeout_s=30, what="a word about it")
    service.heal()
    assert result.get(timeout=40) == "long"
    assert delivery.runs() == ["long"]
    assert instance.log.count(said) == 1


def test_an_idle_worker_takes_tasks_again_after_the_wall(
    delivery: DeliveryStage, service: HostedRedis, worker: Callable[..., WorkerProcess]
) -> None:
    instance = worker()
    # What waits for a bell is refused at its next question only; a cut makes it ask.
    service.reach_limit()
    service.restart()
    wait_until(lambda: instance.status()["broker"] == "limited", timeout_s=20, what="its word")
    assert any("redis primary limited" in line for line in instance.notify.told)
    result = delivery.send("note", "waiting")
    time.sleep(3)
    assert delivery.runs() == []
    assert instance.process.poll() is None
    service.heal()
    assert result.get(timeout=40) == "waiting"


@pytest.mark.parametrize("wrong", ["password", "certificate"])
def test_a_worker_that_is_not_let_in_ends_at_once_and_names_the_variable(
    delivery: DeliveryStage, service: HostedRedis, certificates: Certificates, wrong: str
) -> None:
    urls = {
        "password": service.url("", "wrong", ssl_ca_certs=certificates.authority),
        "certificate": service.url("", PASSWORD),
    }
    before = service.used
    instance = delivery.stage.start("analysis", 1, REDIS_URL=urls[wrong])
    # 2 is what the unit does not start again for.
    assert instance.wait_exit() == 2
    assert "REDIS_URL: got rediss://127.0.0.1" in instance.log
    assert PASSWORD not in instance.log
    assert "Traceback" not in instance.log
    assert service.used - before <= 3


def test_a_worker_whose_password_changes_says_so_and_ends_what_it_does(
    delivery: DeliveryStage, service: HostedRedis, worker: Callable[..., WorkerProcess]
) -> None:
    instance = worker()
    result = delivery.send("note", "long", 2)
    wait_until(lambda: delivery.runs() == ["long"], what="its run")
    with delivery.stage.redis.connect() as redis:
        redis.config_set("requirepass", "another")
        try:
            service.restart()
            wait_until(lambda: instance.status()["broker"] == "refused", what="its word")
            wait_until(lambda: spooled(delivery), timeout_s=30, what="its end on the disk")
        finally:
            redis.config_set("requirepass", PASSWORD)
    assert result.get(timeout=40) == "long"
    assert delivery.runs() == ["long"]
    assert instance.log.count("the primary broker refuses us. REDIS_URL: got") == 1
