"""The figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_CONDITIONS = {
    "at_rest": "nothing changes",
    "changing": "a tenth changes",
    "tenth_unreachable": "and a tenth is unreachable",
}


def render(scales: Iterable[Mapping[str, Any]]) -> str:
    """In Markdown."""
    scales = list(scales)
    rows = [
        "| hosts | instances | | turn p50, p95 ms | CPU % | CPU wait % | RSS MB | SSH kB/s |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for figures in scales:
        for name, words in _CONDITIONS.items():
            seen = figures[name]
            rows.append(
                f"| {figures['hosts']:,} | {figures['instances']:,} | {words} "
                f"| {seen['turn_p50_ms']:.0f}, {seen['turn_p95_ms']:.0f} "
                f"| {seen['cpu_percent']:.1f} | {seen['cpu_wait_percent']:.1f} "
                f"| {seen['rss_mb']:.0f} "
                f"| {seen['ssh_bytes_per_s'] / 1000:.1f} |"
            )
    rows += [
        "",
        "| hosts | all seen after s | all back after s | burst | first start s | last start s |",
        "| ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for figures in scales:
        burst = figures["burst"]
        rows.append(
            f"| {figures['hosts']:,} | {figures['all_seen_after_s']:.1f} "
            f"| {figures['all_back_after_s']:.1f} "
            f"| {burst['starts']:,} beside {burst['running']:,} "
            f"| {burst['first_start_s']:.1f} | {burst['last_start_s']:.1f} |"
        )
    return "\n".join(rows)
