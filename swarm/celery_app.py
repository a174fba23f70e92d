"""The Celery app: `celery -A swarm.celery_app` works for Flower, and producers import it.

Nothing is read at import: the configuration is made when Celery first asks for it.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from kombu import Queue

from swarm.brokers import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE,
    SOCKET_TIMEOUT_S,
    Broker,
    BrokerName,
    Brokers,
    counting,
)
from swarm.delivery import transport, workflows
from swarm.delivery.app import Brokerage, DeliveryCelery
from swarm.environment import read_brokers, read_served_broker, read_settings
from swarm.errors import ConfigError
from swarm.settings import Settings

#: Seconds a result is kept.
RESULT_EXPIRES_S = 24 * 3600
#: Seconds between the soft limit, which a task can answer, and the hard one, which kills it.
SOFT_LIMIT_MARGIN_S = 5
#: Seconds between the latest deadline of a browser task and the hard limit: room for closing a
#: page, and for killing a browser that does not close, before Celery interferes.
DEADLINE_MARGIN_S = 20


def celery_configuration(settings: Settings, broker: Broker) -> dict[str, Any]:
    """Celery's settings for the pools of this broker. Reasons stand beside the choices.

    Raises:
        ConfigError: it has no pools.
    """
    options = {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE,
        # A publish tries once: whoever submits decides whether to try again.
        "max_retries": 1,
        "interval_start": 0,
        "connect_retries_timeout": CONNECT_TIMEOUT_S,
        # Seconds after which a reply of Redis that is overdue counts as lost.
        "health_check_interval": 30,
    }
    queues = settings.queues(broker=broker.name)
    if not queues:
        expected = f"a pool with broker {broker.name}, as {broker.variable} is set up"
        raise ConfigError.of("pools", "none", expected)
    return {
        "broker_url": broker.url,
        # The URL says it too; Flower asks for queue lengths by these alone.
        "broker_use_ssl": broker.tls or False,
        "result_backend": f"swarm.delivery.results:ResultBackend+{broker.url}",
        "include": ["swarm.tasks.browser", "swarm.tasks.analysis", "swarm.delivery.chords"],
        # JSON only: a pickle from the broker would be code from whoever can write to it.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # A task is over when it is committed, and given back if its worker died.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # Celery would kill what runs when the broker blinks; it may finish, and commit later.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # What runs when a connection is lost keeps its place (swarm.delivery.transport, QoS).
        "worker_enable_prefetch_count_reduction": False,
        "worker_consumer": "swarm.delivery.consumer:Consumer",
        # Publishing repeats itself once, within its time limit.
        "task_publish_retry": False,
        # Only messages of other producers: ours wait in Redis until they are due.
        "worker_eta_task_limit": 10,
        "task_queues": [
            # Declaring them would be commands, and say nothing that is not known.
            Queue(name, routing_key=name, no_declare=True)
            for name in queues
        ],
        "task_default_queue": queues[0],
        "task_create_missing_queues": False,
        "task_routes": _routes(settings, broker.name),
        "task_track_started": False,
        "result_expires": RESULT_EXPIRES_S,
        "broker_transport_options": options,
        "broker_connection_timeout": CONNECT_TIMEOUT_S + 2,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "redis_socket_timeout": SOCKET_TIMEOUT_S,
        "redis_socket_connect_timeout": CONNECT_TIMEOUT_S,
        "redis_socket_keepalive": True,
        # Events feed Flower's live view. Nobody talks to workers through the broker: status
        # files and systemd do that without a command.
        "worker_send_task_events": settings.broker(broker.name).events,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # A pool child starts its browser before it reports for work; stock gives it 4 s.
        "worker_proc_alive_timeout": settings.browser.launch_timeout_s + 15,
        "timezone": "UTC",
    }


def _routes(settings: Settings, broker: BrokerName) -> dict[str, dict[str, str]]:
    """Task names begin with their type: `browser.run` goes to the queue for browser tasks."""
    served = {pool.task_type for pool in settings.pools_on(broker).values()}
    return {
        f"{task_type}.*": {"queue": settings.queue_for(task_type, broker=broker)}
        for task_type in served
    }


@cache
def _read() -> tuple[Settings, Broker | None, Brokers | None]:
    """The settings; the one broker that this service is for; else all that a producer has.

    Once: Celery asks for its configuration before anybody submits, and both are to agree.
    """
    settings = read_settings()
    served = read_served_broker(settings)
    return settings, served, None if served is not None else read_brokers()


def _read_configuration() -> dict[str, Any]:
    settings, served, brokers = _read()
    if brokers is not None:
        return celery_configuration(settings, brokers.primary)
    assert served is not None  # noqa: S101 - one of them is there
    if settings.broker(served.name).budget and "SWARM_POOL" not in os.environ:
        # Of Flower, as workers have other ways to tell.
        counting.expose(served)
    return celery_configuration(settings, served)


def _read_brokerage() -> Brokerage | None:
    settings, _, brokers = _read()
    if brokers is None:
        return None
    fallback = brokers.fallback
    return Brokerage(
        brokers,
        {} if fallback is None else celery_configuration(settings, fallback),
        settings.brokers.on_uncertain,
        frozenset(each.name for each in brokers if settings.broker(each.name).budget),
    )


transport.register()
workflows.register()
app = DeliveryCelery(
    "swarm",
    set_as_current=True,
    read_configuration=_read_configuration,
    read_brokerage=_read_brokerage,
)
