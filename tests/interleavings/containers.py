"""Containers: the states they can be in, what can happen to them, and what must be true afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from netd.containers.manager import ContainerManager
from netd.core.errors import Conflict, NotFound, NotModified
from netd.core.filters import Filters
from netd.model.containers import (
    Container,
    ContainerCreate,
    ContainerUpdate,
    ExecConfig,
    HostConfig,
    NetworkingConfig,
    PortBinding,
    RestartPolicy,
)
from netd.model.networks import EndpointIPAMConfig, EndpointSettings, NetworkConnect, NetworkDisconnect
from tests.interleavings.engine import Operation, kill_and_load
from tests.interleavings.scene import BasicScene, network

_PORTS: dict[str, list[PortBinding] | None] = {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080")]}


_LIFE = frozenset({"start", "stop", "kill", "restart", "rm", "rm-f", "ends", "prune", "dies"})
_NETWORK = frozenset({"rename", "connect", "disconnect"})
_ALL = _LIFE | _NETWORK | {"pause", "unpause", "update", "exec", "exec again", "create"}


@dataclass(frozen=True)
class State:
    """How `web` is when two operations meet, which can be the first and which the second, and upon whom."""

    name: str
    build: Callable[[Machine], Coroutine[Any, Any, None]]
    first: frozenset[str] = _ALL
    second: frozenset[str] = _ALL
    subjects: tuple[str, str] = ("web", "web")

    def make(self, root: Path) -> Containers:
        return Containers(root, self)

    def firsts(self) -> list[Operation[Containers]]:
        return self._operations(self.subjects[0], self.first)

    def seconds(self) -> list[Operation[Containers]]:
        return self._operations(self.subjects[1], self.second)

    def _operations(self, subject: str, kinds: frozenset[str]) -> list[Operation[Containers]]:
        return [op for op in operations(subject, self) if op.name.removesuffix(f" {subject}") in kinds]


class Machine(BasicScene):
    """A world in which containers are brought into a state."""

    @property
    def containers(self) -> ContainerManager:
        return self.world.daemon.containers

    async def create(self, name: str, **host: Any) -> None:
        """A container that is called so, on `blue` unless told otherwise."""
        host.setdefault("network_mode", "blue")
        body = ContainerCreate(image="app", cmd=["serve"], host_config=HostConfig(**host))
        self.ids[name], _ = await self.containers.create(body, name)

    async def run(self, name: str, **host: Any) -> None:
        await self.create(name, **host)
        await self.containers.start(self.ids[name])


class Containers(Machine):
    """A daemon that finds `web` in its state, and an older container that does not run; clients wait for `web`."""

    def __init__(self, root: Path, state: State) -> None:
        machine = _machine(root, state)
        super().__init__(root, machine.world)
        self.state = state
        self.ids = machine.ids
        self._loop = self.world.loop
        self._process = self.world.launcher.processes.get(self.ids["web"])
        ran = self._process is not None and self._process.runs
        self.exec_id = self.world.run(self._make_exec()) if ran and not self._process.paused else ""
        self._waits = {c: self._wait(c) for c in ("not-running", "next-exit", "removed") if ran or c == "removed"}
        self.world.loop.settle(0)

    async def _make_exec(self) -> str:
        return self.world.daemon.streams.execs.create(self.ids["web"], ExecConfig(cmd=["once"]))

    def _wait(self, condition: str) -> asyncio.Task[Any]:
        async def client() -> Any:
            return await self.containers.wait(self.ids["web"], condition)

        return self.world.loop.create_task(client(), name=f"wait {condition}")

    def record(self, name: str) -> Container | None:
        """The container that was called so at first; None if it is gone."""
        return self.world.daemon.records().get(self.ids[name])

    def runs(self, name: str) -> bool:
        return self.ids[name] in self.world.launcher.running()

    def waiting(self) -> list[str]:
        if self.world.loop is not self._loop:
            return []  # they were cut off with their daemon
        record = self.record("web")
        ended = self._process is not None and not self._process.runs
        over = {"removed": record is None, "not-running": ended, "next-exit": ended}
        return [
            f"a client waits for {condition} for ever"
            for condition, task in self._waits.items()
            if (record is None or over[condition]) and not task.done()
        ]


@cache
def _machine(root: Path, state: State) -> Machine:
    """One on which the state has come about; all scenes resemble it."""
    machine = Machine(root)
    machine.world.run(state.build(machine))
    machine.world.loop.settle(0)
    return machine


# ---- states ---------------------------------------------------------------------------------------------


async def _created(scene: Machine) -> None:
    await scene.create("web", port_bindings=_PORTS)


async def _running(scene: Machine) -> None:
    await scene.run("web", port_bindings=_PORTS)


async def _always(scene: Machine) -> None:
    await scene.run("web", port_bindings=_PORTS, restart_policy=RestartPolicy("always"))


async def _paused(scene: Machine) -> None:
    await scene.run("web")
    await scene.containers.pause(scene.ids["web"])


async def _backing_off(scene: Machine) -> None:
    await _always(scene)
    scene.world.launcher.processes[scene.ids["web"]].end(1)


async def _auto_remove(scene: Machine) -> None:
    await scene.run("web", auto_remove=True)


async def _two_networks(scene: Machine) -> None:
    await scene.world.daemon.networks.create(network("green", "172.31.0.0/28"))
    await scene.create("web")
    await scene.containers.connect("green", NetworkConnect(container=scene.ids["web"]))
    await scene.containers.start(scene.ids["web"])


async def _sharing(scene: Machine) -> None:
    await scene.run("db")
    await scene.create("web", network_mode=f"container:{scene.ids['db']}")


async def _linked(scene: Machine) -> None:
    await scene.run("db", network_mode="bridge")
    await scene.create("web", network_mode="bridge", links=["db:data"])


_BESIDE = _LIFE | _NETWORK  # upon the container that another one needs
_NEEDING = frozenset({"start", "stop", "restart", "rm", "dies"})
_ENDS = frozenset({"stop", "rm-f", "ends", "dies"})  # a kill is half a stop, and a restart is a stop and a start

STATES = {
    state.name: state
    for state in (
        State("created", _created, _ALL - {"restart"}),
        State("running", _running, _ALL - {"restart"}, _ALL - {"create"}),
        State("always", _always, _ENDS, _LIFE | {"rename"}),
        State("paused", _paused, _ENDS | {"unpause"}, _LIFE | {"pause", "unpause", "exec"}),
        State(
            "backing-off",
            _backing_off,
            _ENDS | _NETWORK | {"kill", "time passes"},
            _LIFE | _NETWORK | {"pause", "exec"},
        ),
        State("auto-remove", _auto_remove, _ENDS | {"restart"}, _LIFE | {"rename", "connect"}),
        State("two-networks", _two_networks, _NETWORK - {"rename"} | _ENDS - {"dies"}, _LIFE | _NETWORK),
        State("sharing", _sharing, _NEEDING - {"restart"}, _BESIDE, ("web", "db")),
        State("shared", _sharing, _ENDS | {"disconnect"}, _NEEDING, ("db", "web")),
        State("linking", _linked, _NEEDING - {"restart"}, _BESIDE, ("web", "db")),
        State("linked", _linked, _ENDS | {"disconnect"}, _NEEDING, ("db", "web")),
    )
}


# ---- operations -----------------------------------------------------------------------------------------


def operations(subject: str, state: State) -> list[Operation[Containers]]:
    """All that can happen to this container."""

    def undone(*names: str) -> frozenset[str]:
        return frozenset({"prune", *(f"{name} {subject}" for name in names)})

    def the(call: Callable[[ContainerManager, str], Awaitable[Any]]) -> Callable[[Containers], Any]:
        async def run(scene: Containers) -> Any:
            return await call(scene.containers, scene.ids[subject])

        return run

    def is_gone(scene: Containers, _: Any) -> str | None:
        return "it is there" if scene.record(subject) is not None else None

    def exists(wrong: Callable[[Containers, Container], str | None]) -> Callable[[Containers, Any], str | None]:
        def keeps(scene: Containers, _: Any) -> str | None:
            record = scene.record(subject)
            return "the container is gone" if record is None else wrong(scene, record)

        return keeps

    def must_run(scene: Containers, _: Container) -> str | None:
        return None if scene.runs(subject) else "it does not run"

    def must_not_run(scene: Containers, _: Any) -> str | None:
        return "it runs" if scene.runs(subject) else None

    removing = (*_REMOVED, *_ENDING) if state.name == "auto-remove" else _REMOVED
    # a new daemon starts those that are always to run, even if a user had stopped them
    reborn = frozenset({"dies"} if state.name in ("always", "backing-off") else ())
    # a container that is about to be restarted runs, for who looks from outside
    refusals = (NotModified, Conflict) if state.name == "backing-off" else (NotModified,)
    table = [
        Operation(f"start {subject}", the(lambda c, id: c.start(id)), exists(must_run), undone(*_ENDING, *_REMOVED)),
        Operation(
            f"stop {subject}", the(lambda c, id: c.stop(id)), must_not_run, undone(*_STARTING) | reborn, refusals
        ),
        Operation(
            f"kill {subject}",
            the(lambda c, id: c.kill(id)),
            must_not_run,
            undone(*_STARTING) | reborn,
            refusals if state.name == "backing-off" else (),
        ),
        Operation(
            f"restart {subject}", the(lambda c, id: c.restart(id)), exists(must_run), undone(*_ENDING, *_REMOVED)
        ),
        Operation(f"rm {subject}", the(lambda c, id: c.remove(id, force=False, volumes=False, link=False)), is_gone),
        Operation(
            f"rm-f {subject}",
            the(lambda c, id: c.remove(id, force=True, volumes=False, link=False)),
            is_gone,
            never=(Conflict,),
        ),
        Operation(
            f"rename {subject}",
            the(lambda c, id: c.rename(id, "other")),
            exists(lambda scene, record: None if record.name == "other" else f"its name is {record.name}"),
            undone(*removing),
        ),
        Operation(
            f"pause {subject}",
            the(lambda c, id: c.pause(id)),
            exists(lambda scene, record: None if record.state.paused else "it is not paused"),
            undone("unpause", *_ENDING, *_STARTING, *_REMOVED),
        ),
        Operation(
            f"unpause {subject}",
            the(lambda c, id: c.unpause(id)),
            exists(lambda scene, record: "it is paused" if record.state.paused else None),
            undone("pause", *removing),
        ),
        Operation(
            f"update {subject}",
            the(lambda c, id: c.update(id, ContainerUpdate(memory=1 << 26))),
            exists(lambda scene, record: None if record.host_config.memory else "it has no limit"),
            undone(*removing),
        ),
        Operation(
            f"connect {subject}",
            lambda scene: _connect(scene, subject),
            exists(lambda scene, record: None if "red" in record.networks else "it is not connected"),
            undone(*removing),
        ),
        Operation(
            f"disconnect {subject}",
            lambda scene: _disconnect(scene, subject),
            lambda scene, network: _still_on(scene, subject, network),
            undone(*removing),
        ),
        Operation(f"exec {subject}", lambda scene: _exec(scene, subject)),
        Operation(f"ends {subject}", lambda scene: _end(scene, subject), asks=False),
        Operation("prune", lambda scene: scene.containers.prune(Filters()), _pruned, never=(NotFound, Conflict)),
        Operation("create", _create, _was_created, undone_by=frozenset({"prune"})),
        Operation("dies", kill_and_load, asks=False),
    ]
    if state.name == "running":
        table.append(
            Operation(
                "exec again",
                lambda scene: scene.world.daemon.streams.execs.start(scene.exec_id),
                _started_once,
            )
        )
    if state.name == "backing-off":
        table.append(
            Operation("time passes", _nothing, exists(must_run), undone(*_ENDING, *_REMOVED), asks=False, lasts=True)
        )
    return table


_STARTING = ("start", "restart")
_ENDING = ("stop", "kill", "ends", "restart")
_REMOVED = ("rm", "rm-f")


async def _connect(scene: Containers, subject: str) -> None:
    settings = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="172.29.0.9"))
    await scene.containers.connect("red", NetworkConnect(container=scene.ids[subject], endpoint_config=settings))


async def _disconnect(scene: Containers, subject: str) -> str:
    network = next(iter(scene.containers.find(scene.ids[subject]).record.networks), "blue")
    await scene.containers.disconnect(network, NetworkDisconnect(container=scene.ids[subject]))
    return network


def _still_on(scene: Containers, subject: str, network: str) -> str | None:
    record = scene.record(subject)
    return f"it is on {network}" if record is None or network in record.networks else None


async def _exec(scene: Containers, subject: str) -> None:
    streams = scene.world.daemon.streams
    exec_id = streams.execs.create(scene.ids[subject], ExecConfig(cmd=["true"]))
    await streams.execs.start(exec_id)


def _started_once(scene: Containers, _: Any) -> str | None:
    process = scene.world.launcher.processes.get(scene.ids["web"])
    started = [each for each in process.execs if each.spec.args == ("once",)] if process is not None else []
    return None if len(started) <= 1 else f"it was started {len(started)} times"


async def _end(scene: Containers, subject: str) -> None:
    process = scene.world.launcher.processes.get(scene.ids[subject])
    if process is not None and process.started:
        process.end(1)


async def _create(scene: Containers) -> str:
    body = ContainerCreate(
        image="app",
        cmd=["serve"],
        host_config=HostConfig(network_mode="red"),
        networking_config=NetworkingConfig(
            {"red": EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="172.29.0.9"))}
        ),
    )
    return (await scene.containers.create(body, "other"))[0]


def _was_created(scene: Containers, id: str) -> str | None:
    record = scene.world.daemon.records().get(id)
    return None if record is not None and record.name == "other" else "it is not there"


def _pruned(scene: Containers, ids: Sequence[str]) -> str | None:
    there = set(ids) & scene.world.daemon.records().keys()
    if there:
        return "a container that it removed is there"
    left = scene.record("old") is not None and not scene.world.calls.failed  # what cannot be removed is passed over
    return "the old container is there" if left else None


async def _nothing(scene: Containers) -> None:
    """A restart that is due comes by itself."""
