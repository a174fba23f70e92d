"""A Redis as the role `redis` deploys it: its configuration, its users, on a port of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.loopback import REDIS, free_port, wait_until

ROLE = Path(__file__).parents[1] / "roles" / "redis"
USERS = ("admin", "producer", "worker", "flower", "scaler", "exporter")
QUEUES = ("browser", "analysis")


def password_of(user: str) -> str:
    return f"the-password-of-{user}"


@dataclass
class RoleRedis:
    """Use `connect("worker")` and `url("worker")`; `admin` may do everything."""

    directory: Path
    memory_mb: int = 64
    queues: tuple[str, ...] = QUEUES
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def url(self, user: str) -> str:
        return f"redis://{user}:{password_of(user)}@127.0.0.1:{self.port}/0"

    def connect(self, user: str) -> Redis:
        return Redis.from_url(self.url(user), socket_timeout=5)

    @property
    def mark(self) -> int:
        """Bytes at which it refuses what is new."""
        return self.memory_mb * 1024**2 * 8 // 10

    @property
    def log(self) -> str:
        return (self.directory / "redis.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        self.port = self.port or free_port()
        self._render()
        (self.directory / "data").mkdir(exist_ok=True)
        # What a test on one machine cannot take over; later words override the file's.
        own = {"dir": str(self.directory / "data"), "aclfile": str(self.directory / "users.acl")}
        words = [word for name, value in own.items() for word in (f"--{name}", value)]
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", str(self.directory / "redis.conf"), *words],
                executable=REDIS,
                stdout=log,
                stderr=log,
            )
        with self.connect("admin") as redis:
            wait_until(lambda: _answers(redis), what="Redis")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _render(self) -> None:
        """The role's own templates, by Ansible itself."""
        variables = {
            "redis_passwords": {user: password_of(user) for user in USERS},
            "redis_queues": list(self.queues),
            "redis_address": "127.0.0.1",
            "redis_port": self.port,
            "redis_memory": f"{self.memory_mb}mb",
            "redis_appendfsync": "always",
        }
        template = "ansible.builtin.template"
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": variables,
            "vars_files": [str(ROLE / "vars" / "main" / "users.yml")],
            "tasks": [
                {
                    template: {
                        "src": str(ROLE / "templates" / f"{name}.j2"),
                        "dest": str(self.directory / name),
                        "mode": "0600",
                    }
                }
                for name in ("users.acl", "redis.conf")
            ],
        }
        playbook = self.directory / "render.yml"
        playbook.write_text(json.dumps([play]), encoding="utf-8")
        program = Path(sys.executable).with_name("ansible-playbook")
        done = subprocess.run(
            [str(program), "-i", "localhost,", "-c", "local", str(playbook)],
            env={**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except (RedisError, OSError):
        return False
