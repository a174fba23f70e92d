"""The hostile corpus on the deployed lab: in the hardened unit, behind the egress proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from swarm.client import TaskResult
from tests.hostile.corpus import CORPUS, REACH, SCRIPTS, Row
from tests.lab.test_egress import CONTROL, HOSTS, SEEN, WORKERS, running, seen

if TYPE_CHECKING:
    from tests.lab.conftest import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

BASES = {"plain": f"http://{CONTROL}:8090"}
#: Beside others they would only measure how few processors the lab has.
_GREEDY = frozenset({"memory", "fetches", "console", "errors", "bomb"})
ROWS = [
    row
    for row in CORPUS
    if row.base == "plain" and row not in SCRIPTS and (not row.alone or row.name in _GREEDY)
]
#: Also right here: what the proxy makes of answers that are none, and what the lab's processors,
#: which all instances share, do not get done in time.
ALSO_RIGHT: Mapping[str, frozenset[str]] = {
    "garbage": frozenset({"HTTP_STATUS", "NAVIGATION", "ok"}),
    "headers": frozenset({"HTTP_STATUS", "NAVIGATION"}),
    "proxy-auth": frozenset({"HTTP_STATUS", "NAVIGATION"}),
    "cookies": frozenset({"NAVIGATION"}),
    "memory": frozenset({"DEADLINE"}),
    "big-text": frozenset({"DEADLINE"}),
    "big-article": frozenset({"DEADLINE"}),
    "cut": frozenset({"NAVIGATION", "NAV_TIMEOUT", "HTTP_STATUS"}),
}


@pytest.fixture(scope="module")
def hostile(_lab: Lab) -> Iterator[Lab]:
    """The lab with the hostile site on control, and on every host a witness."""
    with ExitStack() as stack:
        for host in HOSTS:
            stack.enter_context(running(_lab, host, "witness", SEEN))
        modules = ("hostile/pages", "hostile/server")
        words = ("--bind", "0.0.0.0", "--port", "8090")
        stack.enter_context(running(_lab, "control", "hostile_site", *words, modules=modules))
        yield _lab


@pytest.fixture(scope="module")
def results(hostile: Lab) -> dict[str, TaskResult]:
    """All rows at once, as tasks; transient failures are tried again, as those of anybody."""
    ids = [hostile.client.submit("browser", row.payload(BASES)) for row in ROWS]
    names = [row.name for row in ROWS]
    return dict(zip(names, hostile.results(ids, timeout_s=230), strict=True))


def end(result: TaskResult) -> str:
    """Its status or the code of its error; of a page that floods there may be nothing else."""
    if result.value is None:
        return str(result.error).split()[1]
    error: dict[str, Any] | None = result.value["error"]
    return str(error["code"]) if error else str(result.value["status"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_hostile_page_ends_in_time_with_its_code(
    results: dict[str, TaskResult], row: Row
) -> None:
    result = results[row.name]
    assert end(result) in row.codes | ALSO_RIGHT.get(row.name, frozenset()), result.error
    if result.value is not None:
        assert result.value["timings_s"]["total"] <= row.deadline_s + 2


def test_no_page_reaches_a_forbidden_address_by_any_way(hostile: Lab) -> None:
    ids = [hostile.client.submit("browser", row.payload(BASES)) for row in REACH]
    assert {end(result) for result in hostile.results(ids)} == {"ok"}
    assert seen(hostile) == []


def test_the_witnesses_see_whoever_is_not_held(hostile: Lab) -> None:
    """Without this the last one could not fail."""
    hostile.on("worker1", f"timeout 5 bash -c 'exec 3<>/dev/tcp/{CONTROL}/7777'")
    assert len(seen(hostile)) == 1


def test_workers_go_on_and_nothing_is_left(hostile: Lab, results: dict[str, TaskResult]) -> None:
    assert results
    ordinary = hostile.results(hostile.submit_pages(6))
    assert [result.state for result in ordinary] == ["done"] * 6
    hostile.until_at_rest()
    for host in WORKERS:
        # Those that were just told to stop take a moment.
        hostile.until(partial(has_no_stray, hostile, host), f"nothing left behind on {host}")


def has_no_stray(lab: Lab, host: str) -> bool:
    """One browser for each instance, with what belongs to it, and one directory of its engine."""
    browsers = lab.on(host, "pgrep -fc -- '[-]-remote-debugging-pipe' || true")
    left = lab.on(host, "ls -d /tmp/systemd-private-*/tmp/swarm-engine-* | wc -l")
    instances = lab.on(host, "systemctl list-units -q --state=active 'celery-browser@*' | wc -l")
    return int(browsers) <= int(instances) * 3 and int(left) <= int(instances)
