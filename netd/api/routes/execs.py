"""/exec: processes started inside running containers."""

from __future__ import annotations

import msgspec
from aiohttp import web

from netd.api.server import hijack
from netd.api.server.call import Call, done, json
from netd.api.server.routing import Route
from netd.launcher.streams import STDERR, STDOUT
from netd.model.containers import ExecConfig


class ExecStart(msgspec.Struct, rename="pascal", kw_only=True):
    """Body of POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False


async def create(call: Call, ref: str) -> web.Response:
    identity = call.services.streams.execs.create(ref, await call.body(ExecConfig))
    return json({"Id": identity}, status=201)


async def start(call: Call, exec_id: str) -> web.StreamResponse:
    """The answer's head goes out before the process starts, as Docker's does: some clients lose what comes with it.

    So a command that cannot be started is told on its own output; the client then asks for its exit code.
    """
    body = await call.body(ExecStart, required=False)
    execs = call.services.streams.execs
    if body.detach:
        await execs.start(exec_id)
        return done(200)
    config = execs.find(exec_id).config
    streams = execs.attach(exec_id)
    return await hijack.hijack(call, streams, stdin=config.attach_stdin, wanted=frozenset((STDOUT, STDERR)))


async def inspect(call: Call, exec_id: str) -> web.Response:
    return json(call.services.streams.execs.inspect(exec_id))


async def resize(call: Call, exec_id: str) -> web.Response:
    await call.services.streams.execs.resize(exec_id, call.integer("h") or 0, call.integer("w") or 0)
    return done(200)


ROUTES = (
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start, streaming=True),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
)
