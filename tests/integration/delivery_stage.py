"""A stage for tests of delivery: a client's app, tasks that leave traces, what is held."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from celery import Celery
from celery.result import AsyncResult

from swarm.celery_app import celery_configuration
from swarm.delivery import keys
from swarm.environment import read_broker
from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import wait_until

TASKS = "tests.integration.delivery_tasks"
#: At one moment: a message that moves from one place to another is missed by looks at each.
_LEFT = """
local left = redis.call('ZCARD', 'swarm:scheduled:analysis')
for _, pattern in ipairs({'analysis*', 'swarm:held:*'}) do
  for _, key in ipairs(redis.call('KEYS', pattern)) do
    left = left + redis.call('LLEN', key)
  end
end
return left"""


class DeliveryStage:
    """A stage with one app of a client's, and the file in which bodies leave their runs."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.runs_path = stage.directory / "runs"
        self.runs_path.touch()
        self.app = Celery("client", set_as_current=False, control="swarm.delivery.control:Control")
        broker = read_broker({"REDIS_URL": stage.redis.url})
        self.app.config_from_object(celery_configuration(stage.settings, broker))

    def worker(self, number: int = 1, **environ: str) -> WorkerProcess:
        return self.stage.run_ready(
            "analysis", number, module=TASKS, RUNS=str(self.runs_path), **environ
        )

    def task(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.signature(f"analysis.{name}", args=args, **options)

    def send(self, name: str, *args: Any, **options: Any) -> AsyncResult[Any]:
        result: AsyncResult[Any] = self.task(name, *args).apply_async(**options)
        return result

    def runs(self) -> list[str]:
        return self.runs_path.read_text(encoding="utf-8").splitlines()

    def held(self) -> int:
        with self.stage.redis.connect() as redis:
            return sum(redis.llen(key) for key in redis.scan_iter(keys.held("*")))

    def waiting(self) -> int:
        with self.stage.redis.connect() as redis:
            return int(redis.llen("analysis"))

    def scheduled(self) -> int:
        with self.stage.redis.connect() as redis:
            return int(redis.zcard("swarm:scheduled:analysis"))

    def wait_idle(self) -> None:
        """Until every task has ended, and what it led to."""
        with self.stage.redis.connect() as redis:
            wait_until(lambda: redis.eval(_LEFT, 0) == 0, timeout_s=5, what="an end of every task")

    def give_back(
        self, invocation: str, number: int = 1, *, ended: str = "signal"
    ) -> subprocess.CompletedProcess[str]:
        """What the unit's ExecStopPost runs; `ended` is systemd's word for how the worker ended."""
        return subprocess.run(
            [sys.executable, "-m", "swarm.delivery.give_back"],
            env={
                **self.stage.environ,
                "SWARM_POOL": "analysis",
                "SWARM_INSTANCE": str(number),
                "INVOCATION_ID": invocation,
                "SERVICE_RESULT": ended,
                "EXIT_STATUS": "0" if ended == "success" else "KILL",
            },
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
