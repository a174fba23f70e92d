"""`swarm-unitctl` with another directory of status files; started by bench.scaler's daemon."""

from __future__ import annotations

import sys
from pathlib import Path

from swarm.unitctl import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], status_directory=Path(sys.argv[1])))
