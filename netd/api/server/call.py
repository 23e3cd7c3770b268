"""One API call as a handler sees it: the request, its query as Docker reads it, and ways to answer."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from netd import __version__
from netd.api.server import decode, versions
from netd.api.server.services import Services
from netd.api.server.versions import Version
from netd.core.errors import InvalidParameter
from netd.core.filters import Filters
from netd.core.tasks import Tasks
from netd.core.times import moment

T = TypeVar("T", bound=msgspec.Struct)

HEADERS = {
    "Api-Version": versions.told(versions.MAXIMUM),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"netd/{__version__} (linux)",
}
_JSON = {**HEADERS, "Content-Type": "application/json"}
_FALSE = frozenset({"", "0", "no", "false", "none"})
_TRUTH = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has found its handler."""

    request: web.BaseRequest
    services: Services
    version: Version
    tasks: Tasks  # of the API: what must not end with the client

    # ---- what was asked ----

    async def body(self, type: type[T], *, required: bool = True) -> T:
        """The JSON body as a struct; `InvalidParameter` says what is wrong with it."""
        return await decode.body(self.request, type, required=required)

    def text(self, name: str, default: str = "") -> str:
        return self.request.query.get(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A switch: anything but nothing, `0`, `no`, `false` and `none` is yes."""
        given = self.request.query.get(name)
        return default if given is None else given.strip().lower() not in _FALSE

    def truth(self, name: str) -> bool:
        """A switch whose value must be a truth value; absent is no."""
        given = self.text(name)
        if given and given not in _TRUTH:
            raise InvalidParameter(
                f'invalid value for {name}: {given}: strconv.ParseBool: parsing "{given}": invalid syntax'
            )
        return _TRUTH.get(given, False)

    def integer(self, name: str) -> int | None:
        """A whole number; None if it is not given."""
        given = self.text(name)
        if given and not _INTEGER.fullmatch(given):
            raise InvalidParameter(
                f'invalid value for {name}: {given}: strconv.Atoi: parsing "{given}": invalid syntax'
            )
        return int(given) if given else None

    def moment(self, name: str) -> float | None:
        """A point in time as seconds since the epoch; None if it is not given."""
        given = self.text(name)
        return moment(given, now=time.time()) if given else None

    def filters(self) -> Filters:
        return Filters.parse(self.text("filters"))

    # ---- what is answered ----

    async def stream(self, content_type: str, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
        """An answer whose pieces go out as they come; its head goes out at once."""
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": content_type})
        try:
            await response.prepare(self.request)
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        return response


def encode(value: Any) -> bytes:
    """JSON with a newline, as Docker's daemon ends it."""
    return msgspec.json.encode(value) + b"\n"


def json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=encode(value), headers=_JSON)


def done(status: int = 204, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status, headers={**HEADERS, **(headers or {})})


def failure(status: int, message: str) -> web.Response:
    """An error in Docker's form."""
    return done(status) if status == 304 else json({"message": message}, status=status)
