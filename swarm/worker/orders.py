"""What an instance's main process tells its pool processes: memory that they share.

It is made before the fork, so that processes which come later have it too.
"""

from __future__ import annotations

import mmap


class Orders:
    """Written by the main process, read by every one."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def is_pressed(self) -> bool:
        """Whether the unit is near its limits: what is not needed is to be given back."""
        return self._memory[0] == 1

    @is_pressed.setter
    def is_pressed(self, pressed: bool) -> None:
        self._memory[0] = int(pressed)
