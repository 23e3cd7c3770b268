"""Sandboxes that netd did not start: any network namespace gets an endpoint and the resolver (`netd attach`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Sequence
from typing import Any

from drivers.spec import DriverError
from netd.container_request import check_name, check_servers
from netd.endpoints import check_network_accepts, make_endpoint
from netd.errors import Conflict, InvalidParameter, NotFound
from netd.model import Docker, EndpointSettings
from netd.networks import Member, NetworkManager
from netd.resolvconf import RESOLVER
from netd.sandbox import Sandbox
from netd.sandboxes import SandboxManager

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


class ForeignSandboxes:
    """The attached namespaces of this host. One that goes, with its process or its path, is let go."""

    def __init__(self, networks: NetworkManager, sandboxes: SandboxManager) -> None:
        self._networks = networks
        self._sandboxes = sandboxes
        self._changing = asyncio.Lock()

    def all(self) -> list[Sandbox]:
        return [sandbox for sandbox in self._sandboxes.all() if sandbox.foreign]

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
        path, inode = _namespace(request)
        async with self._changing:
            self._must_be_new(request.name, path, inode)
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
            try:
                for ref in dict.fromkeys(request.networks or ("bridge",)):
                    sandbox = await self._with_network(sandbox, ref, request.aliases or ())
                if self._networks.overlays is not None:
                    sandbox = await self._networks.overlays.way_out.added(sandbox)
                await self._sandboxes.bring_up(sandbox)
            except BaseException:
                await self._take_back(sandbox)
                raise
            return _view(sandbox)

    async def _with_network(self, sandbox: Sandbox, ref: str, aliases: Sequence[str]) -> Sandbox:
        live = self._networks.find(ref)
        settings = EndpointSettings(aliases=list(aliases) if not live.predefined else None)
        if live.record.driver not in ("bridge", "overlay"):
            raise InvalidParameter(
                f"network {ref} is of driver {live.record.driver}: attach to a bridge or an overlay network"
            )
        if sandbox.endpoint_on(live.record.id) is not None:
            return sandbox
        check_network_accepts(live, settings)
        names = (sandbox.name, *aliases, sandbox.id[:12])
        taken = sandbox.free_ifname("netd")
        if live.record.scope == "global":
            overlays = self._networks.cluster()
            endpoint = await overlays.join(live, settings, sandbox, ifname=taken, names=names, services=())
        else:
            endpoint = make_endpoint(live, settings, ifname=taken, names=names, owner=sandbox.id)
        self._networks.join(Member(sandbox.id, sandbox.name, endpoint))
        return sandbox.with_endpoint(endpoint)

    async def detach(self, name: str) -> None:
        """Take the endpoints and the resolver back; the namespace itself stays."""
        async with self._changing:
            sandbox = self.find(name)
            if sandbox is None:
                raise NotFound(f"no attached namespace is called {name}: `netd attach --list` shows them")
            await self._take_back(sandbox)

    async def _take_back(self, sandbox: Sandbox) -> None:
        with contextlib.suppress(DriverError):  # it may have gone meanwhile
            await self._sandboxes.clear(sandbox)
        await self._sandboxes.tear_down(sandbox)

    async def lose_endpoint(self, sandbox_id: str, endpoint_id: str) -> None:
        """An endpoint on a global network is not the namespace's any more."""
        async with self._changing:
            sandbox = next((s for s in self.all() if s.id == sandbox_id), None)
            endpoint = next((e for e in sandbox.endpoints if e.id == endpoint_id), None) if sandbox else None
            if sandbox is not None and endpoint is not None:
                await self._sandboxes.detach(sandbox, endpoint)

    async def let_go_of_the_lost(self) -> None:
        """Forget the namespaces that are no longer at their path: there is nothing to take back from them."""
        async with self._changing:
            for sandbox in self.all():
                if _inode(sandbox.netns) != sandbox.inode:
                    log.info("the namespace of %s at %s has gone, it is let go", sandbox.name, sandbox.netns)
                    await self._sandboxes.tear_down(sandbox)

    async def watch(self) -> None:
        """Let go of what goes; runs until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.let_go_of_the_lost()

    def _must_be_new(self, name: str, path: str, inode: int) -> None:
        for sandbox in self._sandboxes.all():
            if sandbox.name == name and (sandbox.resolves or sandbox.foreign):
                raise Conflict(f"the name {name} is already in use by sandbox {sandbox.id[:12]}")
            if sandbox.netns and _inode(sandbox.netns) == inode:
                what = (
                    "detach it first" if sandbox.foreign else "a container gets its networks by `create` and `connect`"
                )
                raise Conflict(f"namespace {path} already belongs to {sandbox.name}: {what}")


def _namespace(request: AttachRequest) -> tuple[str, int]:
    """The path and the inode of the namespace that is meant."""
    if bool(request.netns) == bool(request.pid):
        raise InvalidParameter("give the namespace either as a path or as a pid")
    path = request.netns or f"/proc/{request.pid}/ns/net"
    inode = _inode(path)
    if inode is None:
        there = "is no network namespace" if os.path.exists(path) else "does not exist"
        raise InvalidParameter(f"cannot attach to {path}: it {there}")
    if inode == _inode("/proc/self/ns/net"):
        raise InvalidParameter(f"{path} is the daemon's own network namespace")
    return path, inode


def _inode(path: str) -> int | None:
    """The number that tells network namespaces apart; None if there is none at `path`."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino if found.st_dev == os.stat("/proc/self/ns/net").st_dev else None


def _view(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "Id": sandbox.id,
        "Name": sandbox.name,
        "Netns": sandbox.netns,
        "Networks": {e.network: list(e.addresses) for e in sandbox.endpoints},
        "Nameserver": RESOLVER if sandbox.resolves else "",
    }
