"""`make demo`: deploy to the lab, run browser tasks, watch the scaler grow and shrink the pool.

The last line is one JSON object of what was observed. Exit status 0 only when every task
succeeded and the pool grew and shrank as it should.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.commands import LabError, run_logged
from lab.hosts import PAGES_URL, on_host, use_lab_settings
from lab.state import State, default_directory
from lab.topology import HOSTS
from lab.watch import Glance, Tasks, header, progress_bar, watch
from swarm.celery_app import app
from swarm.client import Client
from swarm.errors import SwarmError

BROWSER_TASKS = 200
#: Pages of the demo site; odd ones answer after one to three seconds.
PAGES = 40
POOL = "browser"
#: Of the lab's inventory.
MAX_INSTANCES = 6
#: Bounds in seconds: on two cores the tasks take about one minute, shrinking another.
DEPLOY_TIMEOUT_S = 900
WORK_TIMEOUT_S = 420
SHRINK_TIMEOUT_S = 240

WORKERS = [host.name for host in HOSTS if host.name != "control"]


def main() -> int:
    """Run the demo; returns the exit status."""
    state = State(default_directory())
    try:
        return demonstrate(state)
    except (LabError, SwarmError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1


def demonstrate(state: State) -> int:
    """The whole story: deploy, submit, watch, tell."""
    deploy(state)
    use_lab_settings(state)
    tasks = Tasks(Client(app))
    glances = wait_until_at_rest(state)
    smallest = glances[-1].total
    print(f"\nSubmitting {BROWSER_TASKS} browser tasks on {PAGES_URL}/page/1 to {PAGES}")
    since = time.monotonic()
    for number in range(BROWSER_TASKS):
        tasks.ids.append(tasks.client.submit("browser", browser_payload(number)))
    submitted_s = time.monotonic() - since
    print(f"{BROWSER_TASKS} tasks queued in {submitted_s:.1f} s\n")
    print(header(WORKERS))
    glances = work(state, tasks, since=since)
    worked_s = time.monotonic() - since
    glances += shrink(state, smallest=smallest, since=since)
    analysis = analyse_one_page(tasks)
    summary = {
        "submitted": len(tasks.ids),
        "succeeded": len(tasks.succeeded),
        "failed": len(tasks.failed),
        "lost": tasks.missing,
        "max_instances": max(glance.total for glance in glances),
        "hosts_used": len({result.value["host"] for result in tasks.succeeded}),
        "instances_after": active_units(state, POOL),
        "seconds": round(worked_s, 1),
        "tasks_per_s": round(len(tasks.succeeded) / worked_s, 2),
        "analysis_done_by": analysis,
    }
    tell(state, tasks, summary)
    print(json.dumps(summary))
    good = (
        summary["succeeded"] == BROWSER_TASKS
        and summary["max_instances"] == MAX_INSTANCES
        and analysis is not None
        and summary["hosts_used"] == len(WORKERS)
        and summary["instances_after"] == smallest
    )
    return 0 if good else 1


def deploy(state: State) -> None:
    """The production playbook on the lab's inventory, then the demo's page server."""
    for title, playbook in (("the swarm", "playbooks/deploy.yml"), ("the pages", "lab/pages.yml")):
        log = state.log(Path(playbook).stem)
        argv = [str(Path(sys.executable).with_name("ansible-playbook"))]
        argv += ["-i", "inventories/lab", playbook]
        print(f"deploying {title}: {shlex.join(['ansible-playbook', *argv[1:]])}", flush=True)
        started = time.monotonic()
        try:
            run_logged(argv, log, timeout_s=DEPLOY_TIMEOUT_S)
        except LabError:
            print("\n".join(log.read_text(encoding="utf-8").splitlines()[-40:]), file=sys.stderr)
            raise
        recap = [line for line in log.read_text(encoding="utf-8").splitlines() if "ok=" in line]
        print("\n".join(f"  {line}" for line in recap))
        print(f"  in {time.monotonic() - started:.0f} s, all of it in {log}", flush=True)


def wait_until_at_rest(state: State) -> list[Glance]:
    """Until nothing waits, and as many run as are desired."""
    since = time.monotonic()
    for glance in watch(str(state.ssh_config), POOL, since=since, pause_s=1):
        if glance.waiting == 0 and glance.total == glance.desired and glance.total <= 1:
            return [glance]
        if glance.seconds > SHRINK_TIMEOUT_S:
            raise LabError(f"the pool did not come to rest in {SHRINK_TIMEOUT_S} s")
    raise AssertionError


def browser_payload(number: int) -> dict[str, Any]:
    """One of four kinds of task, on one of the pages."""
    actions: list[list[dict[str, Any]]] = [
        [{"kind": "screenshot"}],
        [{"kind": "text"}],
        [{"kind": "html"}],
        [
            {
                "kind": "extract",
                "fields": {
                    "heading": {"selector": "h1"},
                    "links": {"selector": "a", "attribute": "href", "many": True},
                },
            }
        ],
    ]
    page = number % PAGES + 1
    # Kinds and pages run through each other, so that every page meets every kind.
    kind = (number // PAGES + number) % len(actions)
    return {"url": f"{PAGES_URL}/page/{page}", "actions": actions[kind]}


def work(state: State, tasks: Tasks, *, since: float) -> list[Glance]:
    """Show the timeline until every result is there."""
    glances: list[Glance] = []
    terminal = sys.stdout.isatty()
    for glance in watch(str(state.ssh_config), POOL, since=since, pause_s=0.5):
        tasks.collect()
        show(glance, glances, clear=terminal)
        glances.append(glance)
        if terminal:
            print(f"\r{progress_bar(len(tasks.results), len(tasks.ids))}", end="", flush=True)
        if tasks.missing == 0:
            break
        if glance.seconds > WORK_TIMEOUT_S:
            print(f"\ngiving up after {WORK_TIMEOUT_S} s")
            break
    print(f"\r{progress_bar(len(tasks.results), len(tasks.ids))}\n", flush=True)
    return glances


def shrink(state: State, *, smallest: int, since: float) -> list[Glance]:
    """Show the timeline until the pool is as small as it was."""
    print("All results are in; the scaler stops instances that prove idle.\n")
    print(header(WORKERS))
    glances: list[Glance] = []
    for glance in watch(str(state.ssh_config), POOL, since=since, pause_s=1):
        show(glance, glances, clear=False)
        glances.append(glance)
        if glance.total <= smallest or glance.seconds > WORK_TIMEOUT_S + SHRINK_TIMEOUT_S:
            return glances
    raise AssertionError


def show(glance: Glance, earlier: Sequence[Glance], *, clear: bool) -> None:
    """A line when something changed, or ten seconds after the last one."""
    last = earlier[-1] if earlier else None
    if (
        last is None
        or (last.desired, last.running) != (glance.desired, glance.running)
        or int(last.seconds) // 10 != int(glance.seconds) // 10
    ):
        if clear:
            print("\r\033[K", end="")
        print(glance.row(), flush=True)


def analyse_one_page(tasks: Tasks) -> str | None:
    """Give a page that a browser task brought to the analysis pool; the scaler starts it."""
    pages = (result.value["data"].get("html") for result in tasks.succeeded)
    html = next((page for page in pages if page), None)
    if html is None:
        return None
    print("\nOne analysis task: the pool runs no instance, so the scaler starts one for it.")
    task_id = tasks.client.submit("analysis", {"html": html, "url": f"{PAGES_URL}/"})
    result = tasks.client.result(task_id, wait_s=60)
    if result.state != "done":
        print(f"  the analysis task is {result.state}: {result.error}")
        return None
    title, words = result.value["title"], result.value["words"]
    print(f'  "{title}", {words} words, done on {result.value["host"]}')
    return str(result.value["host"])


def active_units(state: State, pool: str) -> int:
    """What systemd itself says, on every host, of the pool's running instances."""
    command = f"systemctl list-units --no-legend --plain --state=active 'celery-{pool}@*'"
    return sum(len(on_host(state, host, command).splitlines()) for host in WORKERS)


