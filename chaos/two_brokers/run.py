"""A run with two brokers, from the first task to the last word, told as it happens."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from chaos.deployed_lab import CONTROL, WORKERS, MissedError
from chaos.play import DRAIN_TIMEOUT_S, Story
from chaos.preparation import begin_append_only_file, leftovers, read_append_only_file
from chaos.two_brokers.calls import Call, Window, come_back
from chaos.two_brokers.conclusion import RunRecord, describe, find_problems, summarise
from chaos.two_brokers.faults import deal, struck
from chaos.two_brokers.handles import Answer, Handles
from chaos.two_brokers.judgement import judge_both
from chaos.two_brokers.producer import TASKS_A_MINUTE
from chaos.two_brokers.producers import EVERYWHERE, ON_THE_CUT_HOST, Producers
from chaos.two_brokers.schedule import Blow, Strike, make_strikes
from chaos.two_brokers.stand import Stand, stand
from chaos.witness import examine, read_commands
from lab.state import State
from swarm.brokers import BrokerName

#: Seconds of quiet work before the first strike.
_LEAD_S = 15.0
#: Seconds after a strike in which all must have gone back: the longest pause between two trials
#: of a broker that was away for so long, a trial's own time, and 10 s of good answers.
_RETURN_S = 90.0
#: Of how many tasks one has its handle asked for: the fallback's meanwhile, all at the end.
_EVERY, _EVERY_EARLY = 10, 3
#: Seconds that a handle is given.
_HANDLE_S, _EARLY_HANDLE_S = 20.0, 60.0
_SPOOLED = "find /var/lib/swarm/spool -type f"
_FAILED = "systemctl list-units --failed --plain --no-legend 'celery-*' 'swarm-*' 'flower@*'"


def run_two(state: State, seed: int) -> int:
    """One run; the exit status says whether it is good."""
    strikes = make_strikes(seed, (WORKERS[0], WORKERS[1]))
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        directory = Path(name)
        with stand(state, directory) as made:
            story = Story()
            story.tell(f"seed {seed}: {', '.join(strike.kind for strike in strikes)}")
            record = _Run(made, directory, story, seed).record(strikes)
    for line in describe(record):
        print(line)
    print(f"in {time.monotonic() - story.begun:.0f} s\n", flush=True)
    problems = [*story.errors, *find_problems(strikes, story.struck, record)]
    for problem in problems:
        print(f"chaos: {problem}", flush=True)
    print(json.dumps(summarise(seed, story.struck, record)))
    return 1 if problems else 0


class _Run:
    """The parts of a run, and what they leave behind."""

    def __init__(self, made: Stand, directory: Path, story: Story, seed: int) -> None:
        self._stand, self._story, self._directory = made, story, directory
        self._producers = Producers(directory, seed, uuid4().hex)
        self._early = self._handles("early")
        self._windows: list[Window] = []

    def record(self, strikes: tuple[Strike, ...]) -> RunRecord:
        bases = {name: begin_append_only_file(lab) for name, lab in self._stand.labs.items()}
        try:
            self._producers.start(self._stand)
            time.sleep(max(0.0, self._producers.begun + _LEAD_S - time.monotonic()))
            for strike in strikes:
                self._strike(strike)
            self._story.errors += self._producers.finish()
            seconds = time.monotonic() - self._producers.begun
            self._story.tell("all is submitted")
            left, spooled = self._drain()
            early = self._early.finish(_EARLY_HANDLE_S)
        finally:
            self._producers.stop()
            self._early.stop()
        evidence = {
            name: examine(read_commands(read_append_only_file(lab, bases[name])))
            for name, lab in self._stand.labs.items()
        }
        calls = self._producers.calls()
        verdict = judge_both(calls, evidence)
        asked, late = self._ask_all(verdict.due[::_EVERY])
        asked += self._early.asked
        told = {each.id for each in (*early, *late)}
        return RunRecord(
            seconds,
            TASKS_A_MINUTE,
            calls,
            self._windows,
            verdict,
            early,
            late,
            [task_id for task_id in asked if task_id not in told],
            left,
            spooled,
            self._failed_units(),
        )

    # -- strikes

    def _strike(self, strike: Strike) -> None:
        begun = time.monotonic()
        affected = ON_THE_CUT_HOST if strike.kind == "host_cut" else EVERYWHERE
        self._story.tell(f"{strike.kind} for {strike.lasts_s:g} s")
        try:
            with self._dealing(strike.meanwhile), struck(self._stand, strike.kind):
                self._ask_early(begun, begun + strike.lasts_s)
        except Exception as exc:  # noqa: BLE001 - told, and the run fails for it
            self._story.errors.append(f"{strike.kind}: {exc!r}")
        else:
            self._story.struck[strike.kind] += 1
        window = Window(strike.kind, begun, time.monotonic(), affected)
        self._windows.append(window)
        self._wait_for_return(window)
        with self._dealing(strike.afterwards):
            time.sleep(strike.gap_s)

    def _wait_for_return(self, window: Window) -> None:
        deadline = window.ended + _RETURN_S
        while (now := time.monotonic()) < deadline:
            if window.affected <= come_back(self._producers.calls(), window, float("inf")):
                self._story.tell(f"{window.kind}: all are back, {now - window.ended:.0f} s after")
                return
            time.sleep(0.5)
        self._story.tell(f"{window.kind}: not all are back")

    @contextlib.contextmanager
    def _dealing(self, blows: list[Blow]) -> Iterator[None]:
        threads = [
            threading.Thread(target=self._deal, args=(blow, time.monotonic()), name=blow.name)
            for blow in blows
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join()

    def _deal(self, blow: Blow, begun: float) -> None:
        time.sleep(max(0.0, begun + blow.at_s - time.monotonic()))
        try:
            what = deal(self._stand, blow)
        except MissedError as exc:
            self._story.tell(f"{blow.name}: missed, {exc}")
        except Exception as exc:  # noqa: BLE001 - told, and the run fails for it
            self._story.errors.append(f"{blow.name}: {exc!r}")
            self._story.tell(f"{blow.name}: FAILED, {exc!r}")
        else:
            self._story.struck[blow.name] += 1
            self._story.tell(f"{blow.name}: {what}")

    # -- handles

    def _handles(self, name: str) -> Handles:
        path = self._directory / f"handles-{name}"
        return Handles(path, self._stand.prefix(), self._stand.environ)

    def _ask_early(self, begun: float, until: float) -> None:
        """Until a moment, ask for results of what the fallback accepts meanwhile."""
        seen = 0
        while time.monotonic() < until:
            calls = [call for call in self._producers.calls() if _is_early(call, begun)]
            for call in calls[seen:]:
                if seen % _EVERY_EARLY == 0:
                    self._early.ask(call.ids[-1], _EARLY_HANDLE_S)
                seen += 1
            time.sleep(0.5)

    def _ask_all(self, task_ids: tuple[str, ...]) -> tuple[list[str], list[Answer]]:
        handles = self._handles("late")
        try:
            for task_id in task_ids:
                handles.ask(task_id, _HANDLE_S)
            answers = handles.finish(len(task_ids) * _HANDLE_S)
        finally:
            handles.stop()
        return handles.asked, answers

    # -- the end

    def _drain(self) -> tuple[dict[BrokerName, dict[str, int]], list[str]]:
        """Wait until nothing is left; what is, and what of it lies on hosts."""
        quiet, deadline = 0, time.monotonic() + DRAIN_TIMEOUT_S
        while True:
            left = {
                name: counts for name, lab in self._stand.labs.items() if (counts := leftovers(lab))
            }
            spooled = [] if left else self._on_all(_SPOOLED)
            quiet = 0 if left or spooled else quiet + 1
            if quiet == 3 or time.monotonic() > deadline:
                self._story.tell("drained" if quiet == 3 else f"not drained: {left} {spooled}")
                return left, self._on_all(_SPOOLED)
            time.sleep(0.5)

    def _failed_units(self) -> list[str]:
        return self._on_all(_FAILED)

    def _on_all(self, command: str) -> list[str]:
        lab = self._stand.lab
        return [
            f"{host}: {line}"
            for host in (CONTROL.name, *WORKERS)
            for line in lab.on(host, f"{command} || true").splitlines()
        ]


def _is_early(call: Call, begun: float) -> bool:
    return (
        call.status == "accepted"
        and call.broker == "fallback"
        and call.at >= begun
        and call.kind in {"page", "analysis", "slow", "keyed"}
    )
