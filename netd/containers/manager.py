"""Containers: made, found, shown, renamed, connected and removed.

How one lives is in `lifecycle`, how it is stopped and paused in `signals`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kvstore.contract import StoreError
from netd.containers import links, view
from netd.containers import request as container_request
from netd.containers.attachments import Attachments
from netd.containers.lifecycle import Lifecycle
from netd.containers.live import Containers, LiveContainer, Outcome
from netd.containers.recovery import Recovery, remove_unknown
from netd.containers.signals import Signals
from netd.core.errors import Conflict, InvalidParameter, NetdError, NotFound, NotModified
from netd.core.events import EventBus
from netd.core.filters import Filters
from netd.core.identity import check_name, random_name
from netd.core.records import Records
from netd.core.times import timestamp
from netd.images.store import ImageStore
from netd.launcher import Launcher
from netd.model.containers import Container, ContainerCreate, ContainerUpdate
from netd.model.images import Image
from netd.model.networks import NetworkConnect, NetworkDisconnect
from netd.model.sandboxes import Sandbox
from netd.sandboxes import etc
from netd.sandboxes.etc import EtcFiles

log = logging.getLogger(__name__)


class ContainerManager:
    """All containers of this host."""

    def __init__(
        self,
        records: Records[Container],
        images: ImageStore,
        attachments: Attachments,
        launcher: Launcher,
        events: EventBus,
        data_root: Path,
    ) -> None:
        self._containers = Containers()
        self._records = records
        self._images = images
        self._attachments = attachments
        self._launcher = launcher
        self._root = data_root / "containers"
        self._life = Lifecycle(self._containers, records, images, attachments, launcher, events, self._root)
        self._signals = Signals(self._life, launcher)
        self._recovery = Recovery(self._containers, records, self._life, launcher)

    @property
    def live(self) -> Mapping[str, LiveContainer]:
        """By id."""
        return self._containers.live

    # ---- after a restart --------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the records, learn what became of the containers meanwhile, clear what no record vouches for.

        Waits with a limit for containers whose processes do not end; the daemon starts without them.
        """
        await self._records.load()
        # of two that want one address the older one has it, as it had at first
        for record in sorted(self._records.items.values(), key=lambda record: record.created):
            self._containers.add(record)
            self._attachments.reserve_static(record)
        await self._recovery.run()
        left_alone = self._records.unreadable
        await self._attachments.sweep({live.record.sandbox_id for live in self.live.values()}, left_alone)
        await asyncio.to_thread(remove_unknown, self._root, {*self.live, *left_alone})

    def begin(self) -> None:
        """The daemon is complete: restart what is to be restarted."""
        self._life.ready.set()

    async def close(self) -> None:
        """End the watching; the containers go on."""
        await self._recovery.close()
        await self._life.close()

    # ---- finding and showing ----------------------------------------------------------------------------

    def find(self, ref: str) -> LiveContainer:
        """By full id, name (with or without its slash) or unique id prefix."""
        return self._containers.find(ref)

    def inspect(self, ref: str) -> dict[str, Any]:
        record = self.find(ref).record
        return view.inspect(record, self._attachments.sandbox(record), self._root / record.id)

    def sandbox(self, ref: str) -> Sandbox:
        """The sandbox a running container is in, be it another container's."""
        record = self.find(ref).record
        joined = record.host_config.network_mode.partition("container:")[2]
        sandbox = self._attachments.sandbox(self.find(joined).record if joined else record)
        if sandbox is None:
            raise Conflict(f"container {record.name} is not running: start it first")
        return sandbox

    def list(self, *, all: bool, limit: int, filters: Filters) -> list[dict[str, Any]]:
        """The containers that pass, newest first; only running ones unless told otherwise."""
        view.check_filters(filters)
        passes = view.passing(filters, self.live)
        shown = [
            c.record
            for c in self.live.values()
            if (all or limit > 0 or filters.get("status") or filters.get("exited") or c.record.state.running)
            and passes(c.record)
        ]
        shown.sort(key=lambda record: record.created, reverse=True)
        return [view.summary(record, self._attachments.sandbox(record)) for record in shown[: limit or None]]

    # ---- create and remove ------------------------------------------------------------------------------

    async def create(self, body: ContainerCreate, name: str) -> tuple[str, Sequence[str]]:
        """Store a new container; returns its id and warnings."""
        if not body.image:
            raise InvalidParameter("no image specified: name one that `images` lists")
        with self._images.hold(body.image) as image:
            request = container_request.check(body, image)
            record = await self._created(request, name.removeprefix("/"), image)
        self._life.publish("create", record)
        return record.id, request.warnings

    async def _created(self, request: container_request.Request, name: str, image: Image) -> Container:
        if name:
            check_name(name)
        record = Container(
            id=secrets.token_hex(32),
            name=self._containers.take_name(name, random_name),
            created=timestamp(),
            image_id=image.id,
            config=request.config,
            host_config=request.host,
        )
        try:
            links.check(record, self._containers.record)
            record = await self._attachments.configure(record, request.networks)
            await self._records.add(record.id, record)
        except BaseException:
            self._containers.free_name(record.name)
            self._attachments.forget(record)
            raise
        self._containers.add(record)
        return record

    def made_of(self, image_id: str) -> Sequence[str]:
        """The ids of the containers made of an image."""
        return [live.record.id for live in self.live.values() if live.record.image_id == image_id]

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """Remove a stopped container, or with `force` any; with `link` the link `/container/alias` instead."""
        if link:
            return await self._remove_link(ref)
        live = self.find(ref)
        if not force:
            async with live.changing():
                _must_not_run(live.record)
                return await self._life.remove(live)
        live.removing = True
        try:
            while not live.gone:
                await self._remove_by_force(live)
            await live.removed.wait()
        finally:
            live.removing = False

    async def _remove_by_force(self, live: LiveContainer) -> None:
        async with live.changing():
            ended = live.ended
            await self._life.give_up_restart(live)
            if not live.record.state.alive:
                return await self._life.remove(live)
            await self._life.note(live, replace(live.record, stopped_by_user=True))
        await self._signals.kill_and_wait(live, ended)

    async def _remove_link(self, ref: str) -> None:
        name, _, alias = ref.strip("/").rpartition("/")
        live = self.find(name)
        async with live.changing():
            await self._life.save(live, links.without(live.record, alias))
            if live.record.state.alive:
                etc.drop_name(EtcFiles(self._root / live.record.id).hosts, alias)

    async def prune(self, filters: Filters) -> Sequence[str]:
        """Remove the containers that do not run; returns their ids."""
        filters.check("label", "label!", "until")
        older = filters.until()
        gone = []
        for live in list(self.live.values()):
            record = live.record
            if record.state.running or not filters.labels(record.config.labels or {}) or not older(record.created):
                continue
            try:
                await self.remove(record.id, force=False, volumes=False, link=False)
                gone.append(record.id)
            except (NotFound, Conflict):  # meanwhile it has gone, or runs
                continue
            except (NetdError, StoreError) as error:
                log.warning("container %s is not pruned: %s", record.name, error)
        return gone

    async def rename(self, ref: str, name: str) -> None:
        """Give a container another name; it resolves at once (fact 1.32)."""
        live = self.find(ref)
        name = name.removeprefix("/")
        if not name:
            raise InvalidParameter("Neither old nor new names may be empty")
        check_name(name)
        async with live.changing():
            old = live.record
            if name == old.name:
                raise Conflict("Renaming a container with the same name as its current name")
            renamed = replace(old, name=self._containers.take_name(name, random_name))
            try:
                async with self._life.saved(live, renamed):
                    await self._attachments.rename(renamed)
            except BaseException:
                self._containers.free_name(name)
                raise
            self._containers.free_name(old.name)
            self._life.publish("rename", renamed, {"oldName": f"/{old.name}"})

    async def update(self, ref: str, body: ContainerUpdate) -> None:
        """Change a container's limits, at once if it runs, and its restart policy, from its next end on."""
        live = self.find(ref)
        async with live.changing():
            record = container_request.updated(live.record, body)
            async with self._life.saved(live, record):
                if record.state.alive and (body.memory or body.nano_cpus or body.pids_limit):
                    await self._launcher.update(record.id, record.host_config)
            self._life.publish("update", record)

    # ---- networks of a container ------------------------------------------------------------------------

    async def connect(self, network: str, body: NetworkConnect) -> None:
        """Attach a container to one more network; a stopped one only in its settings."""
        live = self.find(body.container)
        async with live.changing():
            found, record = await self._attachments.with_network(live.record, network, body)
            try:
                async with self._life.saved(live, record):
                    await self._attachments.join(record, found)
            except BaseException:
                self._attachments.forget(record, found)
                raise

    async def disconnect(self, network: str, body: NetworkDisconnect) -> None:
        """Detach a container from a network."""
        live = self.find(body.container)
        async with live.changing():
            found, record = self._attachments.without_network(live.record, network)
            async with self._life.saved(live, record):
                await self._attachments.leave(record, found)
            self._attachments.forget(record, found)

    async def follow_up(self, container_id: str) -> None:
        """Try again to add or take away what follows from the container's networks: its gateway endpoint."""
        live = self.live.get(container_id)
        if live is not None:
            async with live.lock:
                await self._attachments.follow_up(live.record)

    async def lose_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """An endpoint on a global network is not the container's any more: its address is another's by now, say."""
        live = self.live.get(container_id)
        if live is not None:
            async with live.lock:
                await self._attachments.lose(live.record, endpoint_id)

    # ---- start and stop ---------------------------------------------------------------------------------

    async def start(self, ref: str) -> None:
        """Start a container that does not run."""
        live = self.find(ref)
        async with live.changing():
            if live.record.state.paused:
                raise Conflict("cannot start a paused container, try unpause instead")
            if live.record.state.running:
                raise NotModified("container already started")
            if live.removing:
                raise Conflict("container is marked for removal and cannot be started")
            await self._life.start(live)

    async def stop(self, ref: str, *, signal: str = "", timeout: int | None = None) -> None:
        """Ask the process to end, and kill it after `timeout` seconds (negative: wait for ever)."""
        await self._signals.stop(self.find(ref), signal, timeout)

    async def restart(self, ref: str, *, signal: str = "", timeout: int | None = None) -> None:
        """Stop it if it runs, then start it."""
        live = self.find(ref)
        live.restarting = True
        try:
            with contextlib.suppress(NotModified):
                await self.stop(live.record.id, signal=signal, timeout=timeout)
        finally:
            live.restarting = False
        with contextlib.suppress(NotModified):  # somebody else was faster
            await self.start(live.record.id)
        self._life.publish("restart", live.record)

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal to a running container's process."""
        await self._signals.kill(self.find(ref), signal or "SIGKILL")

    async def pause(self, ref: str) -> None:
        """Freeze the processes of a running container."""
        await self._signals.pause(self.find(ref))

    async def unpause(self, ref: str) -> None:
        """Let them run again."""
        await self._signals.unpause(self.find(ref))

    # ---- waiting ----------------------------------------------------------------------------------------

    def wait(self, ref: str, condition: str = "not-running") -> Awaitable[tuple[int, str]]:
        """Wait until the container has ended, ends the next time, or is removed; its exit code and error.

        The reference and the condition are checked at once, before anything is awaited.
        """
        live = self.find(ref)
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise InvalidParameter(f"invalid condition: {condition!r}: use not-running, next-exit or removed")
        if condition == "removed":
            return _removed(live)
        if condition == "next-exit" or live.record.state.running:
            return _ended(live.ended)
        return _already(live.record)


def _must_not_run(record: Container) -> None:
    state = record.state
    if state.paused:
        raise Conflict(f'cannot remove container "{record.name}": container is paused and must be unpaused first')
    if state.running:
        raise Conflict(
            f'cannot remove container "{record.name}": container is {state.status}: stop the container before '
            "removing or force remove"
        )


async def _removed(live: LiveContainer) -> tuple[int, str]:
    await live.removed.wait()
    return await _already(live.record)


async def _ended(end: asyncio.Future[Outcome]) -> tuple[int, str]:
    outcome = await asyncio.shield(end)
    return outcome.exit_code, outcome.error


async def _already(record: Container) -> tuple[int, str]:
    return record.state.exit_code, ""
