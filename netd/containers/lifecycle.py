"""A container's life: from a start that leaves nothing behind if it fails, to the end of its process and after.

What happens to one container happens in turn: whoever calls `start`, `remove` or `give_up_restart` holds it
(`LiveContainer.changing`). Its record is stored first and believed then, but for its end, which is a fact.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from kvstore.contract import StoreError
from netd.containers import links, restart
from netd.containers.attachments import Attachments, Plan
from netd.containers.live import Containers, LiveContainer
from netd.core.errors import InvalidParameter, NetdError, NotFound, Unavailable
from netd.core.events import EventBus
from netd.core.records import Records
from netd.core.tasks import Tasks, both
from netd.core.teardown import Teardown
from netd.core.times import timestamp, unix_seconds
from netd.images.store import ImageStore
from netd.launcher import ExitStatus, Launcher, LaunchSpec, Running
from netd.launcher.cleanup import remove_tree
from netd.model.containers import Container, State
from netd.model.sandboxes import Sandbox

log = logging.getLogger(__name__)

RETRY = 1.0  # seconds until what could not be stored, learned or restarted is tried again
DEPENDENCY_SECONDS = 5.0  # a container that needs another waits so long for that one's automatic start
LOST_EXIT_CODE = 255  # nobody was there to see how it ended


class Lifecycle:
    """What starts containers, notices their end, starts them again and removes them."""

    def __init__(
        self,
        containers: Containers,
        records: Records[Container],
        images: ImageStore,
        attachments: Attachments,
        launcher: Launcher,
        events: EventBus,
        root: Path,
    ) -> None:
        self._containers = containers
        self._records = records
        self._images = images
        self._attachments = attachments
        self._launcher = launcher
        self._events = events
        self._root = root
        self._tasks = Tasks()
        self.ready = asyncio.Event()  # nothing is restarted before

    async def close(self) -> None:
        """End the watching; the containers go on."""
        await self._tasks.close()

    # ---- records ----------------------------------------------------------------------------------------

    async def save(self, live: LiveContainer, record: Container) -> None:
        """Store the container as it is to be; durable when this returns, and believed only then."""
        await self._records.put(record.id, record)
        live.record = record

    async def note(self, live: LiveContainer, record: Container) -> None:
        """Keep what is so whether or not the store takes it: if it does not now, it is told again until it does."""
        await self._store(record)
        self._believe(live, record)

    @asynccontextmanager
    async def saved(self, live: LiveContainer, record: Container) -> AsyncIterator[None]:
        """Store a change, then do what follows from it; if that fails the container is as it was."""
        before = live.record
        await self.save(live, record)
        try:
            yield
        except BaseException:
            await self.note(live, before)
            raise

    async def _store(self, record: Container) -> None:
        try:
            await self._records.put(record.id, record)
        except (StoreError, NetdError) as error:
            log.error("container %s: its state cannot be stored, it is tried again: %s", record.name, error)

    def _believe(self, live: LiveContainer, record: Container) -> None:
        live.record = record
        if not (self._is_stored(live) or live.storing):
            live.storing = True
            self._tasks.start(self._store_again(live), f"storing the state of container {record.name}")

    def _is_stored(self, live: LiveContainer) -> bool:
        return self._records.items.get(live.record.id) is live.record

    async def _store_again(self, live: LiveContainer) -> None:
        while live.storing:
            await asyncio.sleep(RETRY)
            async with live.lock:
                if not (live.gone or self._is_stored(live)):
                    with contextlib.suppress(StoreError, NetdError):  # told already
                        await self._records.put(live.record.id, live.record)
                live.storing = not (live.gone or self._is_stored(live))

    def publish(self, action: str, record: Container, extra: dict[str, str] | None = None) -> None:
        """Tell an event of this container."""
        attributes = {**(record.config.labels or {}), "image": record.config.image, "name": record.name}
        self._events.publish("container", action, record.id, {**attributes, **(extra or {})})

    # ---- start ------------------------------------------------------------------------------------------

    async def start(self, live: LiveContainer) -> None:
        """Start a container that does not run, by hand: what was counted and remembered of earlier runs is over."""
        record = replace(live.record, restart_count=0, stopped_by_user=False)
        live.delay = 0
        try:
            await self._start(live, record)
        except BaseException as error:
            await self.note(live, replace(record, state=_failed(record.state, error)))
            live.drop_pending()
            if record.host_config.auto_remove:
                await self._remove_ended(live)
            raise

    async def _start(self, live: LiveContainer, record: Container) -> None:
        """Plan, carry out, store; whatever fails, nothing is left of it but the error."""
        image = self._images.find(record.image_id)
        plan = await self._attachments.plan(record, self._containers.record)
        try:
            await self._attachments.prepare(plan)
            pid = await self._launch(live, plan, self._images.rootfs(image))
            state = State(status="running", running=True, pid=pid, started_at=timestamp())
            sandbox_id = plan.sandbox.id if plan.sandbox else ""
            await self.save(live, replace(plan.record, state=state, sandbox_id=sandbox_id))
        except BaseException:
            await self._clear(live, record, plan.sandbox)
            raise
        self._watch(live)
        self._attachments.refresh_links(live.record, [c.record for c in self._containers.live.values()])
        self._attachments.announce("connect", live.record, plan.sandbox)
        self.publish("start", live.record)

    async def _launch(self, live: LiveContainer, plan: Plan, rootfs: Path) -> int:
        """Links and process side by side; the program starts when both are ready. Its pid."""
        record = plan.record
        spec = LaunchSpec(
            id=record.id,
            name=record.name,
            rootfs=rootfs,
            config=record.config,
            host_config=record.host_config,
            hostname=plan.hostname,
            domainname=plan.domainname,
            netns=plan.netns or None,
            files=plan.files,
        )
        pid, _ = await both(self._launcher.create(spec), self._attachments.carry_out(plan))
        for streams in live.pending:
            streams.connect(self._launcher.attach(record.id))
        live.pending.clear()
        await self._launcher.start(record.id)
        return pid

    async def _clear(self, live: LiveContainer, record: Container, sandbox: Sandbox | None) -> None:
        """Take down what a process had: mounts and links side by side. What cannot be taken down now is told in the
        log, and taken down later."""
        teardown = Teardown(f"container {record.name}")
        with teardown.step("process"):
            await both(self._launcher.delete(record.id), self._attachments.undo(sandbox))
        teardown.tell()
        if teardown.errors and not live.leftovers:
            live.leftovers = True
            self._tasks.until_done(partial(self._clear_again, live), f"clearing container {record.name}")

    async def _clear_again(self, live: LiveContainer) -> None:
        async with live.lock:
            if not live.record.state.alive:
                await self._launcher.delete(live.record.id)
            live.leftovers = False

    # ---- end --------------------------------------------------------------------------------------------

    def _watch(self, live: LiveContainer) -> None:
        self._tasks.start(self._until_end(live), f"the watch of container {live.record.name}")

    async def _until_end(self, live: LiveContainer) -> None:
        while True:
            try:
                status = await self._launcher.wait(live.record.id)
            except NotFound:
                status = _lost(live.record)
            except (NetdError, OSError) as error:
                log.error("container %s: it is not known whether it runs: %s", live.record.name, error)
                await asyncio.sleep(RETRY)
                continue
            async with live.lock:
                return await self._finish(live, status)

    async def _finish(self, live: LiveContainer, status: ExitStatus) -> None:
        """The process has ended: record how, take everything down, then tell who waits."""
        before = live.record
        state = State(
            status="exited",
            exit_code=status.exit_code,
            oom_killed=status.oom_killed,
            started_at=before.state.started_at,
            finished_at=status.finished_at,
        )
        record = self._what_follows(live, replace(before, state=state, sandbox_id=""))
        await self._store(record)  # first: what is left of a crash in between is swept
        sandbox = self._attachments.sandbox(before)
        await self._clear(live, before, sandbox)
        self._believe(live, record)
        self._attachments.announce("disconnect", record, sandbox)
        self.publish("die", record, {"exitCode": str(status.exit_code)})
        live.tell_end()
        if record.state.restarting:
            ran = unix_seconds(status.finished_at) - unix_seconds(state.started_at)
            self._restart_soon(live, restart.next_delay(live.delay, ran))
        elif record.host_config.auto_remove and not live.restarting:
            await self._remove_ended(live)

    def _what_follows(self, live: LiveContainer, ended: Container) -> Container:
        """A container that has ended, or whose start has failed: it stays so, or waits for its restart."""
        if live.restarting or live.removing or not restart.after_end(ended):
            return ended
        state = replace(ended.state, status="restarting", running=True, restarting=True)
        return replace(ended, state=state, restart_count=ended.restart_count + 1)

    # ---- restarts by policy -----------------------------------------------------------------------------

    def _restart_soon(self, live: LiveContainer, delay: float) -> None:
        live.delay = delay
        self._restart_after(live, delay)

    def _restart_after(self, live: LiveContainer, delay: float) -> None:
        job = self._restart_later(live, delay)
        live.restarter = self._tasks.start(job, f"the restart of container {live.record.name}")

    async def _restart_later(self, live: LiveContainer, delay: float) -> None:
        if not self.ready.is_set():
            await self.ready.wait()
            await self._what_it_needs(live.record)
        await asyncio.sleep(delay)
        async with live.lock:
            live.restarter = None
            await self._restart(live)

    async def _restart(self, live: LiveContainer) -> None:
        record = live.record
        try:
            await self._start(live, record)
        except Unavailable as error:  # no fault of the container's: its back-off stays as it is
            log.warning("container %s cannot be restarted now, it is tried again: %s", record.name, error)
            self._restart_after(live, RETRY)
        except Exception as error:
            log.warning("container %s could not be restarted: %s", record.name, error)
            await self.note(live, self._what_follows(live, replace(record, state=_failed(record.state, error))))
            if live.record.state.restarting:
                self._restart_soon(live, restart.next_delay(live.delay, ran=0))
            else:
                live.tell_end()

    async def _what_it_needs(self, record: Container) -> None:
        """Wait, with a limit, for the automatic starts of the containers that this one joins or links to."""
        mode = record.host_config.network_mode
        needed = [mode.removeprefix("container:")] if mode.startswith("container:") else links.targets(record)
        starts = []
        for ref in needed:
            with contextlib.suppress(NotFound, InvalidParameter):  # which its start says
                if (restarter := self._containers.find(ref).restarter) is not None:
                    starts.append(restarter)
        if starts:
            await asyncio.wait(starts, timeout=DEPENDENCY_SECONDS)

    async def give_up_restart(self, live: LiveContainer) -> None:
        """Leave a container that waits for its restart as it ended."""
        if live.restarter is not None:
            live.restarter.cancel()
            live.restarter = None
        if live.record.state.restarting:
            state = replace(live.record.state, status="exited", running=False, restarting=False)
            await self.note(live, replace(live.record, state=state))
            live.tell_end()

    # ---- removal ----------------------------------------------------------------------------------------

    async def remove(self, live: LiveContainer) -> None:
        """Remove a container that does not run. Once its record has gone so has the container, whatever else fails:
        what is left is swept at the daemon's next start."""
        record = live.record
        await self._records.delete(record.id)
        self._containers.drop(live)
        self._attachments.forget(record)
        teardown = Teardown(f"container {record.name}")
        if live.leftovers:
            with teardown.step("process"):
                await self._launcher.delete(record.id)
        with teardown.step("writable layer"):
            await self._launcher.discard(record.id)
        with teardown.step("files"):
            await asyncio.to_thread(remove_tree, self._root / record.id)
        teardown.tell()
        live.drop_pending()
        live.tell_end()
        live.removed.set()
        self.publish("destroy", record)

    async def _remove_ended(self, live: LiveContainer) -> None:
        """Remove a container that is to be removed when it ends, now or as soon as the store allows it."""
        try:
            await self.remove(live)
        except (StoreError, NetdError) as error:
            log.error("container %s cannot be removed, it is tried again: %s", live.record.name, error)
            self._tasks.start(self._remove_later(live), f"the removal of container {live.record.name}")

    async def _remove_later(self, live: LiveContainer) -> None:
        await asyncio.sleep(RETRY)
        async with live.lock:
            if not live.gone and not live.record.state.running:
                await self._remove_ended(live)

    # ---- after a restart of the daemon ------------------------------------------------------------------

    async def recover(self, live: LiveContainer) -> None:
        """Go on with a container of an earlier daemon: watch it again, or finish, restart or remove it.

        Raises whatever keeps us from it now (a process that does not end although it was killed, say): to be called
        again.
        """
        async with live.lock:
            record = live.record
            if record.state.alive:
                await self._go_on(live)
            elif restart.with_daemon(record):
                await self._await_restart(live)
            elif record.host_config.auto_remove and record.state.status == "exited":
                await self._remove_ended(live)

    async def _go_on(self, live: LiveContainer) -> None:
        found = await self._launcher.recover(live.record.id)
        if isinstance(found, Running):
            await self._adopt(live, found)
            self._watch(live)
        else:
            await self._finish(live, found or _lost(live.record))

    async def _adopt(self, live: LiveContainer, found: Running) -> None:
        """Go on with a container that runs; the last daemon may have been killed between saying and doing."""
        record = await self._attachments.adopt(live.record)
        status = "paused" if found.paused else "running"
        record = replace(record, state=replace(record.state, status=status, paused=found.paused))
        if record != live.record:
            await self.note(live, record)

    async def _await_restart(self, live: LiveContainer) -> None:
        state = replace(live.record.state, status="restarting", running=True, restarting=True)
        await self.note(live, replace(live.record, state=state, stopped_by_user=False))
        self._restart_soon(live, restart.FIRST_DELAY)


def _failed(state: State, error: BaseException) -> State:
    """The state of a container whose start has failed: it never ran, or it is as it was, with the reason."""
    code = getattr(error, "exit_code", None) or 128
    status = "created" if state.status == "created" else "exited"
    return replace(state, status=status, running=False, restarting=False, pid=0, exit_code=code, error=str(error))


def _lost(record: Container) -> ExitStatus:
    log.warning("container %s has gone without a trace of its exit code", record.name)
    return ExitStatus(exit_code=LOST_EXIT_CODE, finished_at=timestamp(), oom_killed=False)
