"""What an instance's main process tells its pool processes: memory that they share.

It is made before the fork, so that processes which come later have it too.

    byte 0     1 while the unit is near its limits
    byte 1     the answer to the last call for a cancellation: see `Answer`
    from 2 on  the id of the task that is to be cancelled: its length in 2 bytes, then its text
"""

from __future__ import annotations

import mmap
import struct
from enum import IntEnum

#: Bytes of the longest task id.
LONGEST_ID = 1000


class Answer(IntEnum):
    """What a pool process says of a call to give a task up."""

    NONE = 0
    CANCELLED = 1
    NOT_HERE = 2


class Orders:
    """The main process writes all but the answer; one call at a time."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def is_pressed(self) -> bool:
        """Whether the unit is near its limits: what is not needed is to be given back."""
        return self._memory[0] == 1

    @is_pressed.setter
    def is_pressed(self, pressed: bool) -> None:
        self._memory[0] = int(pressed)

    @property
    def answer(self) -> Answer:
        return Answer(self._memory[1])

    @answer.setter
    def answer(self, answer: Answer) -> None:
        self._memory[1] = answer

    @property
    def to_cancel(self) -> str:
        """The id of the task that a call is about."""
        [length] = struct.unpack_from("<H", self._memory, 2)
        return bytes(self._memory[4 : 4 + length]).decode()

    @to_cancel.setter
    def to_cancel(self, task_id: str) -> None:
        text = task_id.encode()
        if len(text) > LONGEST_ID:
            raise ValueError(f"a task id of {len(text)} bytes, expected at most {LONGEST_ID}")
        self.answer = Answer.NONE
        self._memory[4 : 4 + len(text)] = text
        struct.pack_into("<H", self._memory, 2, len(text))
