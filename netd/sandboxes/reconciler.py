"""Brings kernel and resolver to what is desired, where that could not be done at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from dns.client import Resolver, ResolverState
from netd.model.sandboxes import Endpoint
from netd.names.resolver import Names
from netd.networks.manager import NetworkManager
from netd.sandboxes.manager import SandboxManager

log = logging.getLogger(__name__)

FIRST_DELAY = 0.1  # seconds until what failed is tried again, doubled at each pass that leaves something
LONGEST_DELAY = 2.0


class Reconciler:
    """One job for all that is marked in `names.dirty`. Nothing is lost: what fails is marked again.

    The desired state is the managers': networks with their static records, and the records of sandboxes.
    """

    def __init__(self, resolver: Resolver, names: Names, networks: NetworkManager, sandboxes: SandboxManager) -> None:
        self._names = names
        self._networks = networks
        self._sandboxes = sandboxes
        self._dirty = names.dirty
        self._idle = asyncio.Event()
        self._said: dict[str, str] = {}  # what was told of failures, to tell it once
        resolver.on_lost(self._dirty.mark_everything)

    async def run(self) -> None:
        """Whenever something is dirty; never ends."""
        delay = FIRST_DELAY
        while True:
            self._idle.clear()
            await self.reconcile()
            self._dirty.news.clear()
            if self._dirty or self._names.away:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._dirty.news.wait()
                delay = min(2 * delay, LONGEST_DELAY)
            else:
                delay = FIRST_DELAY
                self._idle.set()
                await self._dirty.news.wait()

    async def settled(self, patience: float) -> bool:
        """Wait until all is as it should be, at most for so many seconds; whether it is. Nobody waits for the away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._names.away else patience):
                await self._idle.wait()
        return self._idle.is_set()

    async def adopt(self) -> ResolverState | None:
        """Go on with what the resolver has, before the kernel is looked at; None if it does not answer."""
        state = await self._names.find()
        if state is not None:
            self._sandboxes.adopt_resolver(state.sandboxes)
        return state

    async def reconcile(self) -> None:
        """One pass over what is dirty now: tables before the sandboxes that search them, what has gone at the end."""
        if self._dirty.everything:
            self._dirty.everything = False
            state = await self.adopt()
            if state is None:
                self._dirty.everything = True
            else:
                self._mark_all(state)
        elif self._names.away:
            await self._names.find()
        if self._dirty.kernel:
            self._dirty.kernel = False
            await self._sandboxes.restore_kernel()
        networks = list(self._dirty.networks)
        for network_id in networks:
            if self._is_served(network_id):
                await self._attempt(network_id, self._dirty.networks, self._put_network)
        for sandbox_id in list(self._dirty.sandboxes):
            await self._attempt(sandbox_id, self._dirty.sandboxes, self._sandboxes.settle)
        for network_id in networks:
            if network_id in self._dirty.networks and not self._is_served(network_id):
                await self._attempt(network_id, self._dirty.networks, self._delete_network)

    def _mark_all(self, state: ResolverState) -> None:
        for network_id in {*filter(self._is_served, self._networks.live), *state.networks}:
            self._dirty.mark_network(network_id)
        for sandbox_id in {*(sandbox.id for sandbox in self._sandboxes.all()), *state.known}:
            self._dirty.mark_sandbox(sandbox_id)

    async def _attempt(self, key: str, marks: dict[str, None], work: Callable[[str], Awaitable[None]]) -> None:
        """Do it; the mark goes before, so that one that is set meanwhile stays."""
        marks.pop(key, None)
        try:
            await work(key)
        except Exception as error:
            marks[key] = None
            if self._said.get(key) != str(error):
                self._said[key] = str(error)
                log.exception("%s is not as it should be yet, it is tried again", key[:12])
        except BaseException:
            marks[key] = None
            raise
        else:
            self._said.pop(key, None)

    # ---- networks ---------------------------------------------------------------------------------------

    def _is_served(self, network_id: str) -> bool:
        """Whether the resolver has a table of it: every network on which sandboxes of this host may look for names."""
        live = self._networks.live.get(network_id)
        if live is None or live.predefined or live.record.config_only:
            return False
        return live.record.scope != "global" or bool(live.members)

    async def _put_network(self, network_id: str) -> None:
        await self._names.put_network(self._networks.live[network_id].record, self._table(network_id))
        await self._networks.settle(network_id)

    async def _delete_network(self, network_id: str) -> None:
        await self._names.delete_network(network_id)
        await self._names.finish_drops(network_id)
        await self._networks.settle(network_id)

    def _table(self, network_id: str) -> list[Endpoint]:
        """What is recorded of this host's sandboxes, and all of other hosts: a member only planned has no name yet."""
        live = self._networks.live[network_id]
        others = [e for e in self._networks.endpoints(live) if e.id not in live.members]
        return [*self._sandboxes.endpoints_on(network_id), *others]
