"""The routes, by the first word of their paths."""

from netd.api.routes import containers, execs, extras, images, networks, refused, streams, system, volumes

ROUTES = (
    *system.ROUTES,
    *networks.ROUTES,
    *containers.ROUTES,
    *streams.ROUTES,
    *execs.ROUTES,
    *images.ROUTES,
    *volumes.ROUTES,
    *extras.ROUTES,
    *refused.ROUTES,
)
