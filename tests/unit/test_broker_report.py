"""How an instance tells of its broker."""

from __future__ import annotations

import logging

import pytest

from swarm.brokers import Verdict, parse_broker
from swarm.worker.broker_report import BrokerReport

BROKER = parse_broker("primary", "redis://:s3cret@h", variable="REDIS_URL")
DOWN = Verdict("down", "Connection refused")
LIMITED = Verdict("limited", "max requests limit exceeded")


@pytest.fixture
def report() -> BrokerReport:
    return BrokerReport(BROKER)


def test_a_first_connection_is_no_news(
    report: BrokerReport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert report.state == "away"
    report.connected(connected=True)
    assert report.state == "ok"
    assert caplog.messages == []


def test_each_change_is_told_once(report: BrokerReport, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report.connected(connected=True)
    report.connected(connected=False)
    assert report.state == "away"
    for verdict in (DOWN, DOWN, LIMITED, LIMITED, LIMITED):
        report.failed(verdict)
        assert report.state == verdict.state
    report.connected(connected=True)
    assert caplog.messages == [
        "the primary broker is down, what runs goes on: Connection refused",
        "the primary broker is limited, what runs goes on: max requests limit exceeded",
        "the primary broker is ok again",
    ]


def test_a_loss_that_the_next_attempt_mends_is_no_news(
    report: BrokerReport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for connected in (True, False, True):
        report.connected(connected=connected)
    assert caplog.messages == []


def test_who_is_refused_is_told_what_to_put_right(
    report: BrokerReport, caplog: pytest.LogCaptureFixture
) -> None:
    report.failed(Verdict("refused", "WRONGPASS", "the name and the password of a user"))
    assert report.state == "refused"
    [said] = caplog.messages
    assert said == (
        "the primary broker refuses us. REDIS_URL: got redis://h:6379 (WRONGPASS), "
        "expected the name and the password of a user"
    )


def test_an_error_that_says_nothing_of_the_broker_is_an_absence(report: BrokerReport) -> None:
    report.failed(Verdict("ok", "something else"))
    assert report.state == "down"
