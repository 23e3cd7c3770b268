"""Attach and logs: the streams of a container's first process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from aiohttp import web

from netd.api.server import hijack
from netd.api.server.call import Call
from netd.api.server.routing import Route
from netd.core.errors import InvalidParameter
from netd.launcher.streams import STDERR, STDOUT


async def attach(call: Call, ref: str) -> web.StreamResponse:
    stdin, stdout, stderr = call.flag("stdin"), call.flag("stdout"), call.flag("stderr")
    logs, stream = call.flag("logs"), call.flag("stream")
    past = None
    if logs:
        _, past = await call.services.streams.logs(
            ref, follow=False, stdout=stdout, stderr=stderr, since=0, until=0, tail=None, timestamps=False
        )
    streams = await call.services.streams.attach(
        ref, stdin=stdin, stdout=stdout, stderr=stderr, logs=logs, stream=stream
    )
    if not stream:
        streams = hijack.Silent(streams)
    return await hijack.hijack(call, streams, stdin=stdin, wanted=_wanted(stdout, stderr), past=past)


async def logs(call: Call, ref: str) -> web.StreamResponse:
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not stdout and not stderr:
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    tail = call.text("tail")
    tty, frames = await call.services.streams.logs(
        ref,
        follow=call.flag("follow"),
        stdout=stdout,
        stderr=stderr,
        since=call.moment("since") or 0,
        until=call.moment("until") or 0,
        tail=int(tail) if tail.isdecimal() else None,  # "all", and whatever else Docker takes for it
        timestamps=call.flag("timestamps"),
    )
    return await call.stream(hijack.content_type(call.version, tty=tty), _pieces(frames, tty))


async def _pieces(frames: AsyncGenerator[tuple[int, bytes]], tty: bool) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(frames):
        async for stream, data in frames:
            yield data if tty else hijack.frame(stream, data)


def _wanted(stdout: bool, stderr: bool) -> frozenset[int]:
    return frozenset(stream for stream, wanted in ((STDOUT, stdout), (STDERR, stderr)) if wanted)


ROUTES = (
    Route("POST", "/containers/{id}/attach", attach, streaming=True),
    Route("GET", "/containers/{id}/logs", logs, streaming=True),
)
