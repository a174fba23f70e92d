"""`swarm-unitctl watch`: a host tells of its instances as they change, for as long as it is read.

One JSON object a line. The first has every instance, as `list` has; each later one those that
changed since the line before, and those that are gone. Every line says by itself that all others
are as they were told: at least one comes in `HEARTBEAT_S`. A word that an instance renewed without
a change is not repeated; one older than `LATE_S` is, in every heartbeat, so what is not repeated
was no older. `look 7` on standard input has systemd asked at once, and the next line says
`"look": 7`: what was done before that is in it.

Units' states come over the system bus (`unit_bus`): its signals say when to look, and each
heartbeat looks anyway, so that a signal that is missed costs seconds. That takes no child process,
of which every change would need one, each as large as this process, nor the right to monitor the
bus, which `busctl monitor` needs. Status files are looked at by `lstat`, which tells a renamed file
by its inode: five times a second for ten instances is a thousandth of a processor (measured), and
cannot overflow or lose its directory as inotify can.

It ends when standard input or output does, so none outlives its SSH channel.
"""

from __future__ import annotations

import json
import os
import select
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.system_bus import SystemBus
from swarm.unit_bus import Units
from swarm.unit_entry import PROTOCOL_VERSION, memory_available_mb, own_word, pressures

#: Longest time in seconds between two lines. A reader believes nothing for much longer.
HEARTBEAT_S = 5.0
#: Age in seconds beyond which an instance's word is repeated. Instances write every 5 s.
LATE_S = 7.0
#: Longest and shortest time in seconds between two looks at the status files.
_PAUSE_S = 0.2
_SHORTEST_PAUSE_S = 0.05
#: Bytes of a status file: a few hundred, and the names of the pool's queues. The user that runs the
#: tasks writes them, and a line with a hundred of them must not be too long for its reader.
_LARGEST_WORD = 16_384

_Key = tuple[str, int]


class RequestError(Exception):
    """Something else than `look NUMBER` came on standard input."""


class Words:
    """The instances' status files, each read when it was replaced."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._read: dict[_Key, tuple[tuple[int, ...], Any]] = {}

    def of(self, entry: Mapping[str, Any]) -> Any:
        """The instance's own word, or None."""
        key = (entry["pool"], entry["number"])
        path = f"{self._directory}/{key[0]}-{key[1]}.json"
        try:
            found = os.lstat(path)
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._read.get(key)
            if known is None or known[0] != version:
                document = _read_json(path) if stat.S_ISREG(found.st_mode) else None
                self._read[key] = known = (version, document)
        except OSError:
            self._read.pop(key, None)
            return None
        return own_word(known[1], entry)


