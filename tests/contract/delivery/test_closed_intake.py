"""A consumer whose intake is closed, at each moment at which that can come, over a real Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import kombu
import pytest
import redis

from swarm.delivery.holder import Holder, HolderName
from swarm.delivery.intake import Intake
from tests.contract.delivery.messages import due_in, is_rung, publish, waiting
from tests.loopback import wait_until


class Consumer:
    """Takes from queue `plain`; `turn` is one of its loop."""

    def __init__(self, connection: kombu.Connection) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.channel.basic_qos(0, 2)
        self.taken: list[kombu.Message] = []
        kombu.Consumer(self.channel, [kombu.Queue("plain")], on_message=self.taken.append).consume()

    @property
    def intake(self) -> Intake:
        intake: Intake = self.channel.holder.intake
        return intake

    def is_still(self) -> bool:
        return self.intake.is_still

    def ask(self) -> None:
        """Send what a turn begins with, and read no reply."""
        self.connection.transport.cycle.on_poll_start()

    def turn(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.connection.drain_events(timeout=0.1)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        def is_so() -> bool:
            self.turn()
            return condition()

        wait_until(is_so, timeout_s=5)

    def has_taken(self) -> bool:
        return len(self.taken) == 1

    def wait_at_the_bell(self, client: redis.Redis) -> None:
        self.turn()
        self.ask()
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1, what="the wait")


@pytest.fixture
def consumer(plain_connection: kombu.Connection) -> Iterator[Consumer]:
    consumer = Consumer(plain_connection)
    yield consumer
    consumer.channel.close()


def test_while_it_is_closed_nothing_is_taken_and_at_once_when_it_opens(
    client: redis.Redis, consumer: Consumer
) -> None:
    consumer.intake.close("drain")
    publish(client, "plain")
    consumer.turn()
    assert (len(waiting(client, "plain")), consumer.taken) == (1, [])
    assert consumer.is_still()
    consumer.intake.open("drain")
    consumer.turn_until(consumer.has_taken)
    assert waiting(client, "plain") == []
    assert not consumer.is_still()


def test_what_is_being_taken_as_it_closes_is_taken(client: redis.Redis, consumer: Consumer) -> None:
    publish(client, "plain")
    consumer.ask()
    wait_until(lambda: waiting(client, "plain") == [], what="the take")
    consumer.intake.close("drain")
    assert not consumer.is_still(), "the reply is on its way"
    consumer.turn_until(consumer.has_taken)
    assert consumer.is_still()
    publish(client, "plain")
    consumer.turn()
    assert (len(waiting(client, "plain")), len(consumer.taken)) == (1, 1)


def test_other_channels_of_the_worker_say_nothing_of_a_take(
    client: redis.Redis, plain_connection: kombu.Connection
) -> None:
    holder = Holder(HolderName("host:browser:1:", "a", is_unit=False))
    plain_connection.transport.holder = holder
    consumer, other = Consumer(plain_connection), plain_connection.channel()
    other.basic_qos(0, 1)
    publish(client, "plain")
    consumer.ask()
    holder.intake.close("drain")
    other.close()
    assert not consumer.is_still()
    consumer.channel.close()
    assert consumer.is_still(), "its own end is the end of the take"
    holder.close()


def test_a_wait_for_a_bell_takes_nothing_after_the_close_and_passes_the_ring_on(
    client: redis.Redis, consumer: Consumer
) -> None:
    consumer.wait_at_the_bell(client)
    consumer.intake.close("drain")
    assert consumer.is_still(), "a wait takes no message"
    publish(client, "plain")
    wait_until(lambda: not is_rung(client, "plain"), what="the ring taken")
    consumer.turn_until(lambda: is_rung(client, "plain"))
    assert (len(waiting(client, "plain")), consumer.taken) == (1, [])
    consumer.intake.open("drain")
    consumer.turn_until(consumer.has_taken)


def test_a_ring_that_was_for_others_is_not_passed_on(
    client: redis.Redis, consumer: Consumer
) -> None:
    """A bell that rings for nothing has the scaler look at the broker."""
    consumer.wait_at_the_bell(client)
    consumer.intake.close("drain")
    publish(client, "plain")
    client.delete("plain")
    consumer.turn()
    assert not is_rung(client, "plain")


def test_who_closes_leaves_the_schedule_to_others(client: redis.Redis, consumer: Consumer) -> None:
    consumer.connection.transport.wait_s = 0.05
    publish(client, "plain", due=due_in(60))
    consumer.turn()
    assert not is_rung(client, "plain"), "it watches"
    consumer.intake.close("drain")
    # Once its wait for a bell has ended without a ring.
    consumer.turn_until(lambda: is_rung(client, "plain"))
