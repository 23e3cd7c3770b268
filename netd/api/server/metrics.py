"""`--metrics-addr`: `/metrics` for Prometheus, and nothing else, on a port of its own, as dockerd has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from netd.config.values import metrics_address
from netd.core.errors import NetdError
from netd.status.metrics import CONTENT_TYPE, Metrics


@contextlib.asynccontextmanager
async def serving(address: str, metrics: Metrics) -> AsyncIterator[None]:
    """Serve the metrics at this address; nothing is served if it is empty. Raises `NetdError`."""
    if not address:
        yield
        return

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.path != "/metrics":
            return web.Response(status=404, text="404 page not found: see /metrics\n")
        return web.Response(body=await metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    server = web.Server(handle, access_log=None)
    try:
        listening = await asyncio.get_running_loop().create_server(server, *metrics_address(address))
    except OSError as error:
        raise NetdError(f"cannot serve metrics at {address}: {error.strerror or error}") from error
    try:
        yield
    finally:
        listening.close()
        await server.shutdown(1)
