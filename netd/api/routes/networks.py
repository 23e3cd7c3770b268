"""/networks (sections 2A to 2K)."""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from netd.api.server import shape
from netd.api.server.call import Call, done, json
from netd.api.server.routing import Route
from netd.model.networks import NetworkConnect, NetworkCreate, NetworkDisconnect


async def list_networks(call: Call) -> web.Response:
    found = call.services.networks.list(call.filters())
    return json([shape.network(view, call.version) for view in found])


async def inspect(call: Call, ref: str) -> web.Response:
    call.truth("verbose")
    view = await call.services.networks.inspect(ref, scope=call.text("scope"))
    return json(shape.network(view, call.version))


async def create(call: Call) -> web.Response:
    request = await call.body(NetworkCreate)
    if call.version < (1, 48):
        request = replace(request, enable_ipv4=None)
    identity, warning = await call.services.networks.create(request)
    return json({"Id": identity, "Warning": warning}, status=201)


async def connect(call: Call, ref: str) -> web.Response:
    await call.services.containers.connect(ref, await call.body(NetworkConnect))
    return done(200)


async def disconnect(call: Call, ref: str) -> web.Response:
    await call.services.containers.disconnect(ref, await call.body(NetworkDisconnect))
    return done(200)


async def remove(call: Call, ref: str) -> web.Response:
    await call.services.networks.remove(ref)
    return done()


async def prune(call: Call) -> web.Response:
    gone = await call.services.networks.prune(call.filters())
    return json({"NetworksDeleted": gone or None})


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/{id}", inspect),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("POST", "/networks/{id}/connect", connect),
    Route("POST", "/networks/{id}/disconnect", disconnect),
    Route("DELETE", "/networks/{id}", remove),
)
