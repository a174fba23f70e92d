"""Real Redis, Flower, workers and Chromium, each on ports and in directories of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.hosted import Certificates, HostedRedis, make_certificates
from tests.integration.delivery_stage import DeliveryStage
from tests.integration.flower_process import Flower
from tests.integration.hosted_stage import HostedStage
from tests.integration.pages import Site
from tests.integration.scaler_process import ScalerProcess, Start
from tests.integration.stage import REPOSITORY, Stage, make_stage
from tests.loopback import REDIS, RedisServer, free_port, wait_until
from tests.programs import CHROMIUM, need
from tests.stub_bus import StubBus
from tests.stub_systemctl import StubSystemctl


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REPOSITORY / "tests" / "integration" in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="module", autouse=True)
def _environment_of_a_module() -> Iterator[None]:
    """An engine sets TMPDIR, and a directory that is gone is nothing to leave to other modules."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need(REDIS, "redis-tools")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.fixture(scope="module")
def flower(shared: Stage) -> Iterator[Flower]:
    """One Flower on the Redis of all tests."""
    flower = Flower(shared)
    flower.start()
    yield flower
    flower.stop()


@pytest.fixture
def stage(tmp_path: Path, redis_server: RedisServer, site: Site) -> Iterator[Stage]:
    """A stage of its own, on an empty Redis."""
    need(CHROMIUM, "chromium-headless-shell")
    with redis_server.connect() as redis:
        redis.flushall()
    stage = make_stage(tmp_path, redis_server, site)
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, site: Site
) -> Iterator[Stage]:
    """One stage for all tests of a module that do not disturb each other."""
    need(CHROMIUM, "chromium-headless-shell")
    with redis_server.connect() as redis:
        redis.flushall()
    stage = make_stage(tmp_path_factory.mktemp("stage"), redis_server, site)
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def hosted(stage: Stage, certificates: Certificates) -> Iterator[HostedStage]:
    """A stage whose workers have a hosted broker."""
    tls = certificates.server_context(ask_clients=False)
    delivery = DeliveryStage(stage)
    with HostedRedis(("127.0.0.1", stage.redis.port), tls=tls) as service:
        yield HostedStage(delivery, service, certificates)
    delivery.app.close()


@pytest.fixture
def systemctl(stage: Stage) -> Iterator[StubSystemctl]:
    systemctl = StubSystemctl(stage.directory)
    with StubBus(systemctl):
        yield systemctl


@pytest.fixture
def own_flower(stage: Stage) -> Iterator[Flower]:
    """A Flower on this test's stage."""
    flower = Flower(stage)
    flower.start()
    yield flower
    flower.stop()


@pytest.fixture
def start(stage: Stage, systemctl: StubSystemctl) -> Iterator[Start]:
    """Start a scaler with this Flower; without one, nothing listens there."""
    running: list[ScalerProcess] = []

    def run(
        flower: Flower | None,
        *,
        auth: str = Flower.auth,
        reads_status: bool = False,
        dry_run: bool = False,
        interval_s: float = 0.5,
        **environ: str,
    ) -> ScalerProcess:
        state_directory = stage.directory / "state"
        state_directory.mkdir(exist_ok=True)
        stage.write_config(
            scaler={
                "interval_s": interval_s,
                "metrics_port": free_port(),
                "state_directory": str(state_directory),
            },
            flower={"url": flower.url if flower else f"http://127.0.0.1:{free_port()}"},
        )
        scaler = ScalerProcess(
            stage, systemctl, auth, reads_status=reads_status, dry_run=dry_run, environ=environ
        )
        running.append(scaler)
        wait_until(lambda: "READY=1" in scaler.notify.told, timeout_s=60, what="READY=1")
        return scaler

    yield run
    for scaler in running:
        scaler.close()
