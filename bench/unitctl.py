"""`swarm-unitctl` with another directory of status files; started by bench.scaler's daemon."""

from __future__ import annotations

import sys
from pathlib import Path

from swarm.unitctl import parse_command, run

if __name__ == "__main__":
    print(run(parse_command(sys.argv[2:]), Path(sys.argv[1])))
