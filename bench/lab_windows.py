"""The deployed scaler with its windows shortened, for as long as a benchmark takes.

The deployed config.yaml is set aside on the control host, a changed one takes its place, and the
scaler is restarted: hosts alone are followed while it runs. Afterwards the file is put back,
whatever happens; what a killed run has left is put back by the next one, or by `make deploy`.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from chaos.deployed_lab import CONTROL, DeployedLab
from swarm.config import load_settings
from swarm.settings import ScalerSettings

#: By how much they are shortened.
SHORTER = 15
#: The policy's windows: over which work is looked back at, starts are counted, and a host that is
#: away still counts.
WINDOWS = ("stabilisation_s", "scale_up_period_s", "unseen_counts_s")
#: Where config.yaml is on the hosts, and where the deployed one lies meanwhile.
DEPLOYED, ASIDE = "/etc/swarm/config.yaml", "/etc/swarm/config.yaml.deployed"
_FIRST_LINE = "# A benchmark's, for as long as it runs. The deployed file lies beside it."

Document = Mapping[str, Any]


def short_windows() -> dict[str, float]:
    """The defaults of the policy's windows, each so much shorter; its reserve as it is."""
    defaults = ScalerSettings()
    windows = {name: round(getattr(defaults, name) / SHORTER, 3) for name in WINDOWS}
    return {**windows, "reserve": defaults.reserve}


def changed(document: Document, change: Document) -> dict[str, Any]:
    """A document with other values at some places; all that is not named stays."""
    result = dict(document)
    for key, value in change.items():
        before = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = changed(before, value) if both and before is not None else value
    return result


@contextlib.contextmanager
def configured(lab: DeployedLab, change: Document, directory: Path) -> Iterator[None]:
    """The deployed scaler with this change of its config.yaml; SIGTERM ends the block too.

    Raises:
        ConfigError: the change makes it wrong.
        LabError: a host does not answer, or the scaler does not start.
    """
    put_back(lab)
    deployed = lab.on(CONTROL.name, f"cat {DEPLOYED}")
    text = f"{_FIRST_LINE}\n{yaml.safe_dump(changed(yaml.safe_load(deployed), change))}"
    scratch = directory / "config.yaml"
    scratch.write_text(text, encoding="utf-8")
    load_settings(scratch)
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        lab.on(CONTROL.name, f"cp -p {DEPLOYED} {ASIDE} && {_writing(text)}")
        _restart(lab)
        print(f"config.yaml of the scaler for now: {json.dumps(change)}", flush=True)
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        put_back(lab)


def put_back(lab: DeployedLab) -> None:
    """The deployed file is in its place again, and the scaler goes by it, if that was not so."""
    # A deployment meanwhile has written its own, which is right.
    command = f"head -n 1 {DEPLOYED} | grep -qxF {shlex.quote(_FIRST_LINE)} && echo ours || true"
    if lab.on(CONTROL.name, command) == "ours":
        lab.on(CONTROL.name, f"mv {ASIDE} {DEPLOYED}")
        _restart(lab)
        print("config.yaml of the scaler is again as it was deployed", flush=True)
    else:
        lab.on(CONTROL.name, f"rm -f {ASIDE}")


def _writing(text: str) -> str:
    """A command that puts the text in the place of the deployed file, with its owner and mode."""
    scratch = f"{DEPLOYED}.new"
    write = f"printf %s {shlex.quote(text)} > {scratch}"
    return f"cp -p {DEPLOYED} {scratch} && {write} && mv {scratch} {DEPLOYED}"


def _restart(lab: DeployedLab) -> None:
    """It returns when the scaler is ready; systemd's limit on starts is not for people."""
    unit = "swarm-scaler.service"
    lab.on(CONTROL.name, f"systemctl reset-failed {unit}; systemctl restart {unit}")


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
