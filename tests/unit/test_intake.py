"""Who may close a worker's intake, and when it is still."""

from __future__ import annotations

from swarm.delivery.intake import Intake


def test_several_reasons_are_opened_one_by_one() -> None:
    intake = Intake()
    opened: list[str] = []
    intake.on_open = lambda: opened.append("again")
    intake.open("drain")
    intake.close("drain")
    intake.close("drain")
    intake.close("load")
    intake.open("drain")
    assert (intake.is_open, opened) == (False, [])
    assert not intake.begin_taking()
    intake.open("load")
    assert intake.is_open
    assert opened == ["again"]
    assert intake.begin_taking()


def test_it_is_still_when_what_was_asked_for_has_come() -> None:
    intake = Intake()
    assert not intake.is_still
    assert intake.begin_taking()
    intake.close("drain")
    assert not intake.is_still
    intake.end_taking()
    assert intake.is_still
