"""`swarm scaler run` on a machine whose systemd knows no instances.

The daemon and its adapters are the real ones. In place of `swarm-unitctl`, which reads
/run/swarm/instances, bench.unitctl runs the same code on the directory given here.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from swarm.scaler import daemon
from swarm.scaler.adapters import commands


def main(status_directory: str) -> int:
    """Run until SIGTERM."""
    program = (sys.executable, "-m", "bench.unitctl", status_directory)
    with patch.object(commands, "local_unitctl", lambda: program):
        return daemon.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
