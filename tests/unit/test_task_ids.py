"""Ids that tell their broker."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.delivery import ids


def test_an_id_names_its_broker() -> None:
    for broker in ("primary", "fallback"):
        task_id = ids.new_id(broker)
        assert ids.broker_of(task_id) == broker
        assert str(UUID(task_id)) == task_id
    assert ids.new_id("primary") != ids.new_id("primary")


def test_all_but_one_digit_stays_when_a_task_goes_elsewhere() -> None:
    before = ids.new_id("primary")
    after = ids.named(before, "fallback")
    assert [at for at in range(36) if before[at] != after[at]] == [14]
    assert ids.named(after, "primary") == before
    assert ids.named(before, "primary") == before


@pytest.mark.parametrize("foreign", ["order-7", "", "0" * 36, "8" * 36, str(UUID(int=1))])
def test_what_is_not_ours_stays_as_it_is(foreign: str) -> None:
    assert ids.named(foreign, "fallback") == foreign
    assert ids.broker_of(foreign) == "primary"


@given(st.text())
def test_any_text_is_an_id(text: str) -> None:
    assert ids.broker_of(ids.named(text, "primary")) == "primary"