def _read_json(path: str) -> Any:
    """None for what is no word; whatever its user put there in its place must not hold us up."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = os.read(file, _LARGEST_WORD)
    finally:
        os.close(file)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


class Told:
    """What the reader knows, and so what a line must add to it."""

    def __init__(self) -> None:
        self._told: dict[_Key, tuple[Any, bool]] = {}

    def news(
        self, entries: Sequence[Mapping[str, Any]], *, now: float, heartbeat: bool
    ) -> tuple[list[Mapping[str, Any]], list[_Key]]:
        """Entries to tell, and instances that are gone."""
        told: dict[_Key, tuple[Any, bool]] = {}
        news = []
        for entry in entries:
            key = (entry["pool"], entry["number"])
            told[key] = gist = (_timeless(entry), _is_late(entry, now))
            if gist != self._told.get(key) or (heartbeat and gist[1]):
                news.append(entry)
        gone = sorted(self._told.keys() - told.keys())
        self._told = told
        return news, gone


def _timeless(entry: Mapping[str, Any]) -> Any:
    """The entry without what changes though nothing else does."""
    word = entry["status"]
    if not isinstance(word, dict):
        return entry
    return {**entry, "status": {**word, "written_at": None}}


def _is_late(entry: Mapping[str, Any], now: float) -> bool:
    word = entry["status"]
    written_at = word.get("written_at") if isinstance(word, dict) else None
    # One that is no time is not believed, however often it is told.
    return isinstance(written_at, int | float) and not 0 <= now - written_at <= LATE_S


class Requests:
    """`look NUMBER` lines, as they come on standard input."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> int | None:
        """The number of the last one that is complete.

        Raises:
            RequestError: it is something else, or too long.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        number = None
        for line in lines:
            verb, _, digits = line.partition(b" ")
            if verb != b"look" or not digits.isdigit() or len(digits) > 9:
                raise RequestError(f"refused: {line[:40]!r}; expected: look NUMBER")
            number = int(digits)
        if len(self._rest) > 64:
            raise RequestError("refused: a line too long; expected: look NUMBER")
        return number


class Watcher:
    """Composes the lines."""

    def __init__(self, units: Units, words: Words) -> None:
        self._units = units
        self._words = words
        self._told = Told()
        self._found: list[dict[str, Any]] = []
        self._sequence = 0
        self._heartbeat_at = 0.0

    def line(self, *, look: bool, asked: int | None = None) -> dict[str, Any] | None:
        """What there is to tell, if anything; `look` has systemd asked before a heartbeat does.

        Raises:
            BusError: the bus or systemd is away or does not answer.
        """
        heartbeat = time.monotonic() >= self._heartbeat_at
        if heartbeat or look:
            self._found = self._units.look()
        entries = [{**entry, "status": self._words.of(entry)} for entry in self._found]
        # Afterwards, as no word is newer than the line that tells it.
        now = time.monotonic()
        news, gone = self._told.news(entries, now=now, heartbeat=heartbeat)
        if heartbeat:
            self._heartbeat_at = now + HEARTBEAT_S
        elif asked is None and not news and not gone:
            return None
        line: dict[str, Any] = {"sequence": self._sequence, "now": now}
        line["memory_available_mb"] = memory_available_mb()
        line |= pressures()
        if self._sequence == 0:
            line |= {"version": PROTOCOL_VERSION, "instances": []}
        if news:
            line["instances"] = news
        if gone:
            line["gone"] = gone
        if asked is not None:
            line["look"] = asked
        self._sequence += 1
        return line


def watch(
    status_directory: str,
    *,
    stdin: int = 0,
    stdout: int = 1,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Tell until nobody listens any more.

    Raises:
        BusError: the bus or systemd is away or does not answer.
        RequestError: standard input has something else than requests.
        OSError: standard output takes nothing, though it is open.
    """
    with SystemBus(environ) as bus:
        _watch(Units(bus), Words(status_directory), stdin, stdout)


def _watch(units: Units, words: Words, stdin: int, stdout: int) -> None:
    watcher, requests = Watcher(units, words), Requests()
    poll = select.poll()
    poll.register(units, select.POLLIN)
    poll.register(stdin, select.POLLIN)
    # Of standard output only its end is of interest, which is told unasked.
    poll.register(stdout, 0)
    asked, look = None, True
    while True:
        line = watcher.line(look=look, asked=asked)
        if line is not None and not _write(stdout, json.dumps(line).encode() + b"\n"):
            return
        # What changes together is told together: each line costs its reader the same.
        time.sleep(_SHORTEST_PAUSE_S)
        ready = dict(poll.poll((_PAUSE_S - _SHORTEST_PAUSE_S) * 1000))
        if stdout in ready:
            return
        asked = None
        if stdin in ready:
            if not (received := os.read(stdin, 4096)):
                return
            asked = requests.feed(received)
        # Asked of in any case: a signal may have come while a reply was waited for.
        look = units.have_changed() or asked is not None


def _write(stdout: int, line: bytes) -> bool:
    """False when nobody reads any more."""
    try:
        while line:
            line = line[os.write(stdout, line) :]
    except BrokenPipeError:
        return False
    return True
