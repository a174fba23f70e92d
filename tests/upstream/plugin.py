"""The pytest plugin under upstream's tests: puts our delivery in place, writes down outcomes.

Integration tests reach ours through the names they use anyway (`redis://`) and an app configured
as `swarm.celery_app` configures its own. Unit tests import the classes by name, so there ours
stand in for kombu's and Celery's.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from tests.builders import make_settings
from tests.upstream.listing import DELIVERIES, find, read_list

#: What our app sets for our own tasks and queues, or the fixtures of Celery's tests for theirs.
_NOT_OURS_TO_SET = {
    "broker_url",
    "include",
    "result_backend",
    "task_create_missing_queues",
    "task_default_queue",
    "task_queues",
    "task_routes",
    # The tests ask the worker whether it is idle.
    "worker_enable_remote_control",
}
#: Seconds for what is to happen, and for what is expected not to; upstream allows a minute.
_PATIENCE_S = 15
_LISTED_PATIENCE_S = 5
_ORDER = ("passed", "skipped", "failed")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("upstream")
    group.addoption("--upstream-suite", required=True, metavar="kombu|celery")
    group.addoption("--upstream-delivery", choices=DELIVERIES, required=True)
    group.addoption("--upstream-part", default="1/1", metavar="NUMBER/PARTS")
    group.addoption("--upstream-listed", action="store_true", help="the listed tests, not others")
    group.addoption("--upstream-stand-in", action="store_true", help="our classes by their names")
    group.addoption("--upstream-timeout-s", type=float, default=60.0)
    group.addoption("--upstream-outcomes", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Outcomes(config), "upstream-outcomes")
    _ask_one_worker()
    if config.getoption("--upstream-delivery") != "ours":
        return
    if config.getoption("--upstream-stand-in"):
        _stand_in()
    else:
        _use_ours()


def _use_ours() -> None:
    from celery import _state  # noqa: PLC0415
    from celery.app.backends import BACKEND_ALIASES  # noqa: PLC0415
    from celery.contrib.testing.app import DEFAULT_TEST_CONFIG  # noqa: PLC0415

    from swarm.brokers import Broker  # noqa: PLC0415
    from swarm.celery_app import app, celery_configuration  # noqa: PLC0415
    from swarm.delivery import chords, transport  # noqa: F401, PLC0415 - Celery finds the task

    # The tests expect that no app is there but their own.
    app.close()
    vars(_state)["_tls"].current_app = None
    transport.register()
    for alias in ("redis", "rediss"):
        BACKEND_ALIASES[alias] = "swarm.delivery.results:ResultBackend"
    ours = celery_configuration(make_settings(), Broker("primary", "redis://"))
    DEFAULT_TEST_CONFIG.update(
        {key: value for key, value in ours.items() if key not in _NOT_OURS_TO_SET}
    )


def _stand_in() -> None:
    import celery  # noqa: PLC0415
    import celery.backends.redis  # noqa: PLC0415
    import celery.worker.request  # noqa: PLC0415
    import kombu.transport.redis  # noqa: PLC0415

    from swarm.delivery import qos, request, results, transport  # noqa: PLC0415

    kombu.transport.redis.Channel = transport.Channel
    kombu.transport.redis.QoS = qos.QoS
    kombu.transport.redis.Transport = transport.Transport
    celery.backends.redis.RedisBackend = results.ResultBackend
    celery.worker.request.Request = request.Request
    celery.Celery.task_cls = "swarm.delivery.task:Task"


def _is_busy(inspect: Any) -> bool:
    return any(any((ask() or {}).values()) for ask in (inspect.active, inspect.reserved))


def _ask_one_worker() -> None:
    """After each test Celery's `manager` waits a second for answers of workers. There is one.

    What it has reserved is waited for as well: the next test might else find it busy.
    """
    from celery.contrib.testing.manager import ManagerMixin  # noqa: PLC0415

    def wait_until_idle(self: Any) -> None:
        control = self.app.control
        with self.app.connection() as connection:
            while control.purge(connection=connection):
                pass
            inspect = control.inspect(limit=1, connection=connection)
            deadline = time.monotonic() + _PATIENCE_S
            while time.monotonic() < deadline and _is_busy(inspect):
                time.sleep(0.05)

    ManagerMixin.wait_until_idle = wait_until_idle  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def celery_parameters(pytestconfig: pytest.Config) -> dict[str, Any]:
    """Arguments of the app in Celery's integration tests."""
    if pytestconfig.getoption("--upstream-delivery") != "ours":
        return {}
    return {
        "task_cls": "swarm.delivery.task:Task",
        "control": "swarm.delivery.control:Control",
    }


