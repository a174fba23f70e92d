"""What commands that speak to the running scaler have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from swarm.durations import parse_duration
from swarm.environment import read_settings

# Generic to type checkers, not in every click that we run with.
if TYPE_CHECKING:
    _FloatParam = click.ParamType[float]
else:
    _FloatParam = click.ParamType


class Duration(_FloatParam):
    """`90s`, `30m`, `1h30m`, `2d`, as seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return parse_duration(str(value)).total_seconds()
        except ValueError as exc:
            self.fail(f"{value!r}: expected {exc}", param, ctx)


as_json_option = click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")


def tell(verb: str, *, as_json: bool, **fields: object) -> None:
    """Ask the scaler of this host and print its answer.

    Raises:
        ConfigError: the scaler refuses, or does not let us in.
        ScalerAwayError: there is none.
    """
    from swarm.scaler.adapters.control_socket import ask, control_path

    asked: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    answer = dict(ask(control_path(read_settings().scaler), verb, **asked))
    lines = answer.pop("lines", [])
    click.echo(json.dumps(answer) if as_json else "\n".join(lines))
