"""Faults that netd had are found when they are put back: what finds nothing proves nothing.

Without them nothing is found: the same pairs are among those of the tests beside this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netd.containers.execs import Execs
from netd.containers.lifecycle import Lifecycle
from netd.containers.live import LiveContainer
from netd.containers.manager import ContainerManager
from netd.containers.signals import Signals
from netd.core.errors import Conflict, NotModified
from netd.core.filters import Filters
from netd.images.store import ImageStore, InUse, Removals
from netd.model.containers import Container
from netd.model.images import Image
from netd.model.sandboxes import Sandbox
from netd.names.dirty import Dirty
from netd.networks.live import LiveNetworks
from netd.sandboxes.manager import SandboxManager
from tests.interleavings import containers, images, networks
from tests.interleavings.engine import Operation, explore

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Some:
    """A state with a few of its operations."""

    whole: Any
    first: str
    second: str

    @property
    def name(self) -> str:
        return str(self.whole.name)

    def make(self, root: Path) -> Any:
        return self.whole.make(root)

    def firsts(self) -> list[Operation[Any]]:
        return [operation for operation in self.whole.firsts() if operation.name == self.first]

    def seconds(self) -> list[Operation[Any]]:
        return [operation for operation in self.whole.seconds() if operation.name == self.second]


def _who_waited_does_not_look_whether_it_is_gone(patch: Patch) -> None:
    @asynccontextmanager
    async def changing(self: LiveContainer) -> AsyncIterator[None]:
        async with self.lock:
            yield

    patch.setattr(LiveContainer, "changing", changing)


def _rm_looks_before_it_waits(patch: Patch) -> None:
    async def remove(self: ContainerManager, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        live = self.find(ref)
        if live.record.state.running:
            raise Conflict("it runs")
        async with live.changing():
            await self._life.remove(live)

    patch.setattr(ContainerManager, "remove", remove)


def _a_stop_between_two_restarts_stops_nothing(patch: Patch) -> None:
    stop = Signals.stop

    async def hasty(self: Signals, live: LiveContainer, signal: str = "", timeout: int | None = None) -> None:
        if not live.record.state.alive:
            raise NotModified("it does not run")
        await stop(self, live, signal, timeout)

    patch.setattr(Signals, "stop", hasty)


def _prune_gives_up_when_one_goes_meanwhile(patch: Patch) -> None:
    async def prune(self: ContainerManager, filters: Filters) -> list[str]:
        idle = [live.record.id for live in self.live.values() if not live.record.state.running]
        for identity in idle:
            await self.remove(identity, force=False, volumes=False, link=False)
        return idle

    patch.setattr(ContainerManager, "prune", prune)


def _an_end_that_cannot_be_stored_is_not_believed(patch: Patch) -> None:
    async def store(self: Lifecycle, record: Container) -> None:
        await self._records.put(record.id, record)

    patch.setattr(Lifecycle, "_store", store)


def _what_the_resolver_was_not_told_is_forgotten(patch: Patch) -> None:
    patch.setattr(Dirty, "mark_network", lambda self, network_id: None)
    patch.setattr(Dirty, "mark_sandbox", lambda self, sandbox_id: None)


def _an_image_is_not_held_while_a_container_is_made_of_it(patch: Patch) -> None:
    @contextmanager
    def hold(self: ImageStore, ref: str) -> Iterator[Image]:
        yield self.find(ref)

    patch.setattr(ImageStore, "hold", hold)


def _a_network_that_goes_can_be_joined(patch: Patch) -> None:
    patch.setattr(LiveNetworks, "joinable", lambda self, live: None)


def _an_exec_is_taken_by_whoever_finds_it_not_started(patch: Patch) -> None:
    patch.setattr(Execs, "_claim", Execs.find)


def _an_image_is_read_before_the_wait_for_another_change_of_it(patch: Patch) -> None:
    async def remove(self: ImageStore, ref: str, *, force: bool, in_use: InUse) -> Removals:
        image = self.find(ref)
        async with self._lock:
            return await self._untag(image, [self._name_of(image, ref)])

    patch.setattr(ImageStore, "remove", remove)


def _what_has_no_record_is_not_taken_down(patch: Patch) -> None:
    tear_down = SandboxManager.tear_down

    async def trusting(self: SandboxManager, sandbox: Sandbox) -> None:
        if sandbox.id in self._records.items:
            await tear_down(self, sandbox)

    patch.setattr(SandboxManager, "tear_down", trusting)


@pytest.mark.parametrize(
    ("fault", "state", "first", "second"),
    [
        (_who_waited_does_not_look_whether_it_is_gone, containers.STATES["created"], "rm web", "start web"),
        (_rm_looks_before_it_waits, containers.STATES["created"], "start web", "rm web"),
        (_a_stop_between_two_restarts_stops_nothing, containers.STATES["backing-off"], "time passes", "stop web"),
        (_prune_gives_up_when_one_goes_meanwhile, containers.STATES["created"], "prune", "rm web"),
        (_an_end_that_cannot_be_stored_is_not_believed, containers.STATES["running"], "ends web", "stop web"),
        (_what_the_resolver_was_not_told_is_forgotten, containers.STATES["running"], "stop web", "start web"),
        (_an_image_is_not_held_while_a_container_is_made_of_it, images.STATES["one-name"], "create", "rmi id"),
        (_an_exec_is_taken_by_whoever_finds_it_not_started, containers.STATES["running"], "exec again", "exec again"),
        (
            _an_image_is_read_before_the_wait_for_another_change_of_it,
            images.STATES["two-names"],
            "rmi app:latest",
            "rmi app:v1",
        ),
        (_what_has_no_record_is_not_taken_down, containers.STATES["created"], "start web", "stop web"),
        (_a_network_that_goes_can_be_joined, networks.STATES["configured"], "rm", "start"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else None,
)
def test_a_fault_that_is_put_back_is_found(
    fault: Callable[[Patch], None], state: Any, first: str, second: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    some = Some(state, first, second)
    fault(monkeypatch)
    assert explore(some, some.firsts()[0], tmp_path).failures