def tell(state: State, tasks: Tasks, summary: dict[str, Any]) -> None:
    """The summary, and what to open and type next."""
    by_host: dict[str, int] = {}
    for result in tasks.succeeded:
        by_host[result.value["host"]] = by_host.get(result.value["host"], 0) + 1
    shares = ", ".join(f"{count} on {host}" for host, count in sorted(by_host.items()))
    print(f"\n{summary['succeeded']} of {summary['submitted']} tasks succeeded: {shares}")
    for result in tasks.failed[:5]:
        print(f"  failed: {result.id}: {result.error}")
    artifact = next(
        (artifact for result in tasks.succeeded for artifact in result.value["artifacts"]), None
    )
    if artifact is None:
        return
    ssh = f"ssh -F {state.ssh_config}"
    screenshot = state.directory / "screenshot.png"
    fetch = [*shlex.split(ssh), "control", f"swarm artifact get {artifact['id']} -o -"]
    with screenshot.open("wb") as file:
        subprocess.run(fetch, stdout=file, check=True, timeout=30)
    control = HOSTS[0].address
    flower, prometheus = (
        (state.directory / "passwords" / name).read_text(encoding="utf-8").strip()
        for name in ("flower", "prometheus")
    )
    payload = shlex.quote(json.dumps(browser_payload(0)))
    print(f"""
Open
  Flower       http://{control}:5555  swarm {flower}
  Prometheus   http://{control}:9090/classic/targets  swarm {prometheus}
  A screenshot {screenshot}
               (from {artifact["url"]})

Try
  {ssh} worker1 "systemctl status 'celery-browser@*'"
  {ssh} control journalctl -u swarm-scaler -n 40
  echo {payload} | {ssh} control swarm submit browser - --wait 30
  {ssh} control swarm artifact get {artifact["id"]} -o - >another.png

The lab runs on; `make down` removes it.
""")


if __name__ == "__main__":
    sys.exit(main())
