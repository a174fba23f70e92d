"""On a lab host: the name server that answers with what names must not lead to."""

from __future__ import annotations

import itertools
import threading

from tests.name_server import NameServer

ADDRESS = "127.53.0.53"
#: A root server of the DNS: an address that is everybody's, and not to be reached from the lab.
PUBLIC, PRIVATE = "198.41.0.4", "10.77.0.10"

turns = itertools.cycle([PUBLIC, PRIVATE])
NAMES = {
    "private.test": lambda: [PRIVATE],
    "local.test": lambda: ["127.0.0.1"],
    "mixed.test": lambda: [PUBLIC, PRIVATE],
    "mixed-first.test": lambda: [PRIVATE, PUBLIC],
    "turns.test": lambda: [next(turns)],
}

if __name__ == "__main__":
    with NameServer(ADDRESS, NAMES):
        threading.Event().wait()
