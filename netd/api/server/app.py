"""The API as one HTTP server: finds the handler, shields what must not stop half-way, turns errors into answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable
from typing import cast

from aiohttp import web

from drivers.spec import DriverError, InvalidOption, OptionConflict
from kvstore.contract import StoreError, StoreUnavailable
from netd.api.server import versions
from netd.api.server.call import Call, failure
from netd.api.server.connection import Connection
from netd.api.server.routing import Route, Router
from netd.api.server.services import Services
from netd.core.errors import NetdError
from netd.core.tasks import Tasks

log = logging.getLogger(__name__)

_HEAD_LIMIT = 16 * 1024  # bytes of one header field; Docker's server takes more, but nobody sends it
_STOP_SECONDS = 10  # how long a stopping daemon waits for calls under way

_Answer = Coroutine[object, object, web.StreamResponse]


class Api(web.Server):
    """One HTTP server over one daemon's services; every accepted connection gets a `Connection`. Make it in the
    running event loop."""

    def __init__(self, services: Services, routes: Iterable[Route]) -> None:
        super().__init__(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            max_line_size=_HEAD_LIMIT,
            max_field_size=_HEAD_LIMIT,
            auto_decompress=False,
        )
        self._services = services
        self._router = Router(routes)
        self._streaming: set[asyncio.Task[object]] = set()
        self._tasks = Tasks()

    def __call__(self) -> Connection:
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)

    async def close(self) -> None:
        """End the streams, wait for the calls under way, also of clients that have gone, close the connections."""
        deadline = asyncio.get_running_loop().time() + _STOP_SECONDS
        for task in self._streaming:
            task.cancel()
        self.pre_shutdown()
        await self.shutdown(_STOP_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._tasks.settled()
        await self._tasks.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        version, path = versions.split(request.path)
        found = self._router.find(request.method, path)
        if found is None:
            return failure(404, "page not found")
        route, parameters = found
        answer = self._answer(request, route, version, parameters)
        if route.streaming:
            return await self._stream(request, answer)
        if request.method in ("GET", "HEAD"):
            return await answer
        return await asyncio.shield(self._tasks.start(answer, f"{request.method} {request.path}"))

    async def _stream(self, request: web.BaseRequest, answer: _Answer) -> web.StreamResponse:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._streaming.add(task)
        try:
            response = await answer
        finally:
            self._streaming.discard(task)
        if cast(Connection, request.protocol).holding:
            response.force_close()  # what came behind a refused hijack is no request
        return response

    async def _answer(
        self, request: web.BaseRequest, route: Route, version: str, parameters: tuple[str, ...]
    ) -> web.StreamResponse:
        try:
            call = Call(request, self._services, versions.accept(version), self._tasks)
            return await route.handler(call, *parameters)
        except NetdError as error:
            return failure(error.status, str(error))
        except StoreUnavailable as error:
            return failure(503, f"the store cannot be reached now, try again later: {error}")
        except InvalidOption as error:
            return failure(400, str(error))
        except OptionConflict as error:
            return failure(403, str(error))
        except (DriverError, StoreError) as error:
            log.error("%s %s failed: %s", request.method, request.path, error)
            return failure(500, str(error))
        except web.HTTPRequestEntityTooLarge as error:
            return failure(413, f"the request body is too large: {error.text}")
        except web.RequestPayloadError as error:
            return failure(400, f"the request body cannot be read: {error}")
        except ConnectionError as error:
            if route.streaming:
                raise  # the client has gone: there is nobody to answer
            return failure(400, f"the connection broke off: {error}")
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return failure(500, f"{type(error).__name__}: {error}")
