"""What a unit's ExecStopPost does, over a real Redis: on the broker of its pool."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from swarm.delivery.give_back import main
from tests.contract.delivery.messages import publish, take, waiting
from tests.loopback import RedisServer, free_port

CONFIG = """
pools:
  analysis: {task_type: analysis, queues: [q], metrics_port_base: 9200}
  analysis-fallback:
    {task_type: analysis, broker: fallback, queues: [q], metrics_port_base: 9700}
"""


@pytest.fixture
def unit(server: RedisServer, tmp_path: Path) -> dict[str, str]:
    """Variables of a unit; the pool's and the credential are the test's."""
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "here").write_text(f"{server.url}\n", encoding="utf-8")
    return {
        "SWARM_CONFIG": str(tmp_path / "config.yaml"),
        "CREDENTIALS_DIRECTORY": str(tmp_path / "none"),
        "SWARM_HOST": "host",
        "SWARM_INSTANCE": "1",
        "INVOCATION_ID": "a",
        "SERVICE_RESULT": "success",
    }


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        ("analysis", {}),
        ("analysis-fallback", {}),
        # Config.yaml has it no more when the last of its instances is stopped.
        ("retired", {"SWARM_BROKER": "fallback"}),
        ("retired", {}),
    ],
)
def test_what_was_held_goes_back_where_it_came_from(
    client: redis.Redis, unit: dict[str, str], tmp_path: Path, pool: str, told: dict[str, str]
) -> None:
    tag = publish(client)
    take(client, holder=f"host:{pool}:1:a")
    assert waiting(client) == []
    environ = unit | told | {"SWARM_POOL": pool}
    assert main(["--credential", str(tmp_path / "here")], environ) == 0
    assert waiting(client) == [tag]


@pytest.mark.parametrize(
    ("pool", "variable"),
    [("analysis", "REDIS_URL"), ("analysis-fallback", "REDIS_FALLBACK_URL")],
)
def test_a_variable_counts_more_than_the_credential(
    client: redis.Redis, unit: dict[str, str], tmp_path: Path, pool: str, variable: str
) -> None:
    tag = publish(client)
    take(client, holder=f"host:{pool}:1:a")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(f"redis://127.0.0.1:{free_port()}\n", encoding="utf-8")
    here = (tmp_path / "here").read_text(encoding="utf-8")
    environ = unit | {"SWARM_POOL": pool, variable: here}
    assert main(["--credential", str(elsewhere)], environ) == 0
    assert waiting(client) == [tag]


def test_without_a_config_it_says_so(
    unit: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = unit | {"SWARM_POOL": "analysis", "SWARM_CONFIG": str(tmp_path / "absent")}
    assert main(["--credential", str(tmp_path / "here")], environ) == 2
    assert "absent" in capsys.readouterr().err
