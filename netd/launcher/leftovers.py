"""What containers have left on this machine outside the data root, found by looking: their ids."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

from netd.launcher import overlayfs, processes
from netd.launcher.cgroups import Cgroups

log = logging.getLogger(__name__)


async def look(bundles: Path, runtime: Path, cgroups: Cgroups, seconds: float) -> set[str]:
    """By their bundles, the runtime's state, cgroups, mounts, and by processes that name a bundle, as conmon does."""
    found = await asyncio.to_thread(_in_files, bundles, runtime, cgroups)
    try:
        async with asyncio.timeout(seconds):
            return found | await asyncio.to_thread(_in_processes, bundles)
    except TimeoutError:
        # reading a command line takes a lock that a process in uninterruptible sleep may hold
        log.warning("the processes of this host could not all be looked at: what is left of some may stay")
        return found


def _in_files(bundles: Path, runtime: Path, cgroups: Cgroups) -> set[str]:
    found = cgroups.containers()
    for directory in (bundles, runtime):
        with suppress(FileNotFoundError):
            found.update(os.listdir(directory))
    found.update(path.relative_to(bundles).parts[0] for path in overlayfs.mounts_below(bundles))
    return found


def _in_processes(bundles: Path) -> set[str]:
    found: set[str] = set()
    prefix = f"{bundles}/"
    for pid in processes.all_pids():
        words = [word for word in processes.command_line(pid) if word.startswith(prefix)]
        found.update(word.removeprefix(prefix).split("/", 1)[0] for word in words)
    return found
