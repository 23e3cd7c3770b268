"""A container's log, as conmon writes it: one line is `<time> <stdout|stderr> <F|P> <text>`, P for a part of a
line that goes on in the next entry of that stream. The format of the Kubernetes container runtime interface."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from netd.core.times import timestamp
from netd.launcher import processes, syscalls
from netd.launcher.streams import STDERR, STDOUT

_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What to show; `since` and `until` in seconds since the epoch, 0 for no bound; `tail`: the last lines only."""

    stdout: bool = True
    stderr: bool = True
    since: float = 0
    until: float = 0
    tail: int | None = None
    timestamps: bool = False

    def wants(self, stream: int) -> bool:
        return self.stdout if stream == STDOUT else self.stderr


@dataclass(frozen=True, slots=True)
class Entry:
    """One parsed line; `time` in nanoseconds since the epoch. The text of a whole line ends with its newline."""

    time: int
    stream: int
    text: bytes

    @property
    def whole(self) -> bool:
        return self.text.endswith(b"\n")


def parse_entry(line: bytes) -> Entry | None:
    """One line of the file without its newline; None if it is not one of conmon's."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr") or parts[2] not in (b"F", b"P"):
        return None
    try:
        time = _nanoseconds(parts[0].decode("ascii"))
    except ValueError:
        return None
    text = parts[3] + b"\n" if parts[2] == b"F" else parts[3]
    return Entry(time, STDOUT if parts[1] == b"stdout" else STDERR, text)


def _nanoseconds(text: str) -> int:
    """RFC 3339 with nine digits of fraction, `2026-01-02T03:04:05.123456789+00:00`."""
    head, _, rest = text.partition(".")
    whole = datetime.fromisoformat(head + rest[9:])
    return int(whole.timestamp()) * 1_000_000_000 + int(rest[:9])


async def read_log(
    path: Path, query: LogQuery, writer: Callable[[], int | None] | None = None
) -> AsyncGenerator[tuple[int, bytes]]:
    """What the log holds, then, until the process `writer` (a pidfd, None if it has ended) ends, what is added to it.
    Ends at once past `until`."""
    pidfd = writer() if writer is not None else None
    try:
        with await asyncio.to_thread(_open, path, query) as file:
            async with aclosing(_frames(file, _Reader(query), pidfd, str(path))) as frames:
                async for frame in frames:
                    yield frame
    except FileNotFoundError:
        return
    finally:
        if pidfd is not None:
            os.close(pidfd)


async def _frames(file: BinaryIO, reader: _Reader, writer: int | None, path: str) -> AsyncGenerator[tuple[int, bytes]]:
    watch = syscalls.inotify_modified(path) if writer is not None else -1
    try:
        while True:
            # asked before reading: what is there when the container has ended is all there will be
            last = writer is None or processes.has_ended(writer)
            while block := file.read(_BLOCK):
                for frame in reader.feed(block):
                    yield frame
                if reader.past:
                    return
                await asyncio.sleep(0)
            if last or writer is None:
                return
            await processes.readable(watch, writer)
            with suppress(BlockingIOError):
                os.read(watch, _BLOCK)
    finally:
        if watch >= 0:
            os.close(watch)


@dataclass(slots=True)
class _Reader:
    """Turns blocks of the file into what the query asks for."""

    query: LogQuery
    past: bool = False
    _rest: bytes = b""
    _open: set[int] = field(default_factory=set)  # streams whose last line is not complete

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            entry = parse_entry(line)
            if entry is None or not self.query.wants(entry.stream):
                continue
            if self.query.until and entry.time > self.query.until * 1e9:
                self.past = True
                return
            if entry.time >= self.query.since * 1e9:
                yield entry.stream, self._prefix(entry) + entry.text

    def _prefix(self, entry: Entry) -> bytes:
        starts = entry.stream not in self._open
        (self._open.discard if entry.whole else self._open.add)(entry.stream)
        return f"{timestamp(entry.time)} ".encode() if self.query.timestamps and starts else b""


def _open(path: Path, query: LogQuery) -> BinaryIO:
    """The file, placed where its last `tail` wanted lines begin."""
    file = open(path, "rb")  # noqa: SIM115  the caller closes it
    if query.tail is not None and os.fstat(file.fileno()).st_size > 0:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            file.seek(_tail_start(data, query))
    return file


def _tail_start(data: mmap.mmap, query: LogQuery) -> int:
    """Walk back over the ends of lines; the tail begins after the first one that is too many."""
    missing, end = query.tail or 0, len(data)
    seen: set[int] = set()
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        entry = parse_entry(data[start : end - 1])
        if entry is not None and query.wants(entry.stream):
            # the last part of a line that has no end yet counts as one
            if entry.whole or entry.stream not in seen:
                if missing <= 0:
                    return end
                missing -= 1
            seen.add(entry.stream)
        end = start
    return 0
