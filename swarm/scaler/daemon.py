"""`swarm scaler run`: the loop around the turns, wired to the real world.

    start -> turn -> tell (journal, STATUS, metrics, status.json, watchdog) -> rest -> turn ...
                                                  interval_s, or news of a host   SIGTERM -> leave

Leaving touches no instance: the next start adopts what systemd shows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime

from swarm import logs
from swarm.brokers import Broker, BrokerName
from swarm.delivery.survey import Rhythm
from swarm.environment import (
    read_credential,
    read_metrics_address,
    read_pools_brokers,
    read_settings,
)
from swarm.errors import ConfigError, Problem
from swarm.scaler.adapters.accounts import BrokerAccounts
from swarm.scaler.adapters.ages import Ages
from swarm.scaler.adapters.broker import RedisView
from swarm.scaler.adapters.channel import WatchedUnits
from swarm.scaler.adapters.commands import HANDSHAKES_AT_ONCE, make_runner
from swarm.scaler.adapters.control_socket import ControlSocket, control_path
from swarm.scaler.adapters.decision_log import DecisionLog
from swarm.scaler.adapters.dry_run import DryRunUnits
from swarm.scaler.adapters.flower import FlowerQueues
from swarm.scaler.adapters.lock import hold_lock
from swarm.scaler.adapters.metrics import ScalerMetrics
from swarm.scaler.adapters.order_book import OrderBook
from swarm.scaler.aftermath import Aftermath, Event
from swarm.scaler.control import Control
from swarm.scaler.decisions import Recorder
from swarm.scaler.metering import Meter
from swarm.scaler.model import Outcome
from swarm.scaler.orders import in_force
from swarm.scaler.ports import BrokerSide, UnitManager
from swarm.scaler.reconcile import Reconciler
from swarm.scaler.snapshot import Snapshots
from swarm.scaler.story import Narrator, status_line
from swarm.sdnotify import Notifier
from swarm.settings import Settings

log = logging.getLogger(__name__)

#: A turn that takes longer than this is given up. Its parts are bounded well below (one look and
#: one action, 20 s each at most), so it would be a defect; systemd's watchdog then decides.
_TURN_TIMEOUT_S = 50.0
#: Shortest time in seconds from one turn to the next, however much news there is.
_SHORTEST_INTERVAL_S = 0.5
#: Share of a processor that turns may take for the sake of news. A small fleet's take milliseconds.
_NEWS_SHARE = 0.025
#: Seconds in which every host should have been heard of, or not, before the first turn: else what
#: runs on the others would be taken for the whole fleet.
_SETTLE_S = 20.0


def main(environ: Mapping[str, str] = os.environ, *, dry_run: bool = False) -> int:
    """Run until SIGTERM or SIGINT. A dry run starts and stops nothing.

    Raises:
        ConfigError: before anything has started.
        AlreadyRunningError: another scaler runs here.
    """
    settings = read_settings(environ)
    if not settings.hosts:
        raise ConfigError([Problem("hosts", "nothing", "at least one host to scale on")])
    brokers = read_pools_brokers(settings, environ)
    notifier = Notifier(environ)
    level = environ.get("SWARM_LOGLEVEL", "info")
    logs.setup(level, under_systemd=notifier.under_systemd, environ=environ)
    with hold_lock(settings.scaler.data_directory / "scaler.lock"):
        asyncio.run(Daemon(settings, brokers, notifier, environ, dry_run=dry_run).run())
    return 0


class Daemon:
    """Owns the adapters and the loop."""

    def __init__(
        self,
        settings: Settings,
        brokers: Sequence[Broker],
        notifier: Notifier,
        environ: Mapping[str, str],
        *,
        dry_run: bool = False,
    ) -> None:
        self._settings = settings
        self._brokers = brokers
        self._notifier = notifier
        self._environ = environ
        self._dry_run = dry_run
        self._metrics = ScalerMetrics(settings, dry_run=dry_run)
        self._aftermath = Aftermath()
        self._ages = Ages()
        self._metrics.registry.register(self._ages)
        self._narrator = Narrator(dry_run=dry_run)
        self._snapshots = Snapshots()
        self._accounts: dict[BrokerName, BrokerAccounts] = {}
        self._snapshot_failed = False
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self._orders = OrderBook(settings.scaler.data_directory / "orders.json")
        self._decisions = DecisionLog(settings.scaler.data_directory / "decisions.jsonl")
        self._control = Control(settings, self._orders, clock=time.time, on_order=self._news.set)

    async def run(self) -> None:
        """Turn after turn until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        scaler = self._settings.scaler
        async with AsyncExitStack() as stack:
            address = read_metrics_address(self._environ)
            await self._metrics.serve(address, scaler.metrics_port)
            stack.push_async_callback(self._metrics.close)
            sides = {broker.name: await self._enter(stack, broker) for broker in self._brokers}
            units = await self._watch_hosts(stack)
            stack.callback(self._decisions.close)
            path = control_path(scaler)
            await stack.enter_async_context(ControlSocket(path, self._control.answer))
            await self._loop(Reconciler(self._settings, sides, self._hands(units)))
        self._notifier.stopping("stopped; instances run on")
        log.info("stopped; instances run on")

    def _hands(self, units: Mapping[str, UnitManager]) -> Mapping[str, UnitManager]:
        if not self._dry_run:
            return units
        log.warning("dry run: nothing is started and nothing is stopped")
        return {name: DryRunUnits(each) for name, each in units.items()}

    def _leave(self) -> None:
        self._stop.set()
        self._news.set()

    async def _watch_hosts(self, stack: AsyncExitStack) -> dict[str, WatchedUnits]:
        scaler = self._settings.scaler
        handshakes = asyncio.Semaphore(HANDSHAKES_AT_ONCE)
        units = {}
        for name, host in self._settings.hosts.items():
            runner = make_runner(host, scaler, self._environ, handshakes)
            stack.push_async_callback(runner.close)
            units[name] = await stack.enter_async_context(
                WatchedUnits(
                    name,
                    runner,
                    report_max_age_s=scaler.report_max_age_s,
                    on_news=self._news.set,
                )
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await asyncio.gather(*(each.settled() for each in units.values()))
        return units

    async def _enter(self, stack: AsyncExitStack, broker: Broker) -> BrokerSide:
        alone = len(self._brokers) == 1
        queues = FlowerQueues(
            self._settings.flower,
            read_credential("flower-auth", self._environ),
            broker=broker.name,
            alone=alone,
        )
        view = RedisView(
            broker,
            self._settings.queues(broker=broker.name),
            Rhythm(idle_s=self._settings.scaler.survey_interval_s),
            self._metrics,
            alone=alone,
        )
        await stack.enter_async_context(queues)
        await stack.enter_async_context(view)
        budget = self._settings.broker(broker.name).budget
        if budget is not None:
            accounts = BrokerAccounts(
                broker,
                budget,
                view,
                queues,
                pools=frozenset(self._settings.pools_on(broker.name)),
                directory=self._settings.scaler.data_directory,
            )
            stack.callback(accounts.meter.save)
            self._accounts[broker.name] = accounts
        return BrokerSide(queues, view, metered=budget is not None)

    async def _loop(self, reconciler: Reconciler) -> None:
        first, recorder = True, Recorder(self._settings.scaler, dry_run=self._dry_run)
        while not self._stop.is_set():
            started_at, worked_s = time.monotonic(), time.process_time()
            self._news.clear()
            at, orders = datetime.now(UTC), in_force(self._orders.standing(), self._settings)
            try:
                async with asyncio.timeout(_TURN_TIMEOUT_S):
                    outcome = await reconciler.turn(started_at, at=at, orders=orders)
            except TimeoutError:
                log.error("turn given up after %g s; trying again", _TURN_TIMEOUT_S)  # noqa: TRY400
                continue
            for accounts in self._accounts.values():
                await accounts.account(outcome)
            if (line := recorder.line(outcome, orders, at)) is not None:
                self._decisions.append(line)
            self._tell(outcome, seconds=time.monotonic() - started_at, first=first)
            first = False
            await self._rest(started_at, worked_s=time.process_time() - worked_s)

    async def _rest(self, started_at: float, *, worked_s: float) -> None:
        """Until the interval is over, or a host has news and the last turn is long enough ago."""
        latest = started_at + self._settings.scaler.interval_s
        earliest = started_at + max(_SHORTEST_INTERVAL_S, worked_s / _NEWS_SHARE)
        for event, until in ((self._stop, min(earliest, latest)), (self._news, latest)):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await event.wait()

    def _tell(self, outcome: Outcome, *, seconds: float, first: bool) -> None:
        for is_warning, sentence in self._narrator.lines(outcome):
            log.log(logging.WARNING if is_warning else logging.INFO, sentence)
        for finding in () if self._dry_run else self._aftermath.take(outcome):
            self._metrics.found(finding)
            if finding.event is not Event.REVERSAL:
                log.warning("%s", finding.sentence)
        orders = self._orders.standing()
        self._ages.saw(outcome, orders)
        self._control.saw(outcome)
        self._metrics.show(outcome, seconds=seconds)
        meters: dict[str, Meter] = {
            name: accounts.meter for name, accounts in self._accounts.items()
        }
        self._metrics.show_budgets(meters)
        self._write_snapshot(outcome, meters)
        maxima = {name: pool.max_instances for name, pool in self._settings.pools.items()}
        line = status_line(outcome, maxima, orders)
        if self._dry_run:
            line = f"dry run: {line}"
        if first:
            self._notifier.ready(line)
        else:
            self._notifier.status(line)
        self._notifier.watchdog()

    def _write_snapshot(self, outcome: Outcome, meters: Mapping[str, Meter]) -> None:
        target = self._settings.scaler.state_directory / "status.json"
        scratch = target.with_suffix(".tmp")
        try:
            scratch.write_text(
                self._snapshots.text(
                    outcome, meters, orders=self._orders.standing(), written_at=time.time()
                ),
                "utf-8",
            )
            scratch.replace(target)
        except OSError as exc:
            if not self._snapshot_failed:
                log.warning("%s not written: %s", target, exc.strerror)
            self._snapshot_failed = True
        else:
            self._snapshot_failed = False
