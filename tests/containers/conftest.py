"""A machine of fakes with the networks and the image that containers need, and words for what tests do with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netd.model.containers import Container, ContainerCreate, HostConfig, RestartPolicy
from netd.model.networks import NetworkCreate
from tests.fakes.launcher import Process
from tests.fakes.world import World


class Host:
    """One host; time passes only in `after`."""

    def __init__(self, root: Path) -> None:
        self.world = World(root / "data")
        self.world.run(self.world.daemon.networks.create(NetworkCreate(name="blue")))

    @property
    def containers(self) -> Any:
        """The daemon's ContainerManager, its coroutines run to their end."""
        return _Blocking(self.world)

    def create(self, name: str = "web", *, policy: str = "no", retries: int = 0, **host: Any) -> str:
        """A container on network blue unless told otherwise; its id."""
        host.setdefault("network_mode", "blue")
        host["restart_policy"] = RestartPolicy(name=policy, maximum_retry_count=retries)
        body = ContainerCreate(image="app", cmd=["serve"], host_config=HostConfig(**host))
        identity, _ = self.containers.create(body, name)
        return str(identity)

    def run(self, name: str = "web", *, policy: str = "no", retries: int = 0, **host: Any) -> str:
        """The same, started."""
        identity = self.create(name, policy=policy, retries=retries, **host)
        self.containers.start(identity)
        return identity

    def record(self, name: str = "web") -> Container:
        """What the daemon says of a container."""
        return self.world.daemon.containers.find(name).record

    def process(self, name: str = "web") -> Process:
        """Its process of now."""
        return self.world.launcher.processes[self.record(name).id]

    def runs(self, name: str = "web") -> bool:
        """Whether there is one."""
        return self.record(name).id in self.world.launcher.running()

    def ends(self, name: str = "web", code: int = 1) -> None:
        """Its process ends by itself; all is noticed that needs no time to pass."""
        self.process(name).end(code)
        self.after(0)

    def after(self, seconds: float) -> None:
        """So much time passes, and what is due in it is done."""
        loop = self.world.loop
        until = loop.time() + seconds
        loop.settle(seconds)
        loop._now = until

    def ps(self, *, all: bool = False) -> list[str]:
        """The STATUS column."""
        from netd.core.filters import Filters

        return [row["Status"] for row in self.containers.list(all=all, limit=0, filters=Filters())]


class _Blocking:
    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._world.daemon.containers, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            return self._world.run(answer) if hasattr(answer, "__await__") else answer

        return call


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.world.close()
