"""/containers, but for their streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Coroutine

from aiohttp import web

from netd.api.server import shape
from netd.api.server.call import Call, done, encode, json
from netd.api.server.routing import Route
from netd.core.errors import InvalidParameter, NetdError
from netd.model.containers import ContainerCreate, ContainerUpdate


async def list_containers(call: Call) -> web.Response:
    limit = max(call.integer("limit") or 0, 0)  # docker-py asks for -1 when it wants them all
    found = call.services.containers.list(all=call.flag("all"), limit=limit, filters=call.filters())
    return json([shape.container_summary(view, call.version) for view in found])


async def inspect(call: Call, ref: str) -> web.Response:
    return json(shape.container(call.services.containers.inspect(ref), call.version))


async def create(call: Call) -> web.Response:
    body = await call.body(ContainerCreate)
    networking = body.networking_config
    endpoints = list((networking.endpoints_config if networking else None) or ())
    if call.version < (1, 44) and len(endpoints) > 1:
        raise InvalidParameter(f"Container cannot be connected to network endpoints: {', '.join(endpoints)}")
    identity, warnings = await call.services.containers.create(body, call.text("name"))
    return json({"Id": identity, "Warnings": list(warnings)}, status=201)


async def start(call: Call, ref: str) -> web.Response:
    if await call.request.read():
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await call.services.containers.start(ref)
    return done()


async def stop(call: Call, ref: str) -> web.Response:
    await call.services.containers.stop(ref, signal=call.text("signal"), timeout=call.integer("t"))
    return done()


async def restart(call: Call, ref: str) -> web.Response:
    await call.services.containers.restart(ref, signal=call.text("signal"), timeout=call.integer("t"))
    return done()


async def kill(call: Call, ref: str) -> web.Response:
    await call.services.containers.kill(ref, call.text("signal") or "SIGKILL")
    return done()


async def pause(call: Call, ref: str) -> web.Response:
    await call.services.containers.pause(ref)
    return done()


async def unpause(call: Call, ref: str) -> web.Response:
    await call.services.containers.unpause(ref)
    return done()


async def rename(call: Call, ref: str) -> web.Response:
    await call.services.containers.rename(ref, call.text("name"))
    return done()


async def update(call: Call, ref: str) -> web.Response:
    await call.services.containers.update(ref, await call.body(ContainerUpdate))
    return json({"Warnings": []})


async def remove(call: Call, ref: str) -> web.Response:
    await call.services.containers.remove(ref, force=call.flag("force"), volumes=call.flag("v"), link=call.flag("link"))
    return done()


async def prune(call: Call) -> web.Response:
    gone = await call.services.containers.prune(call.filters())
    return json({"ContainersDeleted": gone or None, "SpaceReclaimed": 0})


async def top(call: Call, ref: str) -> web.Response:
    return json(await call.services.streams.top(ref, call.text("ps_args") or "-ef"))


async def resize(call: Call, ref: str) -> web.Response:
    await call.services.streams.resize(ref, call.integer("h") or 0, call.integer("w") or 0)
    return done(200)


async def wait(call: Call, ref: str) -> web.StreamResponse:
    """The head goes out before the container ends: `docker run` starts it only then."""
    condition = call.text("condition") or "not-running"
    outcome = call.services.containers.wait(ref, condition)
    try:
        return await call.stream("application/json", _outcome(outcome))
    finally:
        if isinstance(outcome, Coroutine):
            outcome.close()  # nobody has begun to wait if the client went before the head


async def _outcome(outcome: Awaitable[tuple[int, str]]) -> AsyncIterator[bytes]:
    try:
        code, error = await outcome
    except NetdError as failed:
        code, error = -1, str(failed)
    yield encode({"StatusCode": code, "Error": {"Message": error}} if error else {"StatusCode": code})


ROUTES = (
    Route("GET", "/containers/json", list_containers),
    Route("POST", "/containers/create", create),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/{id}/json", inspect),
    Route("GET", "/containers/{id}/top", top),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/resize", resize),
    Route("POST", "/containers/{id}/update", update),
    Route("POST", "/containers/{id}/wait", wait, streaming=True),
    Route("DELETE", "/containers/{id...}", remove),  # a link is named /container/alias
)
