"""One container's life: from a start that leaves nothing behind if it fails, to the end of its process and after."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from netd.attachments import Attachments, Surroundings
from netd.errors import Conflict, NetdError, Unavailable
from netd.events import EventBus
from netd.images import ImageStore
from netd.launcher import ExitStatus, Launcher, LaunchSpec, Running
from netd.model import Container, State
from netd.pending import PendingStreams
from netd.records import Records
from netd.sandbox import Sandbox
from netd.times import timestamp

log = logging.getLogger(__name__)

_FIRST_RESTART_DELAY = 0.1  # seconds, doubled at each restart up to a minute
_LONGEST_RESTART_DELAY = 60.0
_UNAVAILABLE_DELAY = 1.0  # until a restart that wants the cluster's store is tried again
_LOST_EXIT_CODE = 255  # nobody was there to see how it ended


@dataclass(slots=True)
class LiveContainer:
    """A container with what is only in memory: who waits for it and what is under way."""

    record: Container
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    watcher: asyncio.Task[None] | None = None
    restarter: asyncio.Task[None] | None = None
    pending: list[PendingStreams] = field(default_factory=list)
    stopped_by_user: bool = False
    restarting: bool = False  # by `restart`: its end is not the end
    delay: float = _FIRST_RESTART_DELAY

    def next_end(self) -> asyncio.Future[None]:
        """Done when the process ends the next time, or the container is removed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.append(future)
        return future

    def tell_end(self) -> None:
        """Wake everyone who waits for the end."""
        for future in self.waiters:
            if not future.done():
                future.set_result(None)
        self.waiters.clear()

    def must_run(self, prefix: str = "") -> None:
        """`Conflict` unless the container runs."""
        if not self.record.state.running:
            raise Conflict(f"{prefix}container {self.record.id} is not running")

    def drop_pending(self) -> None:
        """Whoever attached to a start that does not come sees the end of the streams."""
        for streams in self.pending:
            streams.cancel()
        self.pending.clear()


