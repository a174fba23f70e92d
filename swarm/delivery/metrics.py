"""What a producer's process counts, in prometheus-client's own registry for it to serve."""

from __future__ import annotations

from typing import get_args

from prometheus_client import Counter, Gauge

from swarm.brokers import State

STATE = Gauge(
    "swarm_broker_state",
    "1 for the state in which this process sees a broker, 0 for the others.",
    ["broker", "state"],
)
CHANGES = Counter(
    "swarm_broker_changes",
    "Changes of the state in which this process sees a broker, by the new one.",
    ["broker", "state"],
)
PUBLISHED = Counter(
    "swarm_publishes",
    "Tasks handed to a broker: accepted, refused for certain, or uncertain as it broke off.",
    ["broker", "outcome"],
)


def show_state(broker: str, state: str) -> None:
    """Make it the broker's state."""
    for each in get_args(State):
        STATE.labels(broker, each).set(each == state)
