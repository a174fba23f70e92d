"""How old what the scaler goes by is, when Prometheus asks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from swarm.scaler.adapters.ages import Ages
from swarm.scaler.model import HostReport, Outcome, Unknown
from swarm.scaler.orders import Order, OrderKind
from tests.builders import NOW, make_observation

#: 2026-03-01 12:00 UTC.
NOON = 1772366400.0


class Page:
    """What Prometheus reads at `now`."""

    def __init__(self) -> None:
        self.now = NOW
        self.registry = CollectorRegistry()
        self.ages = Ages(monotonic=lambda: self.now, clock=lambda: NOON)
        self.registry.register(self.ages)

    def signal(self, kind: str, subject: str) -> float | None:
        labels = {"signal": kind, "subject": subject}
        return self.registry.get_sample_value("swarm_scaler_signal_age_seconds", labels)

    def order(self, kind: str, subject: str) -> float | None:
        labels = {"kind": kind, "subject": subject}
        return self.registry.get_sample_value("swarm_scaler_order_age_seconds", labels)


def test_a_signal_grows_old_while_it_is_unknown() -> None:
    page = Page()
    hosts: dict[str, HostReport | Unknown] = {
        "h2": HostReport((), seen_at=NOW - 3),
        "h3": Unknown("no answer"),
    }
    page.ages.saw(Outcome(make_observation(7, hosts=hosts), {}), ())
    page.now = NOW + 1
    assert page.signal("queue", "browser") == 1
    assert page.signal("host", "h1") == 1
    assert page.signal("host", "h2") == 4
    assert page.signal("host", "h3") is None, "nothing was ever known"
    page.now = NOW + 60
    blind = make_observation(Unknown("401"), Unknown("no answer"), now=page.now)
    page.ages.saw(Outcome(blind, {}), ())
    assert page.signal("queue", "browser") == 60
    assert page.signal("host", "h1") == 60


def test_what_was_taken_out_has_no_age() -> None:
    page = Page()
    hosts: dict[str, HostReport | Unknown] = {"h1": HostReport(()), "h2": HostReport(())}
    page.ages.saw(Outcome(make_observation(7, hosts=hosts), {}), ())
    assert page.signal("host", "h2") is not None
    page.ages.saw(Outcome(make_observation(7, hosts={"h1": HostReport(())}), {}), ())
    assert page.signal("host", "h1") is not None
    assert page.signal("host", "h2") is None


def test_an_order_is_shown_for_as_long_as_it_holds() -> None:
    page = Page()
    orders = (
        Order(OrderKind.PAUSE_IN, "anna", NOON - 60, NOON + 60),
        Order(OrderKind.PIN, "anna", NOON + 9, host="h1", pool="browser", number=3),
    )
    page.ages.saw(Outcome(make_observation(7), {}), orders)
    assert page.order("pause-in", "") == 60
    assert page.order("pin", "h1 browser 3") == 0, "given by a clock that was set back since"
    page.ages.saw(Outcome(make_observation(7), {}), ())
    assert page.order("pause-in", "") is None
