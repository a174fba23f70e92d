"""`make bench-fleet` on a few hosts: the daemon, SSH and the hosts' side of it are real."""

from __future__ import annotations

import pytest

from bench.fleet.__main__ import main
from tests.integration.benchmarks import run_benchmark

pytestmark = pytest.mark.timeout(300)
CONDITIONS = ("at_rest", "changing", "tenth_unreachable")


def test_bench_fleet_starts_what_a_burst_needs_and_nothing_before() -> None:
    """It ends with an error when a host gets a start for which it has no place, or one too many."""
    figures = run_benchmark("bench.fleet", "--hosts", "4", "--quick")
    assert (figures["hosts"], figures["instances"]) == (4, 40)
    # What a thousand starts take is not told of fewer.
    assert figures["burst_1000_starts_s"] is None
    [scale] = figures["scales"].values()
    # Idle ones are stopped where the machine is so busy that hosts are not heard of for a while.
    assert scale["burst"]["starts"] == scale["burst"]["running"] == 40 - scale["stops"]
    assert 0 < scale["burst"]["first_start_s"] <= scale["burst"]["last_start_s"]
    for condition in CONDITIONS:
        seen = scale[condition]
        assert seen["turns"] > 0
        assert 0 < seen["turn_p50_ms"] <= seen["turn_p95_ms"]
        assert seen["ssh_bytes_per_s"] > 0
    assert scale["changing"]["ssh_bytes_per_s"] > scale["at_rest"]["ssh_bytes_per_s"]
    for name in ("turn_p50_ms", "turn_p95_ms", "cpu_percent", "ssh_bytes_per_s"):
        assert figures[name] == scale["changing"][name]
    assert figures["rss_mb"] >= scale["at_rest"]["rss_mb"] > 0


@pytest.mark.parametrize("hosts", ["0", "100000", "many"])
def test_a_number_of_hosts_that_cannot_be_is_refused(
    hosts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench.fleet", "--hosts", hosts])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "--hosts" in capsys.readouterr().err
