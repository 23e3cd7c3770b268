"""Things that happen to a host in any order, some of its parts failing for a while: what is wrong once all works again?

Where `tests.interleavings` lets two operations meet at every point, here many meet somewhere, and what fails stays
broken for long.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivers.spec import DriverError
from kvstore.contract import StoreError
from netd.containers.manager import ContainerManager
from netd.core.errors import NetdError
from netd.core.filters import Filters
from netd.model.containers import ContainerCreate, ContainerUpdate, HostConfig, RestartPolicy
from netd.model.networks import NetworkConnect, NetworkDisconnect
from netd.overlays.gateway import NETWORK as GATEWAY
from netd.sandboxes.attached import AttachRequest
from tests.fakes.consistent import complaints
from tests.fakes.world import World
from tests.interleavings.scene import network

NETWORKS = ("blue", "red", "far")  # the last one is of the cluster
NAMES = ("x", "y")  # not hexadecimal: no id of a container begins so
POLICIES = ("no", "always", "unless-stopped", "on-failure")
PARTS = (
    *("Store.cas", "Store.delete", "Store.create"),
    *("Kernel.ensure_sandbox", "Kernel.remove_sandbox", "Kernel.ensure_network", "Kernel.remove_network"),
    *("Namespaces.pin", "Namespaces.unpin", "Namespaces.sockets"),
    *("Launcher.create", "Launcher.delete", "Launcher.kill", "Launcher.recover"),
    *("Resolver.join", "Resolver.leave", "Resolver.put_network", "Resolver.put_sandbox", "Resolver.delete_sandbox"),
)
_COUNT = itertools.count()


@dataclass(frozen=True)
class Happening:
    """One thing that happens, and how many steps are taken, and how many seconds pass, before the next."""

    kind: str
    name: str
    network: str
    policy: str
    part: str
    steps: int
    seconds: float

    def __repr__(self) -> str:
        about = {"breaks": self.part, "heals": "", "dies": "", "prune": "", "ends": ""}.get(self.kind, self.name)
        on = self.network if self.kind in ("create", "connect", "disconnect", "attach") else ""
        policy = self.policy if self.kind == "create" else ""
        return f"<{' '.join(filter(None, (self.kind, about, on, policy, f'+{self.steps}', f'+{self.seconds} s')))}>"


_CONTAINERS: dict[str, Callable[[ContainerManager, Happening], Coroutine[Any, Any, Any]]] = {
    "create": lambda c, h: c.create(_body(h), h.name * 2),
    "start": lambda c, h: c.start(h.name * 2),
    "stop": lambda c, h: c.stop(h.name * 2, timeout=2),
    "restart": lambda c, h: c.restart(h.name * 2, timeout=2),
    "rm": lambda c, h: c.remove(h.name * 2, force=False, volumes=False, link=False),
    "rm-f": lambda c, h: c.remove(h.name * 2, force=True, volumes=False, link=False),
    "prune": lambda c, h: c.prune(Filters()),
    "update": lambda c, h: c.update(h.name * 2, ContainerUpdate(memory=1 << 26)),
    "pause": lambda c, h: c.pause(h.name * 2),
    "unpause": lambda c, h: c.unpause(h.name * 2),
    "connect": lambda c, h: c.connect(h.network, NetworkConnect(container=h.name * 2)),
    "disconnect": lambda c, h: c.disconnect(h.network, NetworkDisconnect(container=h.name * 2)),
}
_OTHER = ("attach", "detach", "ends", "breaks", "breaks", "heals", "dies")

_KINDS = (*_CONTAINERS, "start", "start", "connect", "disconnect", *_OTHER)


def course(seed: int) -> list[Happening]:
    """Some things that happen one after the other, always the same for one seed."""
    chance = random.Random(seed)
    begin = [Happening("create", name, chance.choice(NETWORKS), chance.choice(POLICIES), "", 40, 0) for name in NAMES]
    return begin + [
        Happening(
            kind=chance.choice(_KINDS),
            name=chance.choice(NAMES),
            network=chance.choice(NETWORKS),
            policy=chance.choice(POLICIES),
            part=chance.choice(PARTS),
            steps=chance.randint(0, 40),
            seconds=chance.choice((0, 0, 0, 0.2, 3)),
        )
        for _ in range(chance.randint(3, 15))
    ]


def shortest(root: Path, happened: list[Happening]) -> list[Happening]:
    """What can be left out of a course that goes wrong, left out."""
    for index in reversed(range(len(happened))):
        rest = happened[:index] + happened[index + 1 :]
        if wrong_after(root, rest):
            happened = rest
    return happened


def _body(h: Happening) -> ContainerCreate:
    host = HostConfig(network_mode=h.network, restart_policy=RestartPolicy(h.policy))
    return ContainerCreate(image="app", cmd=["serve"], host_config=host)


@dataclass
class Course:
    """One host to which things happen."""

    world: World
    tasks: list[tuple[Happening, asyncio.AbstractEventLoop, asyncio.Task[Any]]] = field(default_factory=list)

    def take(self, h: Happening) -> None:
        world, daemon = self.world, self.world.daemon
        if h.kind in _CONTAINERS:
            self._begin(h, _CONTAINERS[h.kind](daemon.containers, h))
        elif h.kind == "attach":
            request = AttachRequest(name=h.name, netns=f"/netns/{h.name}", networks=[h.network])
            self._begin(h, daemon.attached.attach(request))
        elif h.kind == "detach":
            self._begin(h, daemon.attached.detach(h.name))
        elif h.kind == "ends":
            for process in world.launcher.running().values():
                process.end(1)
        elif h.kind == "breaks":
            world.calls.broken.add(h.part)
        elif h.kind == "heals":
            world.calls.broken.clear()
        elif h.kind == "dies":
            self._begin(h, world.kill_daemon().load())
            self._load()
        for _ in range(h.steps):
            world.loop.step()
        if h.seconds:
            world.loop.settle(h.seconds)

    def _begin(self, h: Happening, work: Coroutine[Any, Any, Any]) -> None:
        self.tasks.append((h, self.world.loop, self.world.loop.create_task(work)))

    def _load(self) -> None:
        """Nothing is asked of a daemon that has not loaded; one that does not is started again when all works."""
        self.world.loop.settle(8)
        if not self.world.daemon.loaded:
            self.world.calls.broken.clear()
            self.world.restart_daemon()

    def heal(self) -> list[str]:
        """Let all work again, for long enough; what is wrong all the same."""
        self.world.calls.broken.clear()
        self.world.loop.settle(200)
        wrong = [f"{c.area}: {c.text}" for c in complaints(self.world)]
        wrong += [text for h, loop, task in self.tasks if loop is self.world.loop for text in _wrong_with(h, task)]
        for sandbox in self.world.daemon.sandboxes.all():
            on = {endpoint.network for endpoint in sandbox.endpoints}
            if (on & {"blue", "red"} == set() and "far" in on) != (GATEWAY in on):
                wrong.append(f"{sandbox.name} is on {sorted(on)}")
        return wrong or self._after_a_restart()

    def _after_a_restart(self) -> list[str]:
        before = self._seen()
        self.world.restart_daemon()
        after = self._seen()
        return [
            f"{before.get(id)} becomes {after.get(id)} at a restart"
            for id in before.keys() | after.keys()
            if before.get(id) != after.get(id)
        ]

    def _seen(self) -> dict[str, tuple[str, bool, frozenset[str]]]:
        """What a daemon does not change by starting; by their policies it starts some that do not run."""
        return {
            r.id: (r.name, r.state.running and r.host_config.restart_policy.name == "no", frozenset(r.networks))
            for r in self.world.daemon.records().values()
        }


def _wrong_with(h: Happening, task: asyncio.Task[Any]) -> list[str]:
    if not task.done():
        return [f"{h.kind} waits for ever"]
    error = task.exception()
    expected = error is None or isinstance(error, (NetdError, DriverError, StoreError))
    return [] if expected else [f"{h.kind} raised {error!r}"]


def wrong_after(root: Path, happened: list[Happening]) -> list[str]:
    """What is wrong on a host to which all this has happened, when it works again."""
    with closing(World(root / f"healing-{next(_COUNT)}", clustered=True)) as world:
        for name, subnet in (("blue", "172.30.0.0/27"), ("red", "172.29.0.0/27")):
            world.run(world.daemon.networks.create(network(name, subnet)))
        world.cluster.networks.make_elsewhere("far", "10.9.0.0/24")
        world.run(world.cluster.networks.refresh())
        for name in NAMES:
            world.namespaces.make(f"/netns/{name}")
        running = Course(world)
        for happening in happened:
            running.take(happening)
        return running.heal()
