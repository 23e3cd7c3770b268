"""What becomes of containers when the daemon starts: those that are there are taken up, what is left of others goes."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from netd.containers.lifecycle import Lifecycle
from netd.containers.live import Containers, LiveContainer
from netd.core.records import Records
from netd.core.tasks import PAUSE, Tasks
from netd.core.teardown import Teardown
from netd.launcher import Launcher
from netd.launcher.cleanup import remove_tree
from netd.model.containers import Container

PATIENCE = 5.0  # seconds that a start waits for what became of the containers; the rest the daemon learns later


class Recovery:
    """What cannot be learned or cleared now is tried again until it is."""

    def __init__(
        self, containers: Containers, records: Records[Container], life: Lifecycle, launcher: Launcher
    ) -> None:
        self._containers = containers
        self._records = records
        self._life = life
        self._launcher = launcher
        self._tasks = Tasks()

    async def run(self) -> None:
        """Returns when all is done, or after `PATIENCE`: a process that does not end keeps no daemon from starting."""
        jobs = [
            self._tasks.start(self._clear_leftovers(), "the removal of what is left of containers"),
            *(
                self._tasks.start(self._recover(live), f"the recovery of container {live.record.name}")
                for live in self._containers.live.values()
            ),
        ]
        await asyncio.wait(jobs, timeout=PATIENCE)

    async def _recover(self, live: LiveContainer) -> None:
        name = f"the recovery of container {live.record.name}"
        await self._tasks.now_or_later(partial(self._life.recover, live), name, longest=PAUSE)

    async def close(self) -> None:
        """Try nothing again; the next daemon does."""
        await self._tasks.close()

    async def _clear_leftovers(self) -> None:
        """Of containers that are not there any more, or do not run."""
        kept = {record.id for record in self._records.items.values() if record.state.alive} | self._records.unreadable
        await asyncio.gather(*map(self._clear_or_later, await self._launcher.owned() - kept))

    async def _clear_or_later(self, container_id: str) -> None:
        name = f"the removal of what is left of container {container_id[:12]}"
        await self._tasks.now_or_later(partial(self._clear, container_id), name)

    async def _clear(self, container_id: str) -> None:
        live = self._containers.live.get(container_id)
        if live is None:
            await self._launcher.delete(container_id)
            await self._launcher.discard(container_id)
            return
        async with live.lock:
            if not live.record.state.alive:  # it may have been started meanwhile
                await self._launcher.delete(container_id)


def remove_unknown(root: Path, known: set[str]) -> None:
    """Remove the files of containers that are not known. What cannot be removed is told in the log."""
    teardown = Teardown("what is left of containers")
    for path in root.iterdir() if root.is_dir() else ():
        if path.name not in known:
            with teardown.step(path.name):
                remove_tree(path)
    teardown.tell()
