"""What each fault does, and how it is undone: whatever happens, it is undone before it returns.

Each strikes once and returns what it struck, or raises MissedError when there was nothing to.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from kombu.exceptions import OperationalError

from chaos import next_release
from chaos.field import CONTROL, WORKERS, Field, MissedError, holder_prefix
from chaos.ledger import Book, Entry
from chaos.producers import Producers
from chaos.proxy import TrapProxy, Where
from chaos.recovery import Watch, held_by, look
from chaos.schedule import LASTS_S, Fault, Schedule, Strike
from lab.commands import LabError
from swarm.celery_app import app

#: Seconds between a frozen worker's children and their parent on the way back: the children try
#: to commit what has been given to others meanwhile; the parent has systemd's watchdog waiting.
THAW_S = 3.0
#: Bytes that Redis may still take before it is full, and of a task that fills it.
FILL_BYTES, FILLER_BYTES = 3_000_000, 40_000
NEXT_DIRECTORY = "/run/swarm-chaos"
NEXT_DROPIN = "/run/systemd/system/celery-analysis@.service.d/chaos.conf"
NEXT_TASKS = 6


@dataclass(slots=True)
class Stage:
    """All that a fault can touch."""

    field: Field
    schedule: Schedule
    proxy: TrapProxy
    watch: Watch
    producers: Producers
    book: Book
    """Of the tasks that faults submit themselves."""
    _sent: int = 0

    def send(self, task: str, argument: object, kind: str) -> bool:
        """Submit one task and write it down; False when Redis is full.

        Raises:
            OperationalError, redis.RedisError: the broker is away; it is written down as unknown.
        """
        # Numbers that no producer has.
        number = -1 - self._sent
        self._sent += 1
        signature = app.signature(task, args=(argument,))
        task_id = signature.freeze().id
        self.book.write(Entry(number, "sending", kind, (task_id,)))
        try:
            signature.apply_async()
        except OperationalError as exc:
            if isinstance(exc.__cause__, redis.exceptions.OutOfMemoryError):
                self.book.write(Entry(number, "refused", kind, (task_id,)))
                return False
            raise
        self.book.write(Entry(number, "accepted", kind, (task_id,)))
        return True


# -- processes


def kill_worker(stage: Stage, strike: Strike) -> str:
    """kill -9 of an instance's main process."""
    unit, messages = stage.field.stop_busy_worker(strike.host, strike.chance)
    stage.field.note_death(unit)
    struck_at = time.monotonic()
    if unit.main is not None:
        unit.send(signal.SIGKILL, [unit.main])
    unit.send(signal.SIGCONT)
    stage.watch.struck("process", strike.fault, messages, struck_at)
    return f"{unit}, which held {len(messages)}"


def kill_child(stage: Stage, strike: Strike) -> str:
    """kill -9 of the pool processes of an instance."""
    unit, messages = stage.field.stop_busy_worker(
        strike.host, strike.chance, fits=lambda unit: unit.children
    )
    struck_at = time.monotonic()
    unit.send(signal.SIGKILL, unit.children)
    unit.send(signal.SIGCONT)
    stage.watch.struck("process", strike.fault, messages, struck_at)
    return f"{len(unit.children)} of {unit}"


def kill_browser(stage: Stage, strike: Strike) -> str:
    """kill -9 of the Chromium of an instance."""
    unit, _ = stage.field.stop_busy_worker(
        strike.host, strike.chance, fits=lambda unit: unit.browsers
    )
    unit.send(signal.SIGKILL, unit.browsers)
    unit.send(signal.SIGCONT)
    return f"{len(unit.browsers)} of {unit}"


def _kill_between(stage: Stage, strike: Strike, where: Where) -> str:
    killed: list[str] = []

    def spring(holder: str) -> bool:
        units = stage.field.workers(strike.host)
        for name, unit in units.items():
            if holder.startswith(holder_prefix(strike.host, name)) and unit.main is not None:
                with contextlib.closing(stage.field.redis()) as client:
                    messages = held_by(look(client), holder)
                # A commit is a pool process's, if there is one: it or the whole instance dies.
                whole = where == "after a take" or strike.chance < 0.5 or not unit.children
                if whole:
                    stage.field.note_death(unit)
                struck_at = time.monotonic()
                unit.send(signal.SIGKILL, [unit.main] if whole else unit.children)
                stage.watch.struck("process", strike.fault, messages, struck_at)
                killed.append(f"{unit}{'' if whole else ', its child'}")
                return True
        return False

    if not stage.proxy.catch(where, spring, timeout_s=LASTS_S[strike.fault]):
        raise MissedError(f"nothing passed {where} on {strike.host}")
    return killed[-1]


def kill_at_take(stage: Stage, strike: Strike) -> str:
    """Between the reply to a take and the next command."""
    return _kill_between(stage, strike, "after a take")


def kill_at_commit(stage: Stage, strike: Strike) -> str:
    """Between the end of a body and its commit."""
    return _kill_between(stage, strike, "before a commit")


