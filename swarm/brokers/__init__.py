"""The brokers: where they are, how to reach them, what their errors mean, how they are."""

from swarm.brokers.address import VARIABLES, Broker, BrokerName, Brokers, check_files, parse_broker
from swarm.brokers.connection import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE,
    QUIET,
    SOCKET_TIMEOUT_S,
    ask,
    connect,
    failure,
    refusal,
)
from swarm.brokers.verdict import State, Verdict, classify

__all__ = [
    "CONNECT_TIMEOUT_S",
    "KEEPALIVE",
    "QUIET",
    "SOCKET_TIMEOUT_S",
    "VARIABLES",
    "Broker",
    "BrokerName",
    "Brokers",
    "State",
    "Verdict",
    "ask",
    "check_files",
    "classify",
    "connect",
    "failure",
    "parse_broker",
    "refusal",
]
