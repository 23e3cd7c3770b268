"""Containers: made, found, shown, signalled, renamed and removed. Starting and ending are in `life`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from netd import container_request, container_view, hostsfile, legacy_links
from netd.attachments import Attachments
from netd.errors import Conflict, InvalidParameter, NotFound, NotModified
from netd.etcfiles import EtcFiles
from netd.events import EventBus
from netd.filters import Filters
from netd.images import ImageStore
from netd.launcher import Launcher
from netd.life import Life, LiveContainer
from netd.lookup import by_reference
from netd.model import Container, ContainerCreate, NetworkConnect, NetworkDisconnect
from netd.records import Records
from netd.sandbox import Sandbox
from netd.signals import signal_number
from netd.times import timestamp

log = logging.getLogger(__name__)

DEFAULT_STOP_SECONDS = 10


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
        self.live: dict[str, LiveContainer] = {}
        self._records = records
        self._images = images
        self._attachments = attachments
        self._launcher = launcher
        self._root = data_root / "containers"
        self._life = Life(records, images, attachments, launcher, events, self._record, self._remove)
        self._names_taken: set[str] = set()

    # ---- after a restart --------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the records, learn what became of the containers meanwhile, clear what no record vouches for."""
        await self._records.load()
        # of two that want one address the older one has it, as it had at first
        for record in sorted(self._records.items.values(), key=lambda record: record.created):
            self.live[record.id] = LiveContainer(record)
            self._names_taken.add(record.name)
            self._attachments.reserve_static(record)
        for live in list(self.live.values()):
            if live.record.state.running:
                await self._life.recover(live)
            elif live.record.host_config.restart_policy.name == "always" and live.record.state.status == "exited":
                self._life.restart_soon(live)  # even if a user had stopped it, says Docker's manual
        await self._attachments.sweep({c.record.sandbox_id for c in self.live.values()})
        for container_id in await self._launcher.owned():
            known = self.live.get(container_id)
            if known is None or not known.record.state.running:
                await self._launcher.delete(container_id)
            if known is None:
                await self._launcher.discard(container_id)
        await asyncio.to_thread(_remove_unknown, self._root, set(self.live))

    def begin(self) -> None:
        """The daemon is complete: restart what is to be restarted."""
        self._life.ready.set()

    # ---- finding and showing ----------------------------------------------------------------------------

    def find(self, ref: str) -> LiveContainer:
        """By full id, name (with or without its slash) or unique id prefix."""
        return by_reference(ref.removeprefix("/"), self.live, lambda c: c.record.name, "container")

    def inspect(self, ref: str) -> dict[str, Any]:
        record = self.find(ref).record
        return container_view.inspect(record, self._life.sandbox(record), self._root / record.id)

    def sandbox(self, ref: str) -> Sandbox:
        """The sandbox a running container is in, be it another container's."""
        record = self.find(ref).record
        joined = record.host_config.network_mode.partition("container:")[2]
        if joined:
            return self.sandbox(joined)
        sandbox = self._life.sandbox(record)
        if sandbox is None:
            raise Conflict(f"container {record.name} is not running: start it first")
        return sandbox

    def list(self, *, all: bool, limit: int, filters: Filters) -> list[dict[str, Any]]:
        """The containers that pass, newest first; only running ones unless told otherwise."""
        container_view.check_filters(filters)
        shown = [
            c.record
            for c in self.live.values()
            if (all or limit > 0 or filters.get("status") or filters.get("exited") or c.record.state.running)
            and container_view.passes(c.record, filters, self.live)
        ]
        shown.sort(key=lambda record: record.created, reverse=True)
        return [container_view.summary(record, self._life.sandbox(record)) for record in shown[: limit or None]]

    # ---- create and remove ------------------------------------------------------------------------------

    async def create(self, body: ContainerCreate, name: str) -> tuple[str, Sequence[str]]:
        """Store a new container; returns its id and warnings."""
        if not body.image:
            raise InvalidParameter("no image specified: name one that `images` lists")
        image = self._images.find(body.image)
        request = container_request.check(body, image)
        name = name.removeprefix("/")
        if name:
            container_request.check_name(name)
        record = Container(
            id=secrets.token_hex(32),
            name=self._take_name(name),
            created=timestamp(),
            image_id=image.id,
            config=request.config,
            host_config=request.host,
        )
        try:
            legacy_links.check(record, self._record)
            record = await self._attachments.configure(record, request.networks)
            await self._records.add(record.id, record)
        except BaseException:
            self._names_taken.discard(record.name)
            self._attachments.forget(record)
            raise
        self.live[record.id] = LiveContainer(record)
        self._life.publish("create", record)
        return record.id, request.warnings

    def _take_name(self, name: str) -> str:
        while not name or (name in self._names_taken):
            if name:
                holder = next((c.record.id for c in self.live.values() if c.record.name == name), "")
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{holder}". You have '
                    "to remove (or rename) that container to be able to reuse that name."
                )
            candidate = container_request.random_name()
            name = candidate if candidate not in self._names_taken else f"{candidate}_{secrets.token_hex(2)}"
        self._names_taken.add(name)
        return name

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """Remove a stopped container, or with `force` any; with `link` the link `/container/alias` instead."""
        if link:
            return await self._remove_link(ref)
        live = self.find(ref)
        if live.record.state.running:
            if not force:
                raise Conflict(
                    f'cannot remove container "/{live.record.name}": container is running: stop the container '
                    "before removing or force remove"
                )
            await self._kill_and_wait(live)
        async with live.lock:
            if live.record.id in self.live:
                await self._remove(live)

    async def _remove_link(self, ref: str) -> None:
        name, _, alias = ref.strip("/").rpartition("/")
        live = self.find(name)
        async with live.lock:
            await self._life.save(live, legacy_links.without(live.record, alias))
            if live.record.state.running:
                hostsfile.drop_name(EtcFiles(self._root / live.record.id).hosts, alias)

    async def _remove(self, live: LiveContainer) -> None:
        record = live.record
        self._life.cancel_restart(live)
        await self._records.delete(record.id)
        del self.live[record.id]
        self._names_taken.discard(record.name)
        self._attachments.forget(record)
        await self._launcher.discard(record.id)
        await asyncio.to_thread(_remove_tree, self._root / record.id)
        live.drop_pending()
        live.removed.set()
        live.tell_end()
        self._life.publish("destroy", record)

    async def prune(self, filters: Filters) -> Sequence[str]:
        """Remove the containers that do not run; returns their ids."""
        filters.check("label", "label!", "until")
        gone = []
        for live in list(self.live.values()):
            record = live.record
            if (
                record.state.running
                or not filters.labels(record.config.labels or {})
                or not filters.until(record.created)
            ):
                continue
            await self.remove(record.id, force=False, volumes=False, link=False)
            gone.append(record.id)
        return gone

    async def rename(self, ref: str, name: str) -> None:
        """Give a container another name; it resolves at once (fact 1.32)."""
        live = self.find(ref)
        name = name.removeprefix("/")
        if not name:
            raise InvalidParameter("Neither old nor new names may be empty")
        container_request.check_name(name)
        async with live.lock:
            old = live.record.name
            if name == old:
                raise Conflict("Renaming a container with the same name as its current name")
            self._take_name(name)
            try:
                renamed = replace(live.record, name=name)
                await self._attachments.rename(renamed)
                await self._life.save(live, renamed)
            except BaseException:
                self._names_taken.discard(name)
                raise
            self._names_taken.discard(old)
            self._life.publish("rename", live.record, {"oldName": f"/{old}"})

    # ---- start ------------------------------------------------------------------------------------------

    async def start(self, ref: str) -> None:
        """Start a container that does not run."""
        live = self.find(ref)
        async with live.lock:
            if live.record.state.running:
                raise NotModified("container already started")
            if live.record.id not in self.live:
                raise NotFound(f"No such container: {ref}")
            self._life.cancel_restart(live)
            live.stopped_by_user = False
            await self._life.start(live)

    # ---- networks of a container ------------------------------------------------------------------------

    async def connect(self, network: str, body: NetworkConnect) -> None:
        """Attach a container to one more network; a stopped one only in its settings."""
        live = self.find(body.container)
        async with live.lock:
            await self._life.save(live, await self._attachments.connect(network, body, live.record))

    async def disconnect(self, network: str, body: NetworkDisconnect) -> None:
        """Detach a container from a network."""
        live = self.find(body.container)
        async with live.lock:
            await self._life.save(live, await self._attachments.disconnect(network, body, live.record))

    async def lose_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """An endpoint on a global network is not the container's any more: its address is another's by now, say."""
        live = self.live.get(container_id)
        if live is not None:
            async with live.lock:
                await self._attachments.lose(live.record, endpoint_id)

    # ---- signals ----------------------------------------------------------------------------------------

    async def stop(self, ref: str, *, signal: str = "", timeout: int | None = None) -> None:
        """Ask the process to end, and kill it after `timeout` seconds (negative: wait for ever)."""
        live = self.find(ref)
        config = live.record.config
        self._life.cancel_restart(live)
        number = signal_number(signal or config.stop_signal or "SIGTERM")
        if not live.record.state.running:
            raise NotModified("container already stopped")
        live.stopped_by_user = True
        seconds = timeout if timeout is not None else config.stop_timeout
        if seconds is None:
            seconds = DEFAULT_STOP_SECONDS
        if live.record.state.paused:
            await self._launcher.resume(live.record.id)
        ended = live.next_end()
        with contextlib.suppress(Conflict):  # it has just ended by itself
            await self._launcher.kill(live.record.id, number)
        self._life.publish("kill", live.record, {"signal": str(number)})
        try:
            async with asyncio.timeout(None if seconds < 0 else seconds):
                await ended
        except TimeoutError:
            await self._kill_and_wait(live)

    async def restart(self, ref: str, *, signal: str = "", timeout: int | None = None) -> None:
        """Stop it if it runs, then start it."""
        live = self.find(ref)
        if live.record.state.running:
            live.restarting = True
            try:
                await self.stop(live.record.id, signal=signal, timeout=timeout)
            finally:
                live.restarting = False
        await self.start(live.record.id)
        self._life.publish("restart", live.record)

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal to a running container's process."""
        live = self.find(ref)
        number = signal_number(signal or "SIGKILL")
        live.must_run(f"cannot kill container: {ref}: ")
        if number == 9:
            live.stopped_by_user = True
        await self._launcher.kill(live.record.id, number)
        self._life.publish("kill", live.record, {"signal": str(number)})

    async def _kill_and_wait(self, live: LiveContainer) -> None:
        live.stopped_by_user = True
        while live.record.state.running:
            ended = live.next_end()
            with contextlib.suppress(Conflict):
                await self._launcher.kill(live.record.id, 9)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await ended

    async def pause(self, ref: str) -> None:
        live = self.find(ref)
        async with live.lock:
            live.must_run()
            if live.record.state.paused:
                raise Conflict(f"Container {live.record.id} is already paused")
            await self._launcher.pause(live.record.id)
            await self._set_state(live, status="paused", paused=True)
            self._life.publish("pause", live.record)

    async def unpause(self, ref: str) -> None:
        live = self.find(ref)
        async with live.lock:
            if not live.record.state.paused:
                raise Conflict(f"Container {live.record.id} is not paused")
            await self._launcher.resume(live.record.id)
            await self._set_state(live, status="running", paused=False)
            self._life.publish("unpause", live.record)

    # ---- waiting ----------------------------------------------------------------------------------------

    def wait(self, ref: str, condition: str = "not-running") -> Awaitable[tuple[int, str]]:
        """Wait until the container has ended, ends the next time, or is removed; its exit code and error.

        The reference and the condition are checked at once, before anything is awaited.
        """
        live = self.find(ref)
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise InvalidParameter(f"invalid condition: {condition!r}: use not-running, next-exit or removed")
        if condition == "removed":
            return _outcome(live, live.removed.wait())
        if condition == "next-exit" or live.record.state.running:
            return _outcome(live, live.next_end())
        return _outcome(live, None)

    # ---- helpers ----------------------------------------------------------------------------------------

    def _record(self, ref: str) -> Container:
        return self.find(ref).record

    async def _set_state(self, live: LiveContainer, **changes: Any) -> None:
        await self._life.save(live, replace(live.record, state=replace(live.record.state, **changes)))


async def _outcome(live: LiveContainer, end: Awaitable[object] | None) -> tuple[int, str]:
    if end is not None:
        await end
    return live.record.state.exit_code, ""


def _remove_unknown(root: Path, known: set[str]) -> None:
    for path in root.iterdir() if root.is_dir() else ():
        if path.name not in known:
            _remove_tree(path)


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
