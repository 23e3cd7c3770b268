"""Parts of the Docker Engine API that netd does not offer, each with a sentence that says so."""

from __future__ import annotations

from aiohttp import web

from netd.api.server.call import Call, json
from netd.api.server.routing import Handler, Route
from netd.core.errors import NetdError, NotImplementedHere, Unavailable

_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)
_SWARM = ("swarm", "nodes", "services", "tasks", "secrets", "configs")
_REFUSED = {
    "netd does not talk to registries: make an image known with `import`": (
        ("POST", "/auth"),
        ("GET", "/distribution/{name...}/json"),
        ("GET", "/images/search"),
        ("POST", "/images/{name...}/push"),
    ),
    "netd imports root file systems and does not save or load images: use `export` elsewhere and `import` here": (
        ("GET", "/images/get"),
        ("GET", "/images/{name...}/get"),
        ("POST", "/images/load"),
        ("POST", "/commit"),
        ("GET", "/containers/{id}/export"),
    ),
    "netd does not build images: build with another tool and `import` the root file system": (
        ("POST", "/build"),
        ("POST", "/session"),
    ),
    "netd does not copy files in and out of containers: mount a host directory with -v instead": (
        ("HEAD", "/containers/{id}/archive"),
        ("GET", "/containers/{id}/archive"),
        ("PUT", "/containers/{id}/archive"),
    ),
    "netd attaches over hijacked connections only, not over websockets": (("GET", "/containers/{id}/attach/ws"),),
    "netd does not offer this part of the Docker Engine API": (
        ("GET", "/containers/{id}/changes"),
        ("GET", "/containers/{id}/stats"),
        ("GET", "/containers/{id}/checkpoints"),
        ("POST", "/containers/{id}/checkpoints"),
        ("POST", "/plugins/{name...}"),
        ("GET", "/plugins/{name...}"),
        ("DELETE", "/plugins/{name...}"),
    ),
}


def _refuse(error: type[NetdError], sentence: str) -> Handler:
    async def handler(call: Call, *_: str) -> web.Response:
        raise error(sentence)

    return handler


async def plugins(call: Call) -> web.Response:
    return json([])


async def build_cache(call: Call) -> web.Response:
    """There is none; `docker system prune` asks."""
    return json({"CachesDeleted": None, "SpaceReclaimed": 0})


ROUTES = (
    Route("GET", "/plugins", plugins),
    Route("POST", "/build/prune", build_cache),
    *(
        Route(method, path, _refuse(NotImplementedHere, sentence))
        for sentence, routes in _REFUSED.items()
        for method, path in routes
    ),
    *(
        Route(method, path, _refuse(Unavailable, _NO_SWARM))
        for part in _SWARM
        for path in (f"/{part}", f"/{part}/{{rest...}}")
        for method in ("GET", "POST", "DELETE")
    ),
)
