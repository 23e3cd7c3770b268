"""Which handler a method and a path mean."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from aiohttp import web

Handler = Callable[..., Awaitable[web.StreamResponse]]

_PARAMETER = re.compile(r"\{\w+(\.\.\.)?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """`{id}` in the path stands for one part, `{name...}` for one or more (image names have slashes).

    A `streaming` handler ends with its client or its daemon; others are always carried to their end.
    """

    method: str
    path: str
    handler: Handler
    streaming: bool = False

    def pattern(self) -> re.Pattern[str]:
        expression = _PARAMETER.sub(lambda p: "(.+)" if p[1] else "([^/]+)", self.path)
        return re.compile(f"{expression}/?")


class Router:
    """Finds routes by method and first part of the path, then in the order they were given."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            self._routes.setdefault((route.method, _first(route.path)), []).append((route.pattern(), route))

    def find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
        """The route and what its parameters are; None if there is none."""
        for pattern, route in self._routes.get((method, _first(path)), ()):
            if found := pattern.fullmatch(path):
                return route, found.groups()
        return None


def _first(path: str) -> str:
    return path[1:].partition("/")[0]
