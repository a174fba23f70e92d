"""What a real systemd tells over a real bus: a user's manager, beside the machine's own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.system_bus import SystemBus
from swarm.unit_bus import Units
from tests.loopback import wait_until
from tests.programs import need

pytestmark = pytest.mark.integration

SYSTEMD = Path("/usr/lib/systemd/systemd")
#: As a worker does, it says that it is ready and then, with every task, what it is doing.
UNIT = """[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'systemd-notify --ready; \\
 while sleep 0.2; do systemd-notify --status=$$(date +%%N); done'
"""
BUS_SOCKET = "[Socket]\nListenStream=%t/bus\n"
BUS_SERVICE = """[Unit]
Requires=dbus.socket
[Service]
Type=notify
ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile \\
 --systemd-activation
"""


class Manager:
    """A `systemd --user`, in a mount namespace in which the machine looks booted with systemd."""

    def __init__(self, directory: Path) -> None:
        units = directory / "systemd" / "user"
        units.mkdir(parents=True)
        (units / "celery-browser@.service").write_text(UNIT, encoding="utf-8")
        (units / "dbus.socket").write_text(BUS_SOCKET, encoding="utf-8")
        (units / "dbus.service").write_text(BUS_SERVICE, encoding="utf-8")
        directory.chmod(0o700)
        self.bus = directory / "bus"
        self.environ = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(directory),
            "XDG_CONFIG_HOME": str(directory),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.bus}",
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.bus}",
        }
        script = (
            f"mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec {SYSTEMD} --user"
        )
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until((directory / "systemd" / "private").exists, what="systemd")
        self.ctl("start", "dbus.service")

    def ctl(self, *words: str) -> None:
        subprocess.run(["systemctl", "--user", *words], env=self.environ, check=True)

    def close(self) -> None:
        self.ctl("kill", "--signal=KILL", "celery-*", "dbus.service")
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    need(SYSTEMD, "systemd")
    need(Path("/usr/bin/dbus-daemon"), "dbus")
    if os.geteuid() != 0:
        pytest.skip("a mount namespace takes root")
    manager = Manager(tmp_path_factory.mktemp("manager"))
    yield manager
    manager.close()


@pytest.fixture
def units(manager: Manager) -> Iterator[Units]:
    with SystemBus(manager.environ) as bus:
        yield Units(bus)


def seen(units: Units, state: str, number: int = 1, *, timeout_s: float = 2.0) -> dict[str, Any]:
    """The instance once it is in that state; looked at only when systemd tells of a change."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if units.have_changed():
            for entry in units.look():
                if (entry["number"], entry["active_state"]) == (number, state):
                    return entry
        select.select([units], [], [], 0.05)
    raise AssertionError(f"it was not told that it is {state}")


def test_a_start_a_death_and_a_stop_are_told_as_they_happen(manager: Manager, units: Units) -> None:
    assert units.look() == []
    manager.ctl("start", "--no-block", "celery-browser@1")
    entry = seen(units, "active")
    assert entry["pool"] == "browser"
    assert entry["state_changed_at"] == pytest.approx(time.monotonic(), abs=2)
    os.kill(entry["main_pid"], signal.SIGKILL)
    entry = seen(units, "failed")
    assert (entry["result"], entry["exit_status"], entry["main_pid"]) == ("signal", 9, 0)
    manager.ctl("reset-failed", "celery-browser@1")
    manager.ctl("start", "celery-browser@1")
    assert seen(units, "active")["main_pid"] > 0
    manager.ctl("stop", "celery-browser@1")
    assert units.look() == []


def test_what_a_worker_says_of_its_tasks_is_no_change(manager: Manager, units: Units) -> None:
    manager.ctl("start", "celery-browser@2")
    seen(units, "active", 2)
    units.have_changed()
    signals = 0
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if select.select([units], [], [], 0.5)[0]:
            signals += 1
            assert not units.have_changed()
    assert signals >= 3, "systemd told nothing of the status"
    manager.ctl("stop", "celery-browser@2")
    assert units.have_changed()