@pytest.fixture(autouse=True)
def _fit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests of the waiting apply: they are written for waits of a second, not of minutes."""
    if request.config.getoption("--upstream-delivery") != "ours":
        return
    from swarm.delivery import transport  # noqa: PLC0415

    name = request.node.nodeid
    if "test_RedisBrpopHealthCheck" in name or "test_redis_brpop_qos" in name:
        monkeypatch.setattr(transport.Transport, "wait_s", 1)
    if "test_binding_table_kept" in name:
        monkeypatch.setattr(transport, "_BINDINGS_S", 0)
    if "consumes_after_connection_reconnect" in name:
        # Its own loop does not expect a reply without a message; kombu's hub does.
        on_readable = transport.Transport.on_readable

        def read(self: transport.Transport, fileno: int) -> None:
            with contextlib.suppress(Empty):
                on_readable(self, fileno)

        monkeypatch.setattr(transport.Transport, "on_readable", read)


class _Outcomes:
    """Chooses this part's tests and writes the worst outcome of each into a file."""

    def __init__(self, config: pytest.Config) -> None:
        self._suite = config.getoption("--upstream-suite")
        self._file: Path = config.getoption("--upstream-outcomes")
        self._number, self._parts = map(int, config.getoption("--upstream-part").split("/"))
        self._listed = config.getoption("--upstream-listed")
        self._timeout_s = config.getoption("--upstream-timeout-s")
        self._entries = read_list(config.getoption("--upstream-delivery"))
        self._outcomes: dict[str, tuple[str, str]] = {}

    def _name(self, nodeid: str) -> str:
        return f"{self._suite}/{nodeid}"

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        chosen = [
            item
            for item in items
            if (find(self._entries, self._name(item.nodeid)) is not None) == self._listed
        ][self._number - 1 :: self._parts]
        left = set(items) - set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = chosen
        for item in items:
            # Before upstream's own marks, which allow minutes.
            item.add_marker(pytest.mark.timeout(self._timeout_s), append=False)
            self._outcomes[self._name(item.nodeid)] = ("failed", "it did not run")

        self._adapt_helpers({getattr(item, "module", None) for item in items})

    def _adapt_helpers(self, modules: set[Any]) -> None:
        for module in modules:
            if getattr(module, "__name__", "") == "t.integration.test_canvas":
                module.TIMEOUT = _LISTED_PATIENCE_S if self._listed else _PATIENCE_S
                module.await_redis_echo = _wait_less(module.await_redis_echo, module.TIMEOUT)
            elif getattr(module, "__name__", "") == "t.unit.transport.test_redis":
                # Scripts say nothing to a client that plays Redis: no message, nothing released.
                module.Client.evalsha = lambda self, sha, *words: _scripts_answer(sha)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported is no reason not to hear of it."""
        if not report.passed:
            self._outcomes[self._name(report.nodeid)] = (report.outcome, str(report.longrepr))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = self._name(report.nodeid)
        before, _ = self._outcomes[name] if report.when != "setup" else ("passed", "")
        worst = max(before, report.outcome, key=_ORDER.index)
        if report.when == "setup" or worst != before:
            self._outcomes[name] = (worst, _message(report))

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._outcomes), encoding="utf-8")


def _wait_less(wait: Callable[..., None], patience_s: float) -> Callable[..., None]:
    """Where upstream waits 10 s, it is mostly for something that must not happen."""

    def wait_less(
        messages: Any, redis_key: str = "redis-echo", timeout: float = patience_s
    ) -> None:
        wait(messages, redis_key, 2 if timeout == 10 else timeout)

    return wait_less


def _scripts_answer(sha: str) -> list[Any]:
    from swarm.delivery import scripts  # noqa: PLC0415

    return {scripts.TAKE.sha: [0, -1, 0], scripts.RELEASE.sha: [0, 0]}.get(sha, [])


def _message(report: pytest.TestReport) -> str:
    if report.passed or report.longrepr is None:
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)
