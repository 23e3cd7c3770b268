"""Processes that are not our children: named by pidfd, so that a pid used again is never mistaken. pidfd_open(2)."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from contextlib import suppress

from netd.launcher.spec import LaunchError

DEADLINE = 10.0  # seconds for the kernel to end a killed process; one in uninterruptible sleep takes for ever


async def readable(*descriptors: int) -> None:
    """Wait until one of them has something to read (or its peer has gone)."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    # copies: several may wait for the same file, an event loop knows a descriptor only once
    own = [os.dup(descriptor) for descriptor in descriptors]

    def notice() -> None:
        if not ready.done():
            ready.set_result(None)

    for descriptor in own:
        loop.add_reader(descriptor, notice)
    try:
        await ready
    finally:
        for descriptor in own:
            loop.remove_reader(descriptor)
            os.close(descriptor)


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


def has_ended(pidfd: int) -> bool:
    """Whether the process has ended, be it a zombie still."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


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


async def communicate(
    process: asyncio.subprocess.Process, seconds: float, given: bytes | None = None
) -> tuple[bytes, bytes]:
    """What a program of ours says when it is `given` this, to its end.

    Raises `LaunchError`, and kills it, if that takes longer.
    """
    try:
        async with asyncio.timeout(seconds):
            return await process.communicate(given)
    except TimeoutError as error:
        raise LaunchError(f"process {process.pid} did not end within {seconds:.0f} s") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()


def all_pids() -> list[int]:
    """Every process of this pid namespace."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
