"""The figures of all runs as tables, as one JSON object and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.simulation.figures import Figures
from bench.simulation.scale_downs import ScaleDowns

#: Trace -> model -> figures, in the order in which they are shown.
Table = Mapping[str, Mapping[str, Figures]]

#: What the issue of the scaler asks for, against the exact count.
MOST_P95 = 1.25
MOST_HOURS = 1.15

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "scaler-simulation.md"
_BEGIN, _END = "<!-- made by make bench-scaler -->", "<!-- end -->"

_COLUMNS = (
    *("trace", "model", "p50 wait", "p95 wait", "kills"),
    *("unfinished", "worker-hours", "starts", "reversals"),
)
_AGAINST_COLUMNS = (
    *("trace", "p95 wait to exact's", "to KEDA's"),
    *("worker-hours to exact's", "to KEDA's", "asked for"),
)


def render(table: Table, scale_downs: ScaleDowns | None = None) -> str:
    """Both tables, in Markdown, and a line on the stops."""
    lines = _head(_COLUMNS)
    for trace, rows in table.items():
        lines += [row(trace, model, figures) for model, figures in rows.items()]
    lines += ["", *_head(_AGAINST_COLUMNS)]
    lines += [against(trace, rows) for trace, rows in table.items() if len(rows) == 3]
    if scale_downs is not None:
        lines += ["", scale_downs.sentence()]
    return "\n".join(lines)


def _head(columns: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]


def row(trace: str, model: str, figures: Figures) -> str:
    """One line of the first table."""
    return (
        f"| {trace} | {model} | {figures.p50_wait_s:.1f} s | {figures.p95_wait_s:.1f} s "
        f"| {figures.kills} | {figures.unfinished} | {figures.worker_hours:.2f} "
        f"| {figures.starts} | {figures.reversals} |"
    )


def against(trace: str, rows: Mapping[str, Figures]) -> str:
    """Ours over the others, and which of the demands it does not meet."""
    ours, keda, exact = rows["ours"], rows["keda"], rows["exact"]
    missed = [
        name
        for name, is_met in (
            ("kills", ours.kills == 0),
            ("p95 wait", ours.p95_wait_s <= MOST_P95 * exact.p95_wait_s),
            ("worker-hours", ours.worker_hours <= MOST_HOURS * exact.worker_hours),
            ("reversals", ours.reversals <= min(keda.reversals, exact.reversals)),
        )
        if not is_met
    ]
    return (
        f"| {trace} | {_ratio(ours.p95_wait_s, exact.p95_wait_s)} "
        f"| {_ratio(ours.p95_wait_s, keda.p95_wait_s)} "
        f"| {_ratio(ours.worker_hours, exact.worker_hours)} "
        f"| {_ratio(ours.worker_hours, keda.worker_hours)} "
        f"| {'missed: ' + ', '.join(missed) if missed else 'met'} |"
    )


def _ratio(value: float, other: float) -> str:
    return f"{value / other:.2f}" if other else "-"


@dataclass(frozen=True, slots=True)
class Summary:
    """The benchmark's last line."""

    seed: int
    table: Table
    scale_downs: ScaleDowns | None

    def document(self) -> dict[str, object]:
        return {
            "seed": self.seed,
            "kills": sum(rows["ours"].kills for rows in self.table.values()),
            **(asdict(self.scale_downs) if self.scale_downs is not None else {}),
            "traces": {
                trace: {model: asdict(figures) for model, figures in rows.items()}
                for trace, rows in self.table.items()
            },
        }


def write_page(rendered: str, page: Path = PAGE) -> None:
    """Put the tables where the page has them.

    Raises:
        ValueError: the page has no place for them.
    """
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{page} has no lines {_BEGIN} and {_END}")
    page.write_text(f"{before}{_BEGIN}\n{rendered}\n{_END}{after}", encoding="utf-8")
