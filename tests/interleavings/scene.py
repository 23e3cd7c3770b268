"""What all scenes have in common: what is asked of a world when everything is over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kvstore.contract import Entry, StoreError
from netd.model.containers import ContainerCreate, HostConfig
from netd.model.networks import IPAM, IPAMConfig, NetworkCreate
from tests.fakes.consistent import complaints
from tests.fakes.loop import HORIZON
from tests.fakes.world import World
from tests.interleavings.engine import Outcome

NETWORKS = {"blue": "172.30.0.0/28", "red": "172.29.0.0/28"}
_COUNT = itertools.count()

# what was wrong after a restart of the daemon, by the shape of what it found: most interleavings end in the same few
_restarted: dict[str, list[str]] = {}

# what a clean-up that fails may leave behind: a new daemon finds and removes it
_LEFT_BY = {
    "Kernel.remove_network": {"kernel"},
    "Kernel.remove_sandbox": {"kernel"},
    "Namespaces.unpin": {"namespaces"},
    "Launcher.delete": {"bundles"},
    "Launcher.discard": {"files"},
    "Store.delete": {"sandboxes", "endpoints", "kernel", "resolver", "namespaces", "addresses", "ports", "images"},
}


class BasicScene:
    """A world with two networks, an image and an older container that does not run."""

    may_complain = False
    horizon = HORIZON

    def __init__(self, root: Path, like: World | None = None) -> None:
        self._root = root
        self.world = World(root / str(next(_COUNT)), None if like else base(root), like=like)
        self.ids = {record.name: record.id for record in self.world.daemon.records().values()}

    def close(self) -> None:
        self.world.close()

    def waiting(self) -> list[str]:
        """Whoever waits for what has happened already."""
        return []

    def complaints(self, outcomes: Sequence[Outcome[Any]], failed: Sequence[str]) -> list[str]:
        """What is wrong now, and what is wrong when a new daemon has loaded."""
        wrong = []
        if not self.world.daemon.loaded:
            errors = [o.error for o in outcomes if o.operation.name == "dies"]
            if not any(isinstance(error, StoreError) for error in errors):
                wrong.append("the daemon does not start")
            self._restart()
        else:
            excused = {area for name in failed for area in _LEFT_BY.get(name, ())}
            wrong += [c.text for c in complaints(self.world) if c.area not in excused]
            wrong += self.waiting()
        shape = self.world.shape(base(self._root))
        if shape not in _restarted:
            _restarted[shape] = self._after_a_restart()
        return wrong + [f"after a restart: {text}" for text in _restarted[shape] if text not in wrong]

    def _after_a_restart(self) -> list[str]:
        before = self._seen()
        try:
            self._restart()
        except Exception as error:
            return [f"the daemon does not start: {error}"]
        return _changed(before, self._seen()) + [c.text for c in complaints(self.world)]

    def _restart(self) -> None:
        self.world.restart_daemon()
        self.world.loop.settle(self.horizon)

    def _seen(self) -> dict[str, tuple[str, frozenset[str], bool, bool]]:
        return {
            r.id: (r.name, frozenset(r.networks), r.state.running, r.host_config.restart_policy.name == "always")
            for r in self.world.daemon.records().values()
        }


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    wrong = [f"{before[id][0]} is gone" for id in before.keys() - after]
    wrong += [f"{after[id][0]} is back" for id in after.keys() - before]
    for id in before.keys() & after:
        name, networks, running, always = before[id]
        if after[id][:2] != (name, networks):
            wrong.append(f"{name} on {set(networks)} is now {after[id][0]} on {set(after[id][1])}")
        if running != after[id][2] and (running or not always):  # which is started again even if it was stopped
            wrong.append(f"{name} {'runs no more' if running else 'runs'}")
    return wrong


@cache
def base(root: Path) -> dict[str, Entry]:
    """The store of all scenes, made once."""
    world = World(root / "base")
    try:
        for name, subnet in NETWORKS.items():
            world.run(world.daemon.networks.create(network(name, subnet)))
        old = ContainerCreate(image="app", cmd=["serve"], host_config=HostConfig(network_mode="blue"))
        world.run(world.daemon.containers.create(old, "old"))
        return dict(world.store.entries)
    finally:
        world.close()


def network(name: str, subnet: str) -> NetworkCreate:
    """A request for a bridge network."""
    return NetworkCreate(name=name, ipam=IPAM(config=[IPAMConfig(subnet=subnet)]))
