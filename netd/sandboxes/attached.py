"""Sandboxes that netd did not start: any network namespace gets an endpoint and the resolver (`netd attach`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from drivers.spec import DriverError
from netd.config.servers import check_servers
from netd.core.errors import Conflict, InvalidParameter, NotFound
from netd.core.identity import check_name
from netd.core.locks import Locks
from netd.model.docker import Docker
from netd.model.networks import EndpointSettings
from netd.model.sandboxes import Sandbox
from netd.names.resolvconf import RESOLVER
from netd.networks.endpoints import EndpointRequest
from netd.networks.live import LiveNetwork
from netd.networks.manager import NetworkManager
from netd.sandboxes.joining import Joining
from netd.sandboxes.manager import SandboxManager
from netd.sandboxes.namespaces import OWN, Namespaces

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # how often the attached namespaces are looked for


class AttachRequest(Docker, frozen=True):
    """Body of POST /netd/sandboxes: one of `netns` (a path) and `pid`, a name, and what a container would have."""

    name: str = ""
    netns: str = ""
    pid: int = 0
    networks: list[str] | None = None
    aliases: list[str] | None = None
    dns: list[str] | None = None
    dns_search: list[str] | None = None
    dns_options: list[str] | None = None
    dns_routes: list[str] | None = None


class AttachedSandboxes:
    """The attached namespaces of this host. One that goes, with its process or its path, is let go."""

    def __init__(
        self, networks: NetworkManager, sandboxes: SandboxManager, joining: Joining, namespaces: Namespaces
    ) -> None:
        self._networks = networks
        self._sandboxes = sandboxes
        self._joining = joining
        self._namespaces = namespaces
        self._attaching: dict[str, int] = {}  # names and inodes of those that are just being attached
        self._changing = Locks()  # a sandbox each: none waits for another's networks

    def all(self) -> list[Sandbox]:
        return [sandbox for sandbox in self._sandboxes.all() if sandbox.attached]

    def list(self) -> list[dict[str, Any]]:
        """All of them, as `netd attach --list` shows."""
        return [_view(sandbox) for sandbox in self.all()]

    def find(self, ref: str) -> Sandbox | None:
        """By name or id."""
        return next((sandbox for sandbox in self.all() if ref in (sandbox.name, sandbox.id)), None)

    async def attach(self, request: AttachRequest) -> dict[str, Any]:
        """Give a namespace its endpoints and the resolver."""
        check_name(request.name)
        check_servers(request.dns or (), request.dns_routes or ())
        path, inode = self._namespace(request)
        sandbox_id = secrets.token_hex(32)
        sandbox = Sandbox(
            id=sandbox_id,
            container_id=sandbox_id,
            name=request.name,
            netns=path,
            inode=inode,
            hostname=request.name,
            dns=tuple(request.dns or ()),
            dns_search=tuple(request.dns_search or ()),
            dns_options=tuple(request.dns_options or ()),
            dns_routes=tuple(request.dns_routes or ()),
        )
        with self._claimed(sandbox):
            async with self._changing.of(sandbox.id):
                sandbox = await self._joining.added(sandbox, await self._wanted(sandbox, request))
                try:
                    await self._sandboxes.bring_up(sandbox)
                except BaseException as error:
                    await self._take_back(sandbox)
                    if isinstance(error, OSError | DriverError) and self._namespaces.inode(path) != inode:
                        raise InvalidParameter(f"cannot attach to {path}: it has gone meanwhile") from error
                    raise
        return _view(sandbox)

    def _namespace(self, request: AttachRequest) -> tuple[str, int]:
        """The path and the inode of the namespace that is meant."""
        if bool(request.netns) == bool(request.pid):
            raise InvalidParameter("give the namespace either as a path or as a pid")
        path = request.netns or f"/proc/{request.pid}/ns/net"
        inode = self._namespaces.inode(path)
        if inode is None:
            there = "is no network namespace" if os.path.exists(path) else "does not exist"
            raise InvalidParameter(f"cannot attach to {path}: it {there}")
        if inode == self._namespaces.inode(OWN):
            raise InvalidParameter(f"{path} is the daemon's own network namespace")
        return path, inode

    async def _wanted(self, sandbox: Sandbox, request: AttachRequest) -> Sequence[tuple[LiveNetwork, EndpointRequest]]:
        """An endpoint on each of the networks, however often it is named."""
        networks: dict[str, LiveNetwork] = {}
        for ref in request.networks or ("bridge",):
            live = await self._networks.find_anywhere(ref)
            if live.record.driver not in ("bridge", "overlay"):
                raise InvalidParameter(
                    f"network {ref} is of driver {live.record.driver}: attach to a bridge or an overlay network"
                )
            networks[live.record.id] = live
        names = (sandbox.name, *(request.aliases or ()), sandbox.id[:12])
        return [(live, EndpointRequest(_settings(live, request), names=names)) for live in networks.values()]

    async def detach(self, name: str) -> None:
        """Take the endpoints and the resolver back; the namespace itself stays."""
        sandbox = self.find(name)
        if sandbox is not None:
            async with self._changing.of(sandbox.id):
                if (sandbox := self._sandboxes.get(sandbox.id)) is not None:
                    return await self._take_back(await self._sandboxes.condemn(sandbox))
        raise NotFound(f"no attached namespace is called {name}: `netd attach --list` shows them")

    async def _take_back(self, sandbox: Sandbox) -> None:
        if self._namespaces.inode(sandbox.netns) == sandbox.inode:  # there may be another one by now
            with contextlib.suppress(DriverError):  # it may have gone meanwhile
                await self._sandboxes.clear(sandbox)
        await self._sandboxes.tear_down(sandbox)

    async def lose_endpoint(self, sandbox_id: str, endpoint_id: str) -> None:
        """An endpoint on a global network is not the namespace's any more."""
        async with self._changing.of(sandbox_id):  # it may be just being attached
            sandbox = self._sandboxes.get(sandbox_id)
            endpoint = next((e for e in sandbox.endpoints if e.id == endpoint_id), None) if sandbox else None
            if sandbox is not None and endpoint is not None and sandbox.attached:
                await self._joining.narrow(sandbox, endpoint)

    async def follow_up(self, sandbox_id: str) -> None:
        """Try again to add or take away what follows from the namespace's networks: its gateway endpoint."""
        async with self._changing.of(sandbox_id):
            sandbox = self._sandboxes.get(sandbox_id)
            if sandbox is not None and sandbox.attached:
                await self._joining.follow_up(sandbox)

    async def let_go_of_the_lost(self) -> None:
        """Forget the namespaces that are no longer at their path: there is nothing to take back from them. The last
        daemon may have been killed while it detached one that is there."""
        for sandbox in self.all():
            if sandbox.going or self._namespaces.inode(sandbox.netns) != sandbox.inode:
                await self._let_go(sandbox.id)

    async def _let_go(self, sandbox_id: str) -> None:
        async with self._changing.of(sandbox_id):
            if (sandbox := self._sandboxes.get(sandbox_id)) is None:
                return
            if sandbox.going:
                return await self._take_back(sandbox)
            log.info("the namespace of %s at %s has gone, it is let go", sandbox.name, sandbox.netns)
            await self._sandboxes.tear_down(sandbox)

    async def watch(self) -> None:
        """Let go of what goes; runs until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.let_go_of_the_lost()

    @contextlib.contextmanager
    def _claimed(self, sandbox: Sandbox) -> Iterator[None]:
        """Have a name and a namespace to oneself while it is attached. Raises `Conflict`."""
        self._must_be_new(sandbox.name, sandbox.netns, sandbox.inode)
        self._attaching[sandbox.name] = sandbox.inode
        try:
            yield
        finally:
            del self._attaching[sandbox.name]

    def _must_be_new(self, name: str, path: str, inode: int) -> None:
        if name in self._attaching or inode in self._attaching.values():
            raise Conflict(f"the name {name} or the namespace {path} is already being attached")
        for sandbox in self._sandboxes.all():
            if sandbox.name == name and (sandbox.resolves or sandbox.attached):
                raise Conflict(f"the name {name} is already in use by sandbox {sandbox.id[:12]}")
            if sandbox.netns and self._namespaces.inode(sandbox.netns) == inode:
                what = (
                    "detach it first" if sandbox.attached else "a container gets its networks by `create` and `connect`"
                )
                raise Conflict(f"namespace {path} already belongs to {sandbox.name}: {what}")


def _settings(live: LiveNetwork, request: AttachRequest) -> EndpointSettings:
    return EndpointSettings(aliases=None if live.predefined else list(request.aliases or ()))


def _view(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "Id": sandbox.id,
        "Name": sandbox.name,
        "Netns": sandbox.netns,
        "Networks": {e.network: list(e.addresses) for e in sandbox.endpoints},
        "Nameserver": RESOLVER if sandbox.resolves else "",
    }