def kill_after_commit(stage: Stage, strike: Strike) -> str:
    """Between a commit and the worker's learning of it."""
    return _kill_between(stage, strike, "after a commit")


def freeze_worker(stage: Stage, strike: Strike) -> str:
    """SIGSTOP of an instance until others have what it held, then SIGCONT."""
    unit, messages = stage.field.stop_busy_worker(strike.host, strike.chance)
    stage.field.frozen.add(str(unit))
    struck_at = time.monotonic()
    stage.watch.struck("lease", strike.fault, messages, struck_at)
    try:
        _wait_for_reaper(stage, strike.fault, struck_at + LASTS_S[strike.fault])
    finally:
        main = unit.main
        unit.send(signal.SIGCONT, [each for each in unit.processes if each != main])
        time.sleep(THAW_S)
        unit.send(signal.SIGCONT)
        stage.field.frozen.discard(str(unit))
    if stage.watch.open_victims(strike.fault):
        raise LabError(f"{unit} kept what it held for {LASTS_S[strike.fault]:g} s without a lease")
    return f"{unit} for {time.monotonic() - struck_at:.0f} s"


def _wait_for_reaper(stage: Stage, fault: Fault, until: float) -> None:
    while stage.watch.open_victims(fault) and time.monotonic() < until:
        time.sleep(0.2)


def _systemctl(stage: Stage, strike: Strike, verb: str) -> str:
    names = sorted(stage.field.workers(strike.host))
    if not names:
        raise MissedError(f"no instance runs on {strike.host}")
    name = names[int(strike.chance * len(names))]
    stage.field.on(strike.host, f"systemctl {verb} --no-block {name}")
    return f"{name} on {strike.host}"


def restart_unit(stage: Stage, strike: Strike) -> str:
    """As an operator does it."""
    return _systemctl(stage, strike, "restart")


def stop_unit(stage: Stage, strike: Strike) -> str:
    """As an operator does it; the scaler starts what it needs."""
    return _systemctl(stage, strike, "stop")


def kill_producer(stage: Stage, strike: Strike) -> str:
    """kill -9 while it submits."""
    return stage.producers.kill(strike.chance)


# -- hosts and the network


def kill_host(stage: Stage, strike: Strike) -> str:
    """All of a host ends at once; it boots when others have what it held."""
    field = stage.field
    with contextlib.closing(field.redis()) as client:
        field.busy_worker(strike.host, strike.chance, timeout_s=30)
        messages = held_by(look(client), f"{strike.host}:")
    struck_at = time.monotonic()
    field.away.add(strike.host)
    try:
        field.podman("kill", "--signal", "KILL", field.container(strike.host))
        stage.watch.struck("host", strike.fault, messages, struck_at)
        _wait_for_reaper(stage, strike.fault, struck_at + LASTS_S[strike.fault])
    finally:
        field.podman("start", field.container(strike.host))
        field.until_reachable(strike.host)
        if strike.host == stage.schedule.proxied:
            field.lead_through(strike.host, stage.proxy.port)
        field.away.discard(strike.host)
    return f"{strike.host}, which held {len(messages)}"


def _cut(stage: Stage, strike: Strike) -> str:
    field = stage.field
    with contextlib.closing(field.redis()) as client:
        with contextlib.suppress(MissedError):
            field.busy_worker(strike.host, strike.chance)
        messages = held_by(look(client), f"{strike.host}:")
    struck_at = time.monotonic()
    field.away.add(strike.host)
    try:
        field.cut(strike.host, stage.proxy.port)
        time.sleep(LASTS_S[strike.fault])
    finally:
        field.mend(strike.host, stage.proxy.port)
        field.away.discard(strike.host)
    return f"{strike.host}, which held {len(messages)}, {time.monotonic() - struck_at:.0f} s"


def cut_long(stage: Stage, strike: Strike) -> str:
    """For longer than a lease."""
    return _cut(stage, strike)


def cut_short(stage: Stage, strike: Strike) -> str:
    """Not for long enough that anything is given up."""
    begin = time.monotonic()
    # Until its workers have connected again.
    stage.watch.outages.append((begin, begin + LASTS_S[strike.fault] + 10, f"{strike.host}:"))
    return _cut(stage, strike)


# -- Redis


@contextlib.contextmanager
def _outage(stage: Stage) -> Iterator[None]:
    begin = time.monotonic()
    at = len(stage.watch.outages)
    stage.watch.outages.append((begin, begin + 3600, ""))
    try:
        yield
    finally:
        stage.field.until_redis_answers()
        # Workers ask again after up to 2 s.
        stage.watch.outages[at] = (begin, time.monotonic() + 3, "")


def _redis_server(stage: Stage) -> tuple[int, Callable[[signal.Signals], None]]:
    unit = stage.field.units(CONTROL.name)["redis-server.service"]
    main = unit.main
    if main is None:
        raise MissedError("Redis does not run")
    return main.pid, lambda number: unit.send(number, [main])


