"""/netd: what Docker's API has no words for: attached namespaces, hosts, records, explanations, the query log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from netd.api.server.call import HEADERS, Call, done, encode, json
from netd.api.server.routing import Route
from netd.model.networks import StaticRecord
from netd.sandboxes.attached import AttachRequest
from netd.status.metrics import CONTENT_TYPE

_LOG_SECONDS = 1.0  # how long a log that is not followed listens


async def attach(call: Call) -> web.Response:
    return json(await call.services.attached.attach(await call.body(AttachRequest)), status=201)


async def list_attached(call: Call) -> web.Response:
    return json(call.services.attached.list())


async def detach(call: Call, name: str) -> web.Response:
    await call.services.attached.detach(name)
    return done()


async def metrics(call: Call) -> web.Response:
    return web.Response(body=await call.services.metrics.text(), headers={**HEADERS, "Content-Type": CONTENT_TYPE})


async def hosts(call: Call) -> web.Response:
    return json(await call.services.hosts.hosts())


async def inspect_host(call: Call, name: str) -> web.Response:
    return json(await call.services.hosts.host(name))


async def list_records(call: Call, network: str) -> web.Response:
    return json(call.services.naming.records(network))


async def add_record(call: Call, network: str) -> web.Response:
    return json(await call.services.naming.add_record(network, await call.body(StaticRecord)), status=201)


async def remove_record(call: Call, network: str) -> web.Response:
    await call.services.naming.remove_record(network, call.text("name"), call.text("type"))
    return done()


async def explain(call: Call) -> web.Response:
    return json(await call.services.naming.explain(call.text("name"), call.text("type"), call.text("from")))


async def log(call: Call) -> web.StreamResponse:
    """One line of JSON for each query from now on; without `follow` for a second only, as nothing is kept."""
    entries = call.services.naming.log(call.text("container"))
    return await call.stream("application/x-ndjson", _lines(entries, None if call.flag("follow") else _LOG_SECONDS))


async def _lines(entries: AsyncGenerator[dict[str, Any]], seconds: float | None) -> AsyncGenerator[bytes]:
    deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
    async with contextlib.aclosing(entries):
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    entry = await anext(entries)
            except (TimeoutError, StopAsyncIteration):
                return
            yield encode(entry)


ROUTES = (
    Route("GET", "/netd/sandboxes", list_attached),
    Route("POST", "/netd/sandboxes", attach),
    Route("DELETE", "/netd/sandboxes/{name}", detach),
    Route("GET", "/netd/metrics", metrics),
    Route("GET", "/netd/hosts", hosts),
    Route("GET", "/netd/hosts/{name}", inspect_host),
    Route("GET", "/netd/dns/records/{network}", list_records),
    Route("POST", "/netd/dns/records/{network}", add_record),
    Route("DELETE", "/netd/dns/records/{network}", remove_record),
    Route("GET", "/netd/dns/explain", explain),
    Route("GET", "/netd/dns/log", log, streaming=True),
)
