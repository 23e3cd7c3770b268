"""/exec: processes started inside running containers."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from netd.api import hijack
from netd.api.call import Call, done, json
from netd.api.routing import Route
from netd.errors import Conflict, NetdError
from netd.launcher.streams import STDERR, STDOUT, Streams
from netd.model import ExecConfig
from netd.pending import PendingStreams


class ExecStart(msgspec.Struct, rename="pascal", kw_only=True):
    """Body of POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False


async def create(call: Call, ref: str) -> web.Response:
    identity = await call.services.streams.exec_create(ref, await call.body(ExecConfig))
    return json({"Id": identity}, status=201)


async def start(call: Call, exec_id: str) -> web.StreamResponse:
    """The answer's head goes out before the process starts, as Docker's does: some clients lose what comes with it.

    So a command that cannot be started is told on its own output; the client then asks for its exit code.
    """
    body = await call.body(ExecStart, required=False)
    exec_ = call.services.streams.exec_inspect(exec_id)
    if exec_["Running"] or exec_["ExitCode"] is not None:
        raise Conflict(f"exec instance {exec_id} has already been started")
    if body.detach:
        await asyncio.shield(call.services.streams.exec_start(exec_id, detach=True, tty=body.tty))
        return done(200)
    streams = PendingStreams(exec_["ProcessConfig"]["tty"])
    task = asyncio.create_task(_run(call, exec_id, streams))
    _starting.add(task)
    task.add_done_callback(_starting.discard)
    return await hijack.hijack(call, streams, stdin=exec_["OpenStdin"], wanted=frozenset((STDOUT, STDERR)))


async def _run(call: Call, exec_id: str, pending: PendingStreams) -> None:
    streams: Streams | None
    try:
        streams = await call.services.streams.exec_start(exec_id, detach=False, tty=pending.tty)
    except NetdError as error:
        streams = hijack.Told(str(error), tty=pending.tty)
    if streams is None:
        pending.cancel()
        return
    pending.connect(streams)
    if pending.cancelled:  # the client went while its process was being started
        await streams.close()


_starting: set[asyncio.Task[None]] = set()


async def inspect(call: Call, exec_id: str) -> web.Response:
    return json(call.services.streams.exec_inspect(exec_id))


async def resize(call: Call, exec_id: str) -> web.Response:
    await call.services.streams.exec_resize(exec_id, call.integer("h") or 0, call.integer("w") or 0)
    return done(200)


ROUTES = (
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start, streaming=True),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
)
