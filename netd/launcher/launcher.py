"""Containers on this machine: made, started, watched and cleaned away, through an OCI runtime under conmon.

Nothing is kept in memory: every method finds what it needs in the directories of the data and exec roots, so
a new daemon goes on where another was killed.

    <data-root>/containers/<id>/{diff,work,volumes}, container.log     stays until `discard`
    <exec-root>/containers/<id>/    the bundle: config.json, rootfs/, conmon's files, exec/<n>/    until `delete`
    <exec-root>/runtime/            the OCI runtime's own state
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec

from netd.core.errors import Conflict, NotFound
from netd.core.tasks import Tasks
from netd.core.teardown import Teardown
from netd.core.times import timestamp
from netd.launcher import cleanup, failures, leftovers, oci, processes, top
from netd.launcher.attach import Attachment
from netd.launcher.cgroups import Cgroups
from netd.launcher.conmon import Conmon, Monitored, StartFailed, find_program, monitor_ended, stop_monitor
from netd.launcher.execs import ExecSession, follow
from netd.launcher.failures import explain
from netd.launcher.logs import LogQuery, read_log
from netd.launcher.mounts import image_volumes
from netd.launcher.overlayfs import Overlay
from netd.launcher.runtime import choose, is_runc
from netd.launcher.spec import KILLED, ExecSpec, ExitStatus, LaunchError, LaunchSpec, Running, Unkillable
from netd.model.containers import HostConfig

RECOVERY = 2.0  # seconds for a container without a conmon to end, or for a conmon whose container has ended
_PATIENCE = 60.0  # seconds for a runtime, or a container's own process, to do as it is told


class Launcher:
    """All containers of one daemon. Methods raise `LaunchError` unless they say otherwise."""

    def __init__(self, data_root: Path, exec_root: Path, runtime: str | None = None) -> None:
        self.data_root = data_root.absolute()
        self.exec_root = exec_root.absolute()
        self.runtime = choose(runtime)
        # several daemons share one machine's cgroups: the group's name tells whose it is
        tag = hashlib.sha256(str(self.exec_root).encode()).hexdigest()[:8]
        self.cgroups = Cgroups(f"/netd-{tag}")
        self._conmon = Conmon(find_program("conmon"), self.runtime, self.exec_root / "runtime")
        self._creating = 0
        self._tasks = Tasks()
        (self.exec_root / "containers").mkdir(parents=True, exist_ok=True)

    async def close(self) -> None:
        """Follow and hear nothing any more; the containers go on."""
        await self._tasks.close()

    # ---- life ----

    async def create(self, spec: LaunchSpec) -> int:
        """Mount its root and have the runtime make it, not yet started; the pid of its first process."""
        self._creating += 1
        try:
            target = self._target(spec.id)
            if target.directory.exists():
                await self.delete(spec.id)
            try:
                await _to_the_end(self._prepare, spec)
                return await self._conmon.create(target, self.log_path(spec.id), _stream_flags(spec))
            except StartFailed as failure:
                command = [*(spec.config.entrypoint or []), *(spec.config.cmd or [])][0]
                error = explain(failures.CREATE, failure.text, target.directory, command)
                await self.delete(spec.id)
                raise error from failure
            except BaseException:
                await self._delete(spec.id, patience=0)
                raise
        finally:
            self._creating -= 1

    async def start(self, id: str) -> None:
        """Let a created container run its command."""
        if is_runc(self.runtime):
            await self._open_exec_fifo(id)
        else:
            await self._runtime("start", id)

    async def kill(self, id: str, number: int) -> None:
        """Send a signal to its first process; `Conflict` if it does not run."""
        pidfd = self._init(id)
        if pidfd is None:
            raise Conflict(f"container {id} is not running")
        try:
            processes.send(pidfd, number)
        finally:
            os.close(pidfd)
        if number == signal.SIGKILL:
            self.cgroups.thaw(id)

    async def pause(self, id: str) -> None:
        """Freeze all its processes."""
        await self._runtime("pause", id)

    async def resume(self, id: str) -> None:
        """Let them run again."""
        await self._runtime("resume", id)

    async def update(self, id: str, host: HostConfig) -> None:
        """Limit its processes as `host` says."""
        await self._runtime("update", "--resources", "-", id, given=msgspec.json.encode(oci.limits(host)))

    async def wait(self, id: str) -> ExitStatus:
        """Wait until it has ended. One whose conmon was killed is killed too: 137, as with a lost shim."""
        target = self._target(id)
        if not target.directory.exists():
            raise NotFound(f"No such container: {id}")
        await monitor_ended(target)
        return target.exit_status() or await self._orphaned(id, processes.DEADLINE)

    async def recover(self, id: str) -> Running | ExitStatus | None:
        """What became of a container that an earlier daemon started; None: it was never started, or the machine
        was. Whatever the answer but `Running`, `delete` follows.

        Takes a few seconds at most; raises `Unkillable` if it has to end and does not: to be asked again later.
        """
        target = self._target(id)
        if status := target.exit_status():
            return status
        pidfd = target.monitor()
        if pidfd is None:
            return await self._orphaned(id, RECOVERY) if target.pid and not self._unstarted(id) else None
        try:
            init = self._init(id)
            if init is not None:
                os.close(init)
                return None if self._unstarted(id) else Running(target.pid or 0, self.cgroups.frozen(id))
            # it has just ended, its conmon is about to say how
            if not await processes.ended_within(pidfd, RECOVERY):
                raise Unkillable(f"the conmon of container {id} does not end although its process has")
        finally:
            os.close(pidfd)
        return target.exit_status() or await self._orphaned(id, RECOVERY)

    async def delete(self, id: str) -> None:
        """Remove everything but the writable layer and the log, killing what still runs. Idempotent; goes on
        after errors and raises them together at the end."""
        await self._delete(id, cleanup.PATIENCE)

    async def discard(self, id: str) -> None:
        """Remove its writable layer, its own volumes and its log; idempotent."""
        await asyncio.to_thread(cleanup.remove_tree, self._data(id))

    async def owned(self) -> set[str]:
        """Ids of all containers that have left anything outside the data root, found by looking."""
        bundles, runtime = self.exec_root / "containers", self.exec_root / "runtime"
        return await leftovers.look(bundles, runtime, self.cgroups, RECOVERY)

    # ---- streams ----

    def attach(self, id: str) -> Attachment:
        """Its streams from now on: for all of them, attach between `create` and `start`."""
        try:
            connection = self._target(id).connect()
        except OSError as error:
            raise Conflict(f"container {id} is not running") from error
        container = self._config(id)
        once = container["annotations"][oci.STDIN] == "once"
        return Attachment(connection, self._tasks, tty=container["process"]["terminal"], stdin_once=once)

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the size of its terminal, in characters."""
        self._target(id).resize(height, width)

    def log_path(self, id: str) -> Path:
        """Where its output is kept until `discard`."""
        return self._data(id) / "container.log"

    def logs(
        self,
        id: str,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        since: float = 0,
        until: float = 0,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> AsyncGenerator[tuple[int, bytes]]:
        """Its output of now and before; with `follow` until it ends. `since`, `until`: seconds since the epoch,
        0 for no bound; `tail`: at most so many last lines."""
        query = LogQuery(stdout, stderr, since, until, tail, timestamps)
        return read_log(self.log_path(id), query, self._target(id).monitor if follow else None)

    # ---- more processes ----

    async def exec(self, id: str, spec: ExecSpec, *, attach: bool = True) -> ExecSession:
        """Run one more command in it; status 126 or 127 if that cannot be executed."""
        init = self._init(id)
        if init is None:
            raise Conflict(f"container {id} is not running")
        os.close(init)
        container = self._config(id)
        directory = self._target(id).directory / "exec" / token_hex(4)
        target = Monitored(directory, id)
        process = oci.exec_process(container, spec, Path(container["root"]["path"]))
        directory.mkdir(parents=True)
        (directory / "process.json").write_bytes(msgspec.json.encode(process))
        flags = [*(["--terminal"] if spec.tty else []), *(["--stdin"] if spec.stdin else [])]
        try:
            pid, connection = await self._conmon.exec(target, flags, attach=attach)
        except StartFailed as failure:
            error = explain(failures.EXEC, failure.text, directory, spec.args[0])
            shutil.rmtree(directory, ignore_errors=True)
            raise error from failure
        except OSError as error:  # its directory has gone, with the container
            shutil.rmtree(directory, ignore_errors=True)
            raise Conflict(f"container {id} is not running") from error
        once = spec.stdin and not spec.tty
        streams = Attachment(connection, self._tasks, tty=spec.tty, stdin_once=once) if connection else None
        return follow(pid, streams, target, self._tasks)

    async def top(self, id: str, ps_args: str) -> dict[str, Any]:
        """Its processes as `ps` with these arguments (default `-ef`) shows them."""
        return await top.processes_of(self.cgroups.processes(id), ps_args)

    # ---- inside ----

    def _target(self, id: str) -> Monitored:
        return Monitored(self.exec_root / "containers" / id, id)

    def _data(self, id: str) -> Path:
        return self.data_root / "containers" / id

    def _execs(self, id: str) -> list[Monitored]:
        with suppress(FileNotFoundError):
            return [Monitored(path, id) for path in (self._target(id).directory / "exec").iterdir()]
        return []

    def _config(self, id: str) -> dict[str, Any]:
        try:
            config = msgspec.json.decode((self._target(id).directory / "config.json").read_bytes())
        except FileNotFoundError as error:
            raise Conflict(f"container {id} is not running") from error
        assert isinstance(config, dict)
        return config

    def _prepare(self, spec: LaunchSpec) -> None:
        """The bundle: mounted root file system and config.json."""
        bundle, data = self._target(spec.id).directory, self._data(spec.id)
        bundle.mkdir(parents=True, mode=0o700)
        data.mkdir(parents=True, exist_ok=True)
        root = bundle / "rootfs"
        Overlay(spec.rootfs, data / "diff", data / "work", root, spec.host_config.auto_remove).mount()
        for target, path in image_volumes(spec, data / "volumes").items():
            cleanup.make_volume(root, target, path)
        config = oci.config(spec, root, data / "volumes", self.cgroups.path(spec.id))
        (bundle / "config.json").write_bytes(msgspec.json.encode(config))

    def _init(self, id: str) -> int | None:
        """A pidfd of its first process, None if that has ended."""
        pid = self._target(id).pid
        pidfd = processes.open_pidfd(pid) if pid else None
        if pidfd is not None and (processes.has_ended(pidfd) or not self.cgroups.has(id, pid or 0)):
            os.close(pidfd)
            return None
        return pidfd

    def _fifo(self, id: str) -> Path:
        return self.exec_root / "runtime" / id / "exec.fifo"

    def _unstarted(self, id: str) -> bool:
        return self._fifo(id).exists()

    async def _open_exec_fifo(self, id: str) -> None:
        """What `runc start` does, without the process: the container's init waits in open(2) of this fifo for a
        reader, writes one byte and executes the command; no fifo means started."""
        path, pidfd = self._fifo(id), self._init(id)
        if pidfd is None:
            raise LaunchError(f"container {id} ended before it was started")
        try:
            fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            os.close(pidfd)
            raise Conflict(f"container {id} is already started") from error
        try:
            async with asyncio.timeout(_PATIENCE):
                await processes.readable(fifo, pidfd)
            os.read(fifo, 1)
            path.unlink(missing_ok=True)
        except TimeoutError as error:
            raise LaunchError(f"container {id} did not start within {_PATIENCE:.0f} s") from error
        finally:
            os.close(fifo)
            os.close(pidfd)

    async def _runtime(self, *arguments: str, given: bytes | None = None) -> None:
        process = await asyncio.create_subprocess_exec(
            self.runtime,
            *("--root", str(self.exec_root / "runtime"), *arguments),
            stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await processes.communicate(process, _PATIENCE, given)
        if process.returncode:
            verb = " ".join(arguments[:-1])
            raise LaunchError(f"OCI runtime {verb} failed: {said.decode(errors='replace').strip()}")

    async def _orphaned(self, id: str, seconds: float) -> ExitStatus:
        """The end of a container without a conmon: nobody would hear its output or learn its exit code."""
        await self._kill_init(id, seconds)
        return ExitStatus(KILLED, timestamp())

    async def _delete(self, id: str, patience: float) -> None:
        teardown = Teardown(f"container {id}")
        target = self._target(id)
        killed = False
        with teardown.step():
            await self._kill_init(id, processes.DEADLINE)
        for monitored in [*self._execs(id), target]:
            with teardown.step():
                killed |= await stop_monitor(monitored, patience)
        with teardown.step():
            await self._kill_rest(id, killed)
        with teardown.step():
            await asyncio.to_thread(cleanup.remove_tree, self.exec_root / "runtime" / id)
        with teardown.step():
            await asyncio.to_thread(cleanup.remove_bundle, target.directory)
        self._remove_parents()
        teardown.throw(LaunchError)

    async def _kill_init(self, id: str, seconds: float) -> None:
        """Its first process, and with it, by the kernel, all others of its pid namespace; waits so long for that."""
        pidfd = self._init(id)
        if pidfd is None:
            return
        try:
            processes.send(pidfd, signal.SIGKILL)
            self.cgroups.thaw(id)
            if not await processes.ended_within(pidfd, seconds):
                raise Unkillable(f"its process {self._target(id).pid} does not end although it was killed")
        finally:
            os.close(pidfd)

    async def _kill_rest(self, id: str, interrupted: bool) -> None:
        """Remove its cgroups, killing what is still in them, and what is left of an `interrupted` runtime."""
        try:
            async with asyncio.timeout(processes.DEADLINE):
                while True:
                    if await asyncio.to_thread(self._gone, id, interrupted):
                        return
                    await asyncio.sleep(0.005)
        except TimeoutError as error:
            raise Unkillable("some of its processes do not end although they were killed") from error

    def _gone(self, id: str, interrupted: bool) -> bool:
        """Whether no process is left, after a try to make it so."""
        strays = [pid for pid in processes.all_pids() if self._is_stray(id, pid)] if interrupted else []
        left = bool(strays) or not self.cgroups.remove(id)
        for pid in self.cgroups.processes(id).union(strays) if left else ():
            pidfd = processes.open_pidfd(pid)
            if pidfd is not None:
                if self.cgroups.has(id, pid) or self._is_stray(id, pid):
                    processes.send(pidfd, signal.SIGKILL)
                os.close(pidfd)
        if left:
            self.cgroups.thaw(id)
        return not left

    def _is_stray(self, id: str, pid: int) -> bool:
        """Whether it is a runtime (under its own name or a wrapper's) at work on this container's bundle."""
        program, *arguments = processes.command_line(pid) or [""]
        bundle = str(self._target(id).directory)
        runtimes = {"crun", "runc", os.path.basename(self.runtime)}
        return os.path.basename(program) in runtimes and any(bundle in word for word in arguments)

    def _remove_parents(self) -> None:
        """The daemon's own cgroups go with the last container. Not in a thread: no `create` may come between."""
        if not self._creating and not os.listdir(self.exec_root / "containers"):
            self.cgroups.remove_parent()


def _stream_flags(spec: LaunchSpec) -> list[str]:
    flags = ["--terminal"] if spec.config.tty else []
    if spec.config.open_stdin:
        flags.append("--stdin")
        if spec.config.tty or not spec.config.stdin_once:
            flags.append("--leave-stdin-open")
    return flags


async def _to_the_end(work: Callable[[LaunchSpec], None], spec: LaunchSpec) -> None:
    """Run it in a thread. A cancelled wait does not stop a thread: what it made is complete when this raises."""
    thread = asyncio.get_running_loop().run_in_executor(None, work, spec)
    try:
        await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise
