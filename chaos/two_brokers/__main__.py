"""Whether the lab is deployed with two brokers: exit status 0 if so, else 1."""

import sys

from chaos.two_brokers.stand import has_two_brokers
from lab.state import State, default_directory

sys.exit(0 if has_two_brokers(State(default_directory())) else 1)
