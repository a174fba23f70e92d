"""What every benchmark on the deployed lab begins with."""

from __future__ import annotations

from argparse import ArgumentTypeError

from chaos.deployed_lab import DeployedLab
from chaos.preparation import require_pages
from chaos.two_brokers.stand import has_two_brokers
from lab.commands import LabError
from lab.hosts import use_lab_settings
from lab.state import State, default_directory


def deployed_lab() -> DeployedLab:
    """The lab, with this process as one of its producers.

    Raises:
        LabError: it is not deployed with one broker and the demo's pages; the message says what
            to do.
    """
    state = State(default_directory())
    if not state.facts.exists():
        raise LabError("there is no lab: run `make demo`")
    if has_two_brokers(state):
        raise LabError("the lab has two brokers: run `make deploy`")
    use_lab_settings(state)
    require_pages()
    return DeployedLab(state)


def from_one(text: str) -> int:
    """An option's whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1, got {text}")
    return int(text)
