"""Between which numbers of instances a pool may be, and who said so."""

from __future__ import annotations

from swarm.scaler.limits import Override, effective
from swarm.scaler.model import Limit, Limits
from tests.builders import AT, make_pool

POOL = make_pool(min_instances=1, max_instances=6, spare=2)
CONFIGURED = Limits(Limit(1, "min_instances"), Limit(6, "max_instances"), Limit(2, "spare"))


def test_without_an_override_the_configuration_holds() -> None:
    assert effective(POOL, AT) == CONFIGURED


def test_an_override_sets_what_it_names_and_leaves_the_rest() -> None:
    limits = effective(POOL, AT, [Override("anna", minimum=4), Override("ben", spare=0)])
    assert limits == Limits(Limit(4, "anna"), Limit(6, "max_instances"), Limit(0, "ben"))


def test_the_later_override_wins() -> None:
    limits = effective(POOL, AT, [Override("anna", maximum=9), Override("ben", maximum=3)])
    assert limits.maximum == Limit(3, "ben")


def test_a_maximum_below_the_minimum_holds() -> None:
    assert effective(POOL, AT, [Override("anna", maximum=0)]).minimum == Limit(0, "anna")


def test_a_pause_is_told_by_whoever_made_it_and_ends_with_it() -> None:
    limits = effective(POOL, AT, [Override("anna", no_starts=True), Override("ben", spare=1)])
    assert (limits.no_starts, limits.no_stops) == ("anna", None)
    assert effective(POOL, AT, [Override("anna", no_stops=True)]).no_stops == "anna"