class Life:
    """What starts containers and notices their end. The caller of `start` holds the container's lock."""

    def __init__(
        self,
        records: Records[Container],
        images: ImageStore,
        attachments: Attachments,
        launcher: Launcher,
        events: EventBus,
        find: Callable[[str], Container],
        remove: Callable[[LiveContainer], Awaitable[None]],
    ) -> None:
        self._records = records
        self._images = images
        self._attachments = attachments
        self._launcher = launcher
        self._events = events
        self._find = find
        self._remove = remove
        self.ready = asyncio.Event()  # nothing is restarted before

    def sandbox(self, record: Container) -> Sandbox | None:
        """The sandbox the container runs in, unless it shares another's or does not run."""
        return self._attachments.sandboxes.get(record.sandbox_id)

    async def save(self, live: LiveContainer, record: Container) -> None:
        """Store the container as it is now; durable when this returns."""
        await self._records.put(record.id, record)
        live.record = record

    def publish(self, action: str, record: Container, extra: dict[str, str] | None = None) -> None:
        """Tell an event of this container."""
        attributes = {**(record.config.labels or {}), "image": record.config.image, "name": record.name}
        self._events.publish("container", action, record.id, {**attributes, **(extra or {})})

    # ---- start ------------------------------------------------------------------------------------------

    async def start(self, live: LiveContainer) -> None:
        record = live.record
        sandbox: Sandbox | None = None
        try:
            sandbox, network = await self._attachments.plan(record, self._find)
            await self._run(live, sandbox, network)
        except BaseException as error:
            await self._abandon(live, sandbox, error)
            if record.host_config.auto_remove:
                await self._remove(live)
            raise
        live.watcher = asyncio.create_task(self._watch(live), name=f"watch {record.id[:12]}")
        self._attachments.refresh_links(live.record, self._records.items.values())
        self._attachments.announce("connect", live.record)
        self.publish("start", live.record)

    async def _run(self, live: LiveContainer, sandbox: Sandbox | None, network: Surroundings) -> None:
        """Namespace first; then links and process side by side; the program starts when both are ready."""
        record = live.record
        image = self._images.find(record.image_id)
        if sandbox is not None:
            await self._attachments.prepare(record, sandbox, self._find)
        spec = LaunchSpec(
            id=record.id,
            name=record.name,
            rootfs=self._images.rootfs(image),
            config=record.config,
            host_config=record.host_config,
            hostname=network.hostname,
            domainname=network.domainname,
            netns=network.netns or None,
            files=network.files,
        )
        pid = await _both(
            self._launcher.create(spec),
            self._attachments.bring_up(sandbox) if sandbox is not None else None,
        )
        for streams in live.pending:
            streams.connect(self._launcher.attach(record.id))
        live.pending.clear()
        state = State(status="running", running=True, pid=pid, started_at=timestamp())
        await self._launcher.start(record.id)
        await self.save(
            live,
            replace(
                record,
                state=state,
                sandbox_id=sandbox.id if sandbox else "",
            ),
        )

    async def _abandon(self, live: LiveContainer, sandbox: Sandbox | None, error: BaseException) -> None:
        """A start that failed leaves nothing but its reason."""
        record = live.record
        await self._clear(record, sandbox)
        code = getattr(error, "exit_code", None) or 128
        status = "created" if record.state.status == "running" else record.state.status
        state = replace(record.state, status=status, exit_code=code, error=str(error), running=False, pid=0)
        with contextlib.suppress(Exception):
            await self.save(live, replace(record, state=state, sandbox_id=""))
        live.drop_pending()

    # ---- end --------------------------------------------------------------------------------------------

    async def _watch(self, live: LiveContainer) -> None:
        status = await self._launcher.wait(live.record.id)
        async with live.lock:
            await self._finish(live, status)

    async def _finish(self, live: LiveContainer, status: ExitStatus) -> None:
        """The process has ended: take everything down, record how it ended, tell who waits."""
        record = live.record
        sandbox = self.sandbox(record)
        self.publish("die", record, {"exitCode": str(status.exit_code)})
        self._attachments.announce("disconnect", record)
        await self._clear(record, sandbox)
        state = State(
            status="exited",
            exit_code=status.exit_code,
            oom_killed=status.oom_killed,
            started_at=record.state.started_at,
            finished_at=status.finished_at,
        )
        await self.save(live, replace(record, state=state, sandbox_id=""))
        if live.stopped_by_user:
            self.publish("stop", record)
        live.tell_end()
        if live.restarting:
            return
        if record.host_config.auto_remove:
            await self._remove(live)
        elif self._restarts(live):
            self.restart_soon(live)

    async def _clear(self, record: Container, sandbox: Sandbox | None) -> None:
        """Take down what a process had: mounts and links side by side; errors go to the log."""
        network = self._attachments.tear_down(sandbox) if sandbox is not None else _nothing()
        _, launched = await asyncio.gather(network, self._launcher.delete(record.id), return_exceptions=True)
        if isinstance(launched, BaseException):
            log.error("container %s: %s", record.name, launched)

    def _restarts(self, live: LiveContainer) -> bool:
        policy = live.record.host_config.restart_policy
        if live.stopped_by_user:
            return False
        if policy.name == "on-failure":
            limit = policy.maximum_retry_count
            return live.record.state.exit_code != 0 and (not limit or live.record.restart_count < limit)
        return policy.name in ("always", "unless-stopped")

    def restart_soon(self, live: LiveContainer) -> None:
        """Start it again in the background, after a delay that grows from time to time."""
        live.restarter = asyncio.create_task(self._restart_later(live))

    async def _restart_later(self, live: LiveContainer) -> None:
        delay, live.delay = live.delay, min(live.delay * 2, _LONGEST_RESTART_DELAY)
        await self.ready.wait()
        await asyncio.sleep(delay)
        async with live.lock:
            live.restarter = None
            try:
                live.record = replace(live.record, restart_count=live.record.restart_count + 1)
                await self.start(live)
            except Unavailable as error:
                log.warning("container %s cannot be restarted now, it is tried again: %s", live.record.name, error)
                live.delay = _UNAVAILABLE_DELAY
                self.restart_soon(live)
            except NetdError as error:
                log.warning("container %s could not be restarted: %s", live.record.name, error)

    def cancel_restart(self, live: LiveContainer) -> None:
        if live.restarter is not None:
            live.restarter.cancel()
            live.restarter = None

    async def recover(self, live: LiveContainer) -> None:
        """Learn what became of a container that ran when the last daemon went: watch it again, or finish it."""
        found = await self._launcher.recover(live.record.id)
        if isinstance(found, Running):
            live.watcher = asyncio.create_task(self._watch(live))
            return
        if found is None:
            log.warning("container %s has gone without a trace of its exit code", live.record.name)
            found = ExitStatus(exit_code=_LOST_EXIT_CODE, finished_at=timestamp(), oom_killed=False)
        async with live.lock:
            await self._finish(live, found)


async def _both(create: Coroutine[Any, Any, int], bring_up: Coroutine[Any, Any, None] | None) -> int:
    """Run both to their end, then report the first failure: neither is cut off half-way."""
    if bring_up is None:
        return await create
    pid, network = await asyncio.gather(create, bring_up, return_exceptions=True)
    for outcome in (pid, network):
        if isinstance(outcome, BaseException):
            raise outcome
    assert isinstance(pid, int)
    return pid


async def _nothing() -> None:
    """Stands in for a step that a container does not need."""
