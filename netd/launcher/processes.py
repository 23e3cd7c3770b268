"""Processes that are not our children: named by pidfd, so that a pid used again is never mistaken. pidfd_open(2)."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress


async def readable(descriptor: int) -> None:
    """Wait until `descriptor` has something to read (or its peer has gone)."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    # a copy: several may wait for the same file, an event loop knows a descriptor only once
    own = os.dup(descriptor)

    def notice() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(own, notice)
    try:
        await ready
    finally:
        loop.remove_reader(own)
        os.close(own)


async def ended(pidfd: int) -> None:
    """Wait until the process has ended."""
    await readable(pidfd)


async def ended_within(pidfd: int, seconds: float) -> bool:
    """Wait for the process to end, at most `seconds`; whether it did."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended(pidfd)
            return True
    return False


def open_pidfd(pid: int) -> int | None:
    """A descriptor of the process, None if there is none."""
    with suppress(OSError):
        return os.pidfd_open(pid)
    return None


def send(pidfd: int, number: int) -> bool:
    """Send signal `number` (0 only asks); False if the process has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def command_line(pid: int) -> list[str]:
    """Its arguments; empty for a zombie or if there is no such process."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    return []


def all_pids() -> list[int]:
    """Every process of this pid namespace."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
