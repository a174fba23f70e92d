"""Workers whose broker is the stand-in for a hosted one, in front of the Redis of all tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.hosted import Certificates, HostedRedis
from tests.integration.delivery_stage import DeliveryStage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import PASSWORD


@dataclass
class HostedStage:
    """The client of `delivery` reaches the Redis behind the service, whatever that does."""

    delivery: DeliveryStage
    service: HostedRedis
    certificates: Certificates

    @property
    def url(self) -> str:
        return self.service.url("", PASSWORD, ssl_ca_certs=self.certificates.authority)

    def worker(self, number: int = 1, **environ: str) -> WorkerProcess:
        return self.delivery.worker(number, REDIS_URL=self.url, **environ)

    def spooled(self) -> list[Path]:
        """Ends of tasks that are on the disk."""
        return list((self.delivery.stage.directory / "spool" / "primary").glob("*.json"))
