"""`python3 -m lab up` is the same as `python3 -m lab.lab up`."""

import sys

from lab.lab import main

sys.exit(main())