def kill_redis(stage: Stage, _strike: Strike) -> str:
    """kill -9; systemd starts it again."""
    pid, send = _redis_server(stage)
    with _outage(stage):
        send(signal.SIGKILL)
        time.sleep(0.5)
    return f"process {pid}"


def restart_redis(stage: Stage, _strike: Strike) -> str:
    """As an operator does it."""
    with _outage(stage):
        stage.field.on(CONTROL.name, "systemctl restart redis-server.service")
    return "by systemd"


def pause_redis(stage: Stage, strike: Strike) -> str:
    """SIGSTOP, then SIGCONT: connections stay, and nothing answers."""
    _, send = _redis_server(stage)
    with _outage(stage):
        try:
            send(signal.SIGSTOP)
            time.sleep(LASTS_S[strike.fault])
        finally:
            send(signal.SIGCONT)
    return f"for {LASTS_S[strike.fault]:g} s"


def fill_redis(stage: Stage, strike: Strike) -> str:
    """Its limit is moved to just above what it uses, and tasks are submitted until it refuses."""
    filler = {"html": f"<p>Full</p><!-- {'x' * FILLER_BYTES} -->"}
    deadline = time.monotonic() + LASTS_S[strike.fault]
    accepted, refused = 0, False
    with contextlib.closing(stage.field.redis()) as client:
        limit = client.config_get("maxmemory")["maxmemory"]
        used = int(client.info("memory")["used_memory"])
        try:
            client.config_set("maxmemory", used + FILL_BYTES)
            while time.monotonic() < deadline and not refused:
                refused = not stage.send("analysis.run", filler, "filler")
                accepted += not refused
            full_at = time.monotonic()
            drained = False
            while refused and not drained and time.monotonic() < deadline:
                time.sleep(0.5)
                drained = stage.send("analysis.run", filler, "filler")
        finally:
            client.config_set("maxmemory", str(limit))
    if not refused:
        raise MissedError(f"not full after {accepted} tasks")
    if not drained:
        raise LabError(f"a full Redis was not drained within {LASTS_S[strike.fault]:g} s")
    return f"with {accepted} tasks, drained after {time.monotonic() - full_at:.1f} s"


# -- releases


def upgrade(stage: Stage, strike: Strike) -> str:
    """One host after the other gets a release with a task that is sent already."""
    first = [strike.host, *(host for host in WORKERS if host != strike.host)]
    sent = _send_next(stage)
    for host in first:
        # Whoever takes one now does not know it.
        time.sleep(4)
        install_next(stage.field, host)
        sent += _send_next(stage)
    if not sent:
        raise MissedError("Redis was away")
    return f"{sent} tasks of the next release, {first[0]} first"


def _send_next(stage: Stage) -> int:
    """As many as the broker takes, which may be away."""
    sent = 0
    for number in range(NEXT_TASKS):
        with contextlib.suppress(OperationalError, redis.RedisError):
            sent += stage.send(next_release.NAME, number, "next")
    return sent


def install_next(field: Field, host: str) -> None:
    """An instance of the next release: this one, with one task more."""
    source = Path(next_release.__file__).read_text(encoding="utf-8")
    start = "import next_release; from swarm.cli import main; main()"
    dropin = (
        f"[Service]\nEnvironment=PYTHONPATH={NEXT_DIRECTORY}\nExecStart=\n"
        f'ExecStart=/opt/swarm/current/bin/python -c "{start}" worker\n'
    )
    field.write(host, f"{NEXT_DIRECTORY}/next_release.py", source)
    field.write(host, NEXT_DROPIN, dropin)
    field.on(host, "systemctl daemon-reload; systemctl try-restart --no-block 'celery-analysis@*'")


def remove_next(field: Field, host: str) -> None:
    """Back to the release that is deployed."""
    there = field.on(host, f"test -e {NEXT_DROPIN} && echo there || true")
    if there:
        field.on(
            host,
            f"rm -r {NEXT_DROPIN} {NEXT_DIRECTORY}; systemctl daemon-reload; "
            "systemctl try-restart --no-block 'celery-analysis@*'",
        )


FAULTS: dict[Fault, Callable[[Stage, Strike], str]] = {
    "kill_worker": kill_worker,
    "kill_child": kill_child,
    "kill_browser": kill_browser,
    "kill_at_take": kill_at_take,
    "kill_at_commit": kill_at_commit,
    "kill_after_commit": kill_after_commit,
    "restart_unit": restart_unit,
    "stop_unit": stop_unit,
    "kill_producer": kill_producer,
    "freeze_worker": freeze_worker,
    "kill_host": kill_host,
    "cut_long": cut_long,
    "cut_short": cut_short,
    "kill_redis": kill_redis,
    "restart_redis": restart_redis,
    "pause_redis": pause_redis,
    "fill_redis": fill_redis,
    "upgrade": upgrade,
}
