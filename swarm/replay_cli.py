"""`swarm scaler replay`: what another config.yaml would have decided."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.config import load_settings
from swarm.errors import ConfigError

if TYPE_CHECKING:
    from swarm.scaler.decisions import TurnRecord
    from swarm.scaler.replay import Difference, Replay


@click.command("replay")
@click.argument("file")
@click.option(
    "--config",
    "config",
    required=True,
    type=click.Path(path_type=Path),
    metavar="NEW",
    help="The config.yaml to decide with.",
)
@click.option("--json", "as_json", is_flag=True, help="Totals alone, as JSON.")
def replay(file: str, config: Path, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Decide anew, with the config.yaml NEW, on what FILE recorded.

    FILE is decisions.jsonl, one of the older ones (.gz), or - for standard input, where several
    can be joined: zcat decisions.jsonl.{3..1}.gz | cat - decisions.jsonl
    """
    from swarm.scaler.orders import show_time
    from swarm.scaler.replay import Replay

    lines = _Lines(file)
    done = Replay(load_settings(config))
    for difference in done.differences(lines.records()):
        if not as_json:
            click.echo(_told(difference))
    if done.first_at is None:
        raise ConfigError.of(lines.name, "no line of decisions", "decisions.jsonl of a scaler")
    if as_json:
        click.echo(json.dumps(_document(done, lines)))
        return
    click.echo(
        f"{show_time(done.first_at)} to {show_time(done.last_at)}, {lines.understood} lines"
        + (f", {lines.left_out} not understood and left out" if lines.left_out else "")
    )
    for row in _table(done):
        click.echo(row)
    for caveat in done.caveats():
        click.echo(caveat)


class _Lines:
    """Those of a file that may have been cut off anywhere."""

    def __init__(self, file: str) -> None:
        self.name = file
        self.understood = self.left_out = 0

    def records(self) -> Iterator[TurnRecord]:
        from swarm.scaler.decisions import parse

        try:
            with self._open() as lines:
                for line in filter(bytes.strip, lines):
                    try:
                        record = parse(line.decode())
                    except ValueError:
                        self.left_out += 1
                        continue
                    self.understood += 1
                    yield record
        except (OSError, EOFError, zlib.error) as exc:
            raise ConfigError.of(self.name, str(exc), "a file that can be read to its end") from exc

    def _open(self) -> AbstractContextManager[Iterable[bytes]]:
        if self.name == "-":
            return nullcontext(sys.stdin.buffer)
        return gzip.open(self.name) if self.name.endswith(".gz") else Path(self.name).open("rb")


def _told(difference: Difference) -> str:
    from swarm.scaler.story import describe

    at = datetime.fromtimestamp(difference.at, UTC)
    then, now = describe(difference.then), describe(difference.now)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC {then}\n  now: {now}"


def _table(done: Replay) -> Iterator[str]:
    yield f"{'':20}{'starts asked for':>22}{'stops':>22}{'instance-hours':>26}"
    for name, pool in done.pools.items():
        then, now = pool.then, pool.now
        yield (
            f"{name:20}{_change(then.starts, now.starts):>22}{_change(then.stops, now.stops):>22}"
            f"{_change(then.instance_s / 3600, now.instance_s / 3600):>26}"
        )


def _change(then: float, now: float) -> str:
    """`12 -> 9 (-3)`."""
    if isinstance(then, int) and isinstance(now, int):
        return f"{then} -> {now} ({now - then:+})"
    return f"{then:.2f} -> {now:.2f} ({now - then:+.2f})"


def _document(done: Replay, lines: _Lines) -> dict[str, object]:
    return {
        "first_at": done.first_at,
        "last_at": done.last_at,
        "lines": lines.understood,
        "left_out": lines.left_out,
        "pools": {
            name: {"then": asdict(pool.then), "now": asdict(pool.now), "warm_up": pool.warm_up}
            for name, pool in done.pools.items()
        },
        "caveats": list(done.caveats()),
    }
