"""How the faults of the stand-in are switched, in a process of its own too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import (
    ResponseError,
)

from lab.hosted import HostedRedis
from lab.hosted.__main__ import main
from lab.hosted.control import Control, ask
from tests.hosted_client import LIMIT_TEXT
from tests.loopback import PASSWORD, RedisServer


def test_the_switches_over_http(service: HostedRedis, capsys: pytest.CaptureFixture[str]) -> None:
    with Control(service) as control:
        there = ["--control", control.url]
        assert main(["set", *there, "limit=10", "used=10", "slow_s=0.5", "reach=silent"]) == 0
        state = ask(control.url)
        assert (state["limit"], state["used"], state["slow_s"]) == (10, 10, 0.5)
        assert state["reach"] == "silent"
        assert main(["set", *there, "limit=none"]) == 0
        assert main(["heal", *there]) == 0
        assert main(["restart", *there]) == 0
        assert main(["show", *there]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == ask(control.url)
        for wrong in ("slow=5", "slow_s=-1", "reach=away", "cuts=1.5"):
            assert main(["set", *there, wrong]) == 2
            assert capsys.readouterr().err.startswith("lab.hosted: ")
    assert main(["show", *there]) == 1


def test_the_program_serves_until_it_is_stopped(behind: RedisServer, tmp_path: Path) -> None:
    words = ["serve", f"127.0.0.1:{behind.port}", "--certificates", str(tmp_path / "c")]
    with subprocess.Popen(
        [sys.executable, "-m", "lab.hosted", *words, "--control-port", "0", "--limit", "2"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            place, _, control = process.stdout.readline().split()
            url = (
                place.replace("://", f"://:{PASSWORD}@")
                + f"?ssl_ca_certs={tmp_path}/c/authority.pem"
            )
            with Redis.from_url(url, retry=None, protocol=2, driver_info=None) as client:
                assert client.ping()
                with pytest.raises(ResponseError, match=LIMIT_TEXT.format(2)):
                    client.ping()
            assert ask(control)["used"] == 2
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_clients_go_on_knowing_its_authority_when_it_starts_again(
    behind: RedisServer, tmp_path: Path
) -> None:
    words = ["serve", f"127.0.0.1:{behind.port}", "--certificates", str(tmp_path)]
    known = []
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-m", "lab.hosted", *words, "--control-port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("rediss://")
            finally:
                process.send_signal(signal.SIGTERM)
        known.append((tmp_path / "authority.pem").read_bytes())
    assert known[0] == known[1]
