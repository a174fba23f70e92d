"""Write docs/reference/config.md from the settings' own types, defaults and docstrings.

Run `make docs`; a test fails when the page is not what this prints.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from swarm.settings import (
    BrokerSettings,
    BrokersSettings,
    BrowserSettings,
    BudgetSettings,
    FlowerSettings,
    HostSettings,
    PoolSettings,
    ScalerSettings,
    ScheduleSettings,
    WorkerSettings,
)

PAGE = Path(__file__).parent / "reference" / "config.md"

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("pools.NAME", PoolSettings),
    ("pools.NAME.schedules", ScheduleSettings),
    ("hosts.NAME", HostSettings),
    ("scaler", ScalerSettings),
    ("brokers", BrokersSettings),
    ("brokers.primary and brokers.fallback", BrokerSettings),
    ("brokers.primary.budget", BudgetSettings),
    ("flower", FlowerSettings),
    ("browser", BrowserSettings),
    ("worker", WorkerSettings),
)

_INTRODUCTION = """# config.yaml

Made by `make docs` from `swarm/settings.py`; edit it there.

Read by every service at start, from /etc/swarm/config.yaml or from where `SWARM_CONFIG` says.
`swarm config check [FILE]` reports every error at once and exits 2 when there is any. An unknown
key is an error. Keys marked *required* have no default. Names ending in `_s` are seconds.

A deployment writes the file from the inventory: `pools` from `swarm_pools`, `hosts` from the group
`workers`, `scaler`, `brokers`, `flower`, `browser` and `worker` from `release_scaler` and so on.
"""


def render() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *(_section(name, model) for name, model in SECTIONS)])


def _section(name: str, model: type[BaseModel]) -> str:
    rows = [
        f"| `{key}` | {_type_name(field.annotation)} | {_default(field)} | {_meaning(field)} |"
        for key, field in model.model_fields.items()
        if not _is_section(field.annotation)
    ]
    head = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    title = " ".join((model.__doc__ or "").split())
    return "\n".join([f"## {name}", "", title, "", *head, *rows, ""])


def _is_section(annotation: Any) -> bool:
    """Whether a key has a table of its own."""
    return any(
        isinstance(part, type) and issubclass(part, BaseModel)
        for part in (annotation, *get_args(annotation))
    )


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if arguments:
        return " or ".join(_type_name(part) for part in arguments if part is not NoneType)
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    return names[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.get_default()
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"a setting without a docstring: {field}")
    return " ".join(field.description.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name} written\n")
