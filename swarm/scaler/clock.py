"""The clock that turns, pictures of hosts and orders go by.

Nobody can set it, and it goes on while the machine is suspended: what was proved before that is
old afterwards. The time that a timeout takes is asyncio's own, the monotonic clock's.
"""

from __future__ import annotations

import time


def since_boot() -> float:
    """Seconds since the machine booted, those of its suspensions too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
