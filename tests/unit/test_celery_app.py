"""Celery's settings: what they promise, and that importing reads nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured

from swarm.brokers import Broker, Brokers
from swarm.celery_app import celery_configuration
from swarm.client import Client
from swarm.delivery.app import Brokerage, DeliveryCelery
from swarm.delivery.results import ResultBackend
from swarm.errors import ConfigError
from tests.builders import ANALYSIS, BROWSER, make_settings

BROKER = Broker("primary", "redis://:pw@127.0.0.1:1/0")


def configuration(**sections: Any) -> dict[str, Any]:
    return celery_configuration(make_settings(**sections), BROKER)


def make_app(**sections: Any) -> Celery:
    app = Celery("test", set_as_current=False)
    app.config_from_object(configuration(**sections))
    return app


def test_only_json_is_taken() -> None:
    settings = configuration()
    assert settings["accept_content"] == ["json"]
    assert settings["task_serializer"] == settings["result_serializer"] == "json"


def test_tls_is_said_where_flower_reads_it() -> None:
    assert configuration()["broker_use_ssl"] is False
    broker = Broker("primary", "rediss://h/0?ssl_ca_certs=%2Fca.pem&ssl_cert_reqs=required")
    said = celery_configuration(make_settings(), broker)["broker_use_ssl"]
    assert said == {"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": "required"}


def test_a_task_is_acknowledged_when_it_is_done() -> None:
    settings = configuration()
    assert settings["task_acks_late"]
    assert settings["task_reject_on_worker_lost"]
    assert settings["worker_prefetch_multiplier"] == 1


def test_a_task_that_would_be_acknowledged_before_it_runs_is_refused() -> None:
    app = Celery("test", set_as_current=False, task_cls="swarm.delivery.task:Task")
    app.conf.update(configuration())

    @app.task(name="browser.early", acks_late=False)
    def early() -> None: ...

    with pytest.raises(ImproperlyConfigured, match=r"task browser\.early: acks_late is False"):
        app.finalize()
    app.close()


@pytest.mark.parametrize(
    ("task", "queue"), [("browser.run", "browser"), ("analysis.run", "analysis")]
)
def test_a_task_goes_to_the_queue_of_its_type(task: str, queue: str) -> None:
    app = make_app()
    route = app.amqp.router.route({}, task)
    assert route["queue"].name == queue
    app.close()


def test_every_queue_of_every_pool_is_declared() -> None:
    """Flower lists the app's queues when no worker runs."""
    pools = {"browser": BROWSER, "analysis": {**ANALYSIS, "queues": ["analysis", "slow"]}}
    names = [queue.name for queue in configuration(pools=pools)["task_queues"]]
    assert names == ["browser", "analysis", "slow"]


def test_results_are_kept_without_a_subscription_at_submit() -> None:
    app = make_app()
    assert type(app.backend) is ResultBackend
    app.close()


def test_a_type_that_no_pool_runs_is_refused_before_anything_connects() -> None:
    app = make_app(pools={"browser": BROWSER})
    with pytest.raises(ConfigError, match=r"a task type that a pool of config\.yaml runs"):
        Client(app).submit("analysis", {"html": "x"})
    app.close()


def test_importing_reads_nothing() -> None:
    """A missing config.yaml must not keep `swarm config check` or `--help` from working."""
    program = "import swarm.celery_app, swarm.cli, swarm.client, swarm.worker.main"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "SWARM_CONFIG": "/absent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@dataclass(frozen=True)
class Slow:
    """What an app reads, at its leisure; how often, and whether it may."""

    wrong: list[ConfigError] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    def configuration(self) -> dict[str, Any]:
        self.read.append("configuration")
        time.sleep(0.05)
        if self.wrong:
            raise self.wrong.pop()
        return {"result_backend": "cache+memory://", "task_default_queue": "browser"}

    def brokerage(self) -> Brokerage:
        self.read.append("brokerage")
        time.sleep(0.05)
        return Brokerage(Brokers(BROKER, None))

    def app(self) -> DeliveryCelery:
        return DeliveryCelery(
            "test",
            set_as_current=False,
            read_configuration=self.configuration,
            read_brokerage=self.brokerage,
        )


def at_once(ask: Callable[[], object]) -> list[object]:
    """What threads that begin together are answered."""
    start = Barrier(8)

    def run() -> object:
        start.wait()
        return ask()

    with ThreadPoolExecutor(8) as threads:
        return [each.result() for each in [threads.submit(run) for _ in range(8)]]


def test_threads_that_ask_first_together_all_get_the_whole_configuration() -> None:
    slow = Slow()
    app = slow.app()
    assert at_once(lambda: app.conf.result_backend) == ["cache+memory://"] * 8
    assert slow.read == ["configuration"]


def test_threads_that_publish_first_together_share_what_is_known_of_the_brokers() -> None:
    slow = Slow()
    app = slow.app()
    assert len(set(map(id, at_once(lambda: app.submission)))) == 1
    assert slow.read == ["brokerage"]


def test_what_could_not_be_read_is_read_again() -> None:
    """Celery would go on with its own defaults, and publish to a RabbitMQ on this machine."""
    slow = Slow(wrong=[ConfigError.of("REDIS_URL", "nothing", "a URL")])
    app = slow.app()
    with pytest.raises(ConfigError):
        app.conf.task_default_queue  # noqa: B018 - it is read
    assert app.conf.task_default_queue == "browser"


def test_what_was_set_before_is_kept() -> None:
    app = Slow().app()
    app.conf.task_default_queue = "mine"
    assert app.conf.result_backend == "cache+memory://"
    assert app.conf.task_default_queue == "mine"
