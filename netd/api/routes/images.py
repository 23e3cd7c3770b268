"""/images: they come in as root file systems; netd talks to no registry."""

from __future__ import annotations

from aiohttp import web

from netd.api.server import shape
from netd.api.server.call import Call, done, json
from netd.api.server.routing import Route
from netd.core.errors import InvalidParameter, NotFound
from netd.images import view

_CHUNK = 1 << 16  # bytes of an archive read at a time


async def list_images(call: Call) -> web.Response:
    found = call.services.images.list(call.filters())
    return json([shape.image(view.summary(image), call.version) for image in found])


async def inspect(call: Call, ref: str) -> web.Response:
    images = call.services.images
    image = images.find(ref)
    return json(shape.image(view.inspect(image, images.rootfs(image)), call.version))


async def history(call: Call, ref: str) -> web.Response:
    return json(view.history(call.services.images.find(ref)))


async def create(call: Call) -> web.Response:
    """Import; what goes wrong is told by the status, for nothing is answered before the archive is unpacked."""
    if name := call.text("fromImage"):
        tag = call.text("tag")
        told = name if not tag else f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"
        raise NotFound(f"netd does not pull images: make {told} known with `import`, from a tar of its root files")
    source = call.text("fromSrc")
    if source != "-":
        raise InvalidParameter(f"cannot import from {source!r}: send the archive in the request, with fromSrc=-")
    image = await call.services.images.import_tar(
        call.request.content.iter_chunked(_CHUNK),
        repo=call.text("repo"),
        tag=call.text("tag"),
        message=call.text("message"),
        changes=call.request.query.getall("changes", []),
    )
    return json({"status": image.id})


async def tag(call: Call, ref: str) -> web.Response:
    await call.services.images.tag(ref, call.text("repo"), call.text("tag"))
    return done(201)


async def remove(call: Call, ref: str) -> web.Response:
    return json(
        await call.services.images.remove(ref, force=call.flag("force"), in_use=call.services.containers.made_of)
    )


async def prune(call: Call) -> web.Response:
    removals, freed = await call.services.images.prune(call.filters(), call.services.containers.made_of)
    return json({"ImagesDeleted": removals or None, "SpaceReclaimed": freed})


ROUTES = (
    Route("GET", "/images/json", list_images),
    Route("GET", "/images/{name...}/json", inspect),
    Route("GET", "/images/{name...}/history", history),
    Route("POST", "/images/create", create),
    Route("POST", "/images/prune", prune),
    Route("POST", "/images/{name...}/tag", tag),
    Route("DELETE", "/images/{name...}", remove),
)
