"""/images: they come in as root file systems; netd talks to no registry."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from netd.api import shape
from netd.api.call import Call, done, json
from netd.api.routing import Route
from netd.errors import InvalidParameter, NotFound
from netd.filters import Filters

_CHUNK = 1 << 16  # bytes of an archive read at a time


async def list_images(call: Call) -> web.Response:
    return json([shape.image(view, call.version) for view in call.services.images.list(call.filters())])


async def inspect(call: Call, ref: str) -> web.Response:
    return json(shape.image(call.services.images.inspect(ref), call.version))


async def history(call: Call, ref: str) -> web.Response:
    image = call.services.images.inspect(ref)
    entry = {"Id": image["Id"], "Created": 0, "CreatedBy": "", "Tags": image["RepoTags"]}
    return json([{**entry, "Size": image["Size"], "Comment": image["Comment"]}])


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
    force = call.flag("force")
    return json(await call.services.images.remove(ref, force=force, in_use=lambda key: _users(call, key)))


async def prune(call: Call) -> web.Response:
    """Images without a name, or with `dangling=false` all, that no container was made from."""
    filters = call.filters()
    filters.check("dangling", "label", "label!", "until")
    only_dangling = filters.truthy("dangling", default=True)
    values = {key: value for key, value in filters.values.items() if key != "dangling"}
    gone: list[dict[str, str]] = []
    freed = 0
    for view in call.services.images.list(Filters({key: v for key, v in values.items() if key != "label!"})):
        if (only_dangling and view["RepoTags"]) or not filters.labels(view["Labels"] or {}) or _users(call, view["Id"]):
            continue
        for ref in view["RepoTags"] or [view["Id"]]:
            gone += await call.services.images.remove(ref, force=False, in_use=lambda key: _users(call, key))
        freed += view["Size"]
    return json({"ImagesDeleted": gone or None, "SpaceReclaimed": freed})


def _users(call: Call, image_id: str) -> list[str]:
    """The ids of the containers made from an image."""
    everything: list[dict[str, Any]] = call.services.containers.list(all=True, limit=0, filters=Filters())
    return [container["Id"] for container in everything if container["ImageID"] == image_id]


ROUTES = (
    Route("GET", "/images/json", list_images),
    Route("GET", "/images/{name...}/json", inspect),
    Route("GET", "/images/{name...}/history", history),
    Route("POST", "/images/create", create),
    Route("POST", "/images/prune", prune),
    Route("POST", "/images/{name...}/tag", tag),
    Route("DELETE", "/images/{name...}", remove),
)
