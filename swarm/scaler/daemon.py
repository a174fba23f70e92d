"""`swarm scaler run`: the loop around the turns, wired to the real world.

    start -> turn -> tell (journal, STATUS, metrics, status.json, watchdog) -> rest -> turn ...
                                                  interval_s, or news of a host   SIGTERM -> leave

Leaving touches no instance: the next start adopts what systemd shows. A config.yaml that was
replaced, or SIGHUP, has the hosts read anew before the next turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import get_args

from swarm import logs
from swarm.brokers import Broker, BrokerName
from swarm.delivery.survey import Rhythm
from swarm.environment import (
    LogLevel,
    read_credential,
    read_metrics_address,
    read_pools_brokers,
)
from swarm.errors import ConfigError
from swarm.scaler.adapters.accounts import BrokerAccounts
from swarm.scaler.adapters.ages import Ages
from swarm.scaler.adapters.broker import RedisView
from swarm.scaler.adapters.channel import WatchedUnits
from swarm.scaler.adapters.commands import HANDSHAKES_AT_ONCE, make_runner
from swarm.scaler.adapters.control_socket import ControlSocket, control_path
from swarm.scaler.adapters.decision_log import DecisionLog
from swarm.scaler.adapters.dry_run import DryRunUnits
from swarm.scaler.adapters.flower import FlowerQueues
from swarm.scaler.adapters.known_hosts import KnownHosts
from swarm.scaler.adapters.lock import hold_lock
from swarm.scaler.adapters.metrics import ScalerMetrics
from swarm.scaler.adapters.order_book import OrderBook
from swarm.scaler.aftermath import Aftermath, Event
from swarm.scaler.clock import since_boot
from swarm.scaler.config_file import ConfigFile, read_with_hosts
from swarm.scaler.control import Control
from swarm.scaler.decisions import Recorder
from swarm.scaler.hosts import Hosts
from swarm.scaler.metering import Meter
from swarm.scaler.model import Outcome
from swarm.scaler.orders import in_force
from swarm.scaler.ports import BrokerSide, UnitManager
from swarm.scaler.reconcile import Reconciler
from swarm.scaler.snapshot import Snapshots
from swarm.scaler.story import Narrator, status_line
from swarm.sdnotify import Notifier
from swarm.settings import HostSettings, Settings
from swarm.variables import VariableReader

log = logging.getLogger(__name__)

#: A turn that takes longer than this is given up. Its parts are bounded well below (one look and
#: one action, 20 s each at most), so it would be a defect; systemd's watchdog then decides.
_TURN_TIMEOUT_S = 50.0
#: Shortest time in seconds from one turn to the next, however much news there is.
SHORTEST_INTERVAL_S = 0.5
#: The same for what is due: a proof that is complete, or one reading too many.
SHORTEST_WAIT_S = 0.25
#: Share of a processor that turns may take for the sake of either: milliseconds in a small fleet.
_NEWS_SHARE = 0.025
#: Seconds in which every host should have been heard of, or not, before the first turn: else what
#: runs on the others would be taken for the whole fleet.
_SETTLE_S = 20.0
#: The same for a host that has another name now; turns wait for it.
_RENAMED_SETTLE_S = 5.0


def main(environ: Mapping[str, str] = os.environ, *, dry_run: bool = False) -> int:
    """Run until SIGTERM or SIGINT. A dry run starts and stops nothing.

    Raises:
        ConfigError: before anything has started.
        AlreadyRunningError: another scaler runs here.
    """
    settings = read_with_hosts(environ)
    brokers = read_pools_brokers(settings, environ)
    notifier = Notifier(environ)
    reader = VariableReader(environ)
    level = reader.choice("SWARM_LOGLEVEL", get_args(LogLevel), default="info")
    if reader.problems:
        raise ConfigError(reader.problems)
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
        self._config = ConfigFile(settings, environ)
        self._known_hosts = KnownHosts(settings.scaler.known_hosts)
        self._handshakes = asyncio.Semaphore(HANDSHAKES_AT_ONCE)
        self._orders = OrderBook(settings.scaler.data_directory / "orders.json")
        self._decisions = DecisionLog(settings.scaler.data_directory / "decisions.jsonl")
        self._control = Control(settings, self._orders, clock=time.time, on_order=self._news.set)

    async def run(self) -> None:
        """Turn after turn until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        scaler = self._settings.scaler
        async with AsyncExitStack() as stack:
            address = read_metrics_address(self._environ)
            await self._metrics.serve(address, scaler.metrics_port)
            stack.push_async_callback(self._metrics.close)
            sides = {broker.name: await self._enter(stack, broker) for broker in self._brokers}
            hosts = Hosts(self._channel, silent_for_s=scaler.unseen_counts_s)
            await stack.enter_async_context(hosts)
            await hosts.take(self._settings.hosts)
            await _settled(hosts, _SETTLE_S)
            stack.callback(self._decisions.close)
            path = control_path(scaler)
            await stack.enter_async_context(ControlSocket(path, self._control.answer))
            if self._dry_run:
                log.warning("dry run: nothing is started and nothing is stopped")
            await self._loop(Reconciler(self._settings, sides, self._hands(hosts)), hosts)
        self._notifier.stopping("stopped; instances run on")
        log.info("stopped; instances run on")

    def _hands(self, hosts: Hosts[WatchedUnits]) -> Mapping[str, UnitManager]:
        """What the turns have to do with; it stays as it is when the hosts change."""
        if not self._dry_run:
            return dict(hosts.units)
        return {name: DryRunUnits(each) for name, each in hosts.units.items()}

    def _leave(self) -> None:
        self._stop.set()
        self._news.set()

    def _reread(self) -> None:
        self._config.ask()
        self._news.set()

    @asynccontextmanager
    async def _channel(self, name: str, host: HostSettings) -> AsyncIterator[WatchedUnits]:
        scaler = self._settings.scaler
        runner = make_runner(
            host,
            scaler,
            self._environ,
            known_hosts=self._known_hosts,
            handshakes=self._handshakes,
        )
        units = WatchedUnits(
            name, runner, report_max_age_s=scaler.report_max_age_s, on_news=self._news.set
        )
        try:
            async with units:
                yield units
        finally:
            await runner.close()

    async def _change_hosts(
        self, settings: Settings, hosts: Hosts[WatchedUnits], reconciler: Reconciler
    ) -> None:
        known = set(hosts.settings)
        before = known - hosts.leaving
        try:
            await hosts.take(settings.hosts)
        except ConfigError as exc:
            self._config.refuse(exc)
            return
        renamed = known - hosts.settings.keys()
        taken_out = before - settings.hosts.keys() - renamed
        for what, names in (
            ("added", settings.hosts.keys() - before),
            ("taken out, left as they are emptied", taken_out),
            ("that have another name now", renamed),
        ):
            if names:
                log.info("hosts %s: %s", what, ", ".join(sorted(names)))
        if renamed:
            # What runs there counts at once, or as many would be started elsewhere.
            await _settled(hosts, _RENAMED_SETTLE_S)
        self._apply(hosts, reconciler)

    def _apply(self, hosts: Hosts[WatchedUnits], reconciler: Reconciler) -> None:
        self._settings = self._settings.model_copy(update={"hosts": dict(hosts.settings)})
        reconciler.change(self._settings, self._hands(hosts), leaving=hosts.leaving)
        self._metrics.configure(self._settings)
        self._control.configure(self._settings)

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

    async def _loop(self, reconciler: Reconciler, hosts: Hosts[WatchedUnits]) -> None:
        first, recorder = True, Recorder(self._settings.scaler, dry_run=self._dry_run)
        while not self._stop.is_set():
            if (settings := await self._config.news()) is not None:
                await self._change_hosts(settings, hosts, reconciler)
            started_at, worked_s, now = time.monotonic(), time.process_time(), since_boot()
            self._news.clear()
            at, orders = datetime.now(UTC), in_force(self._orders.standing(), self._settings)
            try:
                async with asyncio.timeout(_TURN_TIMEOUT_S):
                    outcome = await reconciler.turn(now, at=at, orders=orders)
            except TimeoutError:
                log.error("turn given up after %g s; trying again", _TURN_TIMEOUT_S)  # noqa: TRY400
                continue
            for accounts in self._accounts.values():
                await accounts.account(outcome)
            if (line := recorder.line(outcome, orders, at)) is not None:
                self._decisions.append(line)
            if gone := await hosts.tidy(outcome.observation):
                log.info("left and empty: %s", ", ".join(sorted(gone)))
                self._apply(hosts, reconciler)
            self._tell(outcome, first=first)
            self._metrics.turned(time.monotonic() - started_at)
            first = False
            due_at = None if outcome.due_at is None else started_at + outcome.due_at - now
            await self._rest(started_at, due_at, worked_s=time.process_time() - worked_s)

    async def _rest(self, started_at: float, due_at: float | None, *, worked_s: float) -> None:
        """Until the interval is over, or something is due or a host has news; not too often."""
        latest = started_at + self._settings.scaler.interval_s
        share_s = worked_s / _NEWS_SHARE
        if due_at is not None:
            latest = min(latest, max(started_at + max(SHORTEST_WAIT_S, share_s), due_at))
        earliest = started_at + max(SHORTEST_INTERVAL_S, share_s)
        for event, until in ((self._stop, min(earliest, latest)), (self._news, latest)):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await event.wait()

    def _tell(self, outcome: Outcome, *, first: bool) -> None:
        for is_warning, sentence in self._narrator.lines(outcome):
            log.log(logging.WARNING if is_warning else logging.INFO, sentence)
        for finding in () if self._dry_run else self._aftermath.take(outcome):
            self._metrics.found(finding)
            if finding.event is not Event.REVERSAL:
                log.warning("%s", finding.sentence)
        orders = self._orders.standing()
        self._ages.saw(outcome, orders)
        self._control.saw(outcome)
        self._metrics.show(outcome)
        meters: dict[str, Meter] = {
            name: accounts.meter for name, accounts in self._accounts.items()
        }
        self._metrics.show_budgets(meters)
        self._write_snapshot(outcome, meters)
        maxima = {name: pool.max_instances for name, pool in self._settings.pools.items()}
        line = status_line(outcome, maxima, orders, self._narrator.held_since)
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


async def _settled(hosts: Hosts[WatchedUnits], wait_s: float) -> None:
    """Return when every host was heard of, or not, and after so many seconds at the latest."""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await asyncio.gather(*(each.settled() for each in hosts.units.values()))
