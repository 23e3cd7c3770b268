"""Namespaces of others that are attached, detached, and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.spec import DriverError
from netd.model.containers import ContainerCreate, HostConfig
from netd.sandboxes.attached import AttachRequest
from tests.interleavings.engine import Operation, kill_and_load
from tests.interleavings.scene import BasicScene

PATH = "/ext/probe"
_LOOKED = 1.5  # seconds after which the daemon has looked for what went


@dataclass(frozen=True)
class State:
    """Whether the namespace is attached already."""

    name: str
    attached: bool

    def make(self, root: Path) -> Attached:
        return Attached(root, self)

    def firsts(self) -> list[Operation[Attached]]:
        idle = ("detach",) if not self.attached else ("attach as other", "start")
        return [operation for operation in _OPERATIONS if operation.name not in idle]

    def seconds(self) -> list[Operation[Attached]]:
        return _OPERATIONS


class Attached(BasicScene):
    """A namespace that somebody made, `web` on the same network, and the daemon's watch over what is attached."""

    may_complain = True
    horizon = 10  # the daemon looks every second

    def __init__(self, root: Path, state: State) -> None:
        super().__init__(root)
        self.world.namespaces.make(PATH)
        self.world.watching = True
        self.world.restart_daemon()
        self.web = self.world.run(self._make(state))
        self.world.loop.settle(0)

    async def _make(self, state: State) -> str:
        body = ContainerCreate(image="app", cmd=["serve"], host_config=HostConfig(network_mode="red"))
        web, _ = await self.world.daemon.containers.create(body, "web")
        if state.attached:
            await attach(self, "probe")
        return web

    def attached(self) -> list[str]:
        return [sandbox.name for sandbox in self.world.daemon.attached.all()]

    def waiting(self) -> list[str]:
        there = PATH in self.world.namespaces.present
        return [] if there else [f"{name} is attached, and its namespace is gone" for name in self.attached()]


STATES = {state.name: state for state in (State("free", False), State("attached", True))}


async def attach(scene: Attached, name: str) -> str:
    """On the network that `web` is on too."""
    await scene.world.daemon.attached.attach(AttachRequest(name=name, netns=PATH, networks=["red", "bridge"]))
    return name


def _attach(name: str) -> Callable[[Attached], Coroutine[Any, Any, str]]:
    return lambda scene: attach(scene, name)


def _is_attached(scene: Attached, name: str) -> str | None:
    return None if name in scene.attached() else f"attached are {scene.attached()}"


async def _detach(scene: Attached) -> None:
    await scene.world.daemon.attached.detach("probe")


def _is_detached(scene: Attached, _: Any) -> str | None:
    return "it is attached" if "probe" in scene.attached() else None


async def _goes(scene: Attached) -> None:
    """Its maker removes it, and the daemon looks."""
    scene.world.namespaces.present.pop(PATH, None)
    await asyncio.sleep(_LOOKED)


async def _is_replaced(scene: Attached) -> None:
    """There is another namespace at its path, and the daemon looks."""
    scene.world.namespaces.make(PATH)
    await asyncio.sleep(_LOOKED)


async def _remove_network(scene: Attached) -> None:
    await scene.world.daemon.networks.remove("red")


async def _start(scene: Attached) -> None:
    await scene.world.daemon.containers.start(scene.web)


def _runs(scene: Attached, _: Any) -> str | None:
    return None if scene.web in scene.world.launcher.running() else "it does not run"


_GOING = frozenset({"detach", "goes", "is replaced"})

_MAY_GO = (DriverError,)  # says that the namespace does not exist

_OPERATIONS: list[Operation[Attached]] = [
    Operation("attach", _attach("probe"), _is_attached, _GOING, refuses=_MAY_GO),
    Operation("attach as other", _attach("other"), _is_attached, frozenset({"goes", "is replaced"}), refuses=_MAY_GO),
    Operation("detach", _detach, _is_detached, frozenset({"attach"})),
    Operation("goes", _goes, asks=False),
    Operation("is replaced", _is_replaced, asks=False),
    Operation("rm network", _remove_network),
    Operation("start", _start, _runs),
    Operation("dies", kill_and_load, asks=False),
]
