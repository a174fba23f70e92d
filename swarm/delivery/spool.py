"""Ends of tasks on the host's disk, for as long as their broker is away or refuses them.

The work is done and its worker may end; all that is left is to tell the broker. Until it is told,
its message is still held, so a spool that is lost with its disk costs a second run and no task.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import redis

from swarm.delivery import scripts

log = logging.getLogger(__name__)

_VERSION = 1


@dataclass(frozen=True, slots=True)
class SpooledEnd:
    """The commit of one task, as the commit script is told of it."""

    tag: str
    task_id: str
    arguments: tuple[str | bytes | int | float, ...]

    def to_json(self) -> str:
        arguments = [
            {"base64": base64.b64encode(each).decode()} if isinstance(each, bytes) else each
            for each in self.arguments
        ]
        return json.dumps(
            {
                "version": _VERSION,
                "tag": self.tag,
                "task_id": self.task_id,
                "arguments": arguments,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> SpooledEnd:
        """Raises `ValueError`, `KeyError` or `TypeError` when it is none."""
        document = json.loads(text)
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']!r}, expected {_VERSION}")
        arguments = (
            base64.b64decode(each["base64"]) if isinstance(each, dict) else each
            for each in document["arguments"]
        )
        return cls(str(document["tag"]), str(document["task_id"]), tuple(arguments))


class Spool:
    """The ends for one broker, a file each, which every worker of the host may send.

    Sending one twice is harmless: the commit script knows it.
    """

    def __init__(self, directory: Path, broker: str) -> None:
        """`directory` is that of all brokers; what nobody can send goes to its `bad`."""
        self._root = directory
        self._directory = directory / broker
        self._bad = directory / "bad"

    def write(self, end: SpooledEnd) -> None:
        """Keep it, over a loss of power too.

        Raises:
            OSError: the disk is full, or the directory is not ours; nothing is kept.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        target = self._path(end.tag)
        # Not beside it: there systemd watches, and what a killed process leaves is nothing to send.
        scratch = self._root / f"{target.stem}.{os.getpid()}.tmp"
        try:
            with scratch.open("w", encoding="utf-8") as file:
                file.write(end.to_json())
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

    def holds(self, tag: str) -> bool:
        """Whether the end of this message is here."""
        return self._path(tag).exists()

    def tags(self) -> set[str]:
        """Of all the messages whose ends are here."""
        return {end.tag for _, end in self._read()}

    def send(self, client: redis.Redis) -> int:
        """Tell the broker of every end that is here; returns how many those were.

        Raises:
            redis.RedisError: it is still away. What it was told of by then is here no more.
            OSError: what it was told of cannot be removed; to tell it again changes nothing.
        """
        sent = 0
        for path, end in self._read():
            try:
                scripts.COMMIT.run(client, *end.arguments)
            except (redis.RedisError, OSError) as exc:
                if scripts.is_transient(exc):
                    raise
                fields = {"task_id": end.task_id, "reason": str(exc)}
                log.exception("the broker refused a task's end", extra={"fields": fields})
                self._put_aside(path)
            else:
                path.unlink(missing_ok=True)
                sent += 1
        return sent

    def _path(self, tag: str) -> Path:
        # A tag is the producer's own text.
        return self._directory / f"{sha256(tag.encode()).hexdigest()}.json"

    def _read(self) -> Iterator[tuple[Path, SpooledEnd]]:
        for path in sorted(self._directory.glob("*.json")):
            try:
                yield path, SpooledEnd.from_json(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                # Another worker of the host has sent it meanwhile.
                continue
            except (OSError, ValueError, KeyError, TypeError) as exc:
                fields = {"file": str(path), "reason": repr(exc)}
                log.error(  # noqa: TRY400 - the reason says all
                    "a task's end cannot be read; the task will be given back and done again",
                    extra={"fields": fields},
                )
                self._put_aside(path)

    def _put_aside(self, path: Path) -> None:
        """For people to look at; nobody tries it again."""
        try:
            self._bad.mkdir(mode=0o700, exist_ok=True)
            path.rename(self._bad / path.name)
        except FileNotFoundError:
            # Another worker of the host has put it aside meanwhile.
            return
        except OSError as exc:
            # It stays, and keeps nobody from sending the others.
            log.warning("%s not put aside: %s", path, exc)
