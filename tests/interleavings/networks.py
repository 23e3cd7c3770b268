"""Networks made, removed and pruned while containers come to them and leave them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netd.core.errors import Conflict, NotFound
from netd.core.filters import Filters
from netd.model.containers import Container, ContainerCreate, HostConfig
from netd.model.networks import NetworkConnect, NetworkDisconnect
from tests.interleavings.engine import Operation, kill_and_load
from tests.interleavings.scene import BasicScene, network


@dataclass(frozen=True)
class State:
    """Where the container `web` is, and whether it runs there."""

    name: str
    on: str
    runs: bool
    first: frozenset[str]  # which operations can be the first; any can be the second

    def make(self, root: Path) -> Networks:
        return Networks(root, self)

    def firsts(self) -> list[Operation[Networks]]:
        return [operation for operation in _OPERATIONS if operation.name in self.first]

    def seconds(self) -> list[Operation[Networks]]:
        return _OPERATIONS


class Networks(BasicScene):
    """The container `web` and the networks `red` and `blue`; it is about `red`."""

    def __init__(self, root: Path, state: State) -> None:
        super().__init__(root)
        self.red = self.world.daemon.networks.find("red").record.id
        self.web = self.world.run(self._make(state))
        self.world.loop.settle(0)

    async def _make(self, state: State) -> str:
        body = ContainerCreate(image="app", cmd=["serve"], host_config=HostConfig(network_mode=state.on))
        web, _ = await self.world.daemon.containers.create(body, "web")
        if state.runs:
            await self.world.daemon.containers.start(web)
        return web

    def record(self) -> Container | None:
        return self.world.daemon.records().get(self.web)


_NETWORK = frozenset({"rm", "prune", "connect", "disconnect", "dies"})

STATES = {
    state.name: state
    for state in (
        State("elsewhere", "blue", False, _NETWORK | {"create"}),
        State("running-elsewhere", "blue", True, _NETWORK),
        State("configured", "red", False, _NETWORK | {"start"}),
        State("joined", "red", True, _NETWORK | {"stop"}),
    )
}


def _the(call: Callable[[Any, str], Coroutine[Any, Any, Any]]) -> Callable[[Networks], Coroutine[Any, Any, Any]]:
    return lambda scene: call(scene.world.daemon.containers, scene.web)


async def _create(scene: Networks) -> str:
    return (await scene.world.daemon.networks.create(network("other", "172.28.0.0/28")))[0]


def _is_there(scene: Networks, id: str) -> str | None:
    return None if id in scene.world.daemon.networks.live else "it is not there"


async def _remove(scene: Networks) -> None:
    await scene.world.daemon.networks.remove("red")


def _is_gone(scene: Networks, _: Any) -> str | None:
    return "it is there" if scene.red in scene.world.daemon.networks.live else None


async def _prune(scene: Networks) -> Sequence[str]:
    return await scene.world.daemon.networks.prune(Filters())


def _are_gone(scene: Networks, names: Sequence[str]) -> str | None:
    there = {live.record.name for live in scene.world.daemon.networks.live.values()} & set(names)
    return f"{there} are there" if there else None


def _runs(scene: Networks, _: Any) -> str | None:
    return None if scene.web in scene.world.launcher.running() else "it does not run"


def _does_not_run(scene: Networks, _: Any) -> str | None:
    return "it runs" if scene.web in scene.world.launcher.running() else None


def _is_on(scene: Networks, _: Any) -> str | None:
    record = scene.record()
    return None if record is not None and "red" in record.networks else "it is not on the network"


def _is_off(scene: Networks, _: Any) -> str | None:
    record = scene.record()
    return "it is on the network" if record is None or "red" in record.networks else None


def _is_removed(scene: Networks, _: Any) -> str | None:
    return "it is there" if scene.record() is not None else None


_OPERATIONS: list[Operation[Networks]] = [
    Operation("create", _create, _is_there, frozenset({"prune"})),
    Operation("rm", _remove, _is_gone),
    Operation("prune", _prune, _are_gone, frozenset({"create"}), never=(NotFound, Conflict)),
    Operation("start", _the(lambda c, id: c.start(id)), _runs, frozenset({"stop", "rm-f web"})),
    Operation("stop", _the(lambda c, id: c.stop(id)), _does_not_run, frozenset({"start"})),
    Operation(
        "connect",
        _the(lambda c, id: c.connect("red", NetworkConnect(container=id))),
        _is_on,
        frozenset({"disconnect", "rm-f web"}),
    ),
    Operation(
        "disconnect",
        _the(lambda c, id: c.disconnect("red", NetworkDisconnect(container=id))),
        _is_off,
        frozenset({"connect", "rm-f web"}),
    ),
    Operation("rm-f web", _the(lambda c, id: c.remove(id, force=True, volumes=False, link=False)), _is_removed),
    Operation("dies", kill_and_load, asks=False),
]
