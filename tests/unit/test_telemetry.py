"""Messages from pool children to their parent."""

from __future__ import annotations

import os
import threading

from swarm.worker.telemetry import Message, Telemetry


def received(telemetry: Telemetry, *, timeout_s: float = 0) -> list[Message]:
    messages: list[Message] = []
    telemetry.read(messages.append, timeout_s=timeout_s)
    return messages


def test_messages_arrive_in_order() -> None:
    telemetry = Telemetry()
    telemetry.process_ready()
    telemetry.browser_event("retired", "age")
    telemetry.contexts(1)
    telemetry.task_ended("browser.run", "failure", 1.5, "DNS", 0.25)
    telemetry.job_ended({"queue": 0.25, "total": 1.5}, 700, 80)
    telemetry.contexts(0)
    telemetry.process_failed("no sandbox", exit_status=2)
    pid = os.getpid()
    assert received(telemetry) == [
        Message("process-ready", pid),
        Message("browser", pid, label="retired", cause="age"),
        Message("contexts", pid, count=1),
        Message(
            "task",
            pid,
            label="failure",
            cause="DNS",
            task="browser.run",
            seconds=1.5,
            stages={"queue": 0.25},
        ),
        Message("job", pid, stages={"total": 1.5}, count=700, artifact_bytes=80),
        Message("contexts", pid, count=0),
        Message("process-failed", pid, label="no sandbox", count=2),
    ]


def test_nothing_to_read_is_no_message() -> None:
    assert received(Telemetry()) == []


def test_a_reason_too_long_for_the_pipe_arrives_without_its_text() -> None:
    telemetry = Telemetry()
    telemetry.process_failed("é" * 1000)
    assert received(telemetry) == [Message("process-failed", os.getpid())]


def test_a_long_reason_is_cut() -> None:
    telemetry = Telemetry()
    telemetry.process_failed("x" * 5000)
    [message] = received(telemetry)
    assert message.label == "x" * 1000


def test_a_full_pipe_keeps_no_task_waiting() -> None:
    telemetry = Telemetry()
    for _ in range(3000):
        telemetry.task_ended("browser.run", "success", 0.1)
    assert received(telemetry)
    telemetry.process_ready()


def test_messages_of_several_writers_never_mix() -> None:
    telemetry = Telemetry()

    def write() -> None:
        for _ in range(50):
            telemetry.task_ended("browser.run" * 5, "success", 0.1)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    messages: list[Message] = []
    while len(messages) < 200 and (any(w.is_alive() for w in writers) or not messages):
        telemetry.read(messages.append, timeout_s=0.2)
    for writer in writers:
        writer.join()
    telemetry.read(messages.append, timeout_s=0)
    assert len(messages) == 200
    assert {message.label for message in messages} == {"success"}
