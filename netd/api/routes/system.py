"""The daemon itself: ping, version, info, events, disk usage."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from netd.api.server.call import HEADERS, Call, encode, json
from netd.api.server.routing import Route
from netd.core.events import Subscription

_PING = {
    **HEADERS,
    "Builder-Version": "",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Content-Type": "text/plain; charset=utf-8",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}


async def ping(call: Call) -> web.Response:
    return web.Response(body=b"OK" if call.request.method == "GET" else b"", headers=_PING)


async def version(call: Call) -> web.Response:
    return json(call.services.system.version())


async def info(call: Call) -> web.Response:
    return json(await call.services.system.info())


async def disk_usage(call: Call) -> web.Response:
    return json(call.services.system.disk_usage())


async def events(call: Call) -> web.StreamResponse:
    with call.services.events.subscribe(call.filters(), call.moment("since"), call.moment("until")) as found:
        return await call.stream("application/json", _lines(found))


async def _lines(found: Subscription) -> AsyncIterator[bytes]:
    async for event in found:
        yield encode(event)


ROUTES = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/system/df", disk_usage),
    Route("GET", "/events", events, streaming=True),
)
