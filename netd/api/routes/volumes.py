"""/volumes: netd has none; containers get host directories and tmpfs."""

from __future__ import annotations

from aiohttp import web

from netd.api.server.call import Call, json
from netd.api.server.routing import Route
from netd.core.errors import NotFound, NotImplementedHere


async def list_volumes(call: Call) -> web.Response:
    return json({"Volumes": [], "Warnings": None})


async def inspect(call: Call, name: str) -> web.Response:
    raise NotFound(f"get {name}: no such volume")


async def create(call: Call) -> web.Response:
    raise NotImplementedHere("netd has no volumes: mount a host directory with -v /path:/path instead")


async def prune(call: Call) -> web.Response:
    return json({"VolumesDeleted": None, "SpaceReclaimed": 0})


ROUTES = (
    Route("GET", "/volumes", list_volumes),
    Route("GET", "/volumes/{name}", inspect),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("DELETE", "/volumes/{name}", inspect),
)
