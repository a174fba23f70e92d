"""`swarm-unitctl` with another directory of status files; started by bench.scaler's daemon.

Beside that directory are the instances' sockets, in `control`, and in `cgroups` what stands for
their units' cgroups.
"""

from __future__ import annotations

import sys
from pathlib import Path

from swarm import witness
from swarm.unitctl import main

if __name__ == "__main__":
    status_directory = Path(sys.argv[1])
    beside = status_directory.parent
    witness.ROOTS = (beside / "cgroups",)
    sys.exit(
        main(
            sys.argv[2:],
            status_directory=status_directory,
            control_directory=beside / "control",
        )
    )
